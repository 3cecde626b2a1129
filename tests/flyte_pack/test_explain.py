"""Ways, costs and the text of them, from graphs; random ones are compared with what ships at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack import explain_json
from flyte_pack.explain import (
    Artifact,
    Graph,
    InLayer,
    Need,
    PackedLayer,
    Requirement,
    ShippedFile,
    Total,
    Weight,
)
from flyte_pack.explain_text import text, way, why
from flyte_pack.locked import Locked

ROOT = "app:t"


def file(source: str, owner: str | None = "", **more: Any) -> ShippedFile:
    """A module that is its own target, as most are; more: of other kinds."""
    owner = source if owner == "" else owner
    library = os.path.dirname(source) if owner else None
    fields = {"size": 10, "kind": "module", "package_root": "", **more}
    return ShippedFile(source, source, owner=owner, library=library, **fields)


def artifact(
    needs: Mapping[str, Mapping[str, str]],
    files: list[ShippedFile],
    entries: tuple[str, ...] = ("app/w.py",),
    requirements: tuple[Requirement, ...] = (),
) -> Artifact:
    """needs: by target, what it needs and why. Files are their libraries' by their folders."""
    return Artifact(
        ROOT,
        entries,
        tuple((a, tuple(Need(to, kind) for to, kind in its.items())) for a, its in needs.items()),
        tuple((f.owner, f.library) for f in files if f.owner and f.library),
        tuple(files),
        requirements,
    )


def ways(graph: Graph, source: str) -> list[str]:
    (node,) = (node for node, found in graph.file_nodes() if found.source == source)
    return [way(steps) for steps in graph.ways_to(node)]


# --- ways -----------------------------------------------------------------------------------------


def test_the_way_to_a_file_is_a_shortest_one_and_says_what_it_is():
    graph = Graph(
        artifact(
            {
                ROOT: {"app/w.py": "imported"},
                "app/w.py": {"a/m.py": "imported", "b/m.py": "imported"},
                "a/m.py": {"b/data.json:data": "declared", "c/m.py": "imported"},
                "b/m.py": {"c/m.py": "imported"},
                "c/m.py": {"b/data.json:data": "declared"},
            },
            [
                *map(file, ("app/w.py", "a/m.py", "b/m.py", "c/m.py")),
                file("b/data.json", "b/data.json:data", kind="resource"),
            ],
        )
    )
    assert ways(graph, "app/w.py") == ["app/w.py [module, entry point]"]
    assert ways(graph, "b/data.json") == ["app/w.py -> a/m.py -> b/data.json [resource, declared]"]
    assert ways(graph, "c/m.py") == [
        "app/w.py -> a/m.py -> c/m.py [module, imported]",
        "app/w.py -> b/m.py -> c/m.py [module, imported]",
    ]


PACKAGES = {ROOT: {"app/w.py": "imported"}, "app/w.py": {"a/b/m.py": "imported"}}


def test_an_empty_package_brings_itself_and_one_with_code_what_it_imports():
    files = [*map(file, ("app/w.py", "a/b/m.py", "x/m.py", "y/m.py"))]
    needs = {**PACKAGES, "a/__init__.py": {"x/m.py": "imported"}, "a/b/__init__.py": {"y/m.py": "imported"}}  # fmt: skip
    files += [file("a/__init__.py"), file("a/b/__init__.py", alone=True)]
    graph = Graph(artifact(needs, files))
    assert ways(graph, "a/b/__init__.py") == [
        "app/w.py -> a/b/m.py -> a/b/__init__.py [module, package above]"
    ]
    assert ways(graph, "x/m.py") == [
        "app/w.py -> a/b/m.py -> a/b/__init__.py -> a/__init__.py -> x/m.py [module, imported]"
    ]
    assert ways(graph, "y/m.py") == []


def test_an_import_is_a_better_reason_than_a_package():
    needs = {
        **PACKAGES,
        "a/b/m.py": {"c/m.py": "imported"},
        "c/m.py": {"a/b/__init__.py": "imported"},
    }
    files = [*map(file, ("app/w.py", "a/b/m.py", "a/b/__init__.py", "c/m.py"))]
    assert ways(Graph(artifact(needs, files)), "a/b/__init__.py") == [
        "app/w.py -> a/b/m.py -> c/m.py -> a/b/__init__.py [module, imported]"
    ]


def test_an_inferred_import_of_the_own_package_is_told_as_that():
    needs = {**PACKAGES, "a/b/m.py": {"a/b/__init__.py": "imported"}}
    files = [*map(file, ("app/w.py", "a/b/m.py", "a/b/__init__.py"))]
    assert ways(Graph(artifact(needs, files)), "a/b/__init__.py") == [
        "app/w.py -> a/b/m.py -> a/b/__init__.py [module, package above]"
    ]


