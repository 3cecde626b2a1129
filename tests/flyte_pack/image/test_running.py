"""A program is waited for, and told of signals, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from flyte_pack.image.running import Command, supervise


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_the_program_starts_reaches_it(monkeypatch, name):
    number = getattr(signal, name)

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    sleeps = [sys.executable, "-c", "import time; time.sleep(100)"]
    assert supervise(sleeps, dict(os.environ), Command(())) == 128 + number
