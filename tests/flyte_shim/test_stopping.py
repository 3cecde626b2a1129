"""A container that is stopped before its task began ends at once, with the signal's exit code."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.shim import environment

SHA256 = "0" * 64
# As the first process of a container, for which the kernel ignores what has no handler.
AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def silent():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def child_of(process: subprocess.Popen) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


@pytest.mark.parametrize(
    ("place", "name", "as_process_1"),
    [
        ("http://", "SIGTERM", False),
        ("http://", "SIGTERM", True),
        ("http://", "SIGINT", True),
        ("http://", "SIGHUP", True),
        ("http://", "SIGQUIT", True),
        ("s3://", "SIGTERM", True),
        ("gs://", "SIGTERM", False),
        ("gs://", "SIGTERM", True),
    ],
)
def test_a_start_that_is_stopped_while_it_downloads_leaves_nothing(
    silent, tmp_path, name, place, as_process_1
):
    """`gs://` is read by a library whose calls no signal interrupts."""
    if place == "gs://":
        pytest.importorskip("obstore")
    if as_process_1 and (os.geteuid() != 0 or not shutil.which("unshare")):
        pytest.skip("needs root and unshare")
    host = f"127.0.0.1:{silent.getsockname()[1]}"
    archive = f"{host}/bucket" if place == "http://" else "bucket"
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}",
        "AWS_SKIP_SIGNATURE": "true",
        "STORAGE_EMULATOR_HOST": f"http://{host}",
        "GOOGLE_SKIP_SIGNATURE": "true",
        "FLYTE_SHIM_ALLOW_HTTP": "1",
    }
    process = subprocess.Popen(
        [
            *(AS_PROCESS_1 if as_process_1 else ()),
            *(sys.executable, "-m", "flyte_shim", "--cache", str(tmp_path / "cache")),
            *("--archive", f"{place}{archive}/{SHA256}.tar.gz", "--", "true"),
        ],
        cwd=tmp_path,
        env=environment(tmp_path, **variables),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 3)],
    )
    connection, _ = silent.accept()
    with connection:
        number = getattr(signal, name)
        started = time.monotonic()
        os.kill(child_of(process) if as_process_1 else process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert time.monotonic() - started < 20
    if place != "gs://":
        assert said == f"flyte-shim: error: stopped by {name} before the command began\n"
        assert not os.listdir(tmp_path / "cache" / str(os.geteuid()) / "work")


def test_a_signal_that_is_ignored_stays_ignored_and_no_other_is(tmp_path):
    """Nothing of ours is left to the command: no handler, no ignored and no blocked signal."""
    script = 'trap "" TERM; exec "$0" -m flyte_shim -- cat /proc/self/status'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 3)],
    )
    status = dict(line.split(":", 1) for line in done.stdout.splitlines())
    masks = {name: int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
    assert masks == {"SigBlk": 0, "SigIgn": 1 << (signal.SIGTERM - 1), "SigCgt": 0}
