"""What the environment says about object stores: one table, which the docs show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyte_shim import store_settings
from flyte_shim.errors import UsageError
from flyte_shim.obstore_client import Plan
from flyte_shim.store_settings import AZURE, GCS, IDENTITIES, ROWS, S3, Settings
from flyte_shim.stores import S3Settings, locate

DOCS = Path(__file__).parents[2] / "docs" / "stores.md"
URIS = {
    S3: "s3://bucket/k",
    GCS: "gs://bucket/k",
    AZURE: "abfs://container@acc.dfs.core.windows.net/k",
}
SECRET = "planted-71c4"
KEY_64 = "cGxhbnRlZA=="


def documented(kind: str) -> str:
    """The two tables of one kind of store, as docs/stores.md has them."""
    lines = ["| | the first that is set | |", "|---|---|---|"]
    lines += [
        f"| {row.name} | {', '.join(f'`{v}`' for v in row.variables)} | {row.means} |"
        for row in ROWS[kind]
    ]
    lines += ["", "| | who signs: the first row of which all are set | |", "|---|---|---|"]
    for number, who in enumerate(IDENTITIES[kind], 1):
        parts = (" or ".join(f"`{v}`" for v in part.variables) for part in who.parts)
        lines.append(f"| {number} | {' with '.join(parts)} | {who.means} |")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", URIS)
def test_the_docs_show_the_table(kind):
    assert documented(kind) in DOCS.read_text()


def read(kind: str, **environ: str) -> Plan:
    return Plan(locate(URIS[kind]), environ)


@pytest.mark.parametrize(
    ("kind", "row"), [(kind, row) for kind in ROWS for row in ROWS[kind]], ids=lambda x: str(x)
)
def test_the_first_variable_that_is_not_blank_counts(kind, row, tmp_path):
    values = [tmp_path / str(number) for number in range(len(row.variables))]
    texts = [str(value) for value in values]
    for value in values:
        value.touch()
    for made in ("http://h{}", "h{}", "true", "path"):
        try:
            row.read("V", made.format(1))
        except UsageError:
            continue
        texts = [made.format(number) for number in range(len(values))]
        break
    for first in range(len(row.variables)):
        blank = dict(zip(row.variables[:first], ("", " \n")))
        environ = {**blank, **dict(zip(row.variables[first:], texts[first:]))}
        settings = Settings(kind, environ)
        assert settings.get(row.name) == row.read("V", texts[first])
        assert settings.variable(row.name) == row.variables[first]
    assert Settings(kind, dict.fromkeys(row.variables, "")).get(row.name) is None


BAD = {
    store_settings.url: [
        *("localhost:9000", "http://", "https://:9000", "ftp://h", "http://h /", "http://h\n"),
        *("http://h:0", "http://h:99999", "http://h:x", "http://[::1", "http://h?q", "http://h#f"),
        *(f"http://user:{SECRET}@h", f"{SECRET}", "http://h\\x", "http://ü", "http:/h", "http://h/a b"),
        *("http://h\0", " http://h", "http://-", "http://h\ud800", "http://1:2:3", "http://[x]"),
    ],
    store_settings.host_or_url: [f"u:{SECRET}@h", "h h", "h\n", "http://", "h:x", "//"],
    store_settings.flag: ["maybe", "2", "truee", SECRET * 9],
    store_settings.payer: ["bucket", "me"],
    store_settings.style: ["virtually", "host", "vhost\n"],
    store_settings.name: ["eu-west-1\n", "eu west", " a", "-a", "a-", "ü", "a/b", "a@b", "a" * 65],
    store_settings.account: ["acc.blob.core.windows.net", "acc\n", "a/b", "https://acc", "-"],
    store_settings.key_id: ["K\n", "K K", "ü", "K\0", "K" * 300],
    store_settings.secret: [f"{SECRET}\n", f"\t{SECRET}", f"{SECRET}ü", "\ud800", "a" * 70_000],
    store_settings.account_key: [f"{KEY_64}\n", SECRET, "eA", "e=A=", "eA==eA==", "ü"],
    store_settings.signature: ["sv=1", "https://h?sig=x", "sig=%zz", "sig=%", "sig=x\n"],
    store_settings.key_document: ["", "{", "[]", "1", "[" * 5000, '{"private_key": 1}'],
    store_settings.file: ["/nowhere", "/", "\0", "a\nb"],
    store_settings.relative_uri: ["creds", "http://h/creds", "/a b", "/a\n"],
    store_settings.line: ["a\n", "a\0", "\x1b[2J", "a" * 5000],
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "text"),
    [(check, text) for check, texts in BAD.items() for text in texts],
    ids=lambda x: getattr(x, "__name__", None) or ascii(x)[:20],
)
def test_what_cannot_be_right_is_refused_by_the_name_of_its_variable(check, text):
    with pytest.raises(UsageError, match=r"^THE_NAME ") as error:
        check("THE_NAME", text)
    said = str(error.value)
    assert SECRET not in said
    assert said.isprintable()
    assert len(said) < 300


def test_every_kind_of_value_is_tried_with_bad_ones():
    rows = [row for kind in ROWS for row in ROWS[kind]]
    rows += [part for kind in IDENTITIES for who in IDENTITIES[kind] for part in who.parts]
    assert {row.read for row in rows} == set(BAD)


@pytest.mark.parametrize(
    ("check", "text", "meant"),
    [
        (store_settings.url, "HTTPS://H.example:9000/a/", "https://H.example:9000/a"),
        (store_settings.url, "http://[::1]:9000", "http://[::1]:9000"),
        (store_settings.url, "http://my_minio:9000", "http://my_minio:9000"),
        (store_settings.host_or_url, "localhost:4443", "http://localhost:4443"),
        (store_settings.flag, " True ", "true"),
        (store_settings.flag, "off", "false"),
        (store_settings.payer, "Requester", "true"),
        (store_settings.style, "Virtual", "virtual"),
        (store_settings.name, "RegionOne", "RegionOne"),
        (store_settings.signature, "?sv=1&sig=a%2B", "sv=1&sig=a%2B"),
        (store_settings.account_key, KEY_64, KEY_64),
    ],
)
def test_what_is_right_is_taken(check, text, meant):
    assert check("V", text) == meant


# --- S3: who, and where ----------------------------------------------------------------------------

AWS = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
FLYTE = {"FLYTE_AWS_ACCESS_KEY_ID": "C", "FLYTE_AWS_SECRET_ACCESS_KEY": "D"}
TOKEN = {"AWS_SESSION_TOKEN": "T"}
NO_KEY = (None, None, None)


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ({}, NO_KEY),
        (AWS, ("A", "B", None)),
        ({**AWS, **TOKEN}, ("A", "B", "T")),
        ({**AWS, "AWS_TOKEN": "T"}, ("A", "B", "T")),
        ({**AWS, "AWS_SESSION_TOKEN": "", "AWS_TOKEN": "T"}, ("A", "B", "T")),
        (FLYTE, ("C", "D", None)),
        ({**AWS, **FLYTE}, ("C", "D", None)),
        ({**FLYTE, **TOKEN}, ("C", "D", "T")),
        ({**FLYTE, **TOKEN, "AWS_ACCESS_KEY_ID": " "}, ("C", "D", "T")),
        ({**FLYTE, **TOKEN, "AWS_ACCESS_KEY_ID": "C"}, ("C", "D", "T")),
        ({**AWS, **FLYTE, **TOKEN}, ("C", "D", None)),
        ({**AWS, "FLYTE_AWS_ACCESS_KEY_ID": "C"}, ("A", "B", None)),
        ({"AWS_ACCESS_KEY_ID": "A", "FLYTE_AWS_SECRET_ACCESS_KEY": "D"}, NO_KEY),
        ({"FLYTE_AWS_ACCESS_KEY_ID": "C", "AWS_SECRET_ACCESS_KEY": "B"}, NO_KEY),
        ({"AWS_ACCESS_KEY_ID": "A", **TOKEN}, NO_KEY),
        ({**AWS, "AWS_SECRET_ACCESS_KEY": ""}, NO_KEY),
        ({**AWS, "AWS_ACCESS_KEY_ID": "\n"}, NO_KEY),
        ({**AWS, "AWS_SKIP_SIGNATURE": "true"}, NO_KEY),
        ({**AWS, "AWS_SKIP_SIGNATURE": "false"}, ("A", "B", None)),
        # What is not used may be wrong.
        ({**FLYTE, "AWS_ACCESS_KEY_ID": "A\n", "AWS_SECRET_ACCESS_KEY": "B\n"}, ("C", "D", None)),
    ],
)
def test_the_parts_of_a_key_belong_together(environ, keys):
    found = S3Settings(environ)
    assert (found.access_key_id, found.secret_access_key, found.session_token) == keys
    names = ("access_key_id", "secret_access_key", "session_token")
    assert tuple(map(read(S3, **environ).config.get, names)) == keys


def test_half_a_key_is_told_of():
    said = Settings(S3, {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": ""}).halves()
    assert said == "; AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"
    assert Settings(S3, AWS).halves() == ""


E = "http://e:1"


@pytest.mark.parametrize(
    ("environ", "endpoint", "virtual"),
    [
        ({}, "https://bucket.s3.us-east-1.amazonaws.com", True),
        ({"AWS_DEFAULT_REGION": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn", True),
        ({"FLYTE_AWS_S3_ADDRESSING_STYLE": "path"}, "https://s3.us-east-1.amazonaws.com", False),
        ({"FLYTE_AWS_S3_ADDRESSING_STYLE": "auto"}, "https://bucket.s3.us-east-1.amazonaws.com", True),
        ({"FLYTE_AWS_ENDPOINT": E}, E, False),
        ({"FLYTE_AWS_ENDPOINT": E, "FLYTE_AWS_S3_ADDRESSING_STYLE": "auto"}, E, False),
        ({"AWS_ENDPOINT": E, "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual"}, "http://bucket.e:1", True),
        ({"AWS_ENDPOINT": E, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "1"}, "http://bucket.e:1", True),
        (
            {"AWS_ENDPOINT": "http://bucket.e", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "1"},
            "http://bucket.e",
            True,
        ),
        (
            {
                "AWS_ENDPOINT": E,
                "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "1",
                "FLYTE_AWS_S3_ADDRESSING_STYLE": "path",
            },
            E,
            False,
        ),
        (
            {"AWS_ENDPOINT": "http://127.0.0.1:9", "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual"},
            "http://127.0.0.1:9",
            False,
        ),
        (
            {"AWS_ENDPOINT": "http://[::1]:9", "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual"},
            "http://[::1]:9",
            False,
        ),
        (
            {"AWS_ENDPOINT_URL_S3": E, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://bucket.s3.us-east-1.amazonaws.com",
            True,
        ),
        (
            {"FLYTE_AWS_ENDPOINT": E, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            E,
            False,
        ),
    ],
)  # fmt: skip
def test_the_bucket_is_in_the_host_or_in_the_path_and_never_lost(environ, endpoint, virtual):
    config = read(S3, **environ).config
    assert config["endpoint"] == endpoint
    assert config["virtual_hosted_style_request"] == str(virtual).lower()


# --- Google and Azure -----------------------------------------------------------------------------

CLIENT = {"AZURE_CLIENT_ID": "id", "AZURE_TENANT_ID": "tenant"}
KEY_FILE = {"private_key": "x"}
AT = {"account_name": "acc", "endpoint": "https://acc.blob.core.windows.net"}


@pytest.mark.parametrize(
    ("kind", "environ", "config"),
    [
        (GCS, {}, {}),
        (GCS, {"GOOGLE_BASE_URL": E}, {"base_url": E}),
        (GCS, {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}, {"service_account_key": "{}"}),
        (GCS, {"GOOGLE_SERVICE_ACCOUNT": __file__}, {"service_account": __file__}),
        (GCS, {"GOOGLE_SERVICE_ACCOUNT_PATH": __file__}, {"service_account": __file__}),
        (GCS, {"GOOGLE_APPLICATION_CREDENTIALS": __file__}, {"application_credentials": __file__}),
        (
            GCS,
            {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}", "GOOGLE_SERVICE_ACCOUNT": "/nowhere"},
            {"service_account_key": "{}"},
        ),
        (
            GCS,
            {"GOOGLE_SERVICE_ACCOUNT_KEY": " ", "GOOGLE_APPLICATION_CREDENTIALS": __file__},
            {"application_credentials": __file__},
        ),
        (AZURE, {}, AT),
        (AZURE, {"AZURE_STORAGE_ENDPOINT": f"{E}/acc/"}, {**AT, "endpoint": f"{E}/acc"}),
        (AZURE, {"AZURE_STORAGE_TOKEN": "t", "AZURE_STORAGE_ACCOUNT_KEY": KEY_64}, {**AT, "token": "t"}),
        (AZURE, {"AZURE_STORAGE_ACCESS_KEY": KEY_64, **CLIENT}, {**AT, "account_key": KEY_64}),
        (
            AZURE,
            {"AZURE_STORAGE_ACCOUNT_KEY": "", "AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=a"},
            {**AT, "sas_token": "sv=1&sig=a"},
        ),
        (
            AZURE,
            {**CLIENT, "AZURE_CLIENT_SECRET": "s", "AZURE_STORAGE_CLIENT_ID": "other"},
            {**AT, "client_id": "id", "tenant_id": "tenant", "client_secret": "s"},
        ),
        (
            AZURE,
            {**CLIENT, "AZURE_FEDERATED_TOKEN_FILE": __file__, "AZURE_AUTHORITY_HOST": "https://l/"},
            {
                **AT,
                "client_id": "id",
                "tenant_id": "tenant",
                "federated_token_file": __file__,
                "authority_host": "https://l",
            },
        ),
        # The secret of one principal is not used for another.
        (AZURE, {**CLIENT, "AZURE_STORAGE_CLIENT_SECRET": "s"}, {**AT, "client_id": "id"}),
        (AZURE, {"AZURE_USE_AZURE_CLI": "true"}, {**AT, "use_azure_cli": "true"}),
        (AZURE, {"AZURE_SKIP_SIGNATURE": "1"}, {**AT, "skip_signature": "true"}),
        (
            AZURE,
            {"IDENTITY_ENDPOINT": "http://127.0.0.1:1/msi", "AZURE_CLIENT_ID": "id"},
            {**AT, "msi_endpoint": "http://127.0.0.1:1/msi", "client_id": "id"},
        ),
        (
            AZURE,
            {"AZURE_STORAGE_USE_EMULATOR": "true"},
            {"account_name": "acc", "use_emulator": "true"},
        ),
    ],
)  # fmt: skip
def test_obstore_is_told_everything_of_one_identity_and_nothing_of_others(kind, environ, config):
    assert read(kind, **environ).config == config


EMULATOR = {
    "gcs_base_url": "http://localhost:4443",
    "disable_oauth": True,
    "client_email": "",
    "private_key": "",
    "private_key_id": "",
}


@pytest.mark.parametrize(
    ("environ", "server"),
    [
        ({"STORAGE_EMULATOR_HOST": "localhost:4443"}, "http://localhost:4443"),
        ({"STORAGE_EMULATOR_HOST": "http://localhost:4443/"}, "http://localhost:4443"),
        ({"GOOGLE_SKIP_SIGNATURE": "true"}, "https://storage.googleapis.com"),
        ({"GOOGLE_SKIP_SIGNATURE": "true", "GOOGLE_BASE_URL": E}, E),
    ],
)
def test_google_is_asked_by_nobody_where_there_is_none_to_be(environ, server):
    config = read(GCS, **environ).config
    assert json.loads(config["service_account_key"]) == {**EMULATOR, "gcs_base_url": server}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "other", "AZURE_STORAGE_ACCOUNT_KEY": KEY_64},
            "the URI names the account acc, and AZURE_STORAGE_ACCOUNT_NAME the account other, "
            "which AZURE_STORAGE_ACCOUNT_KEY belongs to",
        ),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "other", "AZURE_STORAGE_SAS_TOKEN": "sig=a"},
            "which AZURE_STORAGE_SAS_TOKEN belongs to",
        ),
        (
            {"AZURE_STORAGE_ENDPOINT": "https://other.blob.core.windows.net"},
            "AZURE_STORAGE_ENDPOINT is the server of the account other",
        ),
    ],
)
def test_what_belongs_to_another_account_is_not_used(environ, message):
    with pytest.raises(UsageError, match=message):
        read(AZURE, **environ)
    # A principal has rights at many accounts.
    read(AZURE, AZURE_STORAGE_ACCOUNT_NAME="other", **CLIENT, AZURE_CLIENT_SECRET="s")


@pytest.mark.parametrize(
    ("kind", "environ", "allowed"),
    [
        (S3, {}, False),
        (S3, {"AWS_ENDPOINT_URL": "https://e"}, False),
        (S3, {"AWS_ENDPOINT_URL": "HTTP://e"}, True),
        (S3, {"AWS_ALLOW_HTTP": "true"}, False),
        (GCS, {}, False),
        (GCS, {"GOOGLE_BASE_URL": "http://e"}, True),
        (GCS, {"STORAGE_EMULATOR_HOST": "localhost:4443"}, True),
        (AZURE, {}, False),
        (AZURE, {"AZURE_STORAGE_USE_EMULATOR": "true"}, True),
        (AZURE, {"AZURE_ENDPOINT": "http://e"}, True),
    ],
)
def test_only_an_endpoint_that_somebody_named_may_be_without_tls(kind, environ, allowed):
    assert read(kind, **environ).client_options["allow_http"] is allowed
