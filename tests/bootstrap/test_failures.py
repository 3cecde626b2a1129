"""What a person reads when `./pants` cannot do its work: one sentence, and what to do."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bootstrapping import PYTHON, VERSION, Finished, Stranger, stranger
from tests.support.mirror import mirror


@pytest.fixture
def somebody(tmp_path: Path) -> Stranger:
    return stranger(tmp_path / "somebody")


def _complaint(finished: Finished) -> str:
    """The last line of a start that failed; before it there are only notes on the work."""
    assert finished.code == 1, finished
    assert finished.out == ""
    lines = finished.err.splitlines()
    assert all(line.startswith("pants: ") for line in lines), finished.err
    *notes, complaint = lines
    assert all(note.endswith(("...", "this happens once.")) for note in notes), notes
    return complaint


def test_no_build_root(somebody: Stranger) -> None:
    (somebody.root / "pants.toml").unlink()
    complaint = _complaint(somebody.run())
    assert "there is no pants.toml" in complaint
    assert "go to a build root" in complaint


@pytest.mark.parametrize("content", ["", "[GLOBAL]\n", '# pants_version = "2.17.1"\n'])
def test_no_version_pinned(somebody: Stranger, content: str) -> None:
    (somebody.root / "pants.toml").write_text(content)
    complaint = _complaint(somebody.run())
    assert "pins no Pants version" in complaint
    assert "add pants_version" in complaint


@pytest.mark.parametrize(
    "line",
    [
        'pants_version = "2.16.99"',
        "  pants_version='2.16.99'  # the one we use",
        'pants_version\t=\t"2.16.99"\r',
    ],
)
def test_the_version_is_read_as_toml_writes_it(somebody: Stranger, line: str) -> None:
    (somebody.root / "pants.toml").write_text(f"[GLOBAL]\npants_version_x = 1\n{line}\n")
    assert "Pants 2.16.99 runs on CPython 3.9" in _complaint(
        somebody.run(PATH=somebody.path.split(":")[1])
    )


def test_no_place_for_a_cache(somebody: Stranger) -> None:
    assert "neither HOME nor XDG_CACHE_HOME is set" in _complaint(somebody.run(HOME=None))


def test_no_interpreter(somebody: Stranger) -> None:
    complaint = _complaint(somebody.run(PATH=somebody.path.split(":")[1]))
    assert "Pants 2.17.1 runs on CPython 3.9 and there is none" in complaint
    assert "pyenv install 3.9" in complaint
    assert "PANTS_PYTHON" in complaint


@pytest.mark.parametrize("named", ["no-such-python", "cat"])
def test_the_named_interpreter_is_none(somebody: Stranger, named: str) -> None:
    complaint = _complaint(somebody.run(PANTS_PYTHON=named))
    assert complaint.startswith("pants: PANTS_PYTHON is ")
    assert named in complaint
    assert "unset it" in complaint


def test_an_interpreter_without_venv(somebody: Stranger, tmp_path: Path) -> None:
    """As Debian's python3.9 is without its package python3.9-venv."""
    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    shutil.copy(PYTHON, bare / "bin" / "python3.9")
    standard_library = Path(sysconfig.get_path("stdlib"))
    library = bare / "lib" / standard_library.name
    library.mkdir(parents=True)
    for entry in standard_library.iterdir():
        if entry.name not in ("ensurepip", "site-packages"):
            (library / entry.name).symlink_to(entry)
    path = f"{bare / 'bin'}:{somebody.path.split(':')[1]}"
    complaint = _complaint(somebody.run(PATH=path))
    assert f"{bare / 'bin' / 'python3.9'} is a CPython 3.9 without the modules" in complaint
    assert "apt-get install python3.9-venv" in complaint


