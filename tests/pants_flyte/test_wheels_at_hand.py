"""What nothing else is known of, the wheels say that Pants' named caches have."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

import pytest

from tests.support.flyte_rules import RuleRoot

# An answer is kept for good once all wheels are there: these are of no other run.
VERSION = f"1.5+{token_hex(8)}"
FILES = {
    "app/BUILD": "python_sources(name='lib')\nflyte_bundle(name='b', dependencies=[':lib'])\n",
    "app/w.py": "import numpy, strange.deep, nowhere\n",
    "locks/default.txt": "numpy==2.0 --hash=sha256:0\n    # via -r in\nodd-name=={version} --hash=sha256:0\n    # via {by}\n",
    "reqs/BUILD": "python_requirement(name='n', requirements=['numpy'])\npython_requirement(name='odd', requirements=['odd-name'])\n",
}


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("named_caches")


@pytest.fixture
def root(caches: Path) -> RuleRoot:
    return RuleRoot(f"--named-caches-dir={caches}")


def unpacked(caches: Path, name: str, version: str, *files: str) -> None:
    info = caches / f"flyte_uv/archive-v0/{name}/{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def told(root: RuleRoot, caplog, by: str) -> str:
    caplog.clear()
    root.write(
        {**FILES, "locks/default.txt": FILES["locks/default.txt"].format(by=by, version=VERSION)}
    )
    root.package("app:b")
    return "\n".join(m for m in (r.getMessage() for r in caplog.records) if "may lack" in m)


def test_wheels_tell_what_they_have_once_they_are_there(root: RuleRoot, caches: Path, caplog):
    said = told(root, caplog, by="numpy")
    assert "`import strange.deep`: no standard library, target or requirement is known" in said
    assert "`import nowhere`: no standard library, target or requirement is known" in said

    unpacked(caches, "numpy", "2.0", "numpy/__init__.py")
    unpacked(caches, "odd_name", VERSION, "strange/__init__.py", "strange/deep.py")
    root.options()  # as another run of Pants
    said = told(root, caplog, by="numpy")
    assert "strange" not in said  # what is required needs it
    assert "`import nowhere`: no distribution in locks/default.txt has it" in said

    said = told(root, caplog, by="-r in")
    assert (
        "`import strange.deep`: `odd-name` has it, which reqs:odd does not say, so that Pants does "
        'not know; write `modules=["strange"]` there'
    ) in said
