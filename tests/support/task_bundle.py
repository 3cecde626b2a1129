"""Makes a packaged task out of files given in a test: the bundle by the real packer, and the task
link beside it.

What the build rules would do from targets is done by hand here, so that what comes after them is
tested without Pants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import flyte_pack
from flyte_pack.bundle import pack
from flyte_pack.bundle_plan import BundlePlan, PlanFile
from flyte_pack.task_link import BUNDLE_URI_HOLE, LinkedBundle, LinkedTask, TaskLink

# For child processes: where flyte_pack and flyte_shim are imported from.
PYTHON_PATH = str(Path(flyte_pack.__file__).parent.parent)


@dataclass(frozen=True)
class PackagedTask:
    """directory: as `dist` after packaging. link_file: the task's JSON. archive: its bundle."""

    directory: Path
    link: TaskLink
    link_file: Path
    archive: Path


def package_task(
    directory: Path,
    files: Mapping[str, str],
    entry_point: str,
    tasks: Iterable[str] | Mapping[str, str] = (),
    address: str = "services/ml:task",
    kind: str | None = None,
) -> PackagedTask:
    """Package `entry_point` (`path:name`) with `files`, which are dedented, in a bundle.

    tasks: the tasks of an environment, where `name` is one; each with its module, if that is not
        the one of the entry point. kind: by default, that of a task or of an environment.
    """
    sources = directory / "sources"
    for name, content in files.items():
        path = sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content))
    dist = directory / "dist"
    dist.mkdir()
    path, _, name = entry_point.rpartition(":")
    rows = tuple(PlanFile(file, file, None, "imported", None) for file in files)
    plan = BundlePlan("auto", None, (), rows)
    archive, manifest = dist / "task.tar.gz", dist / "task.manifest.json"
    summary = pack(plan, str(sources), str(archive), str(manifest), str(directory / "summary.json"))
    module = path[: -len(".py")].replace("/", ".")
    link = TaskLink(
        address=address,
        entry_point=entry_point,
        kind=kind or ("environment" if tasks else "task"),
        module=module[: -len(".__init__")] if module.endswith(".__init__") else module,
        root_dir=None,
        copy_style="auto",
        bundle=LinkedBundle(
            archive=archive.name,
            manifest=manifest.name,
            **summary.hashes,
        ),
        image=None,
        tasks=tuple(
            LinkedTask(task, ("a0", "--tgz", BUNDLE_URI_HOLE, *_resolver(tasks, task)))
            for task in tasks or [name]
        ),
    )
    link_file = dist / "task.json"
    link_file.write_bytes(link.to_json())
    return PackagedTask(dist, link, link_file, archive)


def _resolver(tasks: Iterable[str] | Mapping[str, str], task: str) -> tuple[str, ...]:
    return ("mod", tasks[task], "instance", task) if isinstance(tasks, Mapping) else ()
