"""The example, with what must not ship in it: each is refused, or stays out, with a message."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.support.build_root import BuildRoot
from tests.support.fake_secrets import FAKES
from tests.support.monorepo import edited, monorepo

KEY = FAKES["aws-access-key"][0]
ALL = """
    flyte_task(
        name="all", entry_point="workflows.py:train", image=":image", copy_style="all", root_dir="."
    )
    """


@pytest.fixture(scope="module")
def example() -> Iterator[BuildRoot]:
    with monorepo({"services/ml/BUILD": ALL}) as root:
        yield root


def bundle(root: BuildRoot, name: str) -> set[str]:
    with tarfile.open(root.path / f"dist/services.ml/{name}.tar.gz") as archive:
        return set(archive.getnames())


def test_a_planted_key_is_refused_and_nothing_is_written(example: BuildRoot):
    with edited(example, "services/ml/workflows.py", "", f"\n{KEY}\n"):
        done = example.pants("package", "services/ml:train", check=False)
    assert done.returncode == 1
    line = (example.path / "services/ml/workflows.py").read_text().count("\n") + 2
    assert f"services/ml/workflows.py:{line}: aws-access-key" in done.stderr
    assert "services/ml:train: the bundle would ship what looks like secrets" in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY[7:17] not in done.stdout + done.stderr
    assert not (example.path / "dist").exists()
    example.pants("package", "services/ml:train")


def test_what_lies_about_does_not_ship(example: BuildRoot):
    files = {
        "services/ml/.env": f"{KEY}\n",
        "services/ml/tests/test_workflows.py": "",
        "services/ml/model.bin": "x",
    }
    example.write(files)
    with open(example.path / "services/ml/model.bin", "wb") as file:
        file.truncate(100_000_000)
    environment = example.path / "services/ml/py"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    done = example.pants("package", "services/ml:all", check=False)
    assert 'pants_ignore.add = ["/services/ml/py/"]' in done.stderr
    ignore = "--pants-ignore=/services/ml/py/"
    done = example.pants(ignore, "package", "services/ml:all")
    assert "services/ml/model.bin has 100.0 MB" in done.stderr
    packed = bundle(example, "all")
    assert "services/ml/model.bin" in packed
    assert not [path for path in packed if "/py/" in path or "/tests/" in path or ".env" in path]
    example.write({"services/ml/credentials.json": "{}"})
    done = example.pants(ignore, "package", "services/ml:all", check=False)
    assert "  * services/ml/credentials.json: credentials of a cloud\n" in done.stderr
    example.write({"services/ml/.flyteignore": "credentials.json\n"})
    example.pants(ignore, "package", "services/ml:all")