def test_the_init_file_of_a_source_root_is_no_package():
    files = [
        file("app/w.py"),
        *(file(f"src/{n}", package_root="src") for n in ("m.py", "__init__.py")),
    ]
    graph = Graph(artifact({ROOT: {"app/w.py": ""}, "app/w.py": {"src/m.py": "imported"}}, files))
    assert ways(graph, "src/__init__.py") == []


@pytest.mark.parametrize(("kind", "words"), [("all", 'copy_style="all"'), ("copied", "copied by a field of the image")])  # fmt: skip
def test_a_file_that_no_target_brings_has_its_reason(kind: str, words: str):
    files = [file("app/w.py"), file("app/x.csv", None, kind="file", package_root=None, beside=kind)]
    graph = Graph(artifact({ROOT: {"app/w.py": "imported"}}, files))
    assert ways(graph, "app/x.csv") == [f"app/x.csv [file, {words}]"]


NAMED = [
    ("src/lib/m.py", ["src/lib/m.py"]),
    ("lib/m.py", ["src/lib/m.py"]),
    ("lib.m", ["src/lib/m.py"]),
    ("lib", ["src/lib/__init__.py"]),
    ("lib:data", ["src/lib/x.json"]),
    ("PyYAML", ["3rdparty:yaml"]),
    ("pyyaml", ["3rdparty:yaml"]),
    ("yaml", ["3rdparty:yaml"]),
    ("py.yaml", []),
    ("m.py", []),
    ("data.json", []),
    ("x.json", ["src/lib/x.json"]),
    ("x", []),
    (ROOT, []),
]


@pytest.mark.parametrize(("asked", "found"), NAMED)
def test_a_path_a_module_an_address_or_a_distribution_can_be_asked_for(
    asked: str, found: list[str]
):
    def moved(source: str, path: str, **more: Any) -> ShippedFile:
        return file(source, **more)._replace(path=path, package_root="src")

    files = [
        moved("src/lib/m.py", "lib/m.py"),
        moved("src/lib/__init__.py", "lib/__init__.py"),
        moved("src/lib/x.json", "x.json", owner="lib:data", kind="resource"),
    ]
    needs = {ROOT: {"src/lib/m.py": "imported"}, "src/lib/m.py": {"lib:data": "declared", "3rdparty:yaml": "imported"}}  # fmt: skip
    yaml = Requirement("3rdparty:yaml", ("PyYAML [x]>=6; python_version>'3'",), ("yaml",))
    graph = Graph(artifact(needs, files, ("src/lib/m.py",), (yaml,)))
    assert [graph.names[node] for node in graph.find(asked)] == found


NET = {
    ROOT: {"app/w.py": "imported"},
    "app/w.py": {"a0/x.py": "imported", "a0/y.py": "imported"},
    **{f"a{n}/{c}.py": {f"a{n + 1}/{d}.py": "declared" for d in "xy"} for n in range(30) for c in "xy"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "every", "last", "lines"),
    [
        ("a2/x.py", False, "  and 3 more as short: `--all`", 3),
        ("a2/x.py", True, "  app/w.py -> a0/y.py -> a1/y.py -> a2/x.py [module, declared]", 5),
        ("a30/x.py", False, "  and many more as short: `--all`", 3),
        ("a30/x.py", True, "  and many more as short", 102),
    ],
)
def test_one_way_is_told_or_all_up_to_a_hundred(target: str, every: bool, last: str, lines: int):
    files = [file("app/w.py"), *(file(f"a{n}/{c}.py") for n in range(31) for c in "xy")]
    said = why(Graph(artifact(NET, files)), target, every).splitlines()
    assert (said[0], said[-1], len(said)) == (f"app:t ships {target} (10 B):", last, lines)


# --- costs ----------------------------------------------------------------------------------------


def test_a_direct_dependency_costs_what_only_it_brings():
    needs = {
        ROOT: {"app/w.py": "imported", "extra/e.py": "declared"},
        "app/w.py": {"a/m.py": "imported", "a/n.py": "imported", "b/m.py": "imported", "app/v.py": "imported", "3rdparty:x": "imported"},
        "a/m.py": {"shared/s.py": "imported", "a/big.bin:data": "declared", "3rdparty:numpy": "imported"},
        "b/m.py": {"shared/s.py": "imported", "app/w.py": "imported"},
        "extra/e.py": {},
    }  # fmt: skip
    names = ("app/w.py", "app/v.py", "a/m.py", "a/n.py", "b/m.py", "shared/s.py", "extra/e.py")
    files = [*map(file, names), file("a/big.bin", "a/big.bin:data", size=1000, kind="resource")]
    numpy = Requirement("3rdparty:numpy", ("numpy>=2",))
    graph = Graph(artifact(needs, files, requirements=(numpy, Requirement("3rdparty:x", ("x",)))))
    assert graph.exclusive() == (
        Total("a", 3, 1020, ("numpy>=2",)),
        Total("app/v.py", 1, 10),
        Total("b", 1, 10),
        Total("extra", 1, 10),
    )
    assert [(one.text, one.by) for one in graph.needed()] == [
        ("numpy>=2", ("a/m.py",)),
        ("x", ("app/w.py",)),
    ]


