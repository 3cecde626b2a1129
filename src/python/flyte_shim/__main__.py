"""`python -m flyte_shim`, and the entry point of the console script `flyte-shim`."""

from __future__ import annotations

import sys

if __name__ == "__main__" and __package__ and not getattr(sys.flags, "safe_path", 0):
    # `python -m` searches the working directory first, which holds the task's modules.
    del sys.path[0]

from flyte_shim.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
