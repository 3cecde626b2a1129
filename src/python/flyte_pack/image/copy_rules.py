"""Where copied files and folders go in an image, and what a `.dockerignore` leaves out.

They go where Flyte's builder puts them (flyte 2.12: `Image.with_source_file`,
`with_source_folder`), as `COPY` of a Dockerfile does. All functions are pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_RANGE = re.compile(r"\\?(.)(?:-\\?(.))?", re.DOTALL)


def file_destination(src: str, dst: str, workdir: str) -> str:
    """The path of the file `src` in the image, without the leading "/".

    `dst` is a directory if it is `.` or ends in "/".
    """
    into_directory = dst.endswith("/") or posixpath.basename(dst) in ("", ".", "..")
    path = posixpath.join(workdir, dst, posixpath.basename(src) if into_directory else "")
    return _absolute(path)


def folder_destination(src: str, dst: str, copy_contents_only: bool, workdir: str) -> str:
    """The directory in the image for the contents of the folder `src`, without the leading "/".

    Whether the folder itself is copied makes a difference only with `dst="."`.
    """
    if dst == "." and not copy_contents_only:
        dst = posixpath.basename(posixpath.normpath(src))
    return _absolute(posixpath.join(workdir, dst))


def _absolute(path: str) -> str:
    return posixpath.normpath(path).lstrip("/")


@dataclass(frozen=True)
class DockerIgnore:
    """The patterns of a `.dockerignore`; the last that matches decides.

    Docker's documentation, "Build context".
    """

    patterns: tuple[tuple[bool, re.Pattern[str]], ...]

    @classmethod
    def parse(cls, text: str) -> DockerIgnore:
        patterns = []
        for line in text.splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            ignores = not pattern.startswith("!")
            cleaned = posixpath.normpath(pattern.lstrip("!").strip()).strip("/")
            if cleaned not in ("", "."):
                patterns.append((ignores, _compile(cleaned)))
        return cls(tuple(patterns))

    def ignores(self, path: str) -> bool:
        """Whether the file at `path` is left out, by its own path or by that of a directory."""
        parts = path.split("/")
        above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ignored = False
        for ignores, pattern in self.patterns:
            if ignores != ignored and any(pattern.fullmatch(one) for one in above):
                ignored = ignores
        return ignored

    def kept(self, paths: Iterable[str]) -> Sequence[str]:
        return [path for path in paths if not self.ignores(path)]


def _compile(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern.

    `*` and `?` stop at "/". `**` matches any number of directories, also none. `[...]` and a
    backslash mean the same as in Go's path.Match.
    """
    out, i = [], 0
    while i < len(pattern):
        c = pattern[i]
        if pattern.startswith("**", i):
            i += 2
            if pattern.startswith("/", i):
                i += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
            continue
        if c == "*":
            out.append("[^/]*")
        elif c == "?":
            out.append("[^/]")
        elif c == "[" and (end := pattern.find("]", i + 2)) > 0:
            out.append(_characters(pattern[i + 1 : end]))
            i = end
        elif c == "\\" and i + 1 < len(pattern):
            i += 1
            out.append(re.escape(pattern[i]))
        else:
            out.append(re.escape(c))
        i += 1
    try:
        return re.compile("".join(out))
    except re.error:  # such as `[z-a]`, which means nothing: then it is a name
        return re.compile(re.escape(pattern))


def _characters(inner: str) -> str:
    """The characters of `[...]`: single ones, ranges, and perhaps `^` before them."""
    negated = inner.startswith("^")
    parts = []
    for match in _RANGE.finditer(inner, int(negated)):
        low, high = match.groups()
        parts.append(re.escape(low) + (f"-{re.escape(high)}" if high else ""))
    return f"[{'^' if negated else ''}{''.join(parts)}]"
