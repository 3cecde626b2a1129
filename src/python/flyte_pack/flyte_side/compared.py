"""Compares specifications of tasks: what Flyte keeps under a version, and what is to be registered.

All of a specification counts, but what does not decide what runs: an organization, which the
open-source backend drops; how an image cache is compressed; texts where a control plane cuts them;
the link to the source, which is of a commit.
"""

from __future__ import annotations

import base64
import gzip
from typing import Any

# By the paths of the texts: what a control plane keeps of them, in bytes.
_CUT = {
    ("environment", "description"): 255,
    ("documentation", "short_description"): 255,
    ("documentation", "long_description"): 2048,
}


def difference(ours: Any, theirs: Any) -> list[str]:
    """The fields in which two `TaskSpec` differ, sorted; none if they are the same."""
    one, other = (_flat(_canonical(spec)) for spec in (ours, theirs))
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _canonical(spec: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(spec, preserving_proto_field_name=True)
    for (message, name), most in _CUT.items():
        text = found.get(message, {}).get(name)
        if text is not None:
            found[message][name] = text.encode()[:most].decode(errors="ignore")
    found.get("documentation", {}).pop("source_code", None)
    template = found.get("task_template", {})
    template.get("id", {}).pop("org", None)
    return found


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their paths; a message without a field is as one that is left out."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else key, one) for key, one in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{number}]", one) for number, one in enumerate(_arguments(value))]
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for key, one in items:
        found.update(_flat(one, key))
    return found


def _arguments(values: list[Any]) -> list[Any]:
    """A container's arguments, with what the compressed image cache holds."""
    if "--image-cache" not in values[:-1]:
        return values
    at = values.index("--image-cache") + 1
    try:
        cache = gzip.decompress(base64.b64decode(values[at])).decode()
    except (ValueError, OSError, EOFError):
        return values
    return [*values[:at], cache, *values[at + 1 :]]
