"""A run of a registered task is started by Flyte's own command, and followed to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import flyte_pack
from flyte_pack.deploy.registration import ControlPlane
from tests.support.control_plane import code, control_plane, registrar, unpacked
from tests.support.flyte_versions import MATRIX, NEWEST, python_with_flyte

PYTHON_PATH = str(Path(flyte_pack.__file__).parent.parent)


def _run(plane, *arguments, line=NEWEST, **fields):
    """A program that becomes a run of ml.score."""
    program = (
        "import json, os, sys; from flyte_pack.deploy.registration import *; "
        "a = json.loads(sys.argv[1]); "
        "run(environ=os.environ, control_plane=ControlPlane(**a.pop('plane')), name='ml.score', "
        "project='bikes', domain='development', arguments=sys.argv[2:], program='program', **a)"
    )
    spec = {
        "python": [str(python_with_flyte(line))],
        "plane": vars(ControlPlane(endpoint=plane.endpoint, insecure=True)),
        "version": fields.get("version", "v1"),
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(spec), *arguments],
        env={**os.environ, "PYTHONPATH": PYTHON_PATH, **fields.get("environ", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    root = unpacked(tmp_path_factory.mktemp("code"))
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        with registrar(plane) as process:
            process.describe([code(root)])
            list(process.register({"ml.score": "v1"}))
        yield plane


@pytest.mark.parametrize("line", MATRIX)
def test_a_run_is_followed_to_its_outputs(deployed, line):
    deployed.outcome("ml.score", outputs={"o0": 42})
    process = _run(deployed, "--n", "5", line=line)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"http://{deployed.endpoint}/v2/domain/development/project/bikes/runs/" in out
    assert [word for word in ("queued", "running", "succeeded") if word in out]
    assert "42" in out.splitlines()[-1]
    run = max(deployed.state()["runs"], key=lambda one: out.count(one["name"]))
    assert (run["task"], run["version"]) == ("ml.score", "v1")
    assert run["command"][-4:] == ["mod", "services.ml.workflows", "instance", "score"]


@pytest.mark.parametrize("line", MATRIX)
@pytest.mark.parametrize("levels", [{}, {"LOG_LEVEL": "debug", "USER_LOG_LEVEL": "error"}])
def test_a_run_is_what_flytes_own_command_starts(deployed, line, levels):
    """Its logs above all: our client keeps silent, and a run must not."""
    deployed.outcome("ml.score", outputs={"o0": 42})
    before = {one["name"] for one in deployed.state()["runs"]}
    settings = deployed.directory / "flyte.yaml"
    settings.write_text(
        f"admin:\n  endpoint: dns:///{deployed.endpoint}\n  insecure: true\n"
        "task:\n  project: bikes\n  domain: development\n"
    )
    flyte = [str(python_with_flyte(line).with_name("flyte")), "--config", str(settings)]
    subprocess.run(
        [*flyte, "run", "deployed-task", "ml.score", "--n", "5"],
        env={"PATH": os.defpath, "HOME": str(deployed.directory), "DO_NOT_TRACK": "1", **levels},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    [theirs] = [one for one in deployed.state()["runs"] if one["name"] not in before]
    process = _run(deployed, "--n", "5", line=line, environ=levels)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    [ours] = [
        one for one in deployed.state()["runs"] if one["name"] not in {*before, theirs["name"]}
    ]
    assert ours["env"]["LOG_LEVEL"] == ("10" if levels else "30")
    assert ours["env"]["USER_LOG_LEVEL"] == ("40" if levels else "20")
    for run in (ours, theirs):
        run["run_spec"].pop("runStartTime", None)
        # Before 2.12, Flyte's command adds the directories that it was started in.
        envs = run["run_spec"]["envs"]["values"]
        run["run_spec"]["envs"] = [one for one in envs if one["key"] != "_F_SYS_PATH"]
        run["env"].pop("_F_SYS_PATH", None)
        run.pop("name")
    assert ours == theirs


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--help",), 0, "--name"),
        ((), 2, "Missing required parameter"),
        (("--n", "x"), 2, "'x' is not a valid integer"),
        (("--m", "1"), 2, "No such option"),
    ],
)
def test_inputs_are_flytes_own_options(deployed, arguments, code, said):
    before = deployed.requests("CreateRun")
    process = _run(deployed, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert said in out + err
    assert "Traceback" not in err
    assert deployed.requests("CreateRun") == before


def test_a_run_that_fails_says_why_and_ends_with_1(deployed):
    deployed.outcome("ml.score", error="ValueError: no data for that day")
    process = _run(deployed, "--n", "5")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "ValueError: no data for that day" in err
    assert "Traceback" not in err


def test_a_version_that_is_not_registered(deployed):
    process = _run(deployed, "--n", "5", version="other")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "ml.score (version other): the control plane" in err
    assert (
        "has no such version of the task in project bikes, domain development: deploy it there first"
        in err
    )
    assert "Traceback" not in err


def test_an_interrupt_leaves_the_run_going_and_says_so(deployed):
    deployed.outcome("ml.score", hold=True)
    process = _run(deployed, "--n", "5")
    assert process.stdout is not None
    while "is running" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "goes on without you" in err
    assert "Traceback" not in err
    assert deployed.requests("AbortRun") == deployed.requests("AbortAction") == 0
