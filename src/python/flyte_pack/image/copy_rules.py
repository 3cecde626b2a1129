"""Where copied files and folders go in an image, and what a `.dockerignore` leaves out.

They go where Flyte's builder puts them (flyte 2.12: `Image.with_source_file`,
`with_source_folder`), as `COPY` of a Dockerfile does. All functions are pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flyte_pack.wildcards import Maybe, Step, Wildcards


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

    patterns: tuple[tuple[bool, Wildcards[str]], ...]

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
            if ignores != ignored and any(map(pattern.match, above)):
                ignored = ignores
        return ignored

    def kept(self, paths: Iterable[str]) -> Sequence[str]:
        return [path for path in paths if not self.ignores(path)]


def _compile(pattern: str) -> Wildcards[str]:
    """The steps of a pattern.

    `*` and `?` stop at "/". `**` matches any number of directories, also none. `[...]` and a
    backslash mean the same as in Go's path.Match.
    """
    steps: list[Step[str] | Maybe[str]] = []
    i = 0
    while i < len(pattern):
        c = pattern[i]
        if pattern.startswith("**", i):
            i += 2
            if pattern.startswith("/", i):
                i += 1
                steps += [Maybe(), Step(_any, many=True), Step("/".__eq__)]
            else:
                steps.append(Step(_any, many=True))
            continue
        if c in "*?":
            steps.append(Step("/".__ne__, many=c == "*"))
        elif c == "[" and (end := pattern.find("]", i + 2)) > 0:
            fits = _characters(pattern[i + 1 : end])
            if fits is None:  # such as `[z-a]`, which means nothing: then it is a name
                return Wildcards([Step(one.__eq__) for one in pattern])
            steps.append(Step(fits))
            i = end
        else:
            i += c == "\\" and i + 1 < len(pattern)
            steps.append(Step(pattern[i].__eq__))
        i += 1
    return Wildcards(steps)


def _any(symbol: str) -> bool:
    return True


def _characters(inner: str) -> Callable[[str], bool] | None:
    """What `[...]` takes: single characters, ranges, and perhaps `^` before them."""
    negated = inner.startswith("^")
    given = iter(inner[negated:])
    ranges = []
    symbols = [(c, False) if c != "\\" else (next(given, c), True) for c in given]
    i = 0
    while i < len(symbols):
        low = high = symbols[i][0]
        if symbols[i + 1 : i + 2] == [("-", False)] and i + 2 < len(symbols):
            high = symbols[i + 2][0]
            i += 2
        if high < low:
            return None
        ranges.append((low, high))
        i += 1
    return lambda one: any(low <= one <= high for low, high in ranges) != negated
