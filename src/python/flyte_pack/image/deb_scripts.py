"""What the maintainer scripts of a Debian package come to in an image, or why that is not known.

Nothing is run. A script is understood where it consists of what debhelper wrote, of
`update-alternatives --install`, which is links, and of blocks that a first installation skips
(Debian Policy, 6.5 "Summary of ways maintainer scripts are called"). It is no shell: what does not
look exactly so is refused.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass

from flyte_pack.errors import UserError
from flyte_shim import shown

# They run before and after a first installation, with these as `$1`, and without `$2`.
RUN = {"preinst": "install", "postinst": "configure"}

_ADDED = re.compile(r"# Automatically added by (dh_[a-z0-9_]+)(/.*)?")
_END = "# End automatically added section"
# They start services, which no container has, or refresh what is of use to a desktop or for speed.
_HARMLESS_ADDED = (
    *("dh_icons", "dh_installinit", "dh_installmenu", "dh_installmime", "dh_installsystemd"),
    *("dh_makeshlibs", "dh_python3", "dh_systemd_enable", "dh_systemd_start"),
)
# Tidies up after an older version, and does nothing where there was none.
_HELPER = re.compile(r'dpkg-maintscript-helper [a-z_]+ [^;&|`$]* -- "\$@"')
_NOTHING = re.compile(r"set -?e|set -eu|exit 0|:")

_OTHERS = "upgrade|triggered|reconfigure|remove|purge|abort-[a-z]+"
_CALLED = re.compile(r'(?:\[|test) "?\$1"? (=|!=) "?([a-z-]+)"?(?: \])?')
_NEVER = re.compile(
    r'(?:\[|test) -n "\$2"(?: \])?|dpkg --compare-versions "\$2" (?:lt|le|gt|ge)-nl \S+'
    r"|\[ -h (/etc/alternatives/[a-z0-9]+) -a ! -e \1 \]"  # a link that leads nowhere
)
_PATH = re.compile(r"(/[A-Za-z0-9._+@:-]+)+")
_NAME = re.compile(r"[A-Za-z0-9._+@:-]+")
_TRIPLET = re.compile(r"[a-z0-9_]{1,20}-linux-gnu[a-z0-9]{0,10}")

# Scripts that were read by a person, by `script_digest`: what an image lacks without them.
_CACHE = "the cache of fonts, which each program makes when it needs it"
_FONTS = "settings of hinting, and /usr/local/share/fonts"
_SCHEMAS = "the database of GSettings schemas, and the cache of GIO modules"
_READ = {
    # fontconfig
    "7fa2f0c66c85d2168f019c915503cf98": _CACHE,
    # fontconfig-config, of Debian 12 and 13
    "ce335642b67c5d2f0c6349bebb66899e": _FONTS,
    "ed08e5d3b540dbc7deda5deeaa5a4aa9": _FONTS,
    # libgcrypt20, libgssapi-krb5-2, libglib2.0-0t64, libsensors5: tidy up after older ones
    "a922c1d62f7a191e556d6edb92d0961a": "",
    "12f333c561273d4d2f52965db8683ca4": "",
    "9a54cd57e693b3ef91362835d997363d": "",
    "867ad83bd2348b0fa56417096c73ce8e": "",
    # libgdk-pixbuf-2.0-0
    "bd710622b4a42f2549ca60a562f19039": "the list of its loaders (PNG and JPEG are built in)",
    # libglib2.0-0, libglib2.0-0t64
    "8b1022e7dddb915b9853328fbb06d5cd": _SCHEMAS,
    "1c62e044283078d508915c5916d0f7b6": _SCHEMAS,
    # openssh-client
    "24bc0e24daee3213a21bd6c8360a3d63": "the group of ssh-agent",
    # procps, of Debian 12 and 13
    "300148955b775e6d3a37c555aa866f47": "the service that sets kernel parameters",
    "1309e7d1d8374092ed7bed244a058d59": "the service that sets kernel parameters",
    # shared-mime-info
    "36a2936468834fe35d1035e42b00483f": "the database of file types",
    # unixodbc-common
    "548a11e5c7903aff28d3c05456b8d503": "an empty /etc/odbcinst.ini",
    # unzip
    "1c3c2175c87ac314cbb3de03d4f1c557": "an entry for mail readers",
    # x11-common, of Debian 12 and 13
    "4d88aa505f168cbc4f9ebc86c9f2b07f": "the service that makes directories for X servers",
    "c3e687541f085ec42feaffb6794f70e3": "the service that makes directories for X servers",
    # xz-utils
    "7e0304cc6f984c581c0f0a10dac1aa7f": "the commands lzma and lz*, other names of xz and xz*",
}


class NotUnderstood(UserError):
    """The message is the first line that was not understood."""


@dataclass(frozen=True)
class Alternative:
    """`link` leads to /etc/alternatives/`name`, and that to `path`. main: the name that decides
    about it, which is another one's for a slave (update-alternatives(1)).
    """

    link: str
    name: str
    path: str
    main: str
    priority: int


@dataclass(frozen=True)
class Understood:
    """lacks: what the image is without, for a person."""

    alternatives: tuple[Alternative, ...] = ()
    lacks: str = ""


def script_digest(text: str) -> str:
    """Of what a script does: comments, white space and the architecture's name do not count."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256(_TRIPLET.sub("TRIPLET", code).encode()).hexdigest()[:32]


