"""Says where the source of a deployment's tasks is on the web, for Flyte to show it.

Flyte's SDK finds that by the checkout around a task's file. Tasks are described from an unpacked
bundle, so here it is told: the repository, the commit, and the file's path there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Union

from flyte_pack.checkout import Unknown, Web, web_of
from flyte_pack.deploy.records import Provenance, RecordedTask
from flyte_pack.deploy.registration import DescribedTask
from flyte_pack.manifest import BundleHashes, Manifest
from flyte_pack.names import TargetAddress
from flyte_pack.task_link import TaskLink

Packaged = Union[TaskLink, RecordedTask]


@lru_cache
def web_at(build_root: str) -> Web | None:
    """Where the checkout around `build_root` is on the web; None if nobody knows."""
    try:
        return web_of(build_root)
    except Unknown:
        return None


@dataclass(frozen=True)
class SourceLink:
    """The commit `provenance` of the checkout around `build_root`, and the tasks made of it.

    manifest_of: the manifest of a task's bundle.
    """

    build_root: str
    provenance: Provenance
    tasks: Iterable[Packaged]
    manifest_of: Callable[[Any], bytes]

    def told(self, described: Iterable[DescribedTask]) -> dict[str, Any] | None:
        """What `flyte_side` makes links of; None if nobody knows the commit or the repository.

        paths: in the repository, of the files of `described`, by Flyte's names of them.
        """
        if self.provenance.commit is None:
            return None
        web = web_at(self.build_root)
        if web is None:
            return None
        packaged = {one.address: one for one in self.tasks}
        owners: dict[TargetAddress, Mapping[str, str | None]] = {}
        paths = {}
        for one in described:
            task = packaged.get(one.address)
            if task is None or one.file is None:
                continue
            if one.address not in owners:
                owners[one.address] = self._owners(task)
            owner = owners[one.address].get(one.file) or task.address
            if path := self._path(web, task.root_dir, one.file, owner):
                paths[one.name] = path
        return {
            "url": web.url,
            "commit": self.provenance.commit,
            # Lines are those of the commit only where no file differs.
            "clean": self.provenance.dirty is False,
            "paths": paths,
        }

    def _owners(self, task: Packaged) -> Mapping[str, str | None]:
        """The owner of each file of a bundle."""
        bundle: BundleHashes | None = task.bundle
        if bundle is None or task.root_dir is not None:
            return {}
        files = Manifest.from_json(self.manifest_of(bundle)).files
        return {file.path: file.owner for file in files}

    def _path(self, web: Web, root_dir: str | None, file: str, owner: str) -> str | None:
        """The path in the repository of what is `file` in the code, or None."""
        place = re.split("[:#@]", owner)[0].lstrip("/")
        if root_dir is not None:
            found = [os.path.join(root_dir, file)]
        elif f"/{place}".endswith(f"/{file}"):  # the address of a file names it
            found = [place]
        else:
            # Below the owner's directory, with a source root before it that is not known here.
            parts = place.split("/")
            roots = {"/".join(parts[:number]) for number in range(len(parts) + 1)}
            found = [path for root in roots if self._is_file(path := os.path.join(root, file))]
            inside = [path for path in found if path.startswith(f"{place}/") or not place]
            found = inside or found
        if len(found) != 1:
            return None
        path = os.path.relpath(os.path.realpath(os.path.join(self.build_root, found[0])), web.top)
        return None if path.split(os.sep)[0] == os.pardir else path

    def _is_file(self, path: str) -> bool:
        return os.path.isfile(os.path.join(self.build_root, path))
