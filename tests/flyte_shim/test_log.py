"""What the shim says: lines of text when something is wrong, JSON for every event, or nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime

import pytest

from flyte_shim import cli
from flyte_shim.cli import main
from flyte_shim.shown import printable
from tests.support.archives import archive_of
from tests.support.processes import in_child
from tests.support.shim import PYTHON_PATH, interpreters, run_shim
from tests.support.shim_servers import ranged, reply, scripted

SECRET = "planted-signature-c41d"
FILES = {"main.py": "value = 1\n"}


@pytest.fixture
def bundle(tmp_path):
    return archive_of(tmp_path / "store", FILES)


@pytest.fixture
def shim(tmp_path):
    def run(*arguments, **variables):
        done = run_shim(*arguments, home=tmp_path, cwd=tmp_path, variables=variables)
        assert SECRET not in done.stderr + done.stdout
        return done

    return run


def test_json_has_one_object_a_line_for_each_event(shim, bundle):
    size = bundle.path.stat().st_size
    answers = iter([reply(503), reply(200, bundle.path.read_bytes()[:50], size)])
    data = bundle.path.read_bytes()
    with scripted(lambda asked: next(answers, None) or ranged(data, asked)) as server:
        url = f"{server.url}/{bundle.path.name}?X-Amz-Signature={SECRET}"
        cold = shim("--archive", url, "--", "true", FLYTE_SHIM_LOG="json")
        warm = shim("--archive", url, "--", "true", FLYTE_SHIM_LOG="json")
    events = [json.loads(line) for line in (cold.stderr + warm.stderr).splitlines()]
    for event in events:
        assert datetime.strptime(event.pop("time"), "%Y-%m-%dT%H:%M:%SZ")
        assert 0 <= event.pop("seconds") < 60
        assert event.pop("archive") == bundle.sha256
    retries, ready, hit = events[:2], events[2], events[3]
    assert [(event["level"], event["event"]) for event in retries] == [("warning", "retry")] * 2
    assert [event["attempt"] for event in retries] == [1, 2]
    assert retries[0]["message"].endswith("failed (503); trying again")
    assert ready == {
        "level": "info",
        "event": "ready",
        "cache": "miss",
        "scheme": "http",
        "bytes": size,
        "attempts": 3,
    }
    assert hit == {"level": "info", "event": "ready", "cache": "hit"}


def test_text_says_what_is_tried_again_and_nothing_of_what_goes_well(shim, bundle):
    data = bundle.path.read_bytes()
    answers = iter([reply(503)])
    with scripted(lambda asked: next(answers, None) or ranged(data, asked)) as server:
        done = shim("--archive", f"{server.url}/{bundle.path.name}", "--", "true")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"flyte-shim: warning: reading http://\S+ failed \(503\); trying again", line
    )
    assert shim("--archive", bundle.path, "--", "true").stderr == ""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "flyte-shim: error: there is no archive to read at /nowhere"),
        ({"FLYTE_SHIM_LOG": ""}, "flyte-shim: error: there is no archive"),
        ({"FLYTE_SHIM_LOG": "text"}, "flyte-shim: error: there is no archive"),
        ({"FLYTE_SHIM_LOG": "json"}, '"level": "error", "event": "failed"'),
        ({"FLYTE_SHIM_LOG": "off"}, None),
    ],
)
def test_an_error_is_one_line_in_the_form_that_was_chosen(shim, variables, expected):
    done = shim("--archive", f"/nowhere/{'0' * 64}.tar.gz", "--", "true", **variables)
    assert done.returncode == 66
    if expected:
        (line,) = done.stderr.splitlines()
        assert expected in line
        if variables.get("FLYTE_SHIM_LOG") == "json":
            fields = json.loads(line)
            assert (fields["code"], fields["scheme"]) == (66, "file")
            assert fields["message"].startswith("there is no archive to read at /nowhere")
    else:
        assert done.stderr == ""


def test_a_form_that_is_none_is_said(shim):
    done = shim("true", FLYTE_SHIM_LOG="xml")
    assert done.returncode == 64
    assert done.stderr == (
        "flyte-shim: error: FLYTE_SHIM_LOG is 'xml'; it is one of: text, json, off\n"
    )


@pytest.mark.parametrize("python", interpreters().values(), ids=interpreters())
def test_what_json_quotes_is_quoted_and_a_line_stays_a_line(tmp_path, python):
    """With every CPython, as a part of the package json is used that is not documented."""
    path = tmp_path / 'a "b"\n\\ü\t' / f"{'0' * 64}.tar.gz"
    done = subprocess.run(
        [python, "-m", "flyte_shim", "--archive", str(path), "--", "true"],
        env={"PYTHONPATH": PYTHON_PATH, "FLYTE_SHIM_LOG": "json", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert printable(str(path)) in json.loads(line)["message"]


def test_without_that_part_it_is_the_package(tmp_path):
    script = (
        "import sys; sys.modules['_json'] = None; from flyte_shim.cli import main; "
        "sys.exit(main(['--archive', '/nowhere/\\n', '--', 'true']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": PYTHON_PATH, "FLYTE_SHIM_LOG": "json", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stderr)["code"] == 64


def test_an_error_in_the_shim_is_named_by_its_place_and_not_by_its_text(bundle, capfd):
    """The text may hold anything, a signed URL even."""

    def broken(*_: object) -> None:
        raise RuntimeError(f"https://host/?X-Amz-Signature={SECRET}")

    def start() -> int:
        cli.place = broken
        return main(
            ["--archive", str(bundle.path), "--cache", str(bundle.path.parent), "--", "true"]
        )

    assert in_child(start) == 70
    error = capfd.readouterr().err
    assert SECRET not in error
    assert re.search(
        r"error: RuntimeError in test_log.py, line \d+\. This is an error in fl", error
    )


SIGNED = [
    (["--archive", "{url}", "--", "true"], {}),  # no hash
    (["--archive", "{url}", "--sha256", "0" * 64, "--", "true"], {}),  # nobody listens
    (["--archive", "{named}", "--sha256", "0" * 64, "--", "true"], {}),  # another hash in its name
    (["--", "true", "--tgz", "{url}"], {}),
    (["--", "true", "--tgz", "{url}"], {"FLYTE_SHIM_UNVERIFIED": "1"}),
    (["--archive", "{named}", "--", "true", "--tgz", "https://host/other?{secret}"], {}),
    (["--archive", "s3://bucket/{name}?{secret}", "--", "true"], {}),
    (["--archive", "ftp://user:{secret}@host/{name}", "--", "true"], {}),
    (["--archive", "https://user:{secret}@host/{name}", "--", "true"], {}),
    (["--archive", "https://host/{name}/?{secret}", "--sha256", "0" * 64, "--", "true"], {}),
    (["--archive", "http://host/{name}?{secret}", "--", "true"], {}),
    (["--archive", "file:///{name}?{secret}", "--", "true"], {}),
    (["--archive", "abfs://c@{secret}/{name}?{secret}", "--", "true"], {}),
]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("arguments", "variables"), SIGNED, ids=range(len(SIGNED)))
def test_no_message_holds_a_signature_or_password(shim, arguments, variables, form):
    name = f"{'1' * 64}.tar.gz"
    url = f"https://localhost:1/a.tar.gz?X-Amz-Signature={SECRET}"
    named = f"https://localhost:1/{name}?X-Amz-Signature={SECRET}"
    values = {"url": url, "named": named, "name": name, "secret": SECRET}
    if "abfs" in arguments[1]:
        values["secret"] = f"?{SECRET}"
    variables = {**variables, "FLYTE_SHIM_LOG": form, "FLYTE_STORAGE_RETRIES": "0"}
    done = shim(*(argument.format(**values) for argument in arguments), **variables)
    assert done.stderr


def test_flytes_own_number_of_retries_is_obeyed(shim):
    with scripted(lambda asked: reply(503)) as server:
        done = shim(
            *("--archive", f"{server.url}/{'0' * 64}.tar.gz", "--", "true"),
            FLYTE_STORAGE_RETRIES="2",
            FLYTE_STORAGE_BACKOFF_SECONDS="0",
        )
    assert done.returncode == 69
    assert "gave up after 3 attempts" in done.stderr
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "variable",
    ["FLYTE_SHIM_DEADLINE", "FLYTE_SHIM_TIMEOUT", "FLYTE_STORAGE_RETRIES", "FLYTE_SHIM_MAX_FILES"],
)
def test_what_is_no_number_is_said(shim, bundle, variable):
    done = shim("--archive", bundle.path, "--", "true", **{variable: "many"})
    assert done.returncode == 64
    assert f"{variable} is 'many'; it takes a number" in done.stderr