def understand(kind: str, data: bytes) -> Understood:
    """kind: of `RUN`. Raises `NotUnderstood`."""
    text = data.decode(errors="replace")
    if (lacks := _READ.get(script_digest(text))) is not None:
        return Understood(lacks=lacks)
    first, _, rest = text.partition("\n")
    if not re.fullmatch(r"#! ?/bin/(ba|da)?sh( -e)?\s*", first):
        raise NotUnderstood(shown.line(first))
    # A line that ends in a backslash goes on.
    found: list[Alternative] = []
    _walk(rest.replace("\\\n", " ").splitlines(), RUN[kind], found)
    return Understood(tuple(found))


def _walk(lines: list[str], called: str, found: list[Alternative]) -> None:
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if added := _ADDED.fullmatch(line):
            ours = [one.strip() for one in lines[at:]]
            if _END not in ours:
                raise NotUnderstood(shown.line(line))
            body = lines[at : at + ours.index(_END)]
            at += len(body) + 1
            if added[1] not in _HARMLESS_ADDED:
                _walk(body, called, found)
        elif line.startswith("update-alternatives "):
            found += _alternatives(line)
        elif line.startswith("if "):
            condition, at = _condition(lines, at - 1)
            end = _end_of_block(lines, at)
            runs = _runs(condition, called)
            if runs is None:
                raise NotUnderstood(shown.line(line))
            if runs:
                _walk(lines[at:end], called, found)
            at = end + 1
        elif line in ('case "$1" in', "case $1 in"):
            ours = [one.strip() for one in lines[at:]]
            if "esac" not in ours:
                raise NotUnderstood(shown.line(line))
            end = at + ours.index("esac")
            _walk(_branch(lines[at:end], called), called, found)
            at = end + 1
        elif line and line[0] != "#" and not (_NOTHING.fullmatch(line) or _HELPER.fullmatch(line)):
            raise NotUnderstood(shown.line(line))


def _condition(lines: list[str], at: int) -> tuple[str, int]:
    """That of the `if` there, and where its block begins."""
    words: list[str] = []
    for place in range(at, len(lines)):
        words += lines[place].split()
        if words[-1:] == ["then"]:
            return " ".join(words[1:-1]).removesuffix(";").strip(), place + 1
    raise NotUnderstood(shown.line(lines[at].strip()))


def _end_of_block(lines: list[str], at: int) -> int:
    """The line of the `fi`, in a block that is written in the usual way, without `else`."""
    depth = 1
    for place in range(at, len(lines)):
        line = lines[place].strip()
        depth += line.startswith("if ") - (line == "fi")
        odd = re.search(r"\bfi\b", line) and line != "fi" and not line.startswith("#")
        if odd or "<<" in line or (depth == 1 and re.match(r"el(se|if)\b", line)):
            raise NotUnderstood(shown.line(line))
        if depth == 0:
            return place
    raise NotUnderstood("if without fi")


def _branch(lines: list[str], called: str) -> list[str]:
    """The lines of a `case "$1" in`, each pattern on a line of its own, that are run."""
    taken: list[str] | None = None
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        pattern = re.fullmatch(r"\(?([a-z|*-]+)\)", line)
        if line and line[0] != "#":
            ours = [one.strip() for one in lines[at:]]
            if pattern is None or ";;" not in ours:
                raise NotUnderstood(shown.line(line))
            end = at + ours.index(";;")
            if any(one.startswith("case ") for one in ours[: end - at]):
                raise NotUnderstood(shown.line(line))
            if taken is None and {called, "*"} & set(pattern[1].split("|")):
                taken = lines[at + 1 : end]
            at = end
        at += 1
    return taken or []


def _runs(condition: str, called: str) -> bool | None:
    """Whether a first installation runs the block; None if that is not known."""
    for word, decides in ((" && ", False), (" || ", True)):
        terms = [_term(term.strip(), called) for term in condition.split(word)]
        if decides in terms:
            return decides if not re.search(r"&&|\|\|", condition.replace(word, "")) else None
        if len(terms) > 1 or terms[0] is not None:
            return None if None in terms else not decides
    return None


def _term(term: str, called: str) -> bool | None:
    if _NEVER.fullmatch(term):
        return False
    compared = _CALLED.fullmatch(term)
    if compared is None or compared[0].startswith("[") != compared[0].endswith("]"):
        return None
    if compared[2] != called and not re.fullmatch(_OTHERS + "|install|configure", compared[2]):
        return None
    return (compared[2] == called) == (compared[1] == "=")


def _alternatives(line: str) -> list[Alternative]:
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:
        raise NotUnderstood(shown.line(line)) from None
    words = words[1:] if words[:1] == ["--quiet"] else words
    if words[:1] == ["--remove"] and len(words) == 3 and re.fullmatch(r"[^;&|`$<>]*", line):
        return []
    wrong = NotUnderstood(shown.line(line))
    if words[:1] != ["--install"] or len(words) % 4 != 1 or not words[4:5][0].isdigit():
        raise wrong
    link, name, path, priority = words[1:5]
    found = [Alternative(link, name, path, name, int(priority))]
    for i in range(5, len(words), 4):
        if words[i] != "--slave":
            raise wrong
        found.append(Alternative(words[i + 1], words[i + 2], words[i + 3], name, int(priority)))
    if not all(_PATH.fullmatch(a.link) and _PATH.fullmatch(a.path) for a in found):
        raise wrong
    if not all(_NAME.fullmatch(a.name) and ".." not in a.link + a.path + a.name for a in found):
        raise wrong
    return found
