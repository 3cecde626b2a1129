"""A run of a registered task is started by Flyte's own command, and followed to its end."""

from __future__ import annotations

import base64
import gzip
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
        "command": fields.get("command", _command(plane)),
        **{name: fields[name] for name in ("request", "follow", "ours") if name in fields},
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(spec), *arguments],
        env={**os.environ, "PYTHONPATH": PYTHON_PATH, **fields.get("environ", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _command(plane):
    """What ml.score runs."""
    [task] = [one for one in plane.state()["tasks"] if one["name"] == "ml.score"]
    return task["command"]


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
    [name] = {run["name"] for run in deployed.state()["runs"] if run["name"] in err}
    assert f"flyte abort run {name} --project bikes --domain development" in err
    assert "Traceback" not in err
    assert deployed.requests("AbortRun") == deployed.requests("AbortAction") == 0


@pytest.mark.parametrize("line", MATRIX)
@pytest.mark.parametrize("level", [None, "debug"])
def test_a_run_logs_what_one_logs_that_flyte_started(deployed, line, level):
    deployed.outcome("ml.score", outputs={"o0": 42})
    environ = {"DO_NOT_TRACK": "1"}
    if level is not None:
        environ |= {"LOG_LEVEL": level, "USER_LOG_LEVEL": level}
    flyte = [
        *(python_with_flyte(line).with_name("flyte"), "--endpoint", deployed.endpoint),
        *("--insecure", "run", "--project", "bikes", "--domain", "development"),
        *("--run-project", "bikes", "--run-domain", "development"),
        *("deployed-task", "ml.score:v1", "--n", "5"),
    ]
    environments = []
    for start in (
        lambda: _run(deployed, "--n", "5", line=line, environ=environ),
        lambda: subprocess.Popen(flyte, env={**os.environ, **environ}, stdout=subprocess.PIPE),
    ):
        before = {run["name"] for run in deployed.state()["runs"]}
        process = start()
        process.communicate(timeout=300)
        assert process.returncode == 0
        [run] = [run for run in deployed.state()["runs"] if run["name"] not in before]
        # (Flyte's own adds PYTHONPATH, as that of the run: what a test has is none of it.)
        environments.append({n: v for n, v in run["env"].items() if n != "_F_SYS_PATH"})
    ours, flytes = environments
    assert ours == flytes
    assert set(ours) >= {"LOG_LEVEL", "USER_LOG_LEVEL", "LOG_FORMAT"}


def test_the_url_comes_first_then_what_the_task_logs(deployed):
    deployed.outcome("ml.score", outputs={"o0": 42}, logs=["reading", "100% [done]", "x" * 300])
    process = _run(deployed, "--n", "5")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("Run ")
    assert "/runs/" in lines[0]
    assert [line for line in lines if line.endswith(" reading")]
    assert [line for line in lines if line.endswith(" 100% [done]")]
    assert [line for line in lines if line.endswith("x" * 300)]
    assert "42" in lines[-1]


def test_a_detached_run_is_started_and_not_followed(deployed):
    deployed.outcome("ml.score", error="ValueError: nobody waits for this")
    process = _run(deployed, "--n", "5", follow=False)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    [line] = out.splitlines()
    assert line.startswith("Run ")
    assert "/runs/" in line


def test_an_option_of_ours_that_comes_too_late_is_told_to_be_ours(deployed):
    process = _run(deployed, "--n", "5", "--detach", ours=["--detach"])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "No such option" in err
    assert "Type --detach before the inputs of the task." in err


def test_what_is_registered_must_be_what_the_record_says(deployed):
    before = deployed.requests("CreateRun")
    command = _command(deployed)
    process = _run(deployed, "--n", "5", command=[*command[:-1], "train"])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "has another command under that name and version than the record" in err
    assert "Traceback" not in err
    assert deployed.requests("CreateRun") == before


def test_another_compression_of_the_images_is_no_other_command(deployed):
    deployed.outcome("ml.score", outputs={"o0": 42})
    command = list(_command(deployed))
    at = command.index("--image-cache") + 1
    images = gzip.decompress(base64.b64decode(command[at]))
    command[at] = base64.b64encode(gzip.compress(images, 0)).decode()
    process = _run(deployed, "--n", "5", command=command)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.mark.parametrize("line", MATRIX)
def test_a_task_that_is_not_registered_goes_along_with_its_run(deployed, tmp_path, line):
    deployed.outcome("ml.score", outputs={"o0": 42})
    root = unpacked(tmp_path)
    with registrar(deployed, line) as process:
        process.describe([code(root)])
        request = process.request("ml.score", "edited")
    tasks = deployed.state()["tasks"]
    before = {run["name"] for run in deployed.state()["runs"]}
    process = _run(deployed, "--n", "5", line=line, version="edited", request=request)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "42" in out.splitlines()[-1]
    [run] = [run for run in deployed.state()["runs"] if run["name"] not in before]
    assert (run["by"], run["task"], run["version"]) == ("task_spec", "ml.score", "edited")
    assert run["domain"] == "development"
    assert deployed.state()["tasks"] == tasks
