"""Pushes the images of a deployment, before anything is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from flyte_pack.progress import Say
from flyte_pack.provenance import Origin
from flyte_pack.registry.plan import PushPlan
from flyte_pack.signing import signer_of


def read_pushes(directory: str, names: Iterable[str]) -> tuple[PushPlan, ...]:
    """The plans in these files. Raises `InvalidData` or `OSError`."""
    plans = []
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            plans.append(PushPlan.from_json(file.read(), f"push plan {name}"))
    return tuple(plans)


def look_for_all(
    plans: Iterable[PushPlan], directory: str, origin: Callable[[], Origin]
) -> list[dict[str, Any]] | None:
    """What `push_all` returns where there is nothing to push, found by one look at each registry.

    None if something is missing, or is not known: then only `push_all` tells.
    """
    done = []
    for plan in plans:
        from flyte_pack.registry.push import look_for

        pushed = look_for(plan, directory, signer_of(os.environ), origin)
        if pushed is None:
            return None
        done += [{"address": plan.address, **one.told()} for one in pushed]
    return done


def push_all(
    plans: Iterable[PushPlan],
    directory: str,
    say: Say,
    dry_run: bool,
    origin: Callable[[], Origin],
) -> list[dict[str, Any]]:
    """Push the images with their tags; returns what was (or would be) done, as the report has it.

    origin: of what they were made from.

    Raises `RegistryError`; then no tag of that image was moved.
    """
    done = []
    for plan in plans:
        # Only a deployment with images pays for the HTTP client.
        from flyte_pack.registry.push import push_image

        signer = signer_of(os.environ)
        for pushed in push_image(
            plan, directory, say, dry_run=dry_run, signer=signer, origin=origin
        ):
            done.append({"address": plan.address, **pushed.told()})
    return done
