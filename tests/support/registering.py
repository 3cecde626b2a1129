"""A build root whose deployments register their tasks, with the real Flyte, at a control plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.support.control_plane import RealControlPlane
from tests.support.deploying import BuildRoot, Done
from tests.support.flyte_versions import python_with_flyte

TASK = """\
    import flyte

    env = flyte.TaskEnvironment(name="{name}-env"{more})

    @env.task
    async def {name}(x: int = 1) -> int:
        return x + {value}
"""
TRIGGERED = """\
    import flyte

    env = flyte.TaskEnvironment(name="{name}-env")

    @env.task(triggers=({triggers}))
    async def {name}(x: int = 1) -> int:
        return x + {value}
"""
ENTRIES = {"identity": "packages-1", "env": {}}


def body(name: str, value: int = 1, more: str = "") -> str:
    return dedent(TASK.format(name=name, value=value, more=more))


def triggered(name: str, value: int = 1, names: Sequence[str] = ("hourly",), more: str = "") -> str:
    """The same, with triggers."""
    each = "".join(
        f'flyte.Trigger(name="{one}", automation=flyte.Cron("0 * * * *"){more}), ' for one in names
    )
    return dedent(TRIGGERED.format(name=name, value=value, triggers=each))


class Registering(BuildRoot):
    """A build root whose deployments know a control plane, and the packages of their tasks."""

    def __init__(self, root: Path, plane: RealControlPlane) -> None:
        super().__init__(root)
        self.plane = plane
        program = self.dist / "python"
        program.write_text(f'#!/bin/sh\nexec {python_with_flyte()} "$@"\n')
        program.chmod(0o755)

    def plan(self, **changes: Any) -> Path:
        tasks = sorted(link.address for link in self.links.values())
        environment = {"python": "python", "tasks": tasks, "known": None, **ENTRIES}
        given = {
            "endpoint": self.plane.endpoint,
            "insecure": True,
            "environments": [environment],
            **changes,
        }
        return super().plan(**given)

    def deploy(self, *typed: str, **how: Any) -> Done:
        if not typed or typed[0].startswith("-"):
            typed = (*typed, "--no-image-check")
        # No settings of whoever runs the tests.
        env = {"HOME": str(self.root), "FLYTE_API_KEY": "", **how.pop("env", {})}
        return super().deploy(*typed, env=env, **how)

    def deployed(self, *typed: str) -> Any:
        return self.deploy(*typed, "--output", "json").ok().json


def versions(document: Any) -> dict[str, str]:
    """The version of each Flyte task, by its name, of what a deployment printed as JSON."""
    return {one["name"]: one["version"] for one in document["registered"]}
