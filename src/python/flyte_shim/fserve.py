"""Stands in for `fserve`, by which Flyte serves apps, and verifies and unpacks the bundle first.

Flyte gives the container of an app a command, and that takes the place of the image's entry point;
`fserve` does not heed `_F_EXEC_WRAPPER`, as a0 does. So in images of pants-flyte this has its name,
and it has another one, beside this.
"""

from __future__ import annotations

import os
import sys

from flyte_shim.cli import main as shim

ORIGINAL = "fserve-of-flyte"


def main() -> int:
    """Become Flyte's own `fserve`, with its arguments; returns an exit code if that fails."""
    original = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), ORIGINAL)
    return shim(["--", original, *sys.argv[1:]])
