"""What is advised about a module that is missing where a task is imported."""

from __future__ import annotations

import json

import pytest

from flyte_pack.flyte_side import missing

KNOWN = {
    "resolve": "ml",
    "lock": "3rdparty/ml.lock",
    "locked": ["pyyaml", "numpy", "google-cloud-storage", "flyteplugins-dask"],
    "first_party": {"libs": "libs", "libs.features": "libs/features.py", "app.main": "app"},
    "requirements": {
        "yaml": ["3rdparty:reqs#PyYAML", "pyyaml"],
        "pandas": ["3rdparty:reqs#pandas", "pandas"],
    },
    "distributions": {
        "flyteplugins.ray": "flyteplugins-ray",
        "flyteplugins.dask": "flyteplugins-dask",
    },
}


def test_a_file_is_named_where_its_source_root_keeps_it(tmp_path):
    root, bundle = tmp_path / "root", tmp_path / "bundle"
    (root / "packages/geo/src/geo").mkdir(parents=True)
    (root / "packages/geo/src/geo/a.json").touch()
    bundle.mkdir()
    known = {**KNOWN, "first_party": {"geo.distance": "packages/geo/src/geo/distance.py"}}
    advice = missing.file_advice(f"{bundle}/geo/a.json", str(bundle), str(root), known)
    assert "packages/geo/src/geo/a.json is in the repository" in advice
    assert '`resources(name="data", sources=["a.json"])` in packages/geo/src/geo/BUILD' in advice
    for other in ("/etc/hosts", "../a.json", f"{bundle}/geo/b.json", "geo"):
        assert missing.file_advice(other, str(bundle), str(root), known) is None


def test_the_path_of_an_error_is_that_of_one_it_comes_from():
    first = FileNotFoundError(2, "No such file or directory", "data/a.csv")
    middle = RuntimeError("something else")
    middle.__cause__ = first
    last = SystemExit(1)
    last.__context__ = middle
    assert missing.file_of(last) == "data/a.csv"
    assert missing.file_of(RuntimeError(f"wrapped: {first}")) == "data/a.csv"
    circle = RuntimeError("a")
    circle.__cause__ = circle
    assert missing.file_of(circle) is None


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "libs.features",
            "It is in this repository (libs/features.py), and nothing that the task reaches imports it in a way that "
            "Pants infers: add libs/features.py to the `dependencies` of what imports it",
        ),
        (
            "libs.fetures",
            "No target of this repository owns a module libs.fetures, though 2 below libs have one: mind the spelling, "
            "or give its file a target",
        ),
        (
            "yaml",
            "It is in the lock file of the resolve ml, by 3rdparty:reqs#PyYAML, but nothing that the task reaches depends "
            "on that: add 3rdparty:reqs#PyYAML to the `dependencies` of what imports it",
        ),
        (
            "yaml.reader",
            "It is in the lock file of the resolve ml, by 3rdparty:reqs#PyYAML, but nothing that the task reaches depends "
            "on that: add 3rdparty:reqs#PyYAML to the `dependencies` of what imports it",
        ),
        (
            "pandas",
            "3rdparty:reqs#pandas requires pandas, but the lock file 3rdparty/ml.lock of the resolve ml lacks it: make "
            "the lock file anew",
        ),
        (
            "numpy",
            "numpy is in the lock file of the resolve ml, but no requirement is said to provide numpy: write a "
            "`python_requirement` for numpy, or say so in the `module_mapping` of its `python_requirements`",
        ),
        (
            "google.cloud.storage",
            "google-cloud-storage is in the lock file of the resolve ml, but no requirement is said to provide "
            "google.cloud.storage: write a `python_requirement` for google-cloud-storage, or say so in the "
            "`module_mapping` of its `python_requirements`",
        ),
        (
            "flyteplugins.dask",
            "flyteplugins-dask is in the lock file of the resolve ml, but no requirement is said to provide "
            "flyteplugins.dask: write a `python_requirement` for flyteplugins-dask, or say so in the `module_mapping` of "
            "its `python_requirements`",
        ),
        (
            "flyteplugins.ray.task",
            "flyteplugins-ray provides it, and is not in the lock file of the resolve ml: add it to the requirements, and "
            "make the lock file anew",
        ),
        (
            "nowhere.at_all",
            "Nothing in the lock file of the resolve ml is known to provide it. Add a requirement that does, and make the "
            "lock file anew. If one of the requirements does under a name of its own, say so in the `module_mapping` of "
            "its `python_requirements`",
        ),
    ],
)  # fmt: skip
def test_what_provides_a_module_decides_what_is_advised(module, said):
    assert missing.advice(module, KNOWN) == said


def test_without_a_lock_file_a_requirement_is_taken_at_its_word():
    assert "nothing that the task reaches depends" in missing.advice(
        "pandas", {**KNOWN, "lock": None, "locked": None}
    )


def test_where_nothing_is_known_both_ways_out_are_told():
    assert "`dependencies`" in missing.advice("x", None)
    assert "requirements" in missing.advice("x", None)


def test_what_is_known_is_read_from_a_file(tmp_path):
    (tmp_path / "known.json").write_text(json.dumps(KNOWN))
    assert missing.read(str(tmp_path / "known.json")) == KNOWN
    assert missing.read(None) is None
