"""Processes of `flyte_side`: how they are started, asked, and ended.

Requests and answers are lines of JSON, over pipes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyte_pack.deploy.start import Start
from flyte_pack.errors import UserError
from flyte_pack.flyte_side import MAIN
from flyte_pack.flyte_side.words import TAKES_TIME
from flyte_pack.progress import Say

if TYPE_CHECKING:
    from flyte_pack.deploy.standby import Taken


@dataclass(frozen=True)
class Registered:
    """A task or app that Flyte has. status: "new"; "present" if Flyte had that version before;
    "again" if this is a further version of the content, which makes it the newest again.

    An app that ran with another specification is "changed". kind: "app", or None for a task. url:
    of an app, where it is known.
    """

    name: str
    version: str
    status: str
    kind: str | None = None
    url: str | None = None

    def told(self) -> dict[str, str]:
        """As a report has it."""
        return {name: value for name, value in vars(self).items() if value is not None}


class RegistrationError(UserError):
    """Tasks cannot be registered or run. registered: what was registered before."""

    def __init__(self, message: str, registered: tuple[Registered, ...] = ()) -> None:
        super().__init__(message)
        self.registered = registered


# The variables that a task module may see while it is imported to be registered, besides those that
# `[flyte].import_env_vars` names. A specification must not depend on unknown ones: a version has
# one.
USUAL = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")


def import_environ(import_env: Sequence[str]) -> dict[str, str]:
    """What task modules see as `os.environ`. import_env: NAME, taken from ours, or NAME=value."""
    found = {name: os.environ[name] for name in USUAL if name in os.environ}
    for entry in import_env:
        name, equals, value = entry.partition("=")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
    return found


class Process:
    """A process of `flyte_side`: one request at a time, each with its answers.

    waits: whether one that waits is taken, if there is one, before a new one is started.
    """

    def __init__(self, start: Start, say: Say, waits: bool = False) -> None:
        self.start = start
        # By which it runs, once it has answered: a script may have become another program.
        self.arguments: list[str] | None = None
        try:
            self._process = (_taken(start) if waits else None) or start.process()
        except OSError as error:
            raise RegistrationError(f"{start.python[0]}: {error.strerror}") from None
        self._role, self._say = start.role, say
        self._buffer = b""
        self._importing = ""

    def ask(self, what: str, within: float | None, **values: Any) -> Any:
        """The answer to a request. Raises `RegistrationError`, also if there is none in time."""
        for answer in self.answers(what, within, **values):
            if "done" in answer:
                return answer["done"]
        raise AssertionError

    def answers(self, what: str, within: float | None, **values: Any) -> Iterator[dict[str, Any]]:
        """Every answer until the request is done."""
        deadline = None if within is None else time.monotonic() + within
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said before tells why
        while True:
            answer = json.loads(self._line(deadline))
            if self.arguments is None:
                self.arguments = _interpreter(self._process.pid)
            if "error" in answer:
                raise RegistrationError(answer["error"])
            if "note" in answer:
                self._say(answer["note"])
                continue
            self._importing = answer.get("importing", self._importing)
            yield answer
            if "done" in answer:
                return

    def _line(self, deadline: float | None) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            poll = select.poll()
            poll.register(self._process.stdout, select.POLLIN)
            if not poll.poll(left):
                self.end()
                raise RegistrationError(
                    f"{self._what()} did not end within its time limit, and was stopped. "
                    f"{TAKES_TIME}"
                )
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise RegistrationError(
                    f"{self._what()} ended the process{_how(self._process.wait())}. "
                    "What it printed is above; run that import by itself to find out why"
                )
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _what(self) -> str:
        if self._role == "client":
            return "the process that talks to Flyte"
        return f"{self._importing or 'the process that imports the task modules'}: importing it"

    def kill(self) -> None:
        """End it, and what it started."""
        if self._role == "describe":
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class Processes:
    """Starts processes of `flyte_side`, some of them before it is known what they are to do.

    Each imports Flyte as soon as it is started, and does nothing else until it is asked.
    """

    def __init__(self, standby: bool = False) -> None:
        """standby: whether some wait for us, and are to wait for the next deployment."""
        self._standby = standby
        self._ahead: list[Process] = []
        self._taken: list[Process] = []

    def ahead(self, python: Sequence[str], role: str, environ: Mapping[str, str], say: Say) -> None:
        """Start one that will be taken, perhaps."""
        self._ahead.append(Process(Start.of(python, role, environ), say, self._standby))

    def take(
        self, python: Sequence[str], role: str, environ: Mapping[str, str], say: Say
    ) -> Process:
        """One that was started ahead just so, or a new one; whoever takes it ends it."""
        start = Start.of(python, role, environ)
        found = next((one for one in self._ahead if one.start == start), None)
        if found is None:
            found = Process(start, say, self._standby)
        else:
            self._ahead.remove(found)
        self._taken.append(found)
        return found

    def end(self) -> None:
        """End those that nobody took."""
        for process in self._ahead:
            process.kill()
        for process in self._ahead:
            process.end()
        self._ahead.clear()

    def leave_one_of_each(self) -> None:
        """For the next deployment start one of each kind that was of use, to wait."""
        if not (self._standby and self._taken):
            return
        from flyte_pack.deploy import standby  # not where nothing was to be done

        kinds = {one.start.role: one for one in self._taken if one.arguments}
        for one in kinds.values():
            standby.leave(one.start, one.arguments or ())


def _taken(start: Start) -> Taken | None:
    from flyte_pack.deploy import standby  # not where nothing is to be done

    return standby.take(start)


def _interpreter(process: int) -> list[str]:
    """The program of a process of ours, and its options; nothing where the system tells none."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            arguments = os.fsdecode(file.read()).split("\0")
    except OSError:
        return []
    program = os.path.join(*MAIN.split(os.sep)[-2:])
    mains = [n for n, one in enumerate(arguments) if one.endswith(program)]
    return arguments[: mains[0]] if mains else []


def _how(code: int | None) -> str:
    if code is None:
        return ""
    return f" with signal {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