LOCK = Locked(
    names=frozenset({"big", "small", "shared", "odd"}),
    versions={"big": "2.0"},
    needs={"big": frozenset({"shared", "odd"}), "small": frozenset({"shared"})},
    sizes={"big": 4_000_000, "small": 200_000, "shared": 30_000},
)


def two_requirements(lock: Locked | None) -> Graph:
    needs = {
        ROOT: {"app/w.py": "imported"},
        "app/w.py": {"a/m.py": "imported", "b/m.py": "imported"},
        "a/m.py": {"3rdparty:big": "imported"},
        "b/m.py": {"3rdparty:small": "imported"},
    }
    required = tuple(
        Requirement(f"3rdparty:{name}", (name,), versions=((name, "2.0"),))
        for name in ("big", "small")
    )
    made = artifact(needs, list(map(file, ("app/w.py", "a/m.py", "b/m.py"))), requirements=required)
    return Graph(replace(made, lock=lock))


def test_a_requirement_weighs_what_it_brings_and_exclusively_what_nothing_else_brings():
    graph = two_requirements(LOCK)
    assert graph.wheels() == Weight(4, 4_230_000, 1)
    assert [one.wheels for one in graph.needed()] == [
        Weight(3, 4_030_000, 1),
        Weight(2, 230_000, 0),
    ]
    assert [(one.name, one.wheels) for one in graph.exclusive()] == [
        ("a", Weight(2, 4_000_000, 1)),
        ("b", Weight(1, 200_000, 0)),
    ]
    said = text("a bundle", graph)
    assert "Third-party requirements, 4 distributions, 4.2 MB as wheels, 1 unknown:" in said
    assert "  big (2.0)    4.0 MB, 1 unknown  needed by a/m.py  (3rdparty:big)" in said
    assert "  small (2.0)   230.0 kB  needed by b/m.py  (3rdparty:small)" in said
    assert "dropping `b` saves 10 B in 1 file, and the need of small (200.0 kB as wheels)" in said
    told = explain_json.artifact(graph, "auto")
    assert told["wheels"] == {"distributions": 4, "size": 4_230_000, "unknown": 1}
    assert told["requirements"][1]["wheels"] == {"distributions": 2, "size": 230_000, "unknown": 0}
    assert told["direct"][1]["wheels"]["size"] == 200_000


@pytest.mark.parametrize("lock", [None, replace(LOCK, sizes={})])
def test_without_sizes_in_the_lock_file_nothing_is_said_of_them(lock: Locked | None):
    graph = two_requirements(lock)
    assert graph.wheels() is None
    said = text("a bundle", graph)
    assert "  big (2.0)    needed by a/m.py  (3rdparty:big)" in said
    assert "wheels" not in said
    assert explain_json.artifact(graph, "auto")["requirements"][0]["wheels"] is None


# --- any graph ------------------------------------------------------------------------------------

NODES = [
    *("app/w.py", "app/v.py", "a/m.py", "a/b/m.py", "c/m.py", "c/n.py", "d/m.py"),
    *("app/__init__.py", "a/__init__.py", "a/b/__init__.py", "c/__init__.py"),
]


@st.composite
def artifacts(draw: st.DrawFn) -> Artifact:
    alone = draw(st.sets(st.sampled_from(NODES[-4:])))
    chosen = st.sets(st.sampled_from(NODES), max_size=3)
    kinds = st.sampled_from(["imported", "declared"])
    needs = {name: {to: draw(kinds) for to in sorted(draw(chosen))} for name in NODES}
    entries = sorted(draw(st.sets(st.sampled_from(NODES[:2]), min_size=1)))
    roots = {**dict.fromkeys(entries, "imported"), **dict.fromkeys(draw(chosen), "declared")}
    files = [file(name, size=2**at, alone=name in alone) for at, name in enumerate(NODES)]
    whole = artifact({ROOT: roots, **needs}, files, tuple(entries))
    there = ships(whole)
    return replace(whole, files=tuple(one for one in whole.files if one.source in there))


