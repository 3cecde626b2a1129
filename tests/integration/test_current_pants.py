"""The example on a newer Pants, with the backend from its source and from its wheel: the same bytes
as on 2.17.1.

Skipped where this machine has no newer Pants. `build-support/test_on.sh` runs this on one that is
named.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import flyte_shim
from tests.support.build_root import BuildRoot, clone_checkout
from tests.support.current_pants import CurrentPants, require_current_pants
from tests.support.git import git
from tests.support.monorepo import edited, files_in
from tests.support.registries import real_registry

NOT_SOURCES = shutil.ignore_patterns("dist", ".pants.d", ".pids")
PLAUSIBLE = "libs/limits/plausible.py"


@pytest.fixture(scope="module")
def current() -> CurrentPants:
    return require_current_pants()


@pytest.fixture(scope="module")
def clone(current: CurrentPants, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For nothing, and so not made, where there is no newer Pants."""
    clone = clone_checkout(tmp_path_factory.mktemp("current") / "clone")
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "All of it")
    return clone


@pytest.fixture(scope="module")
def expected(clone: Path) -> dict[str, bytes]:
    """dist/ of the example, made by the Pants that it pins."""
    root = BuildRoot(clone / "examples" / "monorepo", pants=clone / "pants")
    root.pants("--no-pantsd", "package", "::")
    files = files_in(root.path / "dist")
    shutil.rmtree(root.path / "dist")
    return files


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Caches of these tests' own: what is said once, a deprecation say, is said here."""
    directory = tmp_path_factory.mktemp("caches")
    return {
        "PANTS_LOCAL_STORE_DIR": str(directory / "store"),
        "PANTS_NAMED_CACHES_DIR": str(directory / "named"),
    }


class Example(BuildRoot):
    """A build root in which no run of Pants may say that something is deprecated, or untried."""

    def pants(
        self, *args: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = super().pants(*args, check=check, env=env)
        said = [
            line
            for line in done.stderr.splitlines()
            if "deprecat" in line.lower() or "last tried" in line
        ]
        assert said == [], f"pants {args}"
        return done


@pytest.fixture(scope="module")
def example(
    clone: Path, expected: dict[str, bytes], current: CurrentPants, caches: dict[str, str]
) -> Iterator[Example]:
    """The same build root as `expected` was made in, on the newer Pants."""
    env = {**current.environment, **caches}
    root = Example(clone / "examples" / "monorepo", pants=current.program, env=env)
    yield root
    root.stop()


def test_package_gives_the_same_bytes(example: Example, expected: dict[str, bytes]) -> None:
    example.pants("package", "::")
    made = files_in(example.path / "dist")
    assert made.keys() == expected.keys()
    assert [name for name in made if made[name] != expected[name]] == []
    assert any(name.endswith(".tar.gz") for name in made)
    assert any("/image/blobs/" in name for name in made)


@pytest.mark.parametrize("where", [[], ["--in-image"]], ids=["here", "in the image"])
def test_a_task_runs(example: Example, where: list[str]) -> None:
    done = example.pants("run", "services/ml:train", "--", *where, "--n", "3")
    assert "Busiest tomorrow: central, 338.0 rides" in done.stdout, done.stderr


def test_a_second_deployment_writes_nothing(example: Example) -> None:
    first = example.pants("run", "services:deploy")
    assert "Deployed version" in first.stdout + first.stderr
    store = example.path / "dist" / "flyte"
    before = {path: path.lstat().st_mtime_ns for path in store.rglob("*")}
    second = example.pants("run", "services:deploy")
    assert "Nothing to do" in second.stdout + second.stderr
    assert {path: path.lstat().st_mtime_ns for path in store.rglob("*")} == before


def test_what_changed_is_deployed(example: Example) -> None:
    example.pants("run", "services:deploy")
    records = example.path / "dist" / "flyte"
    changed = (
        "--changed-since=HEAD",
        "--changed-dependents=transitive",
        "--filter-address-regex=services:deploy",
        "experimental-deploy",
    )
    with edited(example, PLAUSIBLE, "", "\nCHANGED = True\n"):
        before = files_in(records)
        dry = example.pants("--experimental-deploy-dry-run", *changed)
        assert "services:deploy" in dry.stdout + dry.stderr
        assert files_in(records) == before
        example.pants(*changed)
        assert files_in(records) != before
    nothing = example.pants(*changed, check=False)
    assert "No files or targets specified" in nothing.stderr


def test_the_tests_of_the_example_pass(example: Example) -> None:
    done = example.pants("test", "::")
    assert "succeeded" in done.stderr, done.stderr


def test_publish_pushes_the_image(example: Example, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry") as registry:
        to = f"--flyte-registries=['{registry.host}/bikes']"
        example.pants(to, "--flyte-image-tags=['1']", "publish", "services/ml:image")
        assert registry.tag("bikes/services/ml/image", "1")


@pytest.mark.parametrize("what", ["flyte_task", "flyte_image", "flyte_deployment", "flyte"])
def test_help_shows_the_targets_and_options(example: Example, what: str) -> None:
    assert what in example.pants("help", what).stdout


def test_peek_shows_the_fields(example: Example) -> None:
    assert (
        '"entry_point": "workflows.py:train"' in example.pants("peek", "services/ml:train").stdout
    )


def test_the_wheel_does_the_same_in_a_build_root_of_its_own(
    clone: Path,
    expected: dict[str, bytes],
    example: Example,
    current: CurrentPants,
    caches: dict[str, str],
    tmp_path: Path,
) -> None:
    """As README's "In your own repository" says, with the wheel that 2.17.1 makes at the top."""
    wheel = "build-support/wheels/pants-flyte:"
    BuildRoot(clone, pants=clone / "pants").pants("--no-pantsd", "package", wheel)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in (clone / "dist").glob("pants_flyte-*.whl"):
        shutil.copy(wheel, wheels)
    path = tmp_path / "root"
    shutil.copytree(example.path, path, ignore=NOT_SOURCES)
    toml = (path / "pants.toml").read_text()
    from_source = 'pythonpath = ["%(buildroot)s/../../src/python"]\n'
    assert from_source in toml
    from_wheel = f'plugins = ["pants-flyte=={flyte_shim.__version__}"]\n'
    find_links = f'\n[python-repos]\nfind_links = ["{wheels.as_uri()}"]\n'
    (path / "pants.toml").write_text(toml.replace(from_source, from_wheel) + find_links)
    root = Example(path, pants=current.program, env={**current.environment, **caches})
    root.pants("--no-pantsd", "package", "::")
    assert files_in(path / "dist") == expected
