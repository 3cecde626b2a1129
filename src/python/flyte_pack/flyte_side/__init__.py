"""Runs beside Flyte, in the environment of the user's tasks, where nothing of ours is installed.

`__main__.py` is started by its path and loads this directory as the package `_flyte_side`, so that
user code cannot import it. Its modules import each other relatively, the shim's `shown` as if it
were one of them, and else only the standard library and Flyte.
"""

from __future__ import annotations

import os

MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
