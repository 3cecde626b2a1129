"""Finds secrets in what ships: by the forms of keys and tokens, and by the names of files.

Each rule knows the form that one issuer gives its secrets, and what it finds is hardly ever
anything else. The rules `_BY_NAME` know none: they want a name such as `API_KEY` and, assigned to
it, what only a machine makes up. What is merely random, or merely called a password, is not looked
for: a guess must not break a build.

Nearly no file holds a secret, and looking must cost little. So rules stand in groups, and a group
first asks for what all its secrets have: a character that is rare in code, with what stands around
it. Python's regular expressions look for one such character about as fast as for any text.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha1, sha256
from typing import NamedTuple

BINARY = 8_000  # bytes, in which a binary file has a zero, as git decides it
GZIP = b"\x1f\x8b"  # how such a file begins


class Found(NamedTuple):
    """A secret, without the secret. hashes: SHA-1, as baselines of detect-secrets have them."""

    line: int
    rule: str
    hashes: tuple[str, ...]


class Rule(NamedTuple):
    """A form. start: what all its secrets begin with.

    The group `secret` of the pattern is the secret, or else all that matches. The group `known`, if
    any, is what detect-secrets takes for the secret.
    """

    name: str
    start: bytes
    pattern: bytes
    is_secret: Callable[[bytes], bool]


class Group(NamedTuple):
    """may_have: whether the text may hold what one of the rules finds. capitals: it is asked of
    the text without all but `_CAPITALS`, which is short.
    """

    may_have: Callable[[bytes], object]
    rules: tuple[Rule, ...]
    capitals: bool = False


_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:~"
_OTHERS = bytes(set(range(256)) - set(_CAPITALS))


def find_secrets(text: bytes, first_line: int = 1) -> list[Found]:
    """What no pragma on its line allows, by line."""
    found: set[Found] = set()
    short = text.translate(None, _OTHERS)
    for may_have, rules, capitals in GROUPS:
        if may_have(short if capitals else text):
            for rule in rules:
                if rule.start in text:
                    found.update(_find(rule, text, first_line))
    return best_of(sorted(found)) if found else []


def best_of(found: Iterable[Found]) -> list[Found]:
    """In the same order, without what a rule for its form has found in the same line."""
    every = list(found)
    known = {one.line for one in every if one.rule not in _BY_NAME}
    return [one for one in every if one.rule not in _BY_NAME or one.line not in known]


def _find(rule: Rule, text: bytes, line: int) -> Iterator[Found]:
    """In time in proportion to the text, whatever it finds in whatever lines."""
    pattern = re.compile(rule.pattern)  # here, for few are ever used
    groups = pattern.groupindex
    counted, end, allowed = 0, -1, False
    for match in pattern.finditer(text):
        if match.start() > end:
            line += text.count(b"\n", counted, match.start())
            counted = match.start()
            end = text.find(b"\n", counted)
            end = len(text) if end < 0 else end
            allowed = _is_allowed(text, counted, end)
        secret = match["secret"] if "secret" in groups else match[0]
        if not allowed and rule.is_secret(secret):
            texts = {match[0], secret, match["known"] if "known" in groups else secret}
            hashes = tuple(sha1(one, usedforsecurity=False).hexdigest() for one in sorted(texts))
            yield Found(line, rule.name, hashes)


# --- pragmas --------------------------------------------------------------------------------------

# As detect-secrets and gitleaks have them.
_ALLOWED = re.compile(rb"pragma: ?(?:allow|white)list[ -]secret|gitleaks:allow")
_NEXT_ALLOWED = re.compile(rb"[^\w\n]*pragma: ?(?:allow|white)list[ -]nextline[ -]secret")


def _is_allowed(text: bytes, at: int, end: int) -> bool:
    """end: of the line that `at` is in."""
    start = text.rfind(b"\n", 0, at) + 1
    if _ALLOWED.search(text, start, end):
        return True
    if not start:
        return False
    return bool(_NEXT_ALLOWED.match(text, text.rfind(b"\n", 0, start - 1) + 1, start))


# --- forms ----------------------------------------------------------------------------------------


def _is_filled_in(secret: bytes) -> bool:
    """Whether it is more than a form, such as `ghp_xxxxxxxxxxxx`."""
    return not re.search(rb"([xX*0])\1{9}", secret)


def _rule(
    name: str,
    start: bytes,
    rest: bytes,
    word: bytes = rb"\w-",
    known: bytes | None = None,
    is_secret: Callable[[bytes], bool] = _is_filled_in,
) -> Rule:
    """word: characters that do not stand before or after a secret. known: follows the start, and is
    with it what detect-secrets takes for the secret.
    """
    # The look behind comes after the start, for a pattern is fast if it begins with plain text.
    first = re.escape(start)
    before, after = (rb"(?<![%b]%b)" % (word, first), rb"(?![%b])" % word) if word else (b"", b"")
    head = first + before
    if known is not None:
        head = rb"(?P<known>%b%b)" % (head, known)
    return Rule(name, start, head + rest + after, is_secret)


# What people write in the place of a password, and hosts that are nowhere.
_NO_PASSWORDS = frozenset(
    b"password passwd passphrase pass pswd pwd pw secret token username user key api_key apikey "
    b"changeme mypassword my_password my-password your_password your-password your-token "
    b"yourpassword x-oauth-basic x-access-token".split()
)
# In a random value they are no chance.
_TOLD = re.compile(
    rb"example|dummy|fake|sample|placeholder|change|replace|insert|your|test|abcdef|012345|123456|"
    rb"key|token|secret|passw|private|public|client",
    re.IGNORECASE,
)
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NO_HOST = re.compile(
    rb"(?:.*\.)?(?:example(?:\.[a-z]{2,4})?|localhost|invalid|test|host|hostname|server|127\.0\.0\.1)",
    re.IGNORECASE,
)


def _is_login(login: bytes) -> bool:
    """login: `user:password@host`."""
    before, _, host = login.rpartition(b"@")
    user, _, password = before.partition(b":")
    plain = password.lower()
    if plain in _NO_PASSWORDS or plain == user.lower() or _NO_HOST.fullmatch(host):
        return False
    return not re.fullmatch(rb"(.)\1*", plain)


def _is_netrc(row: bytes) -> bool:
    """row: `host login user password password`."""
    host, _, user, _, password = row.split()
    return _is_login(b"%b:%b@%b" % (user, password.strip(b"'\""), host))


# The emulator of Azure's storage has the same everywhere.
_EMULATOR = "0011cc25"


def _is_account_key(key: bytes) -> bool:
    return _is_filled_in(key) and sha256(key).hexdigest()[:8] != _EMULATOR


def _any(secret: bytes) -> bool:
    return True


def _is_random(value: bytes) -> bool:
    """Whether only a machine makes up such a value: one kind of letter seldom follows itself."""
    if _TOLD.search(value) or _UUID.fullmatch(value) or not _is_account_key(value):
        return False
    kinds = [
        kind
        for part in re.findall(rb"[a-z]|[A-Z]|[0-9]", value)
        for kind in ("digit" if part.isdigit() else "upper" if part.isupper() else "lower",)
    ]
    digits = kinds.count("digit")
    if digits < 2 or digits == len(kinds) or len(set(value)) < 9:
        return False
    if len(kinds) < 14 or (len(set(kinds)) == 2 and (len(kinds) < 20 or digits < 4)):
        return False
    changes = sum(one != other for one, other in zip(kinds, kinds[1:]))
    return changes > 0.3 * len(kinds)


def _has_login(encoded: bytes) -> bool:
    """Whether it is `user:password` in base64."""
    try:
        user, _, password = a2b_base64(encoded).decode().partition(":")
    except (Error, UnicodeDecodeError):
        return False
    return len(password) > 2 and user.isprintable() and _is_login(f"{user}:{password}@-".encode())


def _search(pattern: bytes) -> Callable[[bytes], object]:
    return re.compile(pattern).search


def _follows(pattern: bytes, before: bytes) -> Callable[[bytes], object]:
    """Whether one of these words, which spaces part, is before what the pattern finds."""
    words, find = tuple(before.split()), re.compile(pattern).finditer
    most = max(map(len, words))
    return lambda text: any(
        text.endswith(words, max(at - most, 0), at) for at in (m.start() for m in find(text))
    )


def _holds(text: bytes) -> Callable[[bytes], object]:
    return lambda data: text in data


_BREAK = rb"(?:\r?\n|(?:\\+r)?\\+n)"  # of lines, or written so in a string
_BODY = rb"[A-Za-z0-9+/=]"
_PRIVATE_KEY = rb"".join(
    (
        rb"(?P<known>BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----(?:" + _BREAK,
        rb"(?:[ \t]{0,40}[A-Z][A-Za-z-]{1,20}: [^\r\n\\]{0,200}" + _BREAK + rb"){0,8}",
        rb"""(?:["'][\s+\\]{0,80}[bf]?["'])?""",  # from one string of Python to the next
        rb"(?:[ \t]|" + _BREAK + rb"){0,40}",
        rb"(?:%b{16}|[\w+/=-]{3,100}%b?[ \t]{0,40}-----END )" % (_BODY, _BREAK),
        # In one line, in a comment, or in a list of strings.
        rb"""|(?:[\s"',+#*/]|\\+[nr]|[bf](?=["'])){0,120}%b{40})""" % _BODY,
    )
)
_ENCODED_KEY = b"|".join(
    b64encode(b"-----BEGIN %bPRIVATE" % kind)[15:-4]
    for kind in (b"", b"RSA ", b"EC ", b"DSA ", b"OPENSSH ", b"ENCRYPTED ")
)
_NPM_LOGIN = rb' {0,4}= {0,4}"?(?P<secret>[A-Za-z0-9+/]{8,}={0,2})(?!\w)'
_TYPE = rb"(?:[ \t]{0,4}:[ \t]{0,4}(?:str|Final)(?=[ \t]{0,8}=))?"
_ASSIGNED = _TYPE + rb"""[\\"'\]]{0,4}[ \t]{0,8}(?:=>|:=|[=:,>])[ \t]{0,8}[\\"']{0,2}"""
_AWS_SECRET = rb"(?:%b|[ \t])(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])" % _ASSIGNED
_GIVEN = rb"(?:%b|[ \t])[A-Za-z0-9/+][\w+/=.~-]{11}" % _ASSIGNED
ASSIGNED, _BEARER = "assigned-secret", "bearer-token"
_BY_NAME = (ASSIGNED, _BEARER)  # by what is before the secret: a rule for its form knows more
_VALUE = rb"(?P<secret>[\w+/=.~-]{14,400})(?![\w+/=.~$({\[-])"


