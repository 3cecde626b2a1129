"""Reads lock files in pip's "Requirements File Format", as pip does: requirements with hashes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.pins import (
    DIRECT,
    UNPINNED,
    Collected,
    Lock,
    Pin,
    checked,
    holds,
    wheel_at,
)
from flyte_pack.image.wheel_target import WheelTarget
from flyte_shim import shown

# Options that say where or how to look, which the settings of this machine say instead.
_IGNORED = re.compile(
    r"(-[if]|--(index-url|pypi-url|extra-index-url|no-index|find-links|trusted-host|no-binary"
    r"|only-binary|prefer-binary|pre|use-feature|require-hashes|uploaded-prior-to|all-releases"
    r"|only-final)(\s|=|$))"
)
_EDITABLE = re.compile(r"-e|--editable(\s|=)")
_OTHER_FILE = re.compile(r"(?P<option>-[rc]|--requirements?|--constraints?)(?!-)")
# A path, as pip tells it from a name: its code, or a wheel.
_PATH = re.compile(
    r"file:|\.|/|~|[a-z]:[/\\]|(?![a-z][a-z0-9+.-]+:)[^\s@;=<>!~\[]*/", re.IGNORECASE
)
_COMMENT = re.compile(r"(^|(?<!\s)\s+)#.*$")
_CODING = re.compile(rb"coding[:=]\s*([-\w.]+)")
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decoded(data: bytes) -> str:
    """A lock file's text: by its byte order mark, or as a comment says, or else UTF-8."""
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            return data.decode(encoding).lstrip("\ufeff")
    for line in data.splitlines()[:2]:
        if line.startswith(b"#") and (found := _CODING.search(line)):
            try:
                return data.decode(found[1].decode())
            except LookupError:
                break
    return data.decode()


def read_requirements(text: str, target: WheelTarget) -> Lock:
    collected = Collected(target)
    for number, line in _logical_lines(text):
        try:
            _read_line(line, collected, target)
        except UserError as error:
            raise UserError(f"line {number}: {error}") from None
    return collected.lock()


def _read_line(line: str, collected: Collected, target: WheelTarget) -> None:
    if _IGNORED.match(line) or _EDITABLE.match(line):
        return  # What is editable is the code that the lock file was made for.
    if found := _OTHER_FILE.match(line):
        raise UserError(f"{found['option']!r} names another file: make one lock file that pins all")
    if line.startswith("-"):
        raise UserError(
            f"{shown.line(line.split()[0], longest=60)!r} is nothing for a lock file: it pins all "
            "that it needs itself"
        )
    specification, *options = re.split(r"(?<!\s)\s+(?=-)", line, maxsplit=1)
    hashes = _hashes(options[0] if options else "")
    if _PATH.match(specification):
        place = specification.partition(" ;")[0].strip()
        if named := wheel_at(place):
            known, problem = checked([*hashes, *_fragment(place)])
            collected.add(Pin(*named, known, problem=problem))
        return  # or a directory: the code that the lock file was made for
    try:
        requirement = Requirement(specification)
    except InvalidRequirement:
        raise UserError(
            f"{shown.line(specification, longest=120)} is not a pinned requirement, such as "
            "numpy==2.2.1"
        ) from None
    collected.add(_pin(requirement, hashes), holds(requirement.marker, target))


def _pin(requirement: Requirement, hashes: list[str]) -> Pin:
    name, problem = canonicalize_name(requirement.name), None
    specifiers = list(requirement.specifier)
    pinned = len(specifiers) == 1 and specifiers[0].operator in ("==", "===")
    version = specifiers[0].version if pinned else ""
    if requirement.url is not None:
        named = wheel_at(requirement.url)
        hashes = [*hashes, *_fragment(requirement.url)]
        version = named[1] if named else ""
        problem = None if named and named[0] == name else DIRECT
    elif not version or version.endswith(".*"):
        problem = UNPINNED
    known, problem = checked(hashes, problem)
    return Pin(name, version, known, problem=problem)


def _fragment(url: str) -> list[str]:
    """The hash in a URL's fragment (`#sha256=...`)."""
    found = re.search(r"[#&](sha(?:256|384|512))=([0-9a-f]+)", url)
    return [f"{found[1]}:{found[2]}"] if found else []


def _hashes(options: str) -> list[str]:
    """Of a requirement's own options (pip's documentation, "Per-requirement options")."""
    try:
        words = shlex.split(options)
    except ValueError:
        raise UserError("a quotation mark has no second one") from None
    hashes = []
    while words:
        option, equals, value = words.pop(0).partition("=")
        if not equals and words and not words[0].startswith("-"):
            value = words.pop(0)
        if option == "--hash":
            hashes.append(value)
        elif option not in ("--config-settings", "--config-setting", "-C", "--global-option"):
            raise UserError(f"{shown.line(option, longest=60)!r} is no option of a requirement")
    return hashes


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines, numbered from 1: joined where one ends in a backslash, then without comments.

    As in pip, a line that is a comment ends what is joined.
    """
    start, pieces = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        start = start if pieces else number
        if line.endswith("\\") and not _COMMENT.match(line):
            pieces += line[:-1] or " "
            continue
        whole, pieces = _COMMENT.sub("", f"{pieces} {line}" if pieces else line).strip(), ""
        if whole:
            yield start, whole
