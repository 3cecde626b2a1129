"""Finds secrets in variables of tasks and apps, which Flyte shows to whoever sees the task.

What is written in code that ships was refused when that was packed; this is what code computes.
`deploy/registering.py` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyte_pack import secret_rules
else:
    from . import secret_rules


def leaks(about: str, spec: Any, pod: Any) -> list[tuple[str, str, str]]:
    """What has it, the variable's name, the rule; no value. spec: what has a container; pod: its
    pod, if it has one.
    """
    return [
        (about, name, found.rule)
        for name, value in _variables(spec, pod)
        for found in secret_rules.find_secrets(f"{name}={value}".encode())
    ]


def _variables(spec: Any, pod: Any) -> Iterator[tuple[str, str]]:
    for one in spec.container.env:
        yield one.key, one.value
    if pod is not None:
        from google.protobuf.json_format import MessageToDict

        for container in MessageToDict(pod.pod_spec).get("containers") or ():
            for one in container.get("env") or ():
                yield str(one.get("name")), str(one.get("value") or "")
