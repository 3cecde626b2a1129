"""The environment variables that say how to reach object stores: one table, for all of our clients.

docs/stores.md shows the table. A client gets what is read here and nothing else of the environment.
An empty or blank variable counts as not set. Of an identity all parts are taken together, or none:
the key of one is never used with the secret or the token of another. Nothing here opens a
connection. Flyte's variables are those of `flyte/storage/_config.py` in its SDK.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from flyte_shim import shown
from flyte_shim.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Callable

S3, GCS, AZURE = "s3", "gs", "abfs"
_TRUE = ("1", "true", "t", "yes", "y", "on")
_FALSE = ("0", "false", "f", "no", "n", "off")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\]")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_KEY_ID = re.compile(r"[!-~]{1,256}")
_SECRET = re.compile(r"[!-~]{1,65536}")


def url(variable: str, text: str) -> str:
    """An http(s) URL of a host, perhaps with port and path, without a final slash."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
        good = bool(
            parts.scheme.lower() in ("http", "https")
            and parts.hostname  # which checks the address in brackets
            and _HOST.fullmatch(host.rstrip(":"))
            and _PATH.fullmatch(parts.path)
            and parts.port != 0
        )
    except ValueError:
        good = False
    # urlsplit drops line breaks and tabs.
    if not good or not _SECRET.fullmatch(text) or set("?#@\\") & set(text):
        why = ""
        if "@" in text:
            why = ", without user and password"
        elif "://" not in text:
            why = ", with its http:// or https://"
        raise UsageError(
            f"{variable} is an invalid URL: write one like https://s3.example.com:9000{why}"
        )
    scheme, _, rest = text.rstrip("/").partition("://")
    return f"{scheme.lower()}://{rest}"


def host_or_url(variable: str, text: str) -> str:
    """As `url`, but `http://` may be left out, as Google's own libraries take it."""
    return url(variable, text if "://" in text else f"http://{text}")


def flag(variable: str, text: str) -> str:
    """ "true" or "false"."""
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise UsageError(f"{variable} is {shown.word(text)}: write true or false")
    return "true" if word in _TRUE else "false"


def payer(variable: str, text: str) -> str:
    return "true" if text.strip().lower() == "requester" else flag(variable, text)


def style(variable: str, text: str) -> str:
    """`virtual`, `path` or `auto`, as botocore takes them."""
    word = text.strip().lower()
    if word not in ("virtual", "path", "auto"):
        raise UsageError(f"{variable} is {shown.word(text)}: write virtual, path or auto")
    return word


def name(variable: str, text: str) -> str:
    """A region's or an account's name."""
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{variable} is {shown.word(text)}: write a name like us-east-1, without "
            "blanks and line breaks"
        )
    return text


def account(variable: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", text):
        raise UsageError(
            f"{variable} is no account's name: write the part before .blob.core.windows.net, of "
            "letters and digits"
        )
    return text


def _plain(pattern: re.Pattern[str], variable: str, text: str) -> str:
    if not pattern.fullmatch(text):
        where = "at its end" if pattern.fullmatch(text.rstrip()) else "in it"
        raise UsageError(
            f"{variable} has a blank, a line break or another invalid character {where}, or is too "
            "long: set it again"
        )
    return text


def key_id(variable: str, text: str) -> str:
    return _plain(_KEY_ID, variable, text)


def secret(variable: str, text: str) -> str:
    return _plain(_SECRET, variable, text)


def account_key(variable: str, text: str) -> str:
    import binascii

    try:
        binascii.a2b_base64(secret(variable, text).encode())
        good = re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text) and len(text) % 4 == 0
    except ValueError:
        good = None
    if not good:
        raise UsageError(f"{variable} is no account's key, which is in Base64: copy it again")
    return text


def signature(variable: str, text: str) -> str:
    """A shared access signature: a query, whose `?` is left out."""
    query = secret(variable, text).lstrip("?")
    if (
        "sig=" not in query
        or "://" in query.partition("sig=")[0]
        or re.search(r"%(?![0-9A-Fa-f]{2})", query)
    ):
        raise UsageError(
            f"{variable} is no shared access signature: write the part of its URL that follows '?'"
        )
    return query