def test_no_network(somebody: Stranger) -> None:
    closed = "http://127.0.0.1:9/simple"
    complaint = _complaint(somebody.run(PIP_INDEX_URL=closed, PIP_RETRIES="0"))
    assert f"cannot reach {closed}" in complaint
    assert "PIP_INDEX_URL" in complaint
    assert "PIP_PROXY" in complaint


def test_passwords_stay_out_of_what_it_says(somebody: Stranger) -> None:
    finished = somebody.run(PIP_INDEX_URL="http://me:secret@127.0.0.1:9/simple", PIP_RETRIES="0")
    assert "cannot reach http://127.0.0.1:9/simple" in _complaint(finished)
    assert "secret" not in finished.err


def test_an_authority_that_nobody_trusts(somebody: Stranger, tmp_path: Path) -> None:
    with mirror(tmp_path, tmp_path) as running:
        finished = somebody.run(
            PIP_INDEX_URL=running.index, PIP_PROXY=running.proxy, PIP_RETRIES="0"
        )
    complaint = _complaint(finished)
    assert f"the certificate of {running.index} is not trusted" in complaint
    assert "PIP_CERT" in complaint


@pytest.mark.parametrize("version", [VERSION, "2.16.99"])
def test_an_index_without_this_pants(somebody: Stranger, tmp_path: Path, version: str) -> None:
    with mirror(tmp_path, tmp_path) as running:
        finished = somebody.run(
            PANTS_VERSION=version,
            PIP_INDEX_URL=running.index,
            PIP_PROXY=running.proxy,
            PIP_CERT=str(running.certificate),
        )
    complaint = _complaint(finished)
    assert f"{running.index} has no " in complaint
    assert "official launcher" in complaint


@pytest.mark.parametrize("kind", ["a file in its place", "read-only"])
def test_a_cache_that_cannot_be_written(somebody: Stranger, tmp_path: Path, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "read-only":
            cache = stack.enter_context(_read_only(tmp_path / "read only"))
        else:
            cache = tmp_path / "file"
            cache.write_text("")
        complaint = _complaint(somebody.run(XDG_CACHE_HOME=str(cache)))
    assert f"cannot write to {cache}" in complaint
    assert "XDG_CACHE_HOME" in complaint


@contextlib.contextmanager
def _read_only(directory: Path) -> Iterator[Path]:
    """A directory that the user of this process cannot write to; root needs more than a mode."""
    directory.mkdir()
    if os.getuid() == 0:
        with _mounted(directory, "ro"):
            yield directory
    else:
        directory.chmod(0o555)
        yield directory
        directory.chmod(0o755)


@contextlib.contextmanager
def _mounted(directory: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def test_no_room_left(somebody: Stranger, tmp_path: Path) -> None:
    cache = tmp_path / "small"
    cache.mkdir()
    if os.getuid() == 0:
        with _mounted(cache, "size=4m"):
            finished = somebody.run(XDG_CACHE_HOME=str(cache))
            kept = [p.name for p in (cache / "pants-flyte" / f"pants-{VERSION}").iterdir()]
    else:  # no disk of one's own: no file may grow, which is the same to who writes it
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            finished = somebody.run(XDG_CACHE_HOME=str(cache))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        kept = [p.name for p in (cache / "pants-flyte" / f"pants-{VERSION}").iterdir()]
    complaint = _complaint(finished)
    assert "there is no room left" in complaint
    assert "XDG_CACHE_HOME" in complaint
    assert [name for name in kept if not name.endswith(".lock")] == []


def test_stopping_it_leaves_nothing(somebody: Stranger) -> None:
    """Control-C at a terminal goes to the whole process group."""
    start = somebody.start(PIP_INDEX_URL="http://127.0.0.1:9/simple").until("2/4")
    os.killpg(start.process.pid, signal.SIGINT)
    finished = start.finish()
    assert finished.code == -signal.SIGINT
    assert finished.err.splitlines()[-1].startswith("pants: stopped; nothing half made is left")
    assert [p.name for p in somebody.cache.iterdir() if not p.name.endswith(".lock")] == []
