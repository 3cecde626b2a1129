"""Random repositories, explained by the real rules, against a reachability of a few lines."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from pants_flyte.goals.explain import FlyteExplain
from tests.support.flyte_rules import RuleRoot

ENTRY = "app/w.py"
TASK = "import flyte\nenv = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
FOLDERS = ("app", "one", "one/deep", "two", "space/inner")
FORMS = (
    "import {module}\n",
    "from {module} import THING\n",
    "def lazy():\n    import {module}\n",
    "if TYPE_CHECKING:\n    import {module}\n",
    "try:\n    from {module} import THING\nexcept ImportError:\n    THING = None\n",
)


@dataclass
class Repository:
    """Modules with what each imports, by paths; data that the modules of a folder bring."""

    imports: dict[str, dict[str, str]]
    data: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int) -> Repository:
        dice = random.Random(seed)
        paths = [f"{folder}/m{n}.py" for folder in FOLDERS for n in range(3)] + [ENTRY]
        # `space` is a namespace package; others may be, too.
        paths += [f"{one}/__init__.py" for one in FOLDERS[:-1] if dice.random() < 0.6]
        repository = cls({path: {} for path in paths})
        for path in paths:
            most = 4 if path == ENTRY else dice.choice((0, 1, 1, 2))
            if os.path.basename(path) == "__init__.py" and dice.random() < 0.5:
                most = 0  # an empty one
            for to in dice.sample(paths, most):
                if to not in (path, ENTRY):
                    repository.imports[path][to] = _statement(dice, path, to)
        for folder in FOLDERS:
            repository.data[folder] = dice.choice(
                ((), (f"{folder}/a.json",), (f"{folder}/a.json", f"{folder}/b.csv"))
            )
        return repository

    def source(self, path: str) -> str:
        return (TASK if path == ENTRY else "") + "".join(self.imports[path].values())

    def files(self) -> dict[str, str]:
        files = {path: self.source(path) for path in self.imports}
        for folder, data in self.data.items():
            files.update((path, "x" * len(path)) for path in data)
            names = [":json"] * bool(data) + [":csv"] * (len(data) > 1)
            files[f"{folder}/BUILD"] = (
                f"python_sources(dependencies={names})\n"
                + ("resources(name='json', sources=['a.json'])\n" if data else "")
                + ("files(name='csv', sources=['b.csv'])\n" if data[1:] else "")
            )
        files["app/BUILD"] += "flyte_task(name='t', entry_point='w.py:train')\n"
        return files

    def reached(self, without: frozenset[tuple[str, str]] = frozenset()) -> set[str]:
        """without: imports and other dependencies that are cut."""
        found: set[str] = set()
        bare: set[str] = set()
        waiting = [ENTRY]
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found.add(path)
            if path in self.imports:
                needs = (*self.imports[path], *self.data[os.path.dirname(path)])
                waiting += [to for to in needs if (path, to) not in without]
            if not path.endswith(".csv"):
                above = [one for one in packages_above(path) if one in self.imports]
                waiting += [one for one in above if self.source(one)]
                bare.update(above)  # an empty one brings nothing but itself
        return found | bare

    def size(self, paths: set[str]) -> int:
        return sum(len(self.files()[path]) for path in paths)


def packages_above(path: str) -> list[str]:
    folders = path.split("/")[:-1]
    return [
        f"{'/'.join(folders[:count])}/__init__.py"
        for count in range(1, len(folders) + 1)
        if f"{'/'.join(folders[:count])}/__init__.py" != path
    ]


def library(path: str) -> str:
    """The target that owns it, as it is shown."""
    folder, ending = os.path.dirname(path), path.rpartition(".")[2]
    return folder if ending == "py" else f"{folder}:{ending}"


def _statement(dice: random.Random, path: str, to: str) -> str:
    module = to[: -len(".py")].replace("/", ".").removesuffix(".__init__")
    folder, name = os.path.split(to)
    if os.path.dirname(path) == folder and name != "__init__.py" and dice.random() < 0.3:
        return f"from .{name[: -len('.py')]} import THING\n"
    return dice.choice(FORMS).format(module=module)


def explained(root: RuleRoot) -> Mapping[str, Any]:
    result = root.goal(FlyteExplain, "--format=json", "app:t")
    assert result.exit_code == 0, result.stderr
    artifact: Mapping[str, Any] = json.loads(result.stdout)["artifacts"][0]
    return artifact


def check_ways(repository: Repository, artifact: Mapping[str, Any]) -> None:
    """Each step of each way is an import, a line in a BUILD file, or a package above."""
    for file in artifact["files"]:
        names = [step["name"] for step in file["way"]]
        assert names[0] == ENTRY
        assert names[-1] == file["source"]
        for before, step in zip(names, file["way"][1:]):
            to, reason = step["name"], step["reason"]
            if reason == "imported":
                assert to in repository.imports[before]
            elif reason == "declared":
                assert to in repository.data[os.path.dirname(before)]
            else:
                assert reason == "package"
                assert to in packages_above(before)


def check_costs(repository: Repository, artifact: Mapping[str, Any]) -> None:
    """What a direct dependency is said to save is what is not reached without it."""
    whole = repository.reached()
    total = 0
    for one in artifact["direct"]:
        needs = (*repository.imports[ENTRY], *repository.data[os.path.dirname(ENTRY)])
        cut = {(ENTRY, to) for to in needs if one["name"] in (to, library(to))}
        lost = whole - repository.reached(frozenset(cut))
        assert (one["files"], one["size"]) == (len(lost), repository.size(lost)), one
        total += one["size"]
    assert total <= artifact["size"]


@pytest.mark.parametrize("seed", range(4))
def test_a_random_repository_ships_what_is_reached_by_real_ways(root: RuleRoot, seed: int):
    repository = Repository.of(seed)
    root.runner.write_files(repository.files())
    artifact = explained(root)
    whole = repository.reached()
    assert {file["path"] for file in artifact["files"]} == whole
    assert artifact["size"] == repository.size(whole)
    check_ways(repository, artifact)
    check_costs(repository, artifact)

    edges = [(a, b) for a in sorted(whole) for b in sorted(repository.imports.get(a, ()))]
    lost = {edge: whole - repository.reached(frozenset([edge])) for edge in edges}
    path, to = max(edges, key=lambda edge: len(lost[edge]))
    assert lost[path, to]
    del repository.imports[path][to]
    root.runner.write_files({path: repository.source(path)})
    left = explained(root)
    assert {file["path"] for file in left["files"]} == whole - lost[path, to]
    check_ways(repository, left)
