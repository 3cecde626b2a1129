"""`python -m flyte_pack run` of an app: it is served out of its bundle, and one signal ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import pytest

from tests.support.flyte_env import flyte_python
from tests.support.task_bundle import PYTHON_PATH, package_task

APPS = """\
    import json
    import os
    import sys
    import time
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from pathlib import Path

    import flyte
    import flyte.app

    from .helpers import word

    other = flyte.app.AppEnvironment(name="other", args=["x"], port=9111)
    served = flyte.app.AppEnvironment(
        name="served",
        image=flyte.Image.from_debian_base().with_pip_packages("fastapi"),
        env_vars={"COLOUR": "red", "SHAPE": "round"},
        parameters=[
            flyte.app.Parameter(name="city", value="Bonn", env_var="CITY"),
            flyte.app.Parameter(name="other", value=flyte.app.AppEndpoint(app_name="other")),
        ],
        depends_on=[other],
    )

    class Pages(BaseHTTPRequestHandler):
        told = {}

        def do_GET(self):
            told = {
                **self.told,
                "word": word(),
                "page": Path("data/page.html").read_text(),
                "mode": flyte.app.ctx().mode,
                "endpoint": other.endpoint,
                **{name: os.environ.get(name) for name in ("COLOUR", "SHAPE", "CITY")},
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

    @served.on_startup
    def start():
        print("started", flush=True)

    @served.server
    def serve(city: str, other: str):
        Pages.told = {"city": city, "other": other}
        HTTPServer(("localhost", served.get_port().port), Pages).serve_forever()

    @served.on_shutdown
    async def stop():
        print("stopped", flush=True)

    waiting = flyte.app.AppEnvironment(name="waiting")

    @waiting.server
    async def wait():
        import asyncio
        print("waiting", flush=True)
        await asyncio.Event().wait()

    @waiting.on_shutdown
    def ended():
        print("stopped", flush=True)

    pages = flyte.app.AppEnvironment(
        name="pages", args="python -m http.server $PORT --directory data", env_vars={"PORT": "1"}
    )
    command = flyte.app.AppEnvironment(
        name="command", command=["python", "-m", "http.server", os.environ.get("PORT", "1"), "--directory", "data"]
    )
    ends = flyte.app.AppEnvironment(name="ends", args=["python", "-c", "'raise SystemExit(5)'"])
    nothing = flyte.app.AppEnvironment(name="nothing")
    remote = flyte.app.AppEnvironment(
        name="remote",
        args=["x"],
        parameters=[flyte.app.Parameter(name="m", value=flyte.app.RunOutput(type="file", run_name="r"))],
    )
    missing = flyte.app.AppEnvironment(name="missing", command="no-such-program")
    task_env = flyte.TaskEnvironment(name="task-env")
"""
FILES = {
    "services/__init__.py": "",
    "services/app.py": APPS,
    "services/helpers.py": "def word():\n    return 'from the bundle'\n",
    "data/page.html": "<p>page</p>",
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@dataclass
class Serving:
    process: subprocess.Popen[str]
    directory: object

    def get(self, port: int, path: str = "/") -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):
            assert self.process.poll() is None, self.process.communicate()
            try:
                return opener.open(f"http://localhost:{port}{path}", timeout=10).read().decode()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise AssertionError("nothing answers")

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        begun = time.monotonic()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert time.monotonic() - begun < 15, "it ends at once"
        return self.process.returncode, out, err


class Packaged:
    def __init__(self, directory, name):
        self.app = package_task(
            directory, FILES, f"services/app.py:{name}", address=f"services:{name}", kind="app"
        )
        self.store, self.root = directory / "store", directory / "root"
        self.scratch = directory / "scratch"
        for one in (self.root, self.scratch):
            one.mkdir()

    def start(self, *typed: str, **env: str) -> Serving:
        arguments = ["run", "--task", str(self.app.link_file), "--dir", str(self.app.directory)]
        process = subprocess.Popen(
            [
                str(flyte_python()),
                "-m",
                "flyte_pack",
                *arguments,
                "--store",
                self.store.as_uri(),
                "--",
                *typed,
            ],
            cwd=self.root,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root),
                "TMPDIR": str(self.scratch),
                "PYTHONPATH": PYTHON_PATH,
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Serving(process, self.scratch)

    def failed(self, *typed: str, said: str, code: int = 1) -> None:
        out, err = (served := self.start(*typed)).process.communicate(timeout=120)
        assert served.process.returncode == code, (out, err)
        assert "Traceback" not in err
        assert re.search(said, " ".join(err.split())), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_function_serves_out_of_the_bundle_until_a_signal(tmp_path, number):
    packaged, port = Packaged(tmp_path, "served"), free_port()
    serving = packaged.start("--port", str(port), SHAPE="flat")
    told = json.loads(serving.get(port))
    assert told == {
        "city": "Bonn",
        "other": "http://localhost:9111",
        "word": "from the bundle",
        "page": "<p>page</p>",
        "mode": "local",
        "endpoint": "http://localhost:9111",
        "COLOUR": "red",
        "SHAPE": "flat",
        "CITY": "Bonn",
    }
    code, out, err = serving.end(number)
    assert f"served is served at http://localhost:{port} (Ctrl-C ends it)" in err
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert code == 130
        assert out.splitlines()[-2:] == ["started", "stopped"]
    else:
        assert code == -number, "as in a container"
    for _ in range(100):
        if not list(packaged.scratch.iterdir()):
            break
        time.sleep(0.1)
    assert list(packaged.scratch.iterdir()) == []


def test_a_parameter_can_be_given(tmp_path):
    packaged, port = Packaged(tmp_path, "served"), free_port()
    serving = packaged.start(
        *("--port", str(port), "--parameter", "city=Köln = K", "--parameter", "other=http://o")
    )
    told = serving.get(port)
    assert '"city": "K\\u00f6ln = K"' in told
    assert '"other": "http://o"' in told
    serving.end()


def test_what_waits_in_a_coroutine_ends_by_its_own_hook(tmp_path):
    serving = Packaged(tmp_path, "waiting").start("--port", str(free_port()))
    assert serving.process.stdout.readline() == "waiting\n"
    code, out, err = serving.end()
    assert (code, out) == (130, "stopped\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["pages", "command"])
def test_args_and_a_command_run_in_the_directory_of_the_bundle(tmp_path, name):
    port = free_port()
    serving = Packaged(tmp_path, name).start("--port", str(free_port()), PORT=str(port))
    assert serving.get(port, "/page.html") == "<p>page</p>"
    code, _, _ = serving.end()
    assert code in (130, 0, -signal.SIGINT)
    with socket.socket() as gone:
        assert gone.connect_ex(("localhost", port)) != 0, "nothing is left behind"


def test_the_exit_code_is_the_apps(tmp_path):
    serving = Packaged(tmp_path, "ends").start("--port", str(free_port()))
    serving.process.communicate(timeout=120)
    assert serving.process.returncode == 5


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("nothing", (), "services:nothing: app nothing has nothing to start: .*@env.server"),
        (
            "remote",
            (),
            r"parameter 'm' of app remote has no value on this machine \(RunOutput\).*--parameter m=VALUE",
        ),
        ("missing", (), "its command 'no-such-program' cannot be run here"),
        (
            "task_env",
            (),
            "services:task_env: `task_env` in services/app.py is of type TaskEnvironment once it is imported, and no app. Name",
        ),
        ("gone", (), "`gone` in services/app.py is not there once the module is imported"),
        ("served", ("--parameter", "town=x"), "one of its parameters: city, other"),
        ("served", ("--parameter", "city"), "write NAME=VALUE"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path, name, typed, said):
    Packaged(tmp_path, name).failed("--port", str(free_port()), *typed, said=said)


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        Packaged(tmp_path, "served").failed("--port", str(port), said=f"port {port} cannot be used")


@pytest.mark.parametrize(
    ("typed", "said"), [(["--port", "x"], "'x' is not a port"), (["--n"], "--n")]
)
def test_mistyped_options_are_told(tmp_path, typed, said):
    Packaged(tmp_path, "served").failed(*typed, said=said, code=2)
