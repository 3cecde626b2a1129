"""The rules for paths in a bundle and for hashes, shared by builder and container."""

from __future__ import annotations

# PATH_MAX is 4096 on Linux and 1024 on macOS; the directory above counts too.
MAX_PATH_BYTES = 1000
# NAME_MAX of every file system in use.
MAX_NAME_BYTES = 255
_ARCHIVE_SUFFIX = ".tar.gz"


def path_problem(path: str) -> str | None:
    """Why a bundle may not hold a file at `path`, as a noun phrase, or None if it may.

    A path is relative, has no empty, `.` or `..` component and no NUL, is valid UTF-8 and not too
    long. Any other character that POSIX allows (a backslash, a newline, a colon) is ordinary.
    """
    if not path:
        return "an empty path"
    if path[0] == "/":
        return "an absolute path"
    if "\0" in path:
        return "a NUL in the path"
    parts = path.split("/")
    if ".." in parts:
        return "a '..' in the path"
    if "." in parts:
        return "a '.' component in the path"
    if "" in parts:
        return "an empty component in the path"
    if path.isascii() and len(path) <= MAX_NAME_BYTES:
        return None
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "a path that is not valid UTF-8"
    if size > MAX_PATH_BYTES:
        return f"a path longer than {MAX_PATH_BYTES} bytes"
    if max(len(part.encode()) for part in parts) > MAX_NAME_BYTES:
        return f"a component longer than {MAX_NAME_BYTES} bytes in the path"
    return None


def is_sha256(text: str) -> bool:
    """Whether `text` is a SHA-256: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


def bare_uri(uri: str) -> str:
    """A URI without query and fragment, by which its archive is named. A plain path stays."""
    scheme, separator, rest = uri.partition("://")
    if not separator or "/" in scheme:
        return uri
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0]}"


def sha256_in_name(uri: str) -> str | None:
    """The archive hash in a name `<archive hash>.tar.gz`, or None."""
    name = bare_uri(uri).rpartition("/")[2]
    stem = name[: -len(_ARCHIVE_SUFFIX)]
    return stem if name.endswith(_ARCHIVE_SUFFIX) and is_sha256(stem) else None
