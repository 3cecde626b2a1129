"""Which files a repository ignores: `.gitignore` and its like, as git reads them (gitignore(5)).

The last matching pattern of the innermost file decides, and nothing below an ignored directory
comes back. Patterns are matched byte by byte, and always with regard to case. All is pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Optional, Union

from flyte_pack.wildcards import Maybe, Step, Wildcards

GITIGNORE = ".gitignore"
IGNORE_FILES = (GITIGNORE, ".flyteignore")
EXCLUDE = ".git/info/exclude"
_SLASH = ord("/")
_SPECIAL = re.compile(rb"[*?\[\\]")

# wildmatch.c of git; the classes of POSIX, for ASCII.
_CLASSES: dict[bytes, bytes] = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[\x21-\x7e]",
    b"lower": rb"[a-z]",
    b"print": rb"[\x20-\x7e]",
    b"punct": rb"[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]",
    b"space": rb"[ \t\n\v\f\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}


@dataclass(frozen=True)
class _Pattern:
    """One line. by_name: whether it is about a last part of a path, wherever that is."""

    ignores: bool
    directories: bool
    by_name: bool
    matches: Callable[[bytes], bool]


class IgnoreFiles:
    """The ignore files of a tree.

    contents: by path from the top of the tree. Each file is about what is below its directory;
        those of one name work together, apart from those of another name.
    exclude: what `.git/info/exclude` holds, for the whole tree. It works with `.gitignore`, which
        wins.
    """

    def __init__(self, contents: Mapping[str, bytes], exclude: bytes = b"") -> None:
        self._files: dict[str, dict[str, tuple[str, tuple[_Pattern, ...]]]] = {}
        for path, content in contents.items():
            directory, name = posixpath.split(path)
            self._files.setdefault(name, {})[directory] = (path, _parse(content))
        self._exclude = _parse(exclude)
        if self._exclude:
            self._files.setdefault(GITIGNORE, {})
        self._directories: dict[tuple[str, str], Optional[str]] = {}

    def ignored_by(self, path: str) -> Optional[str]:
        """The ignore file that leaves out the file at `path`, by itself or with a directory."""
        directory = posixpath.dirname(path)
        for name in self._files:
            by = self._directory(name, directory) or self._decide(name, path, is_directory=False)
            if by:
                return by
        return None

    def _directory(self, name: str, directory: str) -> Optional[str]:
        """The file that leaves out this directory, by itself or with one above."""
        unknown = []
        while directory and (name, directory) not in self._directories:
            unknown.append(directory)
            directory = posixpath.dirname(directory)
        by = self._directories.get((name, directory))
        for directory in reversed(unknown):
            by = by or self._decide(name, directory, is_directory=True)
            self._directories[name, directory] = by
        return by

    def _decide(self, name: str, path: str, *, is_directory: bool) -> Optional[str]:
        whole = path.encode("utf-8", "surrogateescape")
        last = whole[whole.rfind(b"/") + 1 :]
        files, directory = self._files[name], posixpath.dirname(path)
        while True:
            file = files.get(directory)
            if file is not None:
                below = whole[len(directory.encode("utf-8", "surrogateescape")) :].lstrip(b"/")
                decision = _last_match(file[1], below, last, is_directory)
                if decision is not None:
                    return file[0] if decision else None
            if not directory:
                break
            directory = posixpath.dirname(directory)
        if name == GITIGNORE and _last_match(self._exclude, whole, last, is_directory):
            return EXCLUDE
        return None


def _last_match(
    patterns: Sequence[_Pattern], path: bytes, name: bytes, is_directory: bool
) -> Optional[bool]:
    for pattern in patterns:
        if pattern.directories and not is_directory:
            continue
        if pattern.matches(name if pattern.by_name else path):
            return pattern.ignores
    return None


def _parse(content: bytes) -> tuple[_Pattern, ...]:
    """The patterns of an ignore file, the last first."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if content.endswith(b"\n"):
        lines.pop()
    patterns = (
        _pattern(_without_spaces(line.removesuffix(b"\r").partition(b"\0")[0]))
        for line in lines
        if not line.startswith(b"#")
    )
    return tuple(reversed([pattern for pattern in patterns if pattern is not None]))


