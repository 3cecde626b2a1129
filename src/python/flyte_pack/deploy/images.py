"""Pushes the images of a deployment, before anything is recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from flyte_pack.progress import Say
from flyte_pack.registry.plan import PushPlan


def read_pushes(directory: str, names: Iterable[str]) -> tuple[PushPlan, ...]:
    """The plans in these files. Raises `InvalidData` or `OSError`."""
    plans = []
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            plans.append(PushPlan.from_json(file.read(), f"push plan {name}"))
    return tuple(plans)


def push_all(
    plans: Iterable[PushPlan], directory: str, say: Say, dry_run: bool
) -> list[dict[str, Any]]:
    """Push the images with their tags; returns what was (or would be) done, as the report has it.

    Raises `RegistryError`; then no tag of that image was moved.
    """
    done = []
    for plan in plans:
        # Only a deployment with images pays for the HTTP client.
        from flyte_pack.registry.push import push_image

        for pushed in push_image(plan, directory, say, dry_run=dry_run):
            done.append({"address": plan.address, **pushed.told()})
    return done
