"""`pants-flyte baseline`: writes down what looks like a secret and is none, as detect-secrets does.

The file is for `[flyte].secrets_baseline`. It holds hashes and no secret. detect-secrets writes
such files as well, but does not know all that we look for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.guards import Guard

_VERSION = "1.5.0"  # of detect-secrets, whose files look like this


def write(file: Path, paths: Sequence[str]) -> tuple[int, int]:
    """Look at what git has below `paths` (none: all), and write the baseline.

    What a person said of a known entry (`is_secret`) stays. Returns how many entries there are, in
    how many files. Raises `UserError`.
    """
    guard = Guard()
    for path in _files(file.parent, paths):
        whole = file.parent / path
        if whole != file and whole.is_file() and not whole.is_symlink():
            guard.look(path, whole.read_bytes())
    said = _said(file)
    results: dict[str, list[dict[str, Any]]] = {}
    for path, line, rule, hashes in guard.sighting().secrets:
        entry = {
            "type": rule,
            "filename": path,
            "hashed_secret": hashes[0],
            "is_verified": False,
            "line_number": line,
        }
        if (path, hashes[0]) in said:
            entry["is_secret"] = said[path, hashes[0]]
        results.setdefault(path, []).append(entry)
    whole_text = {"version": _VERSION, "plugins_used": [], "filters_used": [], "results": results}
    file.write_text(json.dumps(whole_text, indent=2) + "\n", encoding="utf-8")
    return sum(map(len, results.values())), len(results)


def _files(top: Path, paths: Sequence[str]) -> Iterator[str]:
    """Those that git knows, or does not ignore."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    try:
        done = children.run(argv, cwd=top)
    except OSError:
        raise UserError("there is no git, which says what files the repository has") from None
    if done.returncode:
        raise UserError(f"git cannot list the files below {top}: {done.stderr.decode().strip()}")
    for name in sorted({*done.stdout.split(b"\0")} - {b""}):
        try:
            yield name.decode()
        except UnicodeDecodeError:  # Pants drops such files
            continue


def _said(file: Path) -> dict[tuple[str, str], bool]:
    """By path and hash: what people said of what is in the file by now."""
    if not file.exists():
        return {}
    try:
        results = json.loads(file.read_bytes())["results"]
        return {
            (path, row["hashed_secret"]): row["is_secret"]
            for path, rows in results.items()
            for row in rows
            if isinstance(row.get("is_secret"), bool)
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{file} is there, and is no baseline: take it away") from None
