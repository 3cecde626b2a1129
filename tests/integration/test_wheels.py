"""The two wheels of `./pants package` at the top of a checkout: built, installed and used."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePath

import pytest

import flyte_shim
from tests.support.build_root import (
    BuildRoot,
    clean_environment,
    clone_checkout,
    umask,
)

VERSION = flyte_shim.__version__
PLUGIN, SHIM = (f"{name}-{VERSION}-py3-none-any.whl" for name in ("pants_flyte", "flyte_shim"))
PACKAGES = {PLUGIN: {"flyte_pack", "flyte_shim", "pants_flyte"}, SHIM: {"flyte_shim"}}
LOCKS = {f"flyte_pack/flyte-{name}.lock" for name in ("pack", "image", "deploy")}
VENDORED = "flyte_pack/report/vendor/LICENSES.txt"
RESOURCES = {PLUGIN: LOCKS, SHIM: set()}

NOT_SOURCES = shutil.ignore_patterns("dist", ".pants.d", ".pids")
IN_REPOSITORY = 'pythonpath = ["%(buildroot)s/../../src/python"]\n'


@dataclass(frozen=True)
class Wheel:
    """What is in a wheel: its files by their path, without the directory of the metadata."""

    files: frozenset[str]
    about: dict[str, bytes]

    @property
    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.about["METADATA"])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_checkout(tmp_path_factory.mktemp("wheels") / "clone")


@pytest.fixture(scope="module")
def wheels(clone: Path) -> Path:
    """The directory of the wheels."""
    BuildRoot(clone, pants=clone / "pants").pants("--no-pantsd", "package", "::")
    return clone / "dist"


@pytest.fixture(scope="module", params=[PLUGIN, SHIM])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def wheel(wheels: Path, name: str) -> Wheel:
    about_directory = f"{'-'.join(name.split('-')[:2])}.dist-info"
    with zipfile.ZipFile(wheels / name) as opened:
        names = opened.namelist()
        about = [n for n in names if PurePath(n).parts[0] == about_directory]
        return Wheel(
            files=frozenset(names) - frozenset(about),
            about={str(PurePath(n).relative_to(about_directory)): opened.read(n) for n in about},
        )


def test_a_checkout_packages_two_wheels_and_no_more(wheels: Path) -> None:
    assert {path.name for path in wheels.iterdir()} == {PLUGIN, SHIM}


def test_another_clone_with_empty_caches_packages_the_same_bytes(
    wheels: Path, clone: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other clone"
    shutil.copytree(clone, other, ignore=NOT_SOURCES)
    env = {
        "PANTS_LOCAL_STORE_DIR": str(tmp_path / "store"),
        "PANTS_NAMED_CACHES_DIR": str(tmp_path / "named"),
        "TZ": "Asia/Tokyo",
    }
    with umask(0o077):
        BuildRoot(other, pants=other / "pants").pants("--no-pantsd", "package", "::", env=env)
    for wheel in (PLUGIN, SHIM):
        assert (other / "dist" / wheel).read_bytes() == (wheels / wheel).read_bytes()


def test_a_wheel_holds_its_packages_whole_and_nothing_else(
    wheel: Wheel, name: str, clone: Path
) -> None:
    source = clone / "src" / "python"
    modules = {
        str(path.relative_to(source))
        for package in PACKAGES[name]
        for path in (source / package).rglob("*")
        if path.suffix in (".css", ".html", ".js", ".py", ".txt") or path.name == "py.typed"
    }
    assert wheel.files == modules | RESOURCES[name]


def test_a_wheel_brings_its_licence_and_asks_for_nothing(wheel: Wheel, clone: Path) -> None:
    assert wheel.about["licenses/LICENSE"] == (clone / "LICENSE").read_bytes()
    vendored = clone / "src/python" / VENDORED
    licences = {"Apache-2.0"}
    if VENDORED in wheel.files:
        licences |= set(re.findall(r"^\S+ [\d.]+ \((.+)\)$", vendored.read_text(), re.M))
    assert wheel.metadata["License-Expression"] == " AND ".join(sorted(licences))
    assert wheel.metadata["Requires-Python"] == ">=3.9"
    assert wheel.metadata.get_all("Requires-Dist") is None


# --- the plugin, in a repository of a user's own --------------------------------------------------


@pytest.fixture(scope="module")
def in_repository(clone: Path) -> dict[str, bytes]:
    """dist/ of the example, with the backend from its source."""
    return package(BuildRoot(clone / "examples" / "monorepo", pants=clone / "pants"))


def test_the_installed_plugin_makes_the_bundles_that_the_source_makes(
    wheels: Path, in_repository: dict[str, bytes], clone: Path, tmp_path: Path
) -> None:
    """A build root with nothing of this repository but the example, and a folder of wheels."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    shutil.copy(wheels / PLUGIN, folder)
    path = tmp_path / "root"
    shutil.copytree(clone / "examples" / "monorepo", path, ignore=NOT_SOURCES)
    toml = (path / "pants.toml").read_text()
    assert IN_REPOSITORY in toml
    installed = f'plugins = ["pants-flyte=={VERSION}"]\n'
    (path / "pants.toml").write_text(
        f"{toml.replace(IN_REPOSITORY, installed)}\n"
        f'[python-repos]\nfind_links = ["{folder.as_uri()}"]\n'
    )
    # Pants keeps resolved plugins by what was asked for: another test run's wheel has the same
    # name.
    env = {
        "PANTS_LOCAL_STORE_DIR": str(tmp_path / "store"),
        "PANTS_NAMED_CACHES_DIR": str(tmp_path / "named"),
    }
    root = BuildRoot(path, pants=clone / "pants")
    assert package(root, env) == in_repository


def package(root: BuildRoot, env: dict[str, str] | None = None) -> dict[str, bytes]:
    root.pants("--no-pantsd", "package", "::", env=env)
    dist = root.path / "dist"
    files = {str(p.relative_to(dist)): p.read_bytes() for p in dist.rglob("*") if p.is_file()}
    assert any(name.endswith(".tar.gz") for name in files)
    return files


# --- the shim, in an image that somebody else builds ----------------------------------------------


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the shim in it and nothing else."""
    directory = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", str(directory))
    pip = [str(directory / "bin" / "python"), "-I", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--no-index", "--no-deps", str(wheels / SHIM))
    return directory


@pytest.mark.parametrize("command", [["flyte-shim"], ["python", "-m", "flyte_shim"]])
def test_the_installed_shim_unpacks_a_bundle_and_becomes_the_command(
    environment: Path,
    in_repository: dict[str, bytes],
    clone: Path,
    tmp_path: Path,
    command: list[str],
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    archive.write_bytes(in_repository["services.etl/pipeline.tar.gz"])
    workdir = tmp_path / "task"
    workdir.mkdir()
    program, *arguments = command
    said = run(
        str(environment / "bin" / program),
        *arguments,
        *("--archive", archive.as_uri()),
        *("--sha256", hashlib.sha256(archive.read_bytes()).hexdigest()),
        *("--workdir", str(workdir)),
        *("--cache", str(tmp_path / "cache")),
        *("--", "head", "-n", "1", "data/stations.csv"),
    )
    stations = clone / "examples" / "monorepo" / "data" / "stations.csv"
    assert said == (stations.read_text().splitlines(keepends=True)[0])


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env or clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
