"""Secrets that are none, put together at run time: written out, they would alarm scanners of ours."""

from __future__ import annotations

import base64
import random
import string

_LETTERS = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"


def _some(count: int, letters: str = _LETTERS, seed: int = 7) -> str:
    return "".join(random.Random(seed + count).choices(letters, k=count))


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _login() -> str:
    return base64.b64encode(f"joe:{_some(18)}".encode()).decode()


_UPPER = string.ascii_uppercase + "234567"
JWT = ".".join(
    (_encoded('{"alg":"HS256","typ":"JWT"}'), _encoded('{"sub":"12345678","n":"x"}'), _some(43))
)
PRIVATE_KEY = "\n".join(
    ("-----BEGIN " + "RSA PRIVATE KEY-----", _some(64), _some(40), "-----END RSA PRIVATE KEY-----")
)

# By the rule: the texts that a file may have.
FAKES: dict[str, tuple[str, ...]] = {
    "aws-access-key": tuple(f"key = '{k}{_some(16, _UPPER)}'" for k in ("AKIA", "ASIA")),
    "aws-secret-key": (
        f"aws_secret_access_key = {_some(40)}",
        f'AWS_SECRET_ACCESS_KEY="{_some(40)}"',
        f'{{"SecretAccessKey": "{_some(40)}"}}',
        f"os.environ['AWS_SECRET_ACCESS_KEY'] = '{_some(40)}'",
        f"ENV AWS_SECRET_ACCESS_KEY {_some(40)}",
        f"<SecretAccessKey>{_some(40)}</SecretAccessKey>",
        f'  secret_key = "{_some(40)}"',
        f'AWS_SECRET_KEY: str = "{_some(40)}"',
    ),
    "google-api-key": (f'"api_key": "AIza{_some(35)}"',),
    "google-client-secret": (f"GOCSPX-{_some(28)}",),
    "gcp-service-account": (
        f'"private_key_id": "{_some(40, _HEX)}",',
        f"{{'private_key_id': '{_some(40, _HEX)}'}}",
        f"private_key_id: {_some(40, _HEX)}",
    ),
    "azure-storage-key": (
        f"AccountName=a;AccountKey={_some(86)}==;EndpointSuffix=x",
        f"AZURE_STORAGE_KEY={_some(86)}==",
    ),
    "age-key": (f"AGE-SECRET-KEY-1{_some(58, _UPPER)}",),
    "atlassian-token": (f"ATATT3{_some(180)}",),
    "private-key": (
        PRIVATE_KEY,
        '"private_key": "' + PRIVATE_KEY.replace("\n", "\\n") + '\\n"',
        f"KEY = '''{PRIVATE_KEY}'''",
        PRIVATE_KEY.replace("RSA", "OPENSSH"),
        PRIVATE_KEY.replace("RSA ", ""),
        PRIVATE_KEY.replace("RSA ", "").replace(
            "KEY-----", "KEY-----\nProc-Type: 4,ENCRYPTED\n", 1
        ),
        PRIVATE_KEY.replace("\n", "\r\n"),
        "    " + PRIVATE_KEY.replace("\n", "\n    "),
        '"' + PRIVATE_KEY.replace("\n", '\\n"\n    "'),
        "# " + PRIVATE_KEY.replace("\n", "\n# "),
        PRIVATE_KEY.replace("\n", " "),
        '    "' + PRIVATE_KEY.replace("\n", '\\n",\n    "'),
        '["' + PRIVATE_KEY.replace("\n", '",\n "') + '"]',
        "---- BEGIN " + "SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x",
        "-----BEGIN " + "PRIVATE KEY-----\nnot-a-key\n-----END PRIVATE KEY-----",
    ),
    "jwt": (f"the token is {JWT}", f"Authorization: Bearer {JWT}"),
    "sendgrid-key": (f"SG.{_some(22)}.{_some(43)}",),
    "twilio-key": (f"SK{_some(32, _HEX)}",),
    "gitlab-token": (f"glpat-{_some(20)}", f"glrt-{_some(20)}", f"GR1348941{_some(20)}"),
    "slack-token": (
        f"xoxb-{_some(11, '123')}-{_some(12, '123')}-{_some(24)}",
        f"xoxe.xoxp-1-{_some(166)}",
    ),
    "slack-webhook": (f"https://hooks.slack.com/services/T{_some(9)}/B{_some(9)}/{_some(24)}",),
    "anthropic-key": (f"sk-ant-api03-{_some(93)}AA",),
    "openai-key": (f"sk-{_some(20)}T3BlbkFJ{_some(20)}", f"sk-proj-{_some(74)}T3BlbkFJ{_some(74)}"),
    "pypi-token": (f"pypi-AgEIcHlwaS5vcmc{_some(80)}",),
    "square-secret": (f"sq0csp-{_some(43)}", f"sq0atp-{_some(22)}"),
    "pulumi-token": (f"pul-{_some(40, _HEX)}",),
    "perplexity-key": (f"pplx-{_some(48)}",),
    "xai-key": (f"xai-{_some(80)}",),
    "new-relic-key": (f"NRAK-{_some(27, _UPPER)}",),
    "github-token": (
        *(f"token: gh{kind}_{_some(36)}" for kind in "pousr"),
        f"github_pat_{_some(22)}_{_some(59)}",
    ),
    "stripe-key": (
        f"stripe.api_key = 'sk_live_{_some(24)}'",
        f"rk_live_{_some(99)}",
        f"whsec_{_some(32)}",
    ),
    "npm-token": (
        f"//registry.example.com/:_authToken=npm_{_some(36)}",
        f"//npm.corp.io/:_authToken={_some(8, _HEX)}-1a2b-3c4d-5e6f-{_some(12, _HEX)}",
    ),
    "hugging-face-token": (f"HF_TOKEN=hf_{_some(34)}",),
    "digitalocean-token": (f"dop_v1_{_some(64, _HEX)}",),
    "shopify-token": (f"shpat_{_some(32, _HEX)}",),
    "grafana-token": (f"glsa_{_some(32)}_{_some(8, _HEX)}", f"glc_eyJ{_some(100)}"),
    "linear-key": (f"lin_api_{_some(40)}",),
    "langsmith-key": (f"lsv2_pt_{_some(32, _HEX)}_{_some(10, _HEX)}",),
    "groq-key": (f"gsk_{_some(52)}",),
    "replicate-token": (f"r8_{_some(37)}",),
    "pinecone-key": (f"pcsk_{_some(6)}_{_some(63)}",),
    "rubygems-key": (f"rubygems_{_some(48, _HEX)}",),
    "netlify-token": (f"nfp_{_some(36)}",),
    "sentry-token": (f"sntryu_{_some(64, _HEX)}", f"sntrys_eyJ{_some(100)}_{_some(43)}"),
    "login-in-url": (
        f"postgresql://admin:{_some(12)}@db.internal:5432/prod",
        f"url = 'https://deploy:{_some(20)}@git.corp.io/x.git'",
        f"redis://:{_some(16)}@cache.internal/0",
        f"postgresql+psycopg2://joe:p%40{_some(6)}@[fe80::1]:5432/x",
        f"git+https://{_some(40, _HEX)}@git.corp.io/a/b.git",
    ),
    "wandb-key": (
        f"export WANDB_API_KEY={_some(40, _HEX)}",
        f"wandb.login(key='{_some(40, _HEX)}')",
    ),
    "kubeconfig-key": (f"    client-key-data: LS0tLS1CRUdJTiB{_some(200)}",),
    "docker-token": (f"dckr_pat_{_some(27)}", f"dckr_oat_{_some(32)}"),
    "encoded-private-key": tuple(
        f"KEY: {_encoded(PRIVATE_KEY.replace('RSA ', kind))}"
        for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ")
    ),
    "artifactory-key": (f"key: AKCp{_some(69)}",),
    "azure-client-secret": (f"it is {_some(3)}8Q~{_some(34)}",),
    "azure-shared-access-signature": (
        f"https://a.blob.core.windows.net/c?sv=2022-11-02&sp=r&sig={_some(43)}%3D",
    ),
    "azure-shared-access-key": (f"SharedAccessKeyName=a;SharedAccessKey={_some(43)}=",),
    "google-storage-key": (f"GOOG1E{_some(55, _UPPER)}",),
    "vault-token": (f"hvs.{_some(95)}",),
    "terraform-token": (f"{_some(14)}.atlasv1.{_some(67)}",),
    "telegram-token": (f"bot{_some(10, '123')}:AA{_some(33)}",),
    "discord-webhook": (f"https://discord.com/api/webhooks/{_some(18, '123')}/{_some(68)}",),
    "bearer-token": (f"curl -H 'X-Auth: Bearer {_some(40)}'",),
    "basic-login": (f"Authorization: Basic {_login()}",),
    "docker-login": (f'{{"auths": {{"ghcr.io": {{"auth": "{_login()}"}}}}}}',),
    "npm-login": (f"//npm.corp.io/:_password={_some(24)}", f"_auth={_login()}"),
    "netrc-login": (f"machine api.corp.io\n  login joe\n  password {_some(12)}",),
    "deepseek-key": (f"sk-{_some(32, _HEX)}",),
    "openrouter-key": (f"sk-or-v1-{_some(64, _HEX)}",),
    "langfuse-key": (f"sk-lf-{_some(8, _HEX)}-1a2b-3c4d-5e6f-{_some(12, _HEX)}",),
    "tavily-key": (f"tvly-{_some(32)}", f"tvly-dev-{_some(32)}"),
    "nvidia-key": (f"nvapi-{_some(64)}",),
    "postman-key": (f"PMAK-{_some(24, _HEX)}-{_some(34, _HEX)}",),
    "heroku-key": (f"HRKU-{_some(8, _HEX)}-1a2b-3c4d-5e6f-{_some(12, _HEX)}",),
    "figma-token": (f"figd_{_some(40)}",),
    "notion-token": (f"ntn_{_some(46)}", f"secret_{_some(43)}"),
    "supabase-token": (f"sbp_{_some(40, _HEX)}",),
    "planetscale-token": (f"pscale_tkn_{_some(43)}", f"pscale_pw_{_some(43)}"),
    "sonar-token": (f"squ_{_some(40, _HEX)}",),
    "buildkite-token": (f"bkua_{_some(40, _HEX)}",),
    "circleci-token": (f"CCIPAT_{_some(22)}_{_some(40, _HEX)}",),
    "prefect-key": (f"pnu_{_some(36)}",),
    "1password-token": (f"ops_eyJ{_some(250)}",),
    "elevenlabs-key": (f"sk_{_some(48, _HEX)}",),
    "fly-token": (f"fo1_{_some(43)}", f"FlyV1 fm2_{_some(200)}"),
    "adafruit-key": (f"aio_{_some(28)}",),
    "assigned-secret": tuple(
        text.format(_some(40))
        for text in (
            "COHERE_API_KEY={}",
            'api_key="{}"',
            'apiKey: "{}"',
            "X-Api-Key: {}",
            "AWS_SESSION_TOKEN='{}=='",
            "aws_session_token = {}",
            'auth_token: str = "{}"',
            'os.environ["SOME_SECRET"] = "{}"',
            'os.environ.setdefault("DB_PASSWORD", "{}")',
            '"client_secret" : "{}"',
            'config = "{{\\"refresh_token\\": \\"{}\\"}}"',
            "<password>{}</password>",
            "Server=tcp:x;User ID=joe;Password={};",
            "jdbc:postgresql://db.corp.io/x?user=joe&password={}",
        )
    ),
    "databricks-token": (f"dapi{_some(32, _HEX)}",),
}
