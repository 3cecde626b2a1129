"""Flyte's own local runner, on a bundle that is unpacked in the working directory.

`flyte_pack.local_run` starts this file by its path, in the environment of the task: it must import nothing of ours.

What differs from `flyte run --local FILE NAME` is what differs in a container: the bundle's directory comes first on
`sys.path` (Flyte's command line puts it last, and the file's own directory too), and the module is imported by its
real name, once (there it is loaded by its file name, a second time where anything imports it, and without a package
for relative imports). All that a user sees, options, help, errors, output, is Flyte's.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from typing import Any, NoReturn


def run(spec: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Start Flyte's command line; ends the process with its exit code.

    spec: {"file": entry point's file, "module": its name, "tasks": [names], "target": address, "config": a file with
    the settings to use}. arguments: what follows the file's name in `flyte run --local FILE`.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if entry != here)]
    try:
        import flyte
        import rich_click as click
        from flyte.cli import _common as flyte_cli
        from flyte.cli.main import main as flyte_main
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        sys.exit(
            f"{spec['target']}: there is no `flyte` among the requirements that it reaches, so nothing here can run it. "
            "Add flyte 2.5 or newer to the requirements of its resolve, and make the lock file anew; where it is in "
            "there, name it in `dependencies`."
        )
    group: Any = getattr(flyte_cli, "ObjectsPerFileGroup", None)
    if not hasattr(group, "objs") or not hasattr(group, "_filter_objects"):
        sys.exit(
            f"{spec['target']}: Flyte {flyte.version()} has another command line than 2.0 to 2.12, "
            "which are known here; use one of them, or a newer pants-flyte."
        )

    @functools.lru_cache
    def tasks(group: Any) -> dict[str, Any]:
        try:
            module = importlib.import_module(spec["module"])
        except click.ClickException:
            raise
        except Exception as error:
            raise click.ClickException(_import_failure(spec, error)) from error
        found = group._filter_objects(module)
        missing = [name for name in spec["tasks"] if name not in found]
        if missing:
            raise click.ClickException(f"{spec['file']} has no task {', '.join(missing)}")
        return {name: found[name] for name in spec["tasks"]}

    group.objs = property(tasks)
    command = ["--config", spec["config"], "run", "--local", spec["file"], *arguments]
    sys.argv = ["flyte", *command]
    flyte_main(args=command, prog_name="flyte")
    sys.exit(0)


def _import_failure(spec: dict[str, Any], error: Exception) -> str:
    text = f"Failed to load {spec['file']}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        text += (
            f"\nNeither the bundle of {spec['target']} nor its resolve has it. First-party code that is not inferred "
            "goes into `dependencies`, third-party code into the resolve's requirements."
        )
    return text


if __name__ == "__main__":
    run(json.loads(sys.argv[2]), sys.argv[3:])  # argv[1] is "--"
