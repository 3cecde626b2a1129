"""Deploys: pushes images, fills the store, records the version, registers the tasks.

`python -m flyte_pack deploy --plan PLAN.json [--dir DIR] -- WHAT THE USER TYPED`. The build rules
parse what the user typed with `options`, to know what to package. `program` does everything else.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the deploy program; returns its exit code."""
    from flyte_pack.deploy.program import main as run

    return run(argv)
