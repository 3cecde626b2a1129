"""Artifacts of any size to make reports of, plausible and always the same."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flyte_pack import explain_json
from flyte_pack.explain import (
    Artifact,
    Graph,
    InLayer,
    Need,
    PackedLayer,
    Requirement,
    ShippedFile,
)
from flyte_pack.report.page import page

_SERVICE = "services/forecast"
_LIBS = {
    "features": ["calendar", "holidays", "lags", "rolling", "trend", "weather", "windows", "encoders"],
    "models": ["baseline", "boosting", "ensemble", "gluon", "registry", "tuning", "layers/attention", "layers/blocks", "layers/norm"],
    "io": ["parquet", "warehouse", "s3_paths", "schema", "arrow_tables", "partitions"],
    "plots": ["axes", "colors", "charts", "legend", "report"],
    "stats": ["bootstrap", "intervals", "metrics", "outliers", "quantiles"],
    "config": ["load", "settings", "secrets"],
}  # fmt: skip
_DATA = {
    "features": [("holidays.json", 41_200), ("stations.csv", 96_800)],
    "models": [("weights/encoder.bin", 604_000), ("weights/decoder.bin", 380_000), ("defaults.yaml", 2_900)],
    "plots": [("fonts/Inter.ttf", 310_500), ("theme.css", 5_400)],
    "io": [("schemas/sales.avsc", 11_700), ("schemas/stock.avsc", 9_100)],
}  # fmt: skip
_NEEDS = {"features": ["io", "stats"], "models": ["features", "config", "stats"], "plots": ["stats"], "io": ["config"]}  # fmt: skip
_PACKAGES = {"io": ["pyarrow==21.0.0", "s3fs"], "models": ["torch==2.9.0", "numpy"], "stats": ["numpy"], "plots": ["matplotlib"]}  # fmt: skip


class Repository:
    """Collects files and who needs whom."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.files: list[ShippedFile] = []
        self.needs: dict[str, list[Need]] = {}
        self.required: dict[str, str] = {}

    def module(self, path: str, size: int, library: str, *needs: str) -> str:
        self.files.append(ShippedFile(path, path, size, path, library, "module", ""))
        self.needs[path] = [Need(to, "imported") for to in dict.fromkeys(needs) if to != path]
        return path

    def data(self, path: str, size: int, library: str, owner: str) -> None:
        address = f"{path}:data"
        self.files.append(ShippedFile(path, path, size, address, f"{library}:data", "resource", ""))
        self.needs[owner].append(Need(address, "declared"))

    def requirement(self, text: str, *modules: str) -> None:
        address = f"3rdparty/python#{text.partition('==')[0]}"
        self.required[address] = text
        for module in modules:
            self.needs[module].append(Need(address, "imported"))

    def graph(self, root: str, entry: str) -> Graph:
        return Graph(
            Artifact(
                root=root,
                entries=(entry,),
                needs=((root, (Need(entry, "declared"),)), *((a, tuple(n)) for a, n in self.needs.items())),
                libraries=tuple((file.owner, file.library) for file in self.files if file.owner and file.library),
                files=tuple(sorted(self.files)),
                requirements=tuple(Requirement(a, (t,)) for a, t in sorted(self.required.items())),
            )
        )  # fmt: skip


def forecast() -> Graph:
    """A bundle as a team might have it: about sixty files."""
    made = Repository(7)
    size = made.random.randrange
    for name, modules in _LIBS.items():
        library = f"libs/{name}"
        made.module(f"{library}/__init__.py", size(0, 900), library)
        for module in modules:
            made.module(f"{library}/{module}.py", size(1_500, 26_000), library)
        made.needs[f"{library}/__init__.py"] += [
            Need(f"{library}/{module}.py", "imported") for module in modules[:3]
        ]
        for module in modules[3:]:
            made.needs[f"{library}/{made.random.choice(modules[:3])}.py"].append(
                Need(f"{library}/{module}.py", "imported")
            )
    for name, needs in _NEEDS.items():
        for needed in needs:
            module = f"libs/{name}/{made.random.choice(_LIBS[name])}.py"
            made.needs[module].append(Need(f"libs/{needed}/{_LIBS[needed][0]}.py", "imported"))
    for name, files in _DATA.items():
        for file, weight in files:
            owner = f"libs/{name}/{_LIBS[name][len(file) % len(_LIBS[name])]}.py"
            made.data(f"libs/{name}/{file}", weight, f"libs/{name}", owner)
    for name, texts in _PACKAGES.items():
        for text in texts:
            made.requirement(text, f"libs/{name}/{_LIBS[name][0]}.py")
    entry = made.module(
        f"{_SERVICE}/workflows.py",
        8_300,
        _SERVICE,
        f"{_SERVICE}/steps.py",
        "libs/models/__init__.py",
        "libs/plots/charts.py",
        "libs/config/load.py",
    )
    made.module(
        f"{_SERVICE}/steps.py", 5_100, _SERVICE, "libs/features/__init__.py", "libs/io/__init__.py"
    )
    made.requirement("flyte==2.12.1", entry, f"{_SERVICE}/steps.py")
    return made.graph(f"{_SERVICE}:train", entry)


