"""Deploys: puts into a store what is missing there, and records what a deployment is made of.

`python -m flyte_pack deploy --plan PLAN.json [--dir DIR] -- WHAT THE USER TYPED`. The build rules read what the user
typed with `flyte_pack.deploy.options`, to know what to package; everything else happens in `flyte_pack.deploy.program`.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the deploy program; returns its exit code."""
    from flyte_pack.deploy.program import main as run

    return run(argv)
