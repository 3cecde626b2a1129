"""`./pants` on a machine that has none yet: interrupted, twice at once, behind a company's mirror.

One installation is made here, the hard way, and looked at from all sides.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.bootstrapping import (
    BOOTSTRAP,
    PYTHON,
    VERSION,
    Finished,
    Stranger,
    stranger,
)
from tests.support.mirror import HOST, Mirror, mirror

# Of the PEX tool of Pants 2.17.1, wherever and by whomever it is made: it is part of cache keys.
PEX_CLI_SHA256 = "70cd366c360cd9199c43d28c2ab7cc8c5545edaf9eff0922fd01d99d66ff2bd0"


@dataclass(frozen=True)
class History:
    """What happened until the installation was there."""

    somebody: Stranger
    mirror: Mirror
    left_by: dict[str, list[str]]
    """What a killed start left in the cache, by the step that it was killed in."""
    after_orphan: str
    """The first that a start said that came while the pip of a killed one still lived."""
    racers: list[Finished]


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("bootstrap")
    with mirror(_wheels(directory), directory) as running:
        somebody = stranger(directory, TZ="Asia/Tokyo", LC_ALL="C")
        configuration = somebody.home / ".config" / "pip" / "pip.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(
            f"[global]\nindex-url = {running.index}\n"
            f"cert = {running.certificate}\nproxy = {running.proxy}\n"
        )
        left_by = {}
        for step in ("1/4", "2/4", "4/4"):
            somebody.start().until(step).kill_all()
            left_by[step] = _names(somebody.cache)
        orphans = somebody.start().until("3/4").kill_bootstrap_alone()
        left_by["3/4"] = _names(somebody.cache)
        follower = somebody.start().until("pants: ")
        after_orphan = follower.seen
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        follower.until("1/4").kill_all()

        racers = [start.finish() for start in [somebody.start(), somebody.start()]]
        yield History(somebody, running, left_by, after_orphan, racers)
    for link in Path("/tmp").glob("pants-flyte-*/pex"):  # homes have spaces in their names
        if str(tmp_path_factory.getbasetemp()) in os.readlink(link):
            shutil.rmtree(link.parent)


def _wheels(directory: Path) -> Path:
    """Pants, all it needs, and the PEX tool, from the index that this machine uses."""
    environment = directory / "pip"
    subprocess.run([PYTHON, "-m", "venv", environment], check=True)
    wheels = directory / "wheels"
    for lock in (f"pants-{VERSION}.lock", f"pex-cli-{VERSION}.lock"):
        subprocess.run(
            [environment / "bin" / "python", "-m", "pip", "wheel", "-q",
             "--disable-pip-version-check", "--require-hashes", "-r", BOOTSTRAP / lock,
             "--wheel-dir", wheels],
            check=True,
        )  # fmt: skip
    return wheels


def _names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


@pytest.fixture
def owner(history: History) -> Stranger:
    """Somebody who has his Pants."""
    assert [racer.code for racer in history.racers] == [0, 0], history.racers
    return history.somebody


@pytest.mark.parametrize("step", ["1/4", "2/4", "3/4", "4/4"])
def test_a_killed_start_leaves_nothing_that_looks_whole(history: History, step: str) -> None:
    assert [
        n for n in history.left_by[step] if not n.endswith(".lock") and ".making-" not in n
    ] == []


def test_a_start_waits_for_what_a_killed_one_left_running(history: History) -> None:
    assert "another start is preparing this Pants; waiting for it" in history.after_orphan


def test_two_starts_at_once_make_one_installation(history: History) -> None:
    assert [(racer.code, racer.out) for racer in history.racers] == [(0, f"{VERSION}\n")] * 2
    said = "".join(racer.err for racer in history.racers)
    assert said.count("this happens once") == 1
    assert said.count("waiting for it") == 1


def test_what_killed_starts_left_is_cleared_away(owner: Stranger) -> None:
    names = _names(owner.cache)
    assert [n for n in names if not n.startswith(".")] == [
        "cpython-3.9-" + _key(names),
        "default",
        "starts",
    ]
    assert [n for n in names if n.startswith(".") and not n.endswith(".lock")] == []


def _key(names: list[str]) -> str:
    (match,) = filter(None, (re.fullmatch(r"cpython-3\.9-([0-9a-f]{12})", name) for name in names))
    return match[1]


def test_a_person_is_told_what_happens(history: History) -> None:
    said = max((racer.err for racer in history.racers), key=len)
    lines = said.splitlines()
    assert all(line.startswith("pants: ") for line in lines)
    assert [m[0] for m in (re.search(r"\d/4", line) for line in lines) if m] == [
        "1/4",
        "2/4",
        "3/4",
        "4/4",
    ]
    assert history.mirror.index in said


def test_later_starts_say_nothing(owner: Stranger) -> None:
    assert owner.run() == Finished(0, f"{VERSION}\n", "")


def test_later_starts_need_no_python_on_path(owner: Stranger) -> None:
    assert owner.reaches_pants(PATH=owner.path.split(":")[1])


def test_everything_came_through_the_mirror_that_pip_knows(history: History) -> None:
    fetched = {name for name in history.mirror.requested if name.endswith(".whl")}
    assert {f"/{path.name}" for path in _wheel_files(history)} <= fetched
    assert set(history.mirror.connected) == {f"{HOST}:443"}


def _wheel_files(history: History) -> list[Path]:
    return sorted((history.mirror.certificate.parent / "wheels").glob("*.whl"))


def test_the_pex_tool_is_the_same_everywhere(owner: Stranger) -> None:
    tool = owner.cache / f"cpython-3.9-{_key(_names(owner.cache))}" / "pex-cli"
    content = (tool / "pex").read_bytes()
    assert hashlib.sha256(content).hexdigest() == PEX_CLI_SHA256
    lines = (tool / "known_versions").read_text().splitlines()
    assert [line.split("|")[2:] for line in lines] == [[PEX_CLI_SHA256, str(len(content))]] * 4


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1", "no-such-locale"])
def test_pants_starts_in_any_locale(owner: Stranger, locale: str) -> None:
    assert owner.reaches_pants(LC_ALL=locale)


def test_variables_of_the_callers_python_do_not_reach_pants(
    owner: Stranger, tmp_path: Path
) -> None:
    (tmp_path / "toml.py").write_text("raise SystemExit('a toml of the caller')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('a sitecustomize of the caller')")
    assert owner.reaches_pants(PYTHONPATH=str(tmp_path), PYTHONHOME=str(tmp_path))


def test_it_works_through_a_link_and_from_below_a_build_root(
    owner: Stranger, tmp_path: Path
) -> None:
    link = tmp_path / "pants"
    link.symlink_to(os.path.relpath(owner.pants, tmp_path))
    below = owner.root / "a" / "b"
    below.mkdir(parents=True, exist_ok=True)
    assert replace(owner, pants=link, root=below).reaches_pants()


def test_pants_resolves_through_the_same_mirror_and_its_daemon_starts(
    history: History, owner: Stranger
) -> None:
    (owner.root / "pants.toml").write_text(
        f'[GLOBAL]\npants_version = "{VERSION}"\nbackend_packages = ["pants.backend.python"]\n'
        '[python]\ninterpreter_constraints = ["CPython==3.9.*"]\n'
    )
    (owner.root / "BUILD").write_text(
        "python_requirement(name='six', requirements=['six==1.17.0'])\n"
        "pex_binary(name='app', dependencies=[':six'])\n"
    )
    del history.mirror.requested[:]
    finished = owner.run("package", ":app", PANTS_PANTSD="true")
    assert finished.code == 0, finished.err
    with zipfile.ZipFile(owner.root / "dist" / "app.pex") as pex:
        assert any(name.endswith("/six.py") for name in pex.namelist())
    assert "/simple/six/" in history.mirror.requested
    assert "pantsd started" in finished.err
    assert "DEPRECATED" not in finished.err
    for pid in owner.root.glob(".pids/*/pantsd/pid"):
        os.kill(int(pid.read_text()), 15)


# How the interpreter is found. An installation that is there already is taken into use, so these
# cost next to nothing.


@pytest.fixture
def newcomer(owner: Stranger, tmp_path: Path) -> Stranger:
    """Somebody whose cache holds the installation but not yet a choice of interpreter."""
    newcomer = stranger(tmp_path)
    newcomer.cache.mkdir(parents=True)
    (made,) = owner.cache.glob("cpython-*")
    (newcomer.cache / made.name).symlink_to(made)
    return newcomer


def _chosen(somebody: Stranger) -> str:
    (choice,) = [p for p in somebody.cache.iterdir() if p.name.startswith(("default", "chosen-"))]
    return choice.read_text().splitlines()[0]


def test_a_start_killed_before_its_last_step_is_completed_by_the_next(newcomer: Stranger) -> None:
    assert newcomer.reaches_pants()
    assert _chosen(newcomer) == PYTHON


def test_a_shim_that_answers_but_fails_is_passed_over(newcomer: Stranger, tmp_path: Path) -> None:
    shims, versions = tmp_path / "shims", tmp_path / "pyenv" / "versions"
    shims.mkdir()
    for name in ("python3.9", "python3", "python"):
        (shims / name).write_text("#!/bin/sh\necho pyenv: not enabled >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    (versions / "3.9.99" / "bin").mkdir(parents=True)
    (versions / "3.9.99" / "bin" / "python3.9").symlink_to(PYTHON)
    path = f"{shims}:{newcomer.path.split(':')[1]}"
    assert newcomer.reaches_pants(PATH=path, PYENV_ROOT=str(versions.parent))
    assert _chosen(newcomer) == PYTHON


def test_pyenv_in_its_usual_place_is_found(newcomer: Stranger) -> None:
    usual = newcomer.home / ".pyenv" / "versions" / "3.9.99" / "bin"
    usual.mkdir(parents=True)
    (usual / "python3.9").symlink_to(PYTHON)
    assert newcomer.reaches_pants(PATH=newcomer.path.split(":")[1])


@pytest.mark.parametrize("wish", ["a path", "a name on PATH", "a virtual environment's"])
def test_the_interpreter_can_be_named(newcomer: Stranger, tmp_path: Path, wish: str) -> None:
    if wish == "a path":
        named = PYTHON
    elif wish == "a name on PATH":
        named = "python3.9"
    else:
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
        named = str(tmp_path / "venv" / "bin" / "python")
    assert newcomer.reaches_pants(PANTS_PYTHON=named)
    assert _chosen(newcomer) == PYTHON
    assert newcomer.reaches_pants(PANTS_PYTHON=named)


def test_an_interpreter_that_went_away_is_replaced(newcomer: Stranger) -> None:
    assert newcomer.reaches_pants()
    choice = newcomer.cache / "default"
    choice.write_text(choice.read_text().replace(PYTHON, "/gone/python3.9"))
    assert newcomer.reaches_pants()
    assert _chosen(newcomer) == PYTHON


def test_a_damaged_installation_is_named(newcomer: Stranger) -> None:
    (made,) = newcomer.cache.glob("cpython-*")
    whole = made.resolve()
    made.unlink()
    made.mkdir()
    (made / "lib").symlink_to(whole / "lib")
    finished = newcomer.run()
    assert finished.code == 1
    assert finished.err.count("\n") == 1
    assert f"{made} is damaged" in finished.err
    assert "remove that directory and start again" in finished.err
