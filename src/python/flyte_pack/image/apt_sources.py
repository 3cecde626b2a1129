"""A base's sources of Debian packages, and `apt-get` working for that base instead of this machine.

apt gets a directory of its own: what the base says of sources, keys and pins, and which packages it
has. It verifies signatures as ever. Nothing of this machine's apt counts but the programs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.image.apt_lock import mirrored, repository_problem
from flyte_pack.image.layer_tree import LayerTree
from flyte_pack.oci.tar_stream import Member
from flyte_shim import shown

STATUS = "var/lib/dpkg/status"
_KEPT = re.compile(
    rb"var/lib/dpkg/status|usr/share/keyrings/.*"
    rb"|etc/apt/(sources\.list(\.d/.*)?|trusted\.gpg(\.d/.*)?|keyrings/.*|preferences(\.d/.*)?)"
)
_MAX_KEPT = 64 << 20
_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)\s*(#.*)?")
_DEBIAN = {"386": "i386", "ppc64le": "ppc64el", "arm/v7": "armhf", "arm/v5": "armel"}
_URI = re.compile(r"'([^']+)' (\S+) (\d+) ?\S*")


def keep(member: Member) -> object:
    """For a `LayerTree`: the content of what apt needs."""
    name = b"/".join(part for part in member.name.split(b"/") if part not in (b"", b"."))
    kept = _KEPT.fullmatch(name) and member.size <= _MAX_KEPT
    return b"".join(member.content()) if kept else None


def read_text(tree: LayerTree, path: str) -> str | None:
    """What the base has there; None if that is no file that is kept."""
    content = _content(tree, path)
    return None if content is None else content.decode(errors="replace")


def _content(tree: LayerTree, path: str) -> bytes | None:
    found = tree.find(path.encode())
    content = found[1].content if found is not None else None
    return content if isinstance(content, bytes) else None


def _files(tree: LayerTree, directory: str) -> Iterator[tuple[str, bytes]]:
    found = tree.find(directory.encode())
    for name in sorted(found[1].children) if found is not None else ():
        path = f"{directory}/{os.fsdecode(name)}"
        if (content := _content(tree, path)) is not None:
            yield path, content


# --- sources -------------------------------------------------------------------------------------


def sources_of(tree: LayerTree) -> list[dict[str, str]]:
    """The fields of each source of binary packages, as `sources.list(5)` has them."""
    texts = [("etc/apt/sources.list", _content(tree, "etc/apt/sources.list") or b"")]
    texts += _files(tree, "etc/apt/sources.list.d")
    found: list[dict[str, str]] = []
    for path, content in texts:
        text = content.decode(errors="replace")
        if path.endswith(".sources"):
            found += _deb822(text)
        elif path.endswith(".list"):
            found += _one_line(text, path)
    return found


def _deb822(text: str) -> Iterator[dict[str, str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", lines):
        fields = re.findall(r"^([A-Za-z-]+):(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        source = {name.title(): value.strip() for name, value in fields}
        if "deb" in source.get("Types", "").split() and source.get("Enabled", "yes") != "no":
            yield source


def _one_line(text: str, path: str) -> Iterator[dict[str, str]]:
    for line in map(str.strip, text.splitlines()):
        if not re.match(r"deb\s", line):
            continue  # `deb-src`, or a comment
        parts = _ONE_LINE.fullmatch(line)
        if parts is None:
            raise UserError(f"the base's /{path}: {shown.line(line)} cannot be understood")
        options = dict(one.partition("=")[::2] for one in (parts[1] or "").split())
        key = {"Signed-By": options["signed-by"]} if "signed-by" in options else {}
        yield {"Uris": parts[2], "Suites": parts[3], "Components": parts[4].strip(), **key}


# --- apt -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundDeb:
    """A package that apt chose and fetched. path: from `repository`. file: where it is now."""

    repository: str
    path: str
    file: str


def choose(
    tree: LayerTree, platform: str, packages: Sequence[str], mirrors: dict[str, str], work: str
) -> list[FoundDeb]:
    """What apt would add to the base for `packages`, fetched into the directory `work`.

    Raises `UserError`, with what apt said.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise UserError(
            "this machine has no apt-get, which chooses the packages: lock on Debian or Ubuntu, "
            "such as in a container of the base. Packaging needs none"
        )
    repositories = _write_setup(tree, platform, mirrors, work)
    env = {**os.environ, "LC_ALL": "C", "APT_CONFIG": f"{work}/apt.conf"}
    _apt([program, "update", "-qq", "-o", "APT::Update::Error-Mode=any"], env)
    install = [program, "install", "-qq", "-y", "--no-install-recommends", "--no-remove"]
    uris = _apt([*install, "--print-uris", *packages], env)
    _apt([*install, "--download-only", *packages], env)
    found = []
    for line in uris.splitlines():
        parts = _URI.fullmatch(line)
        if parts is None:
            raise UserError(f"apt-get prints {shown.line(line)} where a package should be")
        near = max((r for r in repositories if parts[1].startswith(f"{r}/")), key=len, default=None)
        if near is None:
            raise UserError(f"{shown.uri(parts[1])} is in none of the base's sources")
        path = unquote(parts[1][len(near) :]).lstrip("/").removeprefix("./")
        found.append(FoundDeb(repositories[near], path, f"{work}/archives/{parts[2]}"))
    return found


