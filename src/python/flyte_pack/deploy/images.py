"""The images of a deployment: read what is to be pushed, and push it before anything is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from flyte_pack.registry.plan import PushPlan


def read_pushes(directory: str, names: Iterable[str]) -> tuple[PushPlan, ...]:
    """The plans in these files. Raises `InvalidData` or `OSError`."""
    plans = []
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            plans.append(PushPlan.from_json(file.read(), f"push plan {name}"))
    return tuple(plans)


def push_image(plan: PushPlan, directory: str, say: Callable[[str], None]) -> None:
    """Have the image in its registries, under its tags. Raises `RegistryError`; then no tag was moved."""
    # Only a deployment with images pays for the HTTP client.
    from flyte_pack.registry.push import push_image

    push_image(plan, directory, say)