def ships(of: Artifact) -> set[str]:
    """What a bundle of these targets holds: their files and the packages above, until all is in."""
    needs, files = dict(of.needs), {one.source: one for one in of.files}
    targets, found = {of.root}, set[str]()
    while True:
        more = {need.to for target in targets for need in needs.get(target, ())}
        found |= {one.source for one in of.files if one.owner in targets}
        for source in list(found):
            directory = os.path.dirname(source)
            while directory:
                init = files.get(f"{directory}/__init__.py")
                if init:
                    found.add(init.source)
                    if not init.alone:
                        more.add(init.owner or "")
                directory = os.path.dirname(directory)
        if more <= targets:
            return found
        targets |= more


def without(of: Artifact, cut: set[tuple[str, str]]) -> Artifact:
    return replace(
        of,
        needs=tuple((a, tuple(n for n in needs if (a, n.to) not in cut)) for a, needs in of.needs),
    )


@given(artifacts())
def test_each_file_has_ways_that_are_real(of: Artifact):
    graph = Graph(of)
    edges = {(a, need.to) for a, needs in of.needs for need in needs}
    for node, one in graph.file_nodes():
        found = list(graph.ways_to(node))
        assert found
        assert len(set(found)) == len(found)
        for steps in found:
            assert steps[-1].name == one.source
            assert len(steps) == len(found[0])
            for before, after in zip((ROOT, *(step.name for step in steps)), steps):
                if after.kind == "package" and (before, after.name) not in edges:
                    package = os.path.dirname(after.name)
                    assert after.name == f"{package}/__init__.py"
                    assert before.startswith(f"{package}/")
                else:
                    assert (before, after.name) in edges


@given(artifacts(), st.data())
def test_a_file_ships_as_long_as_a_way_leads_to_it(of: Artifact, data: st.DataObject):
    edges = sorted({(a, need.to) for a, needs in of.needs for need in needs})
    cut = data.draw(st.sets(st.sampled_from(edges)))
    left = without(of, cut)
    graph = Graph(left)
    assert {one.source for node, one in graph.file_nodes() if graph.reached(node)} == ships(left)


@given(artifacts())
def test_what_dropping_a_dependency_saves_no_longer_ships_without_it(of: Artifact):
    graph = Graph(of)
    totals = {total.name: total for total in graph.exclusive()}
    named: dict[str, set[str]] = {}
    for node, name in graph.direct().items():
        named.setdefault(name, set()).add(graph.names[node])
    assert set(named) == set(totals)
    sizes = {one.source: one.size for one in of.files}
    starts = (ROOT, *of.entries)
    for name, targets in named.items():
        cut = {(start, to) for start in starts for to in targets}
        lost = set(sizes) - ships(without(of, cut))
        # Sizes are powers of two: equal sums are equal sets.
        assert totals[name].size == sum(sizes[source] for source in lost), name
    assert sum(total.size for total in totals.values()) <= sum(sizes.values())


# --- packed ---------------------------------------------------------------------------------------


def layer(what: str, packed: int, *parts: InLayer) -> PackedLayer:
    sums = (sum(p.files for p in parts), sum(p.size for p in parts), parts) if parts else ()
    return PackedLayer("linux/amd64", what, "sha256:00", packed, *sums)


def test_layers_tell_what_is_in_them_unless_their_name_says_it():
    image = replace(
        artifact({ROOT: {"app/w.py": "imported"}}, [file("app/w.py", packed=7)]),
        layers=(
            layer("base", 9_000_000),
            layer("numpy 2.4", 6_000_000, InLayer("distribution", "numpy", "2.4", 900, 17_000_000, 5_990_000)),
            layer(
                "2 smaller distributions",
                3000,
                InLayer("distribution", "b", "1", 2, 3000, 1500),
                InLayer("distribution", "a", "2", 1, 2000, 1000),
                InLayer("other", "", "", 1, 10, 5),
            ),
            layer("flyte-shim", 500, InLayer("other", "", "", 3, 900, 400)),
            layer("1 file of code", 20, InLayer("library", "app", "", 1, 10, 7)),
        ),
    )  # fmt: skip
    assert text("an image", Graph(image)).endswith(
        """
By top folder:
         on disk     packed
  app       10 B        7 B       1 file

By the target that owns them:
         on disk     packed
  app       10 B        7 B       1 file

Layers on linux/amd64, packed 15.0 MB, the lowest first:
                             on disk     packed
  base                                   9.0 MB
  numpy 2.4                  17.0 MB     6.0 MB     900 files
  2 smaller distributions     5.0 kB     3.0 kB       4 files
    b 1                       3.0 kB     1.5 kB       2 files
    a 2                       2.0 kB     1.0 kB       1 file
    other files                 10 B        5 B       1 file
  flyte-shim                   900 B      500 B       3 files
  1 file of code                10 B       20 B       1 file
    app                         10 B        7 B       1 file
"""
    )
