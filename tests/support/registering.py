"""Deployments that register their tasks and apps with a real control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.control_plane import RealControlPlane
from tests.support.deploying import BuildRoot, Done
from tests.support.flyte_versions import python_with_flyte


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
        environment = {"python": "python", "tasks": tasks, "identity": "packages-1", "env": {}}
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

    def deployed(self) -> Any:
        """What was deployed, as the program tells it to other programs."""
        return self.deploy("--output", "json").ok().json
