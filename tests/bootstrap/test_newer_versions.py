"""A Pants that no package index has: `./pants` leaves it to the official launcher, or says what to
do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bootstrapping import PYTHON, Stranger, stranger

NEWER = "2.33.0"

# What stands in for Pants tells how it was started: no other part is replaced.
TELLING = """\
#!/bin/sh
printf '%s\\n' "{name}" "$PWD" "${{PANTS_VERSION-unset}}" "${{NO_SCIE_WARNING-unset}}" "$@"
"""


@pytest.fixture
def somebody(tmp_path: Path) -> Stranger:
    who = stranger(tmp_path / "some body")
    (who.root / "pants.toml").write_text(f'[GLOBAL]\npants_version = "{NEWER}"\n')
    return who


def program(path: Path, text: str = "", name: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or TELLING.format(name=name or path.parent.name))
    path.chmod(0o755)
    return path


def installation(nce: Path, version: str = NEWER) -> Path:
    """As the official launcher leaves one."""
    directory = nce / "0123abcd" / "bindings" / "venvs" / version
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "python").symlink_to(PYTHON)
    program(directory / "bin" / "pants", name=f"installed {version}")
    return directory


def test_an_installation_is_started(somebody: Stranger) -> None:
    installation(somebody.home / ".cache" / "nce")
    done = somebody.run("a", "b c", "")
    assert done.out.splitlines() == [
        "installed 2.33.0", str(somebody.root), "unset", "1", "a", "b c", "",
    ]  # fmt: skip
    assert done.code == 0


def test_the_native_client_of_an_installation_is_told_what_to_start(somebody: Stranger) -> None:
    directory = installation(somebody.home / ".cache" / "nce")
    client = directory / "lib" / "python3.14" / "site-packages" / "pants" / "bin" / "native_client"
    program(client, '#!/bin/sh\nprintf "%s\\n" "$_PANTS_SERVER_EXE" "$@"\n')
    done = somebody.run("a", "b c")
    assert done.out.splitlines() == [str(directory / "bin" / "pants"), "a", "b c"]


@pytest.mark.parametrize("version", ["2.34.0.dev3", "2.18.0a0", "2.17.2", "3.0.0"])
def test_a_version_by_variable(somebody: Stranger, version: str) -> None:
    installation(somebody.home / ".cache" / "nce", version)
    assert somebody.run(PANTS_VERSION=version).out.startswith(f"installed {version}\n")


def test_an_empty_variable_counts_as_unset(somebody: Stranger) -> None:
    installation(somebody.home / ".cache" / "nce")
    assert somebody.run(PANTS_VERSION="").out.splitlines()[:3] == [
        "installed 2.33.0", str(somebody.root), "unset",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["{home}/else where", "~/else where"])
def test_the_launchers_cache_may_be_elsewhere(somebody: Stranger, place: str) -> None:
    installation(somebody.home / "else where")
    base = place.format(home=somebody.home)
    assert somebody.run(SCIE_BASE=base).out.startswith("installed 2.33.0\n")


@pytest.mark.parametrize("mode", [None, 0o644])
def test_without_an_installation_another_pants_is_started(
    somebody: Stranger, tmp_path: Path, mode: int | None
) -> None:
    """mode: of a program that looks like an installation and can't be started."""
    if mode:
        (installation(somebody.home / ".cache" / "nce") / "bin" / "pants").chmod(mode)
    program(tmp_path / "launcher" / "pants")
    done = somebody.run("a", "b c", PATH=f"{tmp_path / 'launcher'}:{somebody.path}")
    assert done.out.splitlines() == ["launcher", str(somebody.root), "unset", "unset", "a", "b c"]


def test_what_starts_this_script_again_is_passed_over(somebody: Stranger, tmp_path: Path) -> None:
    link = tmp_path / "link" / "pants"
    link.parent.mkdir()
    link.symlink_to(somebody.pants)
    program(tmp_path / "wrapper" / "pants", f'#!/bin/sh\n"{somebody.pants}" "$@"\n')
    path = f"{link.parent}:{tmp_path / 'wrapper'}"
    done = somebody.run(PATH=f"{path}:{somebody.path}")
    (complaint,) = done.err.splitlines()
    assert "neither an installation" in complaint
    assert done.code == 1
    program(tmp_path / "launcher" / "pants")
    done = somebody.run(PATH=f"{path}:{tmp_path / 'launcher'}:{somebody.path}")
    assert done.out.startswith("launcher\n")


def test_with_neither_it_says_what_to_do(somebody: Stranger) -> None:
    done = somebody.run()
    (complaint,) = done.err.splitlines()
    assert complaint.startswith("pants: Pants 2.33.0 is on no package index")
    assert "install the launcher" in complaint
    assert "PANTS_VERSION=2.17.1" in complaint
    assert done.code == 1


def test_an_older_version_by_variable_is_made_here(somebody: Stranger) -> None:
    installation(somebody.home / ".cache" / "nce")
    done = somebody.run(PANTS_VERSION="2.17.1", PATH=somebody.path.split(":")[1])
    assert "Pants 2.17.1 runs on CPython 3.9" in done.err


def test_what_pip_was_told_is_passed_on(somebody: Stranger) -> None:
    installed = installation(somebody.home / ".cache" / "nce")
    program(installed / "bin" / "pants", '#!/bin/sh\necho "$PANTS_PYTHON_REPOS_INDEXES"\n')
    assert somebody.run(PIP_INDEX_URL="http://a/simple").out == "['http://a/simple']\n"


@pytest.mark.parametrize("reachable", [True, False])
def test_a_tool_made_here_is_named_only_where_that_was_decided(
    somebody: Stranger, reachable: bool
) -> None:
    installed = installation(somebody.home / ".cache" / "nce")
    program(installed / "bin" / "pants", '#!/bin/sh\necho "${PANTS_PEX_CLI_VERSION-own}"\n')
    cache = somebody.home / ".cache" / "pants-flyte"
    tool = cache / "pex-cli-9.9"
    for directory in (tool, cache / "pants-2.33.0"):
        directory.mkdir(parents=True)
    (tool / "known_versions").write_text("v9.9|linux_x86_64|00|1\n")
    (cache / "pants-2.33.0" / "pex-cli-made").write_text("" if reachable else str(tool))
    assert somebody.run().out == ("own\n" if reachable else "v9.9\n")
