"""`pants-flyte init` in repositories of a user's own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.build_root import CHECKOUT, BuildRoot, clean_environment, clone_checkout

TASK = """\
import flyte
{imports}

env = flyte.TaskEnvironment(name="etl")


@env.task
def run(n: int = 2) -> int:
    return double(n)
"""
DOUBLE = "def double(n: int) -> int:\n    return 2 * n\n"
UV = re.search(
    r"^uv==(\S+)", (CHECKOUT / "src/python/flyte_pack/flyte-image.lock").read_text(), re.M
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_checkout(tmp_path_factory.mktemp("adopting") / "clone")


class Repository:
    """A user's."""

    def __init__(self, path: Path, clone: Path) -> None:
        self.path = path
        self.clone = clone
        self.env = clean_environment()
        path.mkdir()
        self.run("git", "init", "-q")

    def move_home(self, home: Path) -> None:
        """From here on all is made anew: Pants, its caches, the wheel."""
        home.mkdir()
        kept = {name: value for name, value in self.env.items() if not name.startswith("XDG_")}
        self.env = {**kept, "HOME": str(home)}

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            file = self.path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.path, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def init(self, *options: str) -> str:
        return self.run(str(self.clone / "pants-flyte"), "init", *options)

    @property
    def files(self) -> set[str]:
        """What is to be committed."""
        return set(self.run("git", "ls-files", "--others", "--exclude-standard").splitlines())

    @property
    def packaged(self) -> set[str]:
        dist = self.path / "dist"
        return {str(path.relative_to(dist)) for path in dist.glob("services.*/*.tar.gz")}


@pytest.fixture
def repository(clone: Path, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path / "root", clone)
    yield made
    BuildRoot(made.path).stop()


LAUNCHER = {
    f"build-support/bootstrap/{path.name}"
    for path in (CHECKOUT / "build-support/bootstrap").iterdir()
    if path.is_file()
}
WRITTEN = {"pants", "pants.toml", ".gitignore", *LAUNCHER}


def without_wheel(files: set[str]) -> set[str]:
    return {path for path in files if not path.endswith(".whl")}


def blocks(section: str) -> dict[str, str]:
    """The code of each language, its blocks one after another."""
    code: dict[str, str] = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.S | re.M):
        code[language] = f"{code[language]}\n{text}" if language in code else text
    return code


def test_the_readme_sets_up_a_repository_at_the_first_try(
    repository: Repository, tmp_path: Path
) -> None:
    """All that the section says, word for word, in an empty directory, with an empty home."""
    repository.move_home(tmp_path / "home")
    readme = (CHECKOUT / "README.md").read_text()
    section = readme.partition("\n## In your own repository\n")[2].partition("\n## ")[0]
    code = blocks(section.replace("/path/to/pants-flyte", str(repository.clone)))
    said = repository.run("bash", "-ec", code["bash"])
    assert "3" in said.splitlines()[-1] or "o0=3" in said
    written = (repository.path / "pants.toml").read_text()
    (folder,) = (path.name for path in (repository.path / "3rdparty/pants-flyte").iterdir())
    assert written.replace(folder, "0123456789ab") == code["toml"].partition("\n")[2]
    assert repository.packaged == {"services.hello/workflows.tar.gz"}
    assert without_wheel(repository.files) == {
        *WRITTEN,
        *("3rdparty/python/BUILD", "3rdparty/python/default.lock"),
        *("services/hello/BUILD", "services/hello/workflows.py"),
    }


def test_a_monorepo_of_libraries_and_services(repository: Repository) -> None:
    """The commands of docs/adopt.md."""
    repository.write(
        {
            "libs/common/util.py": DOUBLE,
            "services/etl/pipeline.py": TASK.format(imports="from libs.common.util import double"),
            "requirements.txt": "packaging>=23  # for later\n",
            ".gitignore": "/secret",
        }
    )
    page = (CHECKOUT / "docs" / "adopt.md").read_text()
    code = blocks(page.replace("/path/to/pants-flyte", str(repository.clone)))
    repository.run("bash", "-ec", code["bash"])
    assert repository.packaged == {"services.etl/pipeline.tar.gz"}
    assert "o0=8" in repository.run(
        "./pants", "run", "services/etl:pipeline", "--", "run", "--n", "4"
    )
    assert (repository.path / ".gitignore").read_text().startswith("/secret\n/.pants.d/\n")
    before = {path: (repository.path / path).read_bytes() for path in repository.files}
    assert "wrote" not in repository.init()
    assert {path: (repository.path / path).read_bytes() for path in repository.files} == before


