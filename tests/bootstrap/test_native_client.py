"""`./pants` through Pants' native client: as its Python client does it, but for the time."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from tests.support.bootstrapping import TOP, VERSION

BUILD = """
run_shell_command(name="shows", command="env; echo to stderr >&2")
run_shell_command(name="fails", command="exit 7")
run_shell_command(
    name="waits",
    command="trap 'echo stopping; exit 9' INT; echo run $$ >>runs; while :; do sleep 0.1; done",
)
run_shell_command(
    name="stays", command="trap '' INT; echo run $$ >>runs; while :; do sleep 0.1; done"
)
"""
TOML = f"""
[GLOBAL]
pants_version = "{VERSION}"
backend_packages = ["pants.backend.shell"]
"""
# Of the client alone, or new each time.
OWN = re.compile(r"_PANTS_SERVER_EXE|PANTSD_\w+|NAILGUN_\w+|PANTS_NO_NATIVE_CLIENT|_|PWD|CHROOT")


@dataclass(frozen=True)
class Place:
    """A build root whose daemon runs, and a home with a Pants in it."""

    root: Path
    home: Path

    def env(self, native: bool = True, **more: str) -> dict[str, str]:
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **more}
        return env if native else {**env, "PANTS_NO_NATIVE_CLIENT": "1"}

    def run(self, *arguments: str, **how) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TOP / "pants", *arguments], cwd=self.root, env=self.env(**how), text=True,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=240,
        )  # fmt: skip

    def begin(self, target: str, native: bool) -> tuple[subprocess.Popen[str], int]:
        """`run` of a target that waits, once it runs, and the process id of the program."""
        (self.root / "runs").unlink(missing_ok=True)
        process = subprocess.Popen(
            [TOP / "pants", "run", target], cwd=self.root, env=self.env(native), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        until(lambda: self.runs() != [])
        assert ("native_client" in os.readlink(f"/proc/{process.pid}/exe")) == native
        return process, int(self.runs()[0].split()[1])

    def runs(self) -> list[str]:
        file = self.root / "runs"
        return file.read_text().splitlines() if file.exists() else []

    def variables(self, **how) -> dict[str, str]:
        """What a program that is run has in its environment."""
        out = self.run("run", "//:shows", **how).stdout
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def stop(self) -> None:
        for file in self.root.glob(".pids/*/pantsd/pid"):
            os.kill(int(file.read_text()), signal.SIGKILL)
            shutil.rmtree(file.parent)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def make(directory: Path) -> Place:
    """A home with a link to this machine's installation, and so with records of its own."""
    made = Place(directory / "root", directory / "home")
    made.root.mkdir()
    (made.root / "pants.toml").write_text(TOML)
    (made.root / "BUILD").write_text(BUILD)
    # Makes Pants, if need be.
    command = [TOP / "pants", "--no-pantsd", "--version"]
    subprocess.run(command, cwd=made.root, check=True)
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python, installed, *_ = (own / f"pants-flyte/pants-{VERSION}/default").read_text().splitlines()
    cache = made.home / f".cache/pants-flyte/pants-{VERSION}"
    cache.mkdir(parents=True)
    (cache / "installed").symlink_to(installed)
    (cache / "default").write_text(f"{python}\n{cache / 'installed'}\n\n")
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    made = make(tmp_path_factory.mktemp("native"))
    first = made.run("--version")
    assert (first.returncode, first.stdout) == (0, f"{VERSION}\n"), first.stderr
    yield made
    made.stop()


def test_programs_see_the_same_environment(place: Place) -> None:
    native, python = place.variables(), place.variables(native=False)
    assert native["_PANTS_SERVER_EXE"].endswith("gave_up.sh")
    assert "_PANTS_SERVER_EXE" not in python
    assert {n: v for n, v in native.items() if not OWN.fullmatch(n)} == {
        n: v for n, v in python.items() if not OWN.fullmatch(n)
    }


@pytest.mark.parametrize("arguments", [["--version"], ["run", "//:fails"], ["run", "//:none"]])
def test_code_and_output_are_the_same(place: Place, arguments: list[str]) -> None:
    native, python = (place.run(*arguments, native=n) for n in (True, False))
    for done in (native, python):
        done.stderr = re.sub(r"\d\d:\d\d:\d\d\.\d\d", "TIME", done.stderr)
        done.stderr = re.sub(r"\d+", "N", done.stderr)
    assert (native.returncode, native.stdout, native.stderr) == (
        python.returncode,
        python.stdout,
        python.stderr,
    )
    assert native.returncode == {"--version": 0, "//:fails": 7, "//:none": 1}[arguments[-1]]