def key_document(variable: str, text: str) -> str:
    """The JSON of a service account's key."""
    import json

    try:
        document = json.loads(text)
        good = isinstance(document, dict) and isinstance(document.get("private_key", ""), str)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise UsageError(
            f"{variable} is not the JSON of a service account's key. For a file with it, set "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    return text


def file(variable: str, text: str) -> str:
    if "\0" in text or not os.path.isfile(text):
        raise UsageError(f"{variable} names no readable file")
    return text


def relative_uri(variable: str, text: str) -> str:
    if not text.startswith("/"):
        raise UsageError(f"{variable} does not start with '/'")
    return secret(variable, text)


def line(variable: str, text: str) -> str:
    """Anything printable; a profile's name may hold blanks."""
    if not text.isprintable() or len(text) > 4096:
        raise UsageError(f"{variable} has a line break or another control character in it")
    return text


class Row:
    """One setting: the first of `variables` that is set counts. `means` is for docs/stores.md."""

    def __init__(
        self, name: str, variables: tuple[str, ...], read: Callable[[str, str], str], means: str
    ) -> None:
        self.name, self.variables, self.read, self.means = name, variables, read, means


class Identity:
    """Who we are there: it counts if each of `parts`, rows of the table, is set."""

    def __init__(self, name: str, parts: tuple[Row, ...], means: str) -> None:
        self.name, self.parts, self.means = name, parts, means


# Names of identities that code asks for.
NOBODY, KEY, FLYTE_KEY, PROFILE = "nobody", "key", "Flyte's key", "profile"
WEB_IDENTITY, CONTAINER = "web identity", "container's role"
TOKEN, SAS, WORKLOAD, PRINCIPAL, CLI = "token", "SAS", "workload identity", "principal", "az"
KEY_JSON, KEY_FILE, DEFAULTS = "key's JSON", "key file", "application default credentials"

_IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"

ROWS: dict[str, tuple[Row, ...]] = {
    S3: (
        Row(
            "endpoint",
            ("FLYTE_AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
            url,
            "the server's URL, by default AWS's in that region",
        ),
        Row(
            "ignore endpoints",
            (_IGNORE,),
            flag,
            "`true`: of the endpoints only `FLYTE_AWS_ENDPOINT` counts",
        ),
        Row(
            "region",
            ("AWS_REGION", "AWS_DEFAULT_REGION"),
            name,
            "by default the profile's, then `us-east-1`",
        ),
        Row(
            "style",
            ("FLYTE_AWS_S3_ADDRESSING_STYLE",),
            style,
            "`virtual` puts the bucket into the host's name, `path` does not; `auto` is the "
            "default: `virtual` for AWS, `path` for others. An address in numbers has no names "
            "below it: `path`",
        ),
        Row("virtual", ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST",), flag, "the same: `true`, `false`"),
        Row("payer", ("AWS_REQUEST_PAYER",), payer, "`requester`: we pay for requests"),
        Row(
            "token",
            ("AWS_SESSION_TOKEN", "AWS_TOKEN"),
            secret,
            "the session of "
            "`AWS_ACCESS_KEY_ID`; of Flyte's key, if the former is not set or the same",
        ),
        Row("config file", ("AWS_CONFIG_FILE",), line, "profiles, by default `~/.aws/config`"),
        Row(
            "shared file",
            ("AWS_SHARED_CREDENTIALS_FILE",),
            line,
            "profiles' keys, by default `~/.aws/credentials`",
        ),
        Row("session name", ("AWS_ROLE_SESSION_NAME",), key_id, "of the web identity"),
        Row(
            "sts",
            ("AWS_ENDPOINT_URL_STS", "AWS_STS_ENDPOINT"),
            url,
            "who is asked for the web identity's keys, by default AWS in that region",
        ),
        Row(
            "container token file",
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",),
            line,
            "of the container's role",
        ),
        Row(
            "container token",
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN",),
            line,
            "the same, if there is no file",
        ),
        Row(
            "no machine",
            ("AWS_EC2_METADATA_DISABLED",),
            flag,
            "`true`: the machine's role is not asked for",
        ),
        Row(
            "machine",
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"),
            url,
            "who is asked for the machine's role",
        ),
        Row(
            "authorities",
            ("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
            file,
            "a file with the authorities to trust",
        ),
    ),
    GCS: (
        Row("endpoint", ("GOOGLE_BASE_URL",), url, "the server's URL"),
        Row(
            "emulator",
            ("STORAGE_EMULATOR_HOST",),
            host_or_url,
            "the same, without credentials; `http://` may be left out",
        ),
        Row("authorities", ("SSL_CERT_FILE",), file, "a file with the authorities to trust"),
        Row("machine", ("GCE_METADATA_HOST",), line, "who is asked for the machine's identity"),
    ),
    AZURE: (
        Row(
            "account",
            ("AZURE_STORAGE_ACCOUNT_NAME",),
            account,
            "the account, where the URI names none",
        ),
        Row(
            "endpoint",
            ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
            url,
            "the server's URL, with the account as its path if an emulator needs it",
        ),
        Row("emulator", ("AZURE_STORAGE_USE_EMULATOR",), flag, "`true`: Azurite on this machine"),
        Row(
            "emulator url",
            ("AZURITE_BLOB_STORAGE_URL",),
            url,
            "where Azurite is, by default `http://127.0.0.1:10000`",
        ),
        Row(
            "authority host",
            ("AZURE_AUTHORITY_HOST",),
            url,
            "who gives tokens, by default Azure's public cloud",
        ),
        Row(
            "identity endpoint",
            ("IDENTITY_ENDPOINT",),
            url,
            "who is asked for the managed identity",
        ),
        Row(
            "client",
            ("AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"),
            key_id,
            "which managed identity",
        ),
        Row("authorities", ("SSL_CERT_FILE",), file, "a file with the authorities to trust"),
    ),
}


def _part(variables: str, read: Callable[[str, str], str]) -> Row:
    names = tuple(variables.split())
    return Row(names[0], names, read, "")


# The first that counts wins; what comes after the last is said in docs/stores.md.
IDENTITIES: dict[str, tuple[Identity, ...]] = {
    S3: (
        Identity(NOBODY, (_part("AWS_SKIP_SIGNATURE", flag),), "`true`: requests are not signed"),
        Identity(
            FLYTE_KEY,
            (
                _part("FLYTE_AWS_ACCESS_KEY_ID", key_id),
                _part("FLYTE_AWS_SECRET_ACCESS_KEY", secret),
            ),
            "Flyte's own key",
        ),
        Identity(
            KEY,
            (_part("AWS_ACCESS_KEY_ID", key_id), _part("AWS_SECRET_ACCESS_KEY", secret)),
            "AWS's key",
        ),
        Identity(
            PROFILE,
            (_part("AWS_PROFILE AWS_DEFAULT_PROFILE", line),),
            "a profile: keys, SSO, roles, `credential_process`. In containers only with "
            "`AWS_CONFIG_FILE`, and if botocore is there",
        ),
        Identity(
            WEB_IDENTITY,
            (_part("AWS_WEB_IDENTITY_TOKEN_FILE", line), _part("AWS_ROLE_ARN", key_id)),
            "a role of a Kubernetes service account, or of a CI system",
        ),
        Identity(
            CONTAINER,
            (_part("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", relative_uri),),
            "a role of an ECS task",
        ),
        Identity(
            CONTAINER,
            (_part("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),),
            "a role of EKS Pod Identity",
        ),
    ),
    GCS: (
        Identity(
            NOBODY, (_part("GOOGLE_SKIP_SIGNATURE", flag),), "`true`: requests are not signed"
        ),
        Identity(
            KEY_JSON,
            (_part("GOOGLE_SERVICE_ACCOUNT_KEY", key_document),),
            "a service account's key, its JSON",
        ),
        Identity(
            KEY_FILE,
            (_part("GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_PATH", file),),
            "a file with a service account's key",
        ),
        Identity(
            DEFAULTS,
            (_part("GOOGLE_APPLICATION_CREDENTIALS", file),),
            "the same. Where a person deploys also a federated identity, which CI systems use",
        ),
    ),
    AZURE: (
        Identity(NOBODY, (_part("AZURE_SKIP_SIGNATURE", flag),), "`true`: requests are not signed"),
        Identity(TOKEN, (_part("AZURE_STORAGE_TOKEN", secret),), "a token"),
        Identity(
            KEY,
            (
                _part(
                    "AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_ACCESS_KEY AZURE_STORAGE_MASTER_KEY",
                    account_key,
                ),
            ),
            "the account's key",
        ),
        Identity(
            SAS,
            (_part("AZURE_STORAGE_SAS_TOKEN AZURE_STORAGE_SAS_KEY", signature),),
            "a shared access signature",
        ),
        *(
            Identity(
                kind,
                (
                    _part(f"{prefix}CLIENT_ID", key_id),
                    _part(f"{prefix}TENANT_ID", key_id),
                    _part(proof, read),
                ),
                means,
            )
            for prefix, kind, proof, read, means in (
                ("AZURE_", PRINCIPAL, "AZURE_CLIENT_SECRET", secret, "a service principal"),
                ("AZURE_", WORKLOAD, "AZURE_FEDERATED_TOKEN_FILE", file, "a workload identity"),
                (
                    "AZURE_STORAGE_",
                    PRINCIPAL,
                    "AZURE_STORAGE_CLIENT_SECRET",
                    secret,
                    "a service principal for storage alone",
                ),
            )
        ),
        Identity(CLI, (_part("AZURE_USE_AZURE_CLI", flag),), "`true`: the log-in of `az`"),
    ),
}

VARIABLES = tuple(
    dict.fromkeys(
        variable
        for kind in (S3, GCS, AZURE)
        for row in (*ROWS[kind], *(part for who in IDENTITIES[kind] for part in who.parts))
        for variable in row.variables
    )
)


class Settings:
    """What the environment says about one kind of store. All methods raise UsageError.

    The error names the variable, and repeats no value that may be secret.
    """

    def __init__(self, kind: str, environ: Mapping[str, str]) -> None:
        self.kind, self._environ = kind, environ
        self._rows = {row.name: row for row in ROWS[kind]}

    def get(self, name: str) -> str | None:
        """The value of a row, checked; None if it is not set."""
        return self._value(self._rows[name])

    def true(self, name: str) -> bool:
        return self.get(name) == "true"

    def variable(self, name: str) -> str:
        """The variable that sets a row, else the first that would."""
        row = self._rows[name]
        return self._set(row) or row.variables[0]

    def identity(self, *names: str) -> tuple[str, dict[str, str]]:
        """The name of the first identity (of these names) that counts, and its parts by variable.

        Both are empty if none does. A flag counts if it is true.
        """
        for who in IDENTITIES[self.kind]:
            if who.name in (names or (who.name,)) and all(map(self._set, who.parts)):
                values = {part.name: self._value(part) or "" for part in who.parts}
                if who.parts[0].read is not flag or values[who.parts[0].name] == "true":
                    return who.name, values
        return "", {}

    def role(self) -> tuple[str, dict[str, str]]:
        """S3: `identity` without keys and profiles."""
        return self.identity(WEB_IDENTITY, CONTAINER)

    def identity_variables(self) -> str:
        """The variables that give the identity, for messages."""
        for who in IDENTITIES[self.kind]:
            if who.name == self.identity()[0] and all(map(self._set, who.parts)):
                return " and ".join(self._set(part) for part in who.parts)
        return ""

    def is_set(self, *variables: str) -> bool:
        """Whether one of them is."""
        return any(map(self._is_set, variables))

    def halves(self) -> str:
        """What to say of an identity of which only a part is set, else nothing."""
        for who in IDENTITIES[self.kind]:
            found = [part for part in who.parts if self._set(part)]
            if found and len(found) < len(who.parts) and "CLIENT" not in who.parts[0].name:
                lacks = next(part.name for part in who.parts if part not in found)
                return f"; {self._set(found[0])} is set, but {lacks} is not"
        return ""

    def _value(self, row: Row) -> str | None:
        variable = self._set(row)
        return row.read(variable, self._environ[variable]) if variable else None

    def _set(self, row: Row) -> str:
        names = row.variables
        if row.name == "endpoint" and self.kind == S3 and self.true("ignore endpoints"):
            names = names[:1]
        return next(filter(self._is_set, names), "")

    def _is_set(self, variable: str) -> bool:
        return bool(self._environ.get(variable, "").strip())
