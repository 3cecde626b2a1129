"""What stands in for Pants' daemon, and the processes that wait below it for the next command."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.deploying import Done


class Daemon:
    """A shell that has the name of Pants' daemon, and starts programs as that does."""

    def __init__(self, name: str = "pantsd [/repo]") -> None:
        loop = 'while read -r line; do eval "$line"; done'
        words = [name, "-c", loop]
        if name == "sh":  # nobody's child: Pants' daemon may have started these tests
            words = ["sh", "-c", 'exec 3<&0; sh -c "$1" <&3 3<&- &', "sh", loop]
        self._shell = subprocess.Popen(
            words, executable="/bin/sh", stdin=subprocess.PIPE, text=True
        )

    def run(self, words: Sequence[str], directory: Path, **environ: str) -> Done:
        """The program there, with these variables beside those of the tests."""
        out, err, code = (directory / name for name in ("out", "err", "code"))
        code.unlink(missing_ok=True)
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environ.items())
        line = f"{settings} {shlex.join(words)} >{shlex.quote(str(out))} 2>{shlex.quote(str(err))}"
        assert self._shell.stdin is not None
        self._shell.stdin.write(
            f"cd {shlex.quote(str(directory))}; {line}; echo $? >code.new; mv code.new code\n"
        )
        self._shell.stdin.flush()
        until(code.exists)
        return Done(int(code.read_text()), out.read_text(), err.read_text())

    def end(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def waiting(cache: Path) -> dict[int, str]:
    """The processes that wait, or are about to: their roles by number. cache: the user's."""
    found = {}
    for directory in Path("/proc").iterdir():
        try:
            words = (directory / "cmdline").read_bytes().decode().split("\0")
            stopped = ") Z " in (directory / "stat").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if "standby" in words and str(cache) in " ".join(words) and not stopped:
            found[int(directory.name)] = words[words.index("standby") + 1]
    return found


def sockets(cache: Path) -> list[Path]:
    """Where those wait that can be taken."""
    return [path for path in (cache / "pants-flyte/standby").glob("*") if path.is_socket()]
