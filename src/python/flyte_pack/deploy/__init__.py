"""Deploys: uploads what a store lacks, pushes, registers, and records the deployment.

`python -m flyte_pack deploy --plan PLAN.json [--dir DIR] -- OPTIONS`. The build rules read the
options with `flyte_pack.deploy.options`, to know what to package; `flyte_pack.deploy.program` does
everything else.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    from flyte_pack.deploy.program import main as run

    return run(argv)
