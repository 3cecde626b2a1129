"""Answers requests: each is a line of JSON on stdin, each answer one on what was stdout.

What user code prints goes to stderr. The process ends when its stdin does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from .private import replace
from .words import NO_FLYTE, Refused

Answer = Callable[[dict[str, Any]], None]
Requests = queue.SimpleQueue[dict[str, Any]]


def serve(role: Any) -> NoReturn:
    """Call the method of `role` that each request's `do` names, until stdin ends.

    `role.flyte`, None at first, and `role.answer` are set before. role.starts_processes: whether
    user code may start some, which end with this one. role.needs: modules of Flyte to import
    before. role.rest: called after each answer.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.pop("PYTHONHASHSEED", None)  # meant for this process, not for what it starts
    requests, role.answer = _open(role.starts_processes)
    prepare(role, role.answer)
    while True:
        role.answer(_answer_to(requests.get(), role))
        role.rest()


def prepare(role: Any, answer: Answer) -> None:
    """Import Flyte for the role, unless it is there; answer that there is none, and end."""
    if role.flyte is None:
        role.flyte = _flyte(role.needs, answer)
        with suppress(Refused):  # it sends nothing here, and imports a client for that
            replace("count_uses", lambda *_, **__: None)


def _open(starts_processes: bool) -> tuple[Requests, Answer]:
    """Take stdin and stdout away from user code, and read requests from then on."""
    asked, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    requests: Requests = queue.SimpleQueue()
    lock = threading.Lock()

    def read() -> None:
        with open(asked, "rb") as file:
            for line in file:
                requests.put(json.loads(line))
        # The program that started this has ended, or needs it no more.
        if starts_processes and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def answer(what: dict[str, Any]) -> None:
        data = memoryview(json.dumps(what).encode() + b"\n")
        with lock:
            while data:
                data = data[os.write(answers, data) :]

    threading.Thread(target=read, daemon=True).start()
    return requests, answer


def _flyte(needs: tuple[str, ...], answer: Answer) -> Any:
    gc.disable()  # imports make next to no garbage, and what is imported stays
    try:
        import flyte

        for module in needs:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        answer({"error": NO_FLYTE})
        os._exit(1)
    gc.freeze()
    gc.enable()
    return flyte


def _answer_to(request: dict[str, Any], role: Any) -> dict[str, Any]:
    try:
        return {"done": getattr(role, request.pop("do"))(**request)}
    except Refused as error:
        return {"error": str(error)}
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return {
            "error": f"flyte {role.flyte.version()}: {type(error).__name__}: {error} "
            f"({frame.filename}, line {frame.lineno}). This is unexpected with flyte 2.5 to 2.12: "
            "please report it"
        }
