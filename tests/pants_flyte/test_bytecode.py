"""Which images are compiled: by the machine's CPython of the base's release, or as they ask for."""

from __future__ import annotations

import pytest

from flyte_pack.image.compiler import release_of
from tests.support.bases import base_image, base_platform
from tests.support.codec_envs import needed_cpython
from tests.support.flyte_images import BASE, app, image_options
from tests.support.flyte_rules import RuleRoot
from tests.support.layouts import Layout

SITE = "opt/venv/lib/python3.12/site-packages"
WORK = "home/flyte/task"
OTHER = "3.12.99"


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root, bytecode="release")
    return root


@pytest.fixture(scope="module")
def release() -> str:
    """What Pants finds of CPython 3.12 by the tests' search path."""
    return str(release_of(needed_cpython("3.12")))


def base(version: str | None, *platforms: str) -> dict[str, str | bytes]:
    """The image's base, whose Python is this release."""
    env = ["PATH=/usr/local/bin:/usr/bin", *([f"PYTHON_VERSION={version}"] if version else [])]
    parts = [base_platform(platform, Env=env) for platform in platforms or ("linux/amd64",)]
    build = BASE["img/BUILD"].replace('["linux/amd64"]', repr([str(p.platform) for p in parts]))
    if version is None:
        build = build.replace("name=", 'python="/usr/local/bin/python3.12", name=')
    lock = base_image(*parts).to_json()
    if version is None:
        lock = base_image(*parts, python="/usr/local/bin/python3.12").to_json()
    return {"img/BUILD": build, "img/base.lock.json": lock}


def compiled(layout: Layout, platform: str | None = None) -> set[str]:
    """Of which modules it has bytecode, of the shim's one."""
    paths = {path for layer in layout.layers(platform) for path in layer.members or {}}
    found = {p.replace("__pycache__/", "")[: -len(".cpython-312.pyc")] for p in paths if p.endswith(".pyc")}  # fmt: skip
    shims = {p for p in found if p.startswith(f"{SITE}/flyte_shim/")}
    return found - shims | (shims & {f"{SITE}/flyte_shim/cli"})


EVERYTHING = {
    *(f"{SITE}/{module}" for module in ("flyte_shim/cli", "pftest_a", "pftest_b")),
    *(f"{WORK}/app/{module}" for module in ("w", "lib")),
}


def test_all_is_compiled_where_the_bases_release_is_at_hand(root: RuleRoot, release):
    root.write({**app("code=True"), **base(release)})
    built, layout = root.built_image("app:image"), root.image("app:image")
    assert compiled(layout) == EVERYTHING
    assert built.notes == ()
    by = f"compiled by CPython {release}"
    assert [layer.what for layer in layout.layers()][2:] == [
        f"2 smaller distributions, {by}",
        "flyte-shim",
        f"bytecode of 2 modules, {by}",
        "2 files of code",
    ]
    assert {m.owner for p, m in layout.tree.items() if p.startswith(f"{WORK}/app/")} == {(1000, 1000)}  # fmt: skip


def test_the_layers_of_sources_are_those_without_bytecode_where_they_can_be(root, release):
    root.write({**app("code=True"), **base(release)})
    layers = root.image("app:image").layers()
    root.write(app("code=True, bytecode=False"))
    assert root.image("app:image").layers()[-1] == layers[-1]


def test_an_edit_changes_the_code_and_its_bytecode_and_nothing_else(root: RuleRoot, release):
    root.write({**app("code=True"), **base(release)})
    before = root.image("app:image").layers()
    root.edit("app/lib.py", "1", "2")
    after = root.image("app:image").layers()
    assert [a.digest == b.digest for a, b in zip(before, after)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("option", ["release", "minor"])
def test_platforms_with_one_release_share_the_codes_bytecode(root: RuleRoot, release, option):
    image_options(root, bytecode=option)
    two = ("linux/amd64", "linux/arm64")
    root.write({**app("code=True"), **base(release, *two)})
    layout = root.image("app:image")
    one, other = (layout.layers(platform) for platform in two)
    assert [a.digest == b.digest for a, b in zip(one, other)] == [False] * 2 + [True] * 4
    assert compiled(layout, two[0]) == compiled(layout, two[1]) == EVERYTHING


@pytest.mark.parametrize(
    ("option", "field", "version", "modules", "note"),
    [
        ("release", "", OTHER, set(), f"without bytecode: there is no CPython {OTHER} in `[python-bootstrap].search_path`: install it"),
        ("release", "", None, set(), "without bytecode: which release of CPython 3.12 img:base has is not known: set its `python_version`"),
        ("release", "bytecode=False", OTHER, set(), None),
        ("off", "", OTHER, set(), None),
        ("minor", "", OTHER, EVERYTHING, f"and the base's is {OTHER}: a machine with another release makes another image"),
        ("minor", "bytecode=True", None, EVERYTHING, "and the base's is 3.12: a machine"),
        ("minor", "bytecode=False", OTHER, set(), None),
    ],
)  # fmt: skip
def test_what_is_not_as_usual_is_said(root, release, option, field, version, modules, note):
    image_options(root, bytecode=option)
    root.write({**app(f"code=True, {field}"), **base(version)})
    notes = root.built_image("app:image").notes
    assert compiled(root.image("app:image")) == modules
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_an_image_that_asks_for_it_is_compiled_whatever_the_option_says(root, release):
    image_options(root, bytecode="off")
    root.write({**app("code=True, bytecode=True"), **base(release)})
    assert compiled(root.image("app:image")) == EVERYTHING


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (OTHER, f"app:image: `bytecode`: there is no CPython {OTHER} in `[python-bootstrap].search_path`: install it"),
        (None, "app:image: `bytecode`: which release of CPython 3.12 img:base has is not known: set its `python_version`"),
    ],
)  # fmt: skip
def test_an_image_that_must_be_compiled_and_cannot_is_refused(root, version, message):
    root.write({**app("bytecode=True"), **base(version)})
    refusal = root.refusal("app:image")
    assert message in refusal
    assert "Or leave `bytecode` unset" in refusal


def test_without_python_code_nothing_but_the_shim_is_compiled(root: RuleRoot, release):
    root.write(
        {
            **app("source_files=[{'src': 'x.json'}]", source=""),
            **base(release),
            "app/x.json": "{}",
        }
    )
    layout = root.image("app:image")
    assert compiled(layout) == {f"{SITE}/flyte_shim/cli"}
    assert [layer.what for layer in layout.layers()][2:] == ["flyte-shim", "1 files of code"]
