"""No child is left behind, at whatever moment a signal comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from flyte_pack import children
from flyte_shim.stopping import Stopped, Stopping

SLEEPS = [sys.executable, "-c", "import time; time.sleep(100)"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_a_child_starts_ends_the_child(monkeypatch, name):
    number, made = getattr(signal, name), []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    found = signal.signal(number, signal.default_int_handler)  # `nohup` has it ignored
    try:
        with pytest.raises(Stopped) as stopped, Stopping():
            children.run(SLEEPS)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, found)
    assert stopped.value.code == 128 + number
    assert made[0].returncode == -signal.SIGKILL


def test_a_child_is_ended_with_the_block():
    with pytest.raises(ZeroDivisionError), children.started(SLEEPS) as child:
        _ = 1 // 0
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_takes_too_long_is_ended():
    with pytest.raises(subprocess.TimeoutExpired):
        children.run(SLEEPS, timeout=0.2)


def test_what_cannot_be_started_leaves_the_signals_as_they_were():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FileNotFoundError):
        children.run(["/no/such/program"])
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_child_says_is_given_also_in_another_thread():
    said = []

    def work():
        told = "import sys; print(sys.stdin.read(), end=''); sys.exit(3)"
        said.append(children.run([sys.executable, "-c", told], input="x", text=True))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (said[0].returncode, said[0].stdout, said[0].stderr) == (3, "x", "")