def large(files: int) -> Graph:
    """A bundle of so many modules, in packages, each of which imports some that come after it."""
    made = Repository(11)
    pick = made.random
    paths = []
    for at in range(files):
        team, package, part = at % 12, at // 12 % 40, at // 480
        name = f"mod_{part:02}.py" if part % 5 else f"inner/mod_{part:02}.py"
        paths.append(f"libs/team_{team:02}/package_{package:02}/{name}")
    for at, path in enumerate(paths):
        after = [paths[min(files - 1, at + 1 + pick.randrange(600))] for _ in range(3)]
        nearest = [paths[2 * at + 1]] if 2 * at + 1 < files else []
        made.module(path, pick.randrange(200, 40_000), path.rpartition("/")[0], *nearest, *after)
    entry = made.module("services/big/workflows.py", 4_000, "services/big", *paths[:20:3], paths[0])
    made.requirement("numpy", *paths[::9])
    return made.graph("services/big:train", entry)


def packed(graph: Graph) -> Graph:
    """The same, as it is when the sizes in an archive are known: a third of those on disk."""
    files = tuple(file._replace(packed=file.size // 3 + 40) for file in graph.artifact.files)
    whole = 14 + sum(file.packed or 0 for file in files)
    return Graph(replace(graph.artifact, files=files, packed=whole))


def image(*files: ShippedFile) -> Graph:
    """An image that was built. files: of its code, for the last layer."""
    code = [InLayer("library", one.library or "", "", 1, one.size, one.size // 3) for one in files]
    held = [
        ("base", 30_000_000, None),
        ("numpy 2.1.0, compiled by CPython 3.12.8", 21_000_000, [InLayer("distribution", "numpy", "2.1.0", 1_282, 62_000_000, 20_990_000)]),
        (
            "2 smaller distributions",
            900_000,
            [
                InLayer("distribution", "click", "8.5.1", 40, 1_000_000, 380_000),
                InLayer("distribution", "packaging", "26.3", 52, 1_400_000, 500_000),
            ],
        ),
        ("flyte-shim", 220_000, [InLayer("other", "", "", 60, 510_000, 219_000)]),
        ("2 files of code", 5_000, code),
    ]  # fmt: skip
    layers = tuple(
        PackedLayer("linux/amd64", what, "sha256:00", size)
        if parts is None
        else PackedLayer(
            "linux/amd64", what, "sha256:00", size, sum(p.files for p in parts), sum(p.size for p in parts), tuple(parts)
        )
        for what, size, parts in held
    )  # fmt: skip
    return Graph(Artifact(f"{_SERVICE}:image", (), (), (), files, layers=layers))


def content(*graphs: Graph, deployment: str = "", **parts: object) -> Mapping[str, Any]:
    return explain_json.content(
        artifacts=[explain_json.artifact(graph, "auto") for graph in graphs],
        deployments=[explain_json.deployment(deployment, graphs)] if deployment else [],
        **parts,
    )


def report(document: Mapping[str, Any]) -> str:
    """The page of a document, whose graphs are read back."""
    told = json.loads(json.dumps(document["artifacts"]))
    return page(document, [Graph(explain_json.read_artifact(one)) for one in told])


def found(graph: Graph, asked: str) -> Mapping[str, Any]:
    return explain_json.found(graph, asked, False)


def changed(graph: Graph) -> Mapping[str, Any]:
    """A document with differences from a version before, in the shape of `--diff`."""
    gone = {"path": "libs/plots/maps.py", "source": "libs/plots/maps.py", "size": 9_100}
    come = {"path": "libs/io/arrow_tables.py", "source": "libs/io/arrow_tables.py", "size": 3_000}
    by = {"from": "libs/io/parquet.py", "to": "libs/io/arrow_tables.py", "reason": "imported"}
    before = {"size": 900, "sha256": "0" * 64, "executable": False}
    layer = {"what": "numpy 2.1.0", "digest": "sha256:00", "size": 21_000_000}
    difference = {
        "address": graph.artifact.root,
        "old_address": graph.artifact.root,
        "status": "changed",
        "files": {"before": 53, "after": 53},
        "size": {"before": 1_935_505, "after": 1_929_405},
        "added": [{"by": by, "files": [come]}],
        "removed": [{"by": None, "files": [gone]}],
        "changed": [
            {
                "path": "libs/config/load.py",
                "source": "libs/config/load.py",
                "before": before,
                "after": {**before, "size": 1_900},
            }
        ],
        "dependencies": {"added": [], "removed": [{**by, "to": "libs/io/schema.py"}]},
        "packages": [{"name": "numpy", "before": "2.0.1", "after": "2.1.0", "needed_by": []}],
        "layers": [{"platform": "linux/amd64", "before": None, "after": layer}],
        "settings": [{"name": "environment.MODE", "before": "fast", "after": None}],
    }
    return content(graph, old="version 1.4", differences=[difference])
