"""Which paths a bundle may hold: one rule for the packer, the manifest and the extraction."""

from __future__ import annotations


def path_problem(path: str) -> str | None:
    """Why a bundle may not hold a file at `path`, or None if it may.

    A path is relative, has no empty, `.` or `..` component, no NUL, and is valid UTF-8. Anything
    else that POSIX allows (a backslash, a newline, a colon) is an ordinary character of a name.
    """
    if not path:
        return "an empty path"
    if path[0] == "/":
        return "an absolute path"
    if "\0" in path:
        return "a NUL in the path"
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:
            return "a path that is not valid UTF-8"
    parts = path.split("/")
    if ".." in parts:
        return "a '..' in the path"
    if "." in parts:
        return "a '.' component in the path"
    if "" in parts:
        return "an empty component in the path"
    return None
