"""Processes of `flyte_side`: how they are started, asked, and ended.

Requests and answers are lines of JSON, over pipes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyte_pack.errors import UserError
from flyte_pack.flyte_side import MAIN
from flyte_pack.flyte_side.words import TAKES_TIME
from flyte_pack.progress import Say

# What makes specifications, besides Flyte: their content is part of the identity of one.
SIDE_FILES = tuple(str(path) for path in sorted(Path(MAIN).parent.glob("*.py")))


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


def command(python: Sequence[str]) -> list[str]:
    """The arguments that start `flyte_side`, without its own."""
    # Isolated from PYTHONPATH, the working directory and the user's own packages.
    return [*python, "-I", "-u", "-X", "utf8", MAIN]


class Process:
    """A process of `flyte_side`: one request at a time, each with its answers.

    role: `describe` or `client`, the module of `flyte_side` to run.
    """

    def __init__(
        self, python: Sequence[str], role: str, environ: Mapping[str, str], say: Say
    ) -> None:
        arguments, env = command(python), dict(environ)
        if role == "describe":
            # As isolated, with a fixed hash seed: task modules iterate over sets in one order.
            arguments = [*python, "-s", "-u", "-X", "utf8", MAIN]
            env = {name: value for name, value in env.items() if not name.startswith("PYTHON")}
            env["PYTHONHASHSEED"] = "0"
        try:
            self._process = subprocess.Popen(
                [*arguments, role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
                # A new group, so that what user code starts can be ended with it.
                start_new_session=role == "describe",
            )
        except OSError as error:
            raise RegistrationError(f"{python[0]}: {error.strerror}") from None
        self._role, self._say = role, say
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
                code = self._process.wait()
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                raise RegistrationError(
                    f"{self._what()} ended the process with {how}. "
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