def test_a_terminal_gets_the_same_bytes(place: Place) -> None:
    native, python = (on_a_terminal(place, native) for native in (True, False))
    assert "to stderr\r\n" in native
    assert native == python


def on_a_terminal(place: Place, native: bool) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place.root)
        env = {**place.env(native), "TERM": "xterm"}
        os.execve(TOP / "pants", ["pants", "--colors", "run", "//:shows"], env)
    seen = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    os.waitpid(pid, 0)
    lines = re.sub(r"\d+", "N", seen.decode()).splitlines(keepends=True)
    return "".join(line for line in lines if not OWN.match(line))


def test_interrupt_reaches_the_program(place: Place) -> None:
    ends = []
    for native in (True, False):
        process, pid = place.begin("//:waits", native)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        until(lambda pid=pid: not alive(pid))
        ends.append((process.returncode, out))
    assert ends[0] == ends[1]


def test_a_second_interrupt_runs_nothing_again(place: Place) -> None:
    codes = []
    for native in (True, False):
        process, pid = place.begin("//:stays", native)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        codes.append(process.returncode)
        assert len(place.runs()) == 1
        until(lambda pid=pid: not alive(pid))
    assert codes == [1, 1]


def test_a_killed_client_leaves_nothing_behind(place: Place) -> None:
    process, pid = place.begin("//:waits", native=True)
    process.kill()
    process.communicate()
    until(lambda: not alive(pid))
    assert place.run("--version").stdout == f"{VERSION}\n"


def test_a_killed_daemon_is_told_and_nothing_runs_again(place: Place) -> None:
    process, pid = place.begin("//:stays", native=True)
    place.stop()
    _, err = process.communicate(timeout=60)
    os.kill(pid, signal.SIGKILL)
    assert process.returncode == 1
    assert "the daemon ended" in err
    assert len(place.runs()) == 1
    assert place.run("--version").stdout == f"{VERSION}\n"


def test_without_a_daemon_python_makes_one(place: Place) -> None:
    place.stop()
    assert "_PANTS_SERVER_EXE" not in place.variables()
    assert "_PANTS_SERVER_EXE" in place.variables()


@pytest.mark.parametrize("argument", ["--no-pantsd", "--level=warn", "-lwarn", "--concurrent"])
def test_options_of_the_daemon_go_to_python(place: Place, argument: str) -> None:
    done = place.run(argument, "run", "//:shows")
    assert done.returncode == 0, done.stderr
    assert "_PANTS_SERVER_EXE" not in done.stdout


def test_changed_configuration_is_seen_at_once(place: Place) -> None:
    pip = place.home / ".config/pip/pip.conf"
    pip.parent.mkdir(parents=True)
    for index in ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"):
        pip.write_text(f"[global]\nindex-url = {index}\n")
        for _ in range(2):
            assert place.variables()["PANTS_PYTHON_REPOS_INDEXES"] == repr([index])
    assert "_PANTS_SERVER_EXE" in place.variables()
    pip.unlink()
    assert place.variables().get("PANTS_PYTHON_REPOS_INDEXES") != repr([index])

    authority = place.home / "ca.pem"
    authority.write_text("")
    bundle = {"PIP_CERT": str(authority)}  # outweighs any pip.conf of this machine
    for _ in range(2):
        assert place.variables(**bundle)["PANTS_CA_CERTS_PATH"] == str(authority)
    authority.unlink()
    assert "PANTS_CA_CERTS_PATH" not in place.variables(**bundle)

    settings = place.root / "pants.toml"
    before = settings.read_text()
    settings.write_text(before + "pantsd = false\n")
    assert "_PANTS_SERVER_EXE" not in place.variables()
    settings.write_text(before)
    place.run("--version")
    assert "_PANTS_SERVER_EXE" in place.variables()


def test_two_build_roots_at_once(place: Place, tmp_path: Path) -> None:
    other = make(tmp_path)
    try:
        assert other.run("--version").returncode == 0
        both = [place.begin("//:waits", True), other.begin("//:waits", True)]
        for process, pid in both:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            assert not alive(pid)
    finally:
        other.stop()
