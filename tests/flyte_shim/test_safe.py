"""What is run comes out of directories that only root and the current user can change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyte_shim import safe
from flyte_shim.safe import UnsafeDirectory, first_usable, safe_directory
from tests.support.archives import archive_of
from tests.support.shim import PYTHON_PATH, environment, run_shim

US, OTHER = 5555, 6666
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to other users")


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of root that every user can reach, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def make(top: Path, tree: list[tuple[str, int, int] | tuple[str, int, str]]) -> None:
    """Directories (path, owner, mode), and links (path, owner, target)."""
    for path, owner, what in tree:
        here = top / path
        if isinstance(what, str):
            here.symlink_to(what.format(top))
        else:
            here.mkdir()
            here.chmod(what)
        os.chown(here, owner, -1, follow_symlinks=False)


SAFE = {
    "ours": ([("a", US, 0o700)], "a", "a"),
    "root's": ([("a", 0, 0o755)], "a", "a"),
    "below a sticky one of root": ([("t", 0, 0o1777), ("t/a", US, 0o755)], "t/a", "t/a"),
    "missing, in a sticky one": ([("t", 0, 0o1777)], "t/a/b", "t/a/b"),
    "sticky itself": ([("t", 0, 0o1777)], "t", "t"),
    "sticky, of a group": ([("t", 0, 0o3775)], "t", "t"),
    "through our link in a sticky one": (
        [("t", 0, 0o1777), ("a", US, 0o700), ("t/l", US, "{}/a")],
        "t/l/b",
        "a/b",
    ),
    "through a foreign link that only root could make there": (
        [("a", US, 0o700), ("l", OTHER, "a")],
        "l",
        "a",
    ),
    "up and down": ([("a", US, 0o700), ("a/b", US, 0o700)], "a/b/.././/b", "a/b"),
    "up behind a link": (
        [("a", US, 0o700), ("a/b", US, 0o700), ("l", 0, "a/b")],
        "l/../c",
        "a/c",
    ),
}


@as_root
@pytest.mark.parametrize(("tree", "path", "expected"), SAFE.values(), ids=SAFE)
def test_a_directory_of_ours_is_taken_and_made(top, tree, path, expected):
    make(top, tree)
    with acting_as(US):
        assert safe_directory(f"{top}/{path}", "") == f"{top}/{expected}"
    made = (top / expected).stat()
    assert made.st_uid in (0, US)
    if made.st_uid == US:
        assert made.st_mode & 0o022 == 0


UNSAFE = {
    "another user's": ([("a", OTHER, 0o755)], "a", "/a belongs to the user with the id 6666"),
    "below another user's": (
        [("a", OTHER, 0o755), ("a/b", US, 0o700)],
        "a/b",
        "/a belongs to the user with the id 6666",
    ),
    "squatted": (
        [("t", 0, 0o1777), ("t/a", OTHER, 0o777)],
        "t/a",
        "/t/a belongs to the user with the id 6666",
    ),
    "open to anyone": ([("a", 0, 0o777)], "a", "/a can be written by anyone"),
    "open to anyone, and ours": ([("a", US, 0o777)], "a", "/a can be written by anyone"),
    "below one that is open": (
        [("a", 0, 0o777), ("a/b", US, 0o700)],
        "a/b",
        "/a can be written by anyone",
    ),
    "open to its group": ([("a", US, 0o775)], "a", "/a can be written by its group"),
    "a volume of a pod with fsGroup": ([("a", 0, 0o2775)], "a", "/a can be written by its group"),
    "another's link in a sticky one": (
        [("t", 0, 0o1777), ("a", US, 0o700), ("t/l", OTHER, "{}/a")],
        "t/l",
        "/t/l belongs to the user with the id 6666",
    ),
    "our link to one that is open": (
        [("a", 0, 0o777), ("b", 0, 0o755), ("b/l", US, "../a")],
        "b/l/c",
        "/a can be written by anyone",
    ),
    "our link in one that is open": (
        [("a", 0, 0o777), ("b", 0, 0o755), ("a/l", US, "../b")],
        "a/l",
        "/a can be written by anyone",
    ),
    "back up from one that is open": (
        [("a", 0, 0o777), ("b", 0, 0o755)],
        "a/../b",
        "/a can be written by anyone",
    ),
}


@as_root
@pytest.mark.parametrize(("tree", "path", "message"), UNSAFE.values(), ids=UNSAFE)
def test_a_directory_that_others_could_change_is_refused(top, tree, path, message):
    make(top, tree)
    with acting_as(US), pytest.raises(UnsafeDirectory) as caught:
        safe_directory(f"{top}/{path}", "set X to another directory")
    assert str(caught.value).startswith(f"{top}{message}")
    assert str(caught.value).endswith("or set X to another directory")


@as_root
def test_root_trusts_nobody_else(top):
    make(top, [("a", US, 0o700)])
    with pytest.raises(UnsafeDirectory, match="the user with the id 5555"):
        safe_directory(f"{top}/a/b", "")
    assert not (top / "a/b").exists()


def test_a_loop_of_links_and_a_file_are_errors(tmp_path):
    (tmp_path / "l").symlink_to("l")
    (tmp_path / "f").touch()
    for name in ("l", "f/x", "f"):
        with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
            safe_directory(f"{tmp_path}/{name}", "")


def test_a_relative_path_is_below_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a").mkdir()
    assert safe_directory("a/../b", "") == str(tmp_path / "b")
    assert safe_directory(".", "") == str(tmp_path)


@as_root
@pytest.mark.parametrize("kind", ["root's", "squatted"])
def test_in_a_user_namespace_another_user_is_not_taken_for_root(top, kind):
    """There both show as the overflow user, who owns `/`."""
    make(top, [("t", 0, 0o1777), ("t/a", OTHER, 0o777)])
    path = Path("/usr/lib") if kind == "root's" else top / "t/a"
    code = f"from flyte_shim.safe import safe_directory; print(safe_directory({str(path)!r}, ''))"
    package = top / "flyte_shim"
    shutil.copytree(Path(PYTHON_PATH, "flyte_shim"), package)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if not python or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs unshare, setpriv, and a Python that every user can run")
    become = ["setpriv", f"--reuid={US}", f"--regid={US}", "--clear-groups"]
    inside = ["unshare", "--user", f"--map-user={US}", python, "-c", code]
    done = subprocess.run(
        [*become, *inside],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(top)},
        capture_output=True,
        text=True,
        cwd="/",
    )
    if "unshare" in done.stderr:
        pytest.skip("users may not make namespaces here")
    if kind == "root's":
        assert (done.stdout, done.stderr) == (f"{path}\n", "")
    else:
        assert "UnsafeDirectory" in done.stderr


@as_root
def test_default_places_that_are_not_safe_are_passed_over_with_a_warning(top, monkeypatch):
    make(top, [("x", US, 0o777), ("h", OTHER, 0o755), ("t", 0, 0o777), ("u", 0, 0o1777)])
    make(top, [(f"u/c-{US}", OTHER, 0o700)])
    monkeypatch.setattr(safe, "TEMPORARY", (f"{top}/t", f"{top}/u"))
    monkeypatch.setenv("XDG_CACHE_HOME", f"{top}/x")
    monkeypatch.setenv("HOME", f"{top}/h")
    monkeypatch.delenv("TMPDIR", raising=False)
    warnings: list[str] = []
    with acting_as(US):
        found = first_usable("c", "set C", str, warnings.append)
        # Its name cannot be guessed, and a later start finds it again.
        assert found.startswith(f"{top}/u/c-{US}-")
        assert first_usable("c", "set C", str, print) == found
    assert warnings.pop() == f"the cache is {found}, as that is safe"
    places = [warning.partition(" is not used: ")[0] for warning in warnings]
    assert places == [f"{top}/x/c", f"{top}/h/.cache/c", f"{top}/t/c-{US}", f"{top}/u/c-{US}"]
    assert os.stat(found).st_mode & 0o777 == 0o700


def test_the_shim_refuses_a_named_place_and_warns_of_a_default_one(tmp_path):
    """A cache, a working directory."""
    bundle = archive_of(tmp_path / "store", {"main.py": ""}).path
    opened, ours = tmp_path / "open", tmp_path / "ours"
    opened.mkdir()
    ours.mkdir()
    opened.chmod(0o777)

    def start(*options, cwd=ours, **variables):
        return run_shim(
            *options, "--archive", bundle, "--", "true", home=ours, cwd=cwd, variables=variables
        )

    for done, what in (
        (start("--cache", opened), f"the cache directory {opened}"),
        (start(FLYTE_SHIM_CACHE=str(opened / "deeper")), f"the cache directory {opened}/deeper"),
        (start("--workdir", opened), f"the working directory {opened}"),
    ):
        assert done.returncode == 73
        reason = f"{what} cannot be used: {opened} can be written by anyone, without the sticky bit"
        assert done.stderr.startswith(f"flyte-shim: error: {reason}")
    assert not list(opened.iterdir())
    for done, what in (
        (start(XDG_CACHE_HOME=str(opened)), f"{opened}/flyte-shim is not used: "),
        (start(cwd=opened), "the working directory is not safe: "),
    ):
        assert done.returncode == 0
        assert done.stderr.startswith(f"flyte-shim: warning: {what}{opened} can be written")
    assert start().stderr == ""


def test_what_we_make_is_ours_alone_whatever_the_umask(tmp_path):
    bundle = archive_of(tmp_path / "store", {"main.py": ""}).path
    start = f"umask 0; exec {sys.executable} -m flyte_shim --workdir {tmp_path}/w/x "
    for _ in range(2):
        subprocess.run(
            ["sh", "-c", f"{start} --archive {bundle} -- true"],
            env=environment(tmp_path / "home/deep"),
            check=True,
        )