def test_a_uv_project_in_src_layout(repository: Repository, tmp_path: Path) -> None:
    assert UV is not None
    repository.write(
        {
            "pyproject.toml": """\
                [project]
                name = "app"
                version = "1"
                requires-python = ">=3.11"
                dependencies = [
                    "flyte==2.12.1",
                ]
            """,
            "src/app/numbers.py": DOUBLE,
            "src/app/pipeline.py": TASK.format(imports="from app.numbers import double"),
        }
    )
    repository.run(sys.executable, "-m", "venv", str(tmp_path / "uv"))
    repository.run(str(tmp_path / "uv/bin/pip"), "install", "-q", f"uv=={UV[1]}")
    repository.run(str(tmp_path / "uv/bin/uv"), "lock", "-q")
    said = repository.init()
    assert "generate-lockfiles" not in said
    repository.run("./pants", "tailor", "::")
    repository.run("./pants", "package", "::")
    assert (repository.path / "dist/src.app/pipeline.tar.gz").is_file()
    assert "o0=8" in repository.run("./pants", "run", "src/app:pipeline", "--", "run", "--n", "4")


def test_what_is_there_is_kept_and_the_rest_is_said(repository: Repository) -> None:
    """A workspace beside Bazel, with a pants.toml."""
    repository.write(
        {
            "pants.toml": "[GLOBAL]\n",
            "MODULE.bazel": "",
            "a/pyproject.toml": """\
                [project]
                name = "team.a"
                requires-python = ">=3.9"
                dependencies = ["numpy>=2", "requests"]
            """,
            "b/pyproject.toml": """\
                [project]
                name = "b"
                dependencies = ["team-a", "numpy>=1"]
            """,
        }
    )
    said = repository.init()
    assert (repository.path / "pants.toml").read_text() == "[GLOBAL]\n"
    assert "kept   pants.toml: it should hold:" in said
    assert 'interpreter_constraints = ["CPython>=3.10,<3.14"]' in said
    assert 'marker_filenames = ["pyproject.toml"]' in said
    assert 'build_file_name = "BUILD.pants"' in said
    requirements = (repository.path / "3rdparty/python/requirements.txt").read_text()
    assert requirements.splitlines()[1:] == ["flyte>=2.5,<2.13", "numpy>=1", "numpy>=2", "requests"]
    assert (repository.path / "3rdparty/python/BUILD.pants").is_file()


def test_a_newer_wheel_of_the_same_version_is_the_one_that_runs(
    repository: Repository, tmp_path: Path
) -> None:
    repository.clone = clone_checkout(tmp_path / "clone")
    repository.init()
    assert "a newer word" not in repository.run("./pants", "help", "flyte_task")
    help_text = repository.clone / "src/python/pants_flyte/target_types.py"
    old = "A Flyte task (or all tasks of one environment)"
    text = help_text.read_text()
    assert old in text
    help_text.write_text(text.replace(old, f"a newer word: {old}"))
    said = repository.init()
    (line,) = re.findall(r"^ *(find_links = .*)$", said, re.MULTILINE)
    toml = repository.path / "pants.toml"
    toml.write_text(re.sub(r"^find_links = .*$", line, toml.read_text(), flags=re.MULTILINE))
    BuildRoot(repository.path).stop()  # on a busy machine it may not have heard of the change yet
    assert "a newer word" in repository.run("./pants", "help", "flyte_task")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"pyproject.toml": "[project"}, [], "pyproject.toml is invalid"),
        ({}, ["missing"], "missing is no directory"),
        ({"src/python/pants_flyte/x.py": ""}, [], "is pants-flyte itself"),
    ],
)
def test_what_it_cannot_use_is_said_in_a_line_and_writes_nothing(
    repository: Repository, files: dict[str, str], options: list[str], message: str
) -> None:
    repository.write(files)
    before = repository.files
    done = subprocess.run(
        [str(repository.clone / "pants-flyte"), "init", *options],
        cwd=repository.path,
        env=repository.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert repository.files == before