def _without_spaces(line: bytes) -> bytes:
    """Without the spaces at the end, but those with a backslash before them."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + 1] if backslashes % 2 and len(kept) < len(line) else kept


def _pattern(line: bytes) -> Optional[_Pattern]:
    ignores = not line.startswith(b"!")
    text = line if ignores else line[1:]
    directories = text.endswith(b"/")
    text = text[:-1] if directories else text
    if not text:
        return None
    by_name = b"/" not in text
    return _Pattern(ignores, directories, by_name, _matcher(text, by_name))


def _matcher(text: bytes, by_name: bool) -> Callable[[bytes], bool]:
    text = text if by_name else text.removeprefix(b"/")
    special = _SPECIAL.search(text)
    if special is None:
        return text.__eq__
    literal, rest = text[: special.start()], text[special.start() :]
    if by_name:
        if rest[:1] == b"*" and not literal and not _SPECIAL.search(rest[1:]):
            return partial(_ends_with, rest[1:])
        literal, rest = b"", text
    steps = _steps(rest)
    if steps is None:
        return _never
    return partial(_starts_and_matches, literal, Wildcards(steps))


def _ends_with(end: bytes, name: bytes) -> bool:
    return name.endswith(end)


def _never(text: bytes) -> bool:
    return False


def _starts_and_matches(literal: bytes, rest: Wildcards[int], path: bytes) -> bool:
    return path.startswith(literal) and rest.match(path[len(literal) :])


def _any(byte: int) -> bool:
    return True


def _in_name(byte: int) -> bool:
    return byte != _SLASH


def _steps(text: bytes) -> Optional[list[Union[Step[int], Maybe[int]]]]:
    """The steps of a pattern after its literal start, by git's wildmatch.c.

    None: it matches nothing.
    """
    steps: list[Union[Step[int], Maybe[int]]] = []
    i = 0
    while i < len(text):
        byte = text[i]
        if byte == ord("*"):
            end = i
            while text[end : end + 1] == b"*":
                end += 1
            rest = text[end:]
            alone = (i == 0 or text[i - 1] == _SLASH) and (
                rest[:1] in (b"", b"/") or rest[:2] == b"\\/"
            )
            everything = end - i > 1 and alone
            if everything and rest[:1] == b"/":
                # `**/` is any number of directories, also none.
                steps += [Maybe(), Step(_any, many=True), Step(_SLASH.__eq__)]
                end += 1
            else:
                steps.append(Step(_any if everything else _in_name, many=True))
            i = end
            continue
        if byte == ord("?"):
            steps.append(Step(_in_name))
        elif byte == ord("["):
            found = _bracket(text, i + 1)
            if found is None:
                return None
            members, i = found
            steps.append(Step(members.__contains__))
        else:
            if byte == ord("\\"):
                i += 1
                if i == len(text):
                    return None
            steps.append(Step(text[i].__eq__))
        i += 1
    return steps


def _bracket(text: bytes, i: int) -> Optional[tuple[frozenset[int], int]]:
    """What `[...]` takes, and the place of its `]`; None where it is not closed or not valid."""
    negated = text[i : i + 1] in (b"!", b"^")
    i += negated
    members: set[int] = set()
    before, first = None, True
    while first or text[i : i + 1] != b"]":
        first = False
        if i >= len(text):
            return None
        byte: Optional[int] = text[i]
        if byte == ord("\\"):
            i += 1
            if i >= len(text):
                return None
            byte = text[i]
            members.add(text[i])
        elif byte == ord("-") and before is not None and text[i + 1 : i + 2] not in (b"", b"]"):
            i += 1
            if text[i] == ord("\\"):
                i += 1
                if i >= len(text):
                    return None
            members.update(range(before, text[i] + 1))
            byte = None
        elif byte == ord("[") and text[i + 1 : i + 2] == b":":
            end = text.find(b"]", i + 2)
            if end < 0:
                return None
            name = text[i + 2 : end]
            if name.endswith(b":"):
                if name[:-1] not in _CLASSES:
                    return None
                kind = re.compile(_CLASSES[name[:-1]])
                members.update(b for b in range(256) if kind.fullmatch(bytes([b])))
                i, byte = end, None
            else:
                members.add(ord("["))
        else:
            members.add(text[i])
        before = byte
        i += 1
    taken = set(range(256)) - members if negated else members
    return frozenset(taken - {_SLASH}), i
