"""What differs between artifacts, by the dependency that made the difference, and the text of it."""

from __future__ import annotations

import json
from dataclasses import replace
from textwrap import dedent

import pytest

from flyte_pack import diff, diff_text, explain_json
from flyte_pack.diff import LayerPart, Side
from flyte_pack.explain import Artifact, Graph, Need, Requirement, ShippedFile
from flyte_pack.json_fields import InvalidData

ROOT = "app:t"


def file(source: str, content: str = "1", size: int = 10) -> ShippedFile:
    return ShippedFile(source, source, size, source, None, "module", sha256=content)


def artifact(
    needs: dict[str, dict[str, str]], contents: dict[str, str] | None = None, **more: object
) -> Artifact:
    """Every target that is no requirement is a module of that name. contents: by path."""
    packages = more.get("requirements", ())
    names = dict.fromkeys(to for its in needs.values() for to in its)
    files = [name for name in names if name not in {one.target for one in packages}]  # type: ignore[attr-defined]
    return Artifact(
        ROOT,
        ("app/w.py",),
        tuple((a, tuple(Need(*need) for need in its.items())) for a, its in needs.items()),
        (),
        tuple(file(name, (contents or {}).get(name, "1")) for name in sorted(files)),
        **more,  # type: ignore[arg-type]
    )


BEFORE = {
    ROOT: {"app/w.py": "imported"},
    "app/w.py": {"a.py": "imported", "b.py": "imported"},
    "a.py": {"c.py": "imported"},
    "b.py": {"c.py": "imported", "d.py": "declared"},
}


def text(old: Artifact, new: Artifact) -> str:
    return diff_text.text(diff.compare_all([Side(ROOT, old)], [Side(ROOT, new)]), "against it")


def test_files_stand_below_the_dependency_that_brought_or_dropped_them():
    after = {
        ROOT: {"app/w.py": "imported"},
        "app/w.py": {"a.py": "imported"},
        "a.py": {"c.py": "imported", "e.py": "declared"},
        "e.py": {"f.py": "imported"},
    }
    assert text(artifact(BEFORE), artifact(after, {"c.py": "2"})) == dedent(
        """\
        against it

        app:t: files: 2 added, 2 removed, 1 changed; same size, now 5 files, 50 B

        Added, below the dependency that brings it:
          a.py -> e.py [declared]
            + e.py       10 B  [module]
            + f.py       10 B  [module]

        Removed, below the dependency that is gone:
          app/w.py -> b.py [imported]
            - b.py       10 B  [module]
            - d.py       10 B  [module]

        Changed:
          ~ c.py  10 B
        """
    )


def test_a_dependency_that_moves_no_file_is_told_too():
    after = {
        **BEFORE,
        "a.py": {"c.py": "imported", "d.py": "imported"},
        "d.py": {"c.py": "declared"},
    }
    assert text(artifact(BEFORE), artifact(after)).splitlines()[3:] == [
        "",
        "Dependencies on what is there in both:",
        "  + a.py -> d.py [imported]",
        "  + d.py -> c.py [declared]",
    ]


def needing(version: str, *names: str) -> Artifact:
    requirements = [
        Requirement(f"//:{name}", (name,), versions=((name, version),)) for name in names
    ]
    more = {f"//:{name}": "imported" for name in names}
    return artifact(
        {**BEFORE, "a.py": {"c.py": "imported", **more}}, requirements=tuple(requirements)
    )


def test_packages_are_compared_by_the_versions_of_the_lock_file():
    told = text(needing("1.0", "numpy", "old"), needing("2.0", "numpy", "new"))
    assert told.split("Third-party requirements:\n")[1].splitlines() == [
        "  + new    2.0  needed by a.py",
        "  ~ numpy  1.0 -> 2.0  needed by a.py",
        "  - old    1.0  needed by a.py",
    ]


def test_without_a_lock_file_what_is_asked_for_tells():
    old, new = (
        artifact(
            {**BEFORE, "a.py": {"//:numpy": "imported"}},
            requirements=(Requirement("//:numpy", (text,)),),
        )
        for text in ("numpy", "numpy>=2")
    )
    assert "~ numpy  numpy -> numpy>=2" in text(old, new)


def test_of_an_old_manifest_no_package_and_no_dependency_is_missed():
    old = Side(ROOT, artifact(BEFORE), whole=False)
    (told,) = diff.compare_all([old], [Side(ROOT, needing("1.0", "numpy"))])
    assert told["status"] == diff.UNCHANGED


def test_layers_are_told_by_what_moved_in_them():
    old = [
        LayerPart("linux/amd64", what, what, 10)
        for what in ("base", "numpy 1.0", "3 files of code")
    ]
    new = [
        LayerPart("linux/amd64", what, what, 20)
        for what in ("base", "numpy 2.0", "4 files of code", "x 1")
    ]
    told = diff.compare(Side("i", layers=tuple(old)), Side("i", layers=tuple(new)))
    assert diff_text.text([told], "").split("Layers:\n")[1].splitlines() == [
        "  ~ numpy 1.0 -> numpy 2.0  10 B -> 20 B",
        "  ~ 3 files of code -> 4 files of code  10 B -> 20 B",
        "  + x 1  20 B",
    ]


def test_settings_have_both_values_and_what_follows_from_others_is_told_alone():
    old = Side(ROOT, artifact(BEFORE), settings=(("image", "a"),), specifications=(("spec", "1"),))
    new = replace(old, settings=(("image", "b"),), specifications=(("spec", "2"),))
    told = diff.compare(old, new)
    assert told["settings"] == [{"name": "image", "before": "a", "after": "b"}]
    told = diff.compare(old, replace(new, settings=old.settings))
    assert told["settings"] == [{"name": "spec", "before": "1", "after": "2"}]


def test_tasks_are_compared_by_address_and_like_differences_told_once():
    old = [Side(name, artifact(BEFORE)) for name in ("a:t", "b:t", "gone:t")]
    new = [Side(name, artifact(BEFORE, {"c.py": "2"})) for name in ("a:t", "b:t", "new:t")]
    assert diff_text.text(diff.compare_all(old, new), "v2 against v1") == dedent(
        """\
        v2 against v1

        a:t, b:t: files: 1 changed; same size, now 5 files, 50 B

        Changed:
          ~ c.py  10 B

        gone:t: removed, 5 files, 50 B

        new:t: added, 5 files, 50 B
        """
    )


def test_an_explanation_of_another_pants_is_read_back():
    before = needing("1.0", "numpy")
    told = json.loads(json.dumps(explain_json.artifact(Graph(before), "auto")))
    read = explain_json.read_artifact(told)
    assert diff.compare(Side(ROOT, before), Side(ROOT, read))["status"] == diff.UNCHANGED
    assert [file.path for file in read.files] == [file.path for file in before.files]
    old = {**told, "edges": [{"from": "a", "to": "b", "reason": "imported"}]}  # as schema 1 has it
    assert explain_json.read_artifact(old) == read
    for key in ("graph", "files"):
        with pytest.raises(InvalidData):
            explain_json.read_artifact({**told, key: [3]})
