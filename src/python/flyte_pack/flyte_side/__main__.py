"""Starts a module of this package: `python .../flyte_side/__main__.py MODULE [ARGUMENT]...`.

MODULE is `describe`, `client`, `run_deployed`, `run_here`, `run_app` or `run_a0`; its `main` gets
the arguments.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

_NAME = "_flyte_side"  # only in `sys.modules`; nothing on `sys.path` has this name
_HERE = os.path.dirname(os.path.abspath(__file__))
# For `secret_rules` and `shown`; a container has a copy of this directory alone, and needs neither.
_PACK = os.path.dirname(_HERE)
_SHIM = os.path.join(os.path.dirname(_PACK), "flyte_shim")


def _load(module: str) -> Any:
    sys.path[:] = [entry for entry in sys.path if entry not in ("", _HERE)]
    spec = importlib.util.spec_from_file_location(
        _NAME, os.path.join(_HERE, "__init__.py"), submodule_search_locations=[_HERE, _SHIM, _PACK]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    usual = sys.dont_write_bytecode
    # A container mounts this directory: leave no bytecode in it that belongs to another user.
    sys.dont_write_bytecode |= module.startswith("run_")
    try:
        spec.loader.exec_module(package)
        return importlib.import_module(f"{_NAME}.{module}")
    finally:
        sys.dont_write_bytecode = usual


if __name__ == "__main__":
    _load(sys.argv[1]).main(sys.argv[2:])