def _write_setup(
    tree: LayerTree, platform: str, mirrors: dict[str, str], work: str
) -> dict[str, str]:
    """Returns the repositories, by where they are fetched from."""
    status, sources = _content(tree, STATUS), sources_of(tree)
    if status is None:
        raise UserError(
            f"the base has no /{STATUS}: `apt_packages` needs a base of Debian or Ubuntu"
        )
    if not sources:
        raise UserError("the base names no sources of packages in /etc/apt")
    for name in ("lists/partial", "archives/partial", "cache", "etc/apt.conf.d", "keys"):
        os.makedirs(f"{work}/{name}")
    _write(f"{work}/status", status)
    for name in ("trusted.gpg.d", "preferences.d"):
        os.mkdir(f"{work}/etc/{name}")
        for path, content in _files(tree, f"etc/apt/{name}"):
            _write(f"{work}/etc/{name}/{os.path.basename(path)}", content)
    for name in ("trusted.gpg", "preferences"):
        _write(f"{work}/etc/{name}", _content(tree, f"etc/apt/{name}") or b"")
    repositories: dict[str, str] = {}
    text = ""
    for number, source in enumerate(sources):
        for uri in source.get("Uris", "").split():
            if problem := repository_problem(uri):
                raise UserError(f"the base's source {shown.uri(uri)} cannot be locked: {problem}")
            plain = uri.rstrip("/")
            repositories[mirrored(plain, mirrors)] = plain
            # Nothing else is taken over, and so never `Trusted: yes`.
            fields = {k: source[k] for k in ("Suites", "Components") if source.get(k)}
            fields |= {"Types": "deb", "URIs": mirrored(plain, mirrors)}
            if "Signed-By" in source:
                fields["Signed-By"] = _key(tree, source["Signed-By"], f"{work}/keys/{number}")
            text += "".join(f"{k}: {v}\n" for k, v in fields.items()) + "\n"
    _write(f"{work}/etc/base.sources", text.encode())
    _write(f"{work}/apt.conf", _configuration(platform, work).encode())
    return repositories


def _key(tree: LayerTree, signed_by: str, place: str) -> str:
    """The key of the base, in a file of that name."""
    if "-----BEGIN" in signed_by:
        lines = [line.strip() for line in signed_by.splitlines()]
        _write(f"{place}.asc", "\n".join("" if line == "." else line for line in lines).encode())
        return f"{place}.asc"
    content = _content(tree, signed_by) if signed_by.startswith("/") else None
    if content is None:
        raise UserError(f"the base has no file {shown.line(signed_by)}, the key of a source")
    suffix = ".asc" if content.startswith(b"-----") else ".gpg"
    _write(f"{place}{suffix}", content)
    return f"{place}{suffix}"


def _configuration(platform: str, work: str) -> str:
    machine = platform.partition("/")[2]
    architecture = _DEBIAN.get(machine, machine.partition("/")[0])
    settings: Mapping[str, str] = {
        "Dir": work,  # also keeps this machine's settings out
        "Dir::State": work,
        "Dir::State::status": f"{work}/status",
        "Dir::Cache": f"{work}/cache",
        "Dir::Cache::archives": f"{work}/archives",
        "Dir::Etc": f"{work}/etc",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{work}/etc",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::Languages": "none",
    }
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())


def _write(path: str, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _apt(command: Sequence[str], env: Mapping[str, str]) -> str:
    done = children.run(command, env=env, text=True, errors="replace")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if re.match("[EW]: ", line)]
        said = said or (done.stderr + done.stdout).splitlines()
        reason = " ".join(shown.line(line) for line in said[:5]) or "no reason given"
        raise UserError(f"apt-get {command[1]}: {reason}")
    return str(done.stdout)