def _assigned(start: bytes, before: str = "") -> Rule:
    """A name that ends so; before: with one of these words, which spaces part, before that."""
    ways = b"|".join(rb"(?<=%b%b)" % (word.encode(), start) for word in before.split())
    pattern = start + (rb"(?:%b)" % ways if ways else b"") + _ASSIGNED + _VALUE
    return Rule(ASSIGNED, start, pattern, _is_random)


_IN_URL = rb"""[^\s/?#@"'<>{}$()\[\]`\\|,;]"""
_KEYS = "api secret access account private auth storage signing encryption client app"
_LOWER = " ".join(f"{word}{mark}" for word in _KEYS.split() for mark in ("", "_", "-"))

GROUPS = (
    Group(
        _search(rb"A(?:KIA|SIA|BIA|CCA|Iza|ccountKey=|GE-SECRET-KEY-1|TATT3|KCp[A-Za-z0-9]{60})"),
        (
            *(
                _rule("aws-access-key", kind, rb"[A-Z0-9]{16}", rb"A-Za-z0-9/+")
                for kind in (b"AKIA", b"ASIA", b"ABIA", b"ACCA")
            ),
            _rule("google-api-key", b"AIza", rb"[\w-]{35}"),
            _rule(
                "azure-storage-key",
                b"AccountKey=",
                rb"(?P<secret>[A-Za-z0-9/+]{86}==)",
                is_secret=_is_account_key,
            ),
            _rule("age-key", b"AGE-SECRET-KEY-1", rb"[A-Z0-9]{58}"),
            _rule("atlassian-token", b"ATATT3", rb"[\w=-]{150,}"),
            _rule("artifactory-key", b"AKCp", rb"[A-Za-z0-9]{69,}"),
        ),
    ),
    Group(
        _holds(b"PRIVATEKEY"),
        (
            _rule("private-key", b"-----", _PRIVATE_KEY, b"", is_secret=_any),
            _rule(
                "private-key",
                b"---- ",
                rb"(?P<known>BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY) ----",
                b"",
            ),
        ),
        capitals=True,
    ),
    Group(
        _holds(b"LS0LS1CRUJTB"),  # of "-----BEGIN " in base64
        (
            _rule(
                "kubeconfig-key", b"client-key-data:", rb" {0,4}(?P<secret>%b{60,})" % _BODY, b""
            ),
            _rule(
                "encoded-private-key",
                b"LS0tLS1CRUdJTiB",
                rb"(?:%b)%b{60,}" % (_ENCODED_KEY, _BODY),
                b"",
                is_secret=_any,
            ),
        ),
        capitals=True,
    ),
    Group(
        _search(rb"J(?<=eyJ)[\w-]{8}"),
        (_rule("jwt", b"eyJ", rb"[\w-]{16,}", known=rb"[\w-]{12,}\.eyJ[\w-]{12,}\."),),
    ),
    Group(
        _search(rb"S(?:G\.|K[0-9a-f]{32})"),
        (
            _rule("sendgrid-key", b"SG.", rb"[\w-]{22}\.[\w-]{43}"),
            _rule("twilio-key", b"SK", rb"[0-9a-f]{32}"),
        ),
    ),
    Group(
        _follows(
            rb"-(?<=[A-Za-z0-9]-)(?=[\w-]{16})",  # for there are many lines of dashes
            b"glpat gldt glcbt glptt glft glimt glagent gloas glrt glsoat xoxa xoxb xoxc xoxe xoxo "
            b"xoxp xoxr xoxs xapp sk pypi GOCSPX sq0csp pul pplx xai NRAK tvly nvapi PMAK HRKU "
            b"sq0atp",
        ),
        (
            *(
                _rule("gitlab-token", b"gl%b" % kind, rb"-[\w-]{20,}", known=b"")
                for kind in b"pat dt cbt ptt ft imt agent oas rt soat".split()
            ),
            _rule("slack-token", b"xox", rb"[abceoprs]-(?:[0-9]{6,}-){1,3}[A-Za-z0-9]{10,}"),
            _rule("slack-token", b"xapp-", rb"[0-9]-[A-Z0-9]{6,}-[0-9]{6,}-[A-Za-z0-9]{20,}"),
            _rule("anthropic-key", b"sk-ant-", rb"[a-z]{3,5}[0-9]{2}-[\w-]{40,}"),
            _rule("openai-key", b"sk-", rb"[\w-]*", known=rb"[\w-]{20,}T3BlbkFJ[\w-]{20}"),
            _rule("pypi-token", b"pypi-AgE", rb"[\w-]{60,}"),
            _rule("google-client-secret", b"GOCSPX-", rb"[\w-]{28}"),
            _rule("square-secret", b"sq0csp-", rb"[\w-]{43}"),
            _rule("square-secret", b"sq0atp-", rb"[\w-]{22}"),
            _rule("heroku-key", b"HRKU-", rb"[\w-]{36,}"),
            _rule("pulumi-token", b"pul-", rb"[0-9a-f]{40}"),
            _rule("perplexity-key", b"pplx-", rb"[A-Za-z0-9]{48}"),
            _rule("xai-key", b"xai-", rb"[A-Za-z0-9]{80}"),
            _rule("new-relic-key", b"NRAK-", rb"[A-Z0-9]{27}"),
            _rule("slack-token", b"xoxe.", rb"(?P<known>xox[bp]-[0-9]-[A-Za-z0-9]{100,})"),
            _rule("slack-token", b"xoxe-", rb"[0-9]-[A-Za-z0-9]{100,}"),
            _rule("openai-key", b"sk-", rb"[A-Za-z0-9]{48}", is_secret=_is_random),
            _rule("deepseek-key", b"sk-", rb"[0-9a-f]{32}", is_secret=_is_random),
            _rule("openrouter-key", b"sk-or-v1-", rb"[0-9a-f]{64}"),
            _rule("langfuse-key", b"sk-lf-", rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
            _rule("tavily-key", b"tvly-", rb"(?:dev-|prod-)?[A-Za-z0-9]{32}"),
            _rule("nvidia-key", b"nvapi-", rb"[\w-]{64}"),
            _rule("postman-key", b"PMAK-", rb"[0-9a-f]{24}-[0-9a-f]{34}"),
        ),
    ),
    Group(
        _follows(
            rb"_(?=[A-Za-z0-9]{20})",
            b"ghp gho ghu ghs ghr github_pat sk_live rk_live npm hf v1 shpat shpca shppa shpss "
            b"glsa glc lin_api lsv2_pt lsv2_sk gsk r8 rubygems nfp sntryu sntrys whsec figd ntn "
            b"secret sbp pscale_tkn pscale_pw squ sqp sqa bkua CCIPAT pnu api_org ops sk fo1 "
            b"fm2 aio",
        ),
        (
            *(
                _rule("github-token", b"gh%b" % kind, rb"_[A-Za-z0-9]{36,}", known=b"")
                for kind in b"p o u s r".split()
            ),
            _rule("github-token", b"github_pat_", rb"[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
            _rule("stripe-key", b"sk_live_", rb"[A-Za-z0-9]*", known=rb"[A-Za-z0-9]{20,24}"),
            _rule("stripe-key", b"rk_live_", rb"[A-Za-z0-9]*", known=rb"[A-Za-z0-9]{20,24}"),
            _rule("npm-token", b"npm_", rb"[A-Za-z0-9]{36}"),
            _rule("hugging-face-token", b"hf_", rb"[A-Za-z0-9]{34,}"),
            _rule("digitalocean-token", b"do", rb"[opr]_v1_[0-9a-f]{64}"),
            _rule("shopify-token", b"shp", rb"(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
            _rule("grafana-token", b"glsa_", rb"[A-Za-z0-9]{32}_[0-9a-fA-F]{8}"),
            _rule("linear-key", b"lin_api_", rb"[A-Za-z0-9]{40}"),
            _rule("langsmith-key", b"lsv2_", rb"(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
            _rule("groq-key", b"gsk_", rb"[A-Za-z0-9]{52}"),
            _rule("replicate-token", b"r8_", rb"[A-Za-z0-9]{37}"),
            _rule("rubygems-key", b"rubygems_", rb"[0-9a-f]{48}"),
            _rule("netlify-token", b"nfp_", rb"[A-Za-z0-9]{36,}"),
            _rule("sentry-token", b"sntryu_", rb"[0-9a-f]{64}"),
            _rule("sentry-token", b"sntrys_eyJ", rb"[\w+/=-]{80,}"),
            _rule("grafana-token", b"glc_eyJ", rb"[\w+/=-]{60,}"),
            _rule("stripe-key", b"whsec_", rb"[A-Za-z0-9+/]{32,}", is_secret=_is_random),
            _rule("figma-token", b"figd_", rb"[\w-]{40,}"),
            _rule("notion-token", b"ntn_", rb"[A-Za-z0-9]{46}"),
            _rule(
                "notion-token", b"secret_", rb"(?P<secret>[A-Za-z0-9]{43})", is_secret=_is_random
            ),
            _rule("supabase-token", b"sbp_", rb"[0-9a-f]{40}"),
            _rule("planetscale-token", b"pscale_tkn_", rb"[\w.=-]{32,}"),
            _rule("planetscale-token", b"pscale_pw_", rb"[\w.=-]{32,}"),
            _rule("sonar-token", b"sq", rb"[upa]_[0-9a-f]{40}"),
            _rule("buildkite-token", b"bkua_", rb"[0-9a-f]{40}"),
            _rule("circleci-token", b"CCIPAT_", rb"[A-Za-z0-9]{22}_[0-9a-f]{40}"),
            _rule("prefect-key", b"pnu_", rb"[A-Za-z0-9]{36}"),
            _rule("hugging-face-token", b"api_org_", rb"[A-Za-z0-9]{34}"),
            _rule("1password-token", b"ops_eyJ", rb"[\w+/=-]{200,}"),
            _rule("fly-token", b"fo1_", rb"[\w-]{43}"),
            _rule("fly-token", b"fm2_", rb"[A-Za-z0-9+/=]{100,}"),
            _rule("adafruit-key", b"aio_", rb"[A-Za-z0-9]{28}"),
            _rule("elevenlabs-key", b"sk_", rb"[0-9a-f]{48}"),
        ),
    ),
    Group(
        _search(rb"""://(?:hooks\.slack|discord\.com/api/w|[^\s/?#"'@]{0,100}@)"""),
        (
            _rule(
                "login-in-url",
                b"://",
                rb"(?P<secret>[^:%b{0,100}:(?P<known>%b{3,200})@(?:[\w.-]+|\[[0-9a-fA-F:.]+\]))"
                % (_IN_URL[2:], _IN_URL),
                b"",
                is_secret=_is_login,
            ),
            _rule(
                "login-in-url",
                b"://",
                rb"(?P<secret>[A-Za-z0-9]{36,200})@[\w.-]+",
                b"",
                is_secret=_is_random,
            ),
            _rule(
                "discord-webhook",
                b"https://discord.com/api/webhooks/",
                rb"[0-9]{15,22}/[\w-]{60,80}",
            ),
            _rule(
                "slack-webhook",
                b"https://hooks.slack.com/",
                rb"(?:services|workflows|triggers)/\w{6,}/\w{6,}/[\w/]{16,}",
            ),
        ),
    ),
    Group(
        _search(rb"K(?:(?<=[_-]K)|(?<=[a-zI]K)|(?<=TOK))(?:EY|ey|EN)%b" % _GIVEN),
        (
            *(
                _rule("aws-secret-key", name, _AWS_SECRET, b"")
                for name in (
                    *(b"SECRET_ACCESS_KEY", b"ecretAccessKey", b"AWS_SECRET_KEY", b"awsSecretKey"),
                )
            ),
            _rule(
                "wandb-key", b"WANDB_API_KEY", _ASSIGNED + rb"(?P<secret>[0-9a-f]{40})(?!\w)", b""
            ),
            _rule(
                "azure-storage-key",
                b"STORAGE_KEY",
                _ASSIGNED + rb"(?P<secret>[A-Za-z0-9/+]{86}==)",
                b"",
                is_secret=_is_account_key,
            ),
            _rule(
                "azure-shared-access-key",
                b"SharedAccessKey=",
                rb"(?P<secret>[A-Za-z0-9/+]{43}=)",
                b"",
            ),
            _assigned(b"KEY", " ".join(f"{word}_" for word in _KEYS.upper().split())),
            _assigned(b"Key", f"API {_LOWER} {_LOWER.title()}"),
            _assigned(b"TOKEN"),
        ),
    ),
    Group(
        _search(rb"G(?:R1348941|OOG1E)"),
        (
            _rule("gitlab-token", b"GR1348941", rb"[\w-]{20}"),
            _rule("google-storage-key", b"GOOG1E", rb"[A-Z0-9]{55}"),
        ),
        capitals=True,
    ),
    Group(
        _search(rb":AA(?<=[0-9]{8}:AA)"),
        (_rule("telegram-token", b":AA", rb"(?<=[0-9]{8}:AA)[\w-]{33}(?![\w-])", b""),),
        capitals=True,
    ),
    Group(
        _search(rb"v(?:(?<=hv)s|(?<=atlasv)1)\."),
        (
            _rule("vault-token", b"hvs.", rb"[\w-]{90,}"),
            _rule("terraform-token", b".atlasv1.", rb"[\w=-]{60,}", b""),
        ),
    ),
    Group(
        _holds(b"Q~"),
        (
            _rule(
                "azure-client-secret",
                b"Q~",
                rb"(?<=[\w.~-]{3}[0-9]Q~)(?<![\w.~-]{4}[0-9]Q~)[\w.~-]{31,34}(?![\w.~-])",
                b"",
            ),
        ),
        capitals=True,
    ),
    Group(
        _holds(b"sig="),
        (
            _rule(
                "azure-shared-access-signature",
                b"sig=",
                rb"(?<=[?&;\"']sig=)(?P<secret>(?:[A-Za-z0-9/+]|%2[BbFf]){43}(?:=|%3[Dd]))",
                b"",
            ),
        ),
    ),
    Group(
        _search(rb"B(?:earer|asic) [\w+/=.~-]{12}"),
        (
            _rule(
                _BEARER,
                b"Bearer ",
                rb"(?P<secret>[\w+/=.~-]{20,})",
                b"",
                is_secret=_is_random,
            ),
            _rule(
                "basic-login",
                b"Basic ",
                rb"(?P<secret>[A-Za-z0-9+/]{8,}={0,2})(?![\w+/=-])",
                b"",
                is_secret=_has_login,
            ),
        ),
    ),
    Group(
        _holds(b"auth"),
        (
            _rule("npm-token", b"_authToken", rb' {0,4}= {0,4}"?(?P<secret>[\w+/=-]{20,})', b""),
            _rule("npm-login", b"_auth", _NPM_LOGIN, b"", is_secret=_has_login),
            _rule(
                "docker-login",
                b'"auth"',
                rb'\s{0,8}:\s{0,8}\\?"(?P<secret>[A-Za-z0-9+/]{8,}={0,2})\\?"',
                b"",
                is_secret=_has_login,
            ),
        ),
    ),
    Group(
        _search(
            rb"k(?:(?:(?<=[tipe_(-]k)ey|(?<=[Tt]ok)en)%b|(?<=e_k)ey_id|(?<=dck)r_|(?<=pcsk)_)"
            % _GIVEN
        ),
        (
            _rule("aws-secret-key", b"secret_access_key", _AWS_SECRET, b""),
            _rule("aws-secret-key", b"secret_key", _AWS_SECRET, b"", is_secret=_is_random),
            _rule(
                "gcp-service-account",
                b"private_key_id",
                rb"""[\\"']{0,3}\s{0,8}[:=]\s{0,8}[\\"']{0,3}(?P<secret>[0-9a-f]{32,64})(?!\w)""",
                b"",
            ),
            _rule("wandb-key", b"login(key", _ASSIGNED + rb"(?P<secret>[0-9a-f]{40})(?!\w)", b""),
            _rule("docker-token", b"dckr_pat_", rb"[\w-]{20,}"),
            _rule("docker-token", b"dckr_oat_", rb"[\w-]{20,}"),
            _rule("pinecone-key", b"pcsk_", rb"[A-Za-z0-9]{5,6}_[A-Za-z0-9]{63}"),
            _assigned(b"key", _LOWER),
            _assigned(b"token"),
            _assigned(b"Token"),
        ),
    ),
    Group(
        _search(rb"w(?<=ssw)(?:or)?d"),
        (
            _rule(
                "netrc-login",
                b"machine ",
                rb"(?P<secret>\S{1,200}\s{1,9}login\s{1,9}\S{1,200}\s{1,9}password\s{1,9}"
                rb"""["']?(?P<known>[^\s{<$"']{3,200}))""",
                b"",
                is_secret=_is_netrc,
            ),
            _rule("npm-login", b":_password", _NPM_LOGIN, b""),
            *map(_assigned, (b"password", b"passwd", b"Password")),
        ),
    ),
    Group(
        _search(rb"W(?<=SSW)(?:OR)?D"),
        tuple(map(_assigned, (b"PASSWORD", b"PASSWD"))),
        capitals=True,
    ),
    Group(_holds(b"ecret"), tuple(map(_assigned, (b"secret", b"Secret")))),
    Group(_holds(b"SECRET"), (_assigned(b"SECRET"),), capitals=True),
    Group(_holds(b"dapi"), (_rule("databricks-token", b"dapi", rb"[0-9a-f]{32}(?:-[0-9])?"),)),
)
RULES = tuple(dict.fromkeys(rule.name for group in GROUPS for rule in group.rules))


# --- names ----------------------------------------------------------------------------------------

# Files that hold nothing but credentials, by their names in lower case: whole, by their ends, and
# with the directory above. A file with a private key is found by what it holds.
_ENV = "a .env file"
_KEY, _STORE = "a private key", "a key store"
_CLOUD, _LOGINS = "credentials of a cloud", "stored logins"
_CLUSTER, _STATE = "a kubeconfig", "state of Terraform"
_NAMES = {
    **dict.fromkeys(("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk"), _KEY),
    **dict.fromkeys(("id_ed25519", "id_ed25519_sk", "secring.gpg"), _KEY),
    **dict.fromkeys(("credentials.json", "application_default_credentials.json"), _CLOUD),
    **dict.fromkeys((".s3cfg", ".boto", ".databrickscfg", "rclone.conf"), _CLOUD),
    **dict.fromkeys((".netrc", "_netrc", ".pypirc", ".git-credentials", ".pgpass"), _LOGINS),
    **dict.fromkeys((".dockercfg", ".dockerconfigjson", ".htpasswd", ".my.cnf"), _LOGINS),
    **dict.fromkeys((".vault-token", ".terraformrc", "credentials.tfrc.json"), _LOGINS),
    "kaggle.json": _LOGINS,
    **dict.fromkeys(("kubeconfig", "kubeconfig.yaml", "kubeconfig.yml"), _CLUSTER),
}
_ENDINGS = {
    ".ppk": _KEY,
    **dict.fromkeys((".p12", ".pfx", ".jks", ".jceks", ".keystore", ".keytab"), _STORE),
    **dict.fromkeys((".kdb", ".kdbx", ".keychain"), _STORE),
    ".kubeconfig": _CLUSTER,
    **dict.fromkeys((".tfstate", ".tfstate.backup"), _STATE),
    **dict.fromkeys((".tfvars", ".tfvars.json"), "variables of Terraform"),
}
_PATHS = {
    "/.aws/credentials": _CLOUD,
    "/.config/gcloud/credentials.db": _CLOUD,
    "/.config/gcloud/access_tokens.db": _CLOUD,
    "/.azure/msal_token_cache.json": _CLOUD,
    "/.azure/accesstokens.json": _CLOUD,
    "/.oci/config": _CLOUD,
    "/.docker/config.json": _LOGINS,
    "/.config/gh/hosts.yml": _LOGINS,
    "/.cargo/credentials": _LOGINS,
    "/.cargo/credentials.toml": _LOGINS,
    "/.gem/credentials": _LOGINS,
    "/.streamlit/secrets.toml": _LOGINS,
    "/.kube/config": _CLUSTER,
}
_TO_FILL_IN = (".example", ".sample", ".template", ".dist")
_ALL_ENDINGS = (*_ENDINGS, *(path.rpartition("/")[2] for path in _PATHS))


def secret_file(path: str) -> str | None:
    """What a file of credentials is, by its name; None for any other."""
    name = path.rpartition("/")[2].lower()
    if name.startswith(".env"):
        is_one = name == ".env" or (name[4] == "." and not name.endswith(_TO_FILL_IN))
        return _ENV if is_one else None
    if name in _NAMES:
        return _NAMES[name]
    if not name.endswith(_ALL_ENDINGS):
        return None
    whole = f"/{path.lower()}"
    kinds = {**_ENDINGS, **_PATHS}
    return next((kind for end, kind in kinds.items() if whole.endswith(end)), None)
