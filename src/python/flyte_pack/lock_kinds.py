"""Tells the kinds of lock files apart by their content, for who reads them and for the rules."""

from __future__ import annotations

import re

_TOML = re.compile(
    r"^(\[\[packages?\]\]|\[(metadata|project|tool[.\w-]*)\]|(lock-)?version\s*=|created-by\s*=)",
    re.MULTILINE,
)
_CONDA = re.compile(
    r"^(@EXPLICIT\s*$|(version|environments|metadata|package|packages):)", re.MULTILINE
)


def json_of(text: str) -> str | None:
    """The JSON document in the text; None if it is no such. Pants puts comments before it."""
    bare = re.sub(r"\A(\s*//[^\n]*\n|\s+)*", "", text)
    return bare if bare.startswith("{") else None


def is_toml(text: str) -> bool:
    """Whether it is the TOML of uv, PyPA, Poetry, PDM or a project."""
    return json_of(text) is None and _TOML.search(text) is not None


def is_conda(text: str) -> bool:
    return _CONDA.search(text) is not None


def pants_reads(data: bytes) -> bool:
    """Whether Pants itself takes it for the lock file of a resolve: PEX's, or requirements."""
    text = data.decode(errors="replace")
    if (document := json_of(text)) is not None:
        return '"locked_resolves"' in document
    return not is_toml(text) and not is_conda(text)
