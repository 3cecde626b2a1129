"""Real shims get bundles from real object stores, also over bad connections."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flyte_shim import s3 as s3_module
from flyte_shim.errors import (
    HashMismatch,
    ShimError,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
)
from flyte_shim.fetch import open_source
from flyte_shim.hashing import sha256_bytes
from flyte_shim.source import Patience, download
from tests.support.archives import Archive, archive_of
from tests.support.flyte_env import flyte_python
from tests.support.object_stores import (
    REAL_STORES,
    SECRETS,
    Answer,
    Corrupt,
    CutAnswer,
    Delay,
    LoseAnswer,
    RealStore,
    in_turn,
    seaweedfs,
    unique,
)
from tests.support.shim import PYTHON_PATH, environment, interpreters, run_shim, start_shim
from tests.support.shim_servers import Asked, ranged, reply, scripted
from tests.support.shim_stores import behind_proxy, publish, signed_url

FILES = {"main.py": "value = 1\n", "pkg/data.bin": os.urandom(100_000)}
# More than what obstore hands on at a time.
DATA = os.urandom(1 << 20) * 3
SCHEMES = list(REAL_STORES)
NO_MACHINE = {"AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def bundle(tmp_path) -> Archive:
    return archive_of(tmp_path / "store", FILES)


@pytest.fixture
def shim(tmp_path):
    """Runs the shim in a new working directory, with one cache; checks that no secret is left."""
    numbers = itertools.count()

    def run(*arguments, python=None, **variables):
        workdir = tmp_path / f"work{next(numbers)}"
        workdir.mkdir()
        chosen = {"python": str(python)} if python else {}
        done = run_shim(*arguments, home=tmp_path, cwd=workdir, variables=variables, **chosen)
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
        return done

    yield run
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        written = f"{path}\n".encode() + path.read_bytes()
        assert b"ignature=" not in written
        assert not any(secret.encode() in written for secret in SECRETS), path


def containers() -> list:
    """What an image may have: for S3 any Python, for the others obstore, which comes with Flyte."""
    plain = [("s3", version, python) for version, python in interpreters().items()]
    with_flyte = [(scheme, "flyte", None) for scheme in SCHEMES]
    return [
        pytest.param(scheme, python, id=f"{scheme}-{name}")
        for scheme, name, python in (*plain, *with_flyte)
    ]


@pytest.mark.parametrize(("scheme", "python"), containers())
def test_a_bundle_is_fetched_once_and_then_found_in_the_cache(scheme, python, shim, bundle):
    store = REAL_STORES[scheme]()
    key = f"{unique()}/a b/ü+~/{bundle.path.name}"
    uri = publish(store, key, bundle.path.read_bytes())
    with behind_proxy(store) as (reached, proxy):
        for requests in (1, 1):
            done = shim(
                *("--archive", uri, "--", "cat", "main.py"),
                python=python or flyte_python(),
                **{**(reached.reader or reached.env), "FLYTE_SHIM_LOG": "json"},
            )
            assert (done.returncode, done.stdout) == (0, FILES["main.py"]), done.stderr
            assert len(proxy.requests) == requests
            (line,) = map(json.loads, done.stderr.splitlines())
            assert (line["event"], line["archive"]) == ("ready", bundle.sha256)
    assert line["cache"] == "hit"


def test_all_containers_of_a_node_that_start_at_once_make_one_request(tmp_path, bundle):
    store = seaweedfs()
    uri = publish(store, f"{unique()}/{bundle.path.name}", bundle.path.read_bytes())
    with behind_proxy(store) as (reached, proxy):
        proxy.once(Delay(1))  # until all have started
        variables = {**reached.reader, "FLYTE_SHIM_CACHE": str(tmp_path / "cache")}
        starts = []
        for number in range(32):
            (tmp_path / f"w{number}").mkdir()
            command = ["--archive", uri, "--", "cat", "main.py"]
            starts.append(
                start_shim(
                    *command, home=tmp_path, cwd=tmp_path / f"w{number}", variables=variables
                )
            )
        ends = {(*start.communicate(), start.returncode) for start in starts}
        assert ends == {(FILES["main.py"], "", 0)}
        assert len(proxy.requests) == 1


def test_a_start_that_is_killed_while_it_downloads_leaves_nothing_for_long(shim, tmp_path, bundle):
    data = bundle.path.read_bytes()

    def stall(asked: Asked):
        yield reply(200, data[:50_000], len(data))
        time.sleep(600)

    answers = iter([stall])
    cache = tmp_path / "cache"
    with scripted(lambda asked: next(answers, lambda a: ranged(data, a))(asked)) as server:
        command = ["--archive", f"{server.url}/{bundle.path.name}", "--cache", str(cache), "--"]
        killed = start_shim(*command, "true", home=tmp_path, cwd=tmp_path)
        while not [path for path in cache.rglob("archive") if path.stat().st_size == 50_000]:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
        done = shim(*command, "cat", "main.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, FILES["main.py"], "")
    assert [asked.headers.get("range") for asked in server.asked] == [None, None]
    assert os.listdir(cache / str(os.geteuid()) / "work") == []


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetches DATA in this process; how many attempts that took. Errors hold no secret."""

    def run(store: RealStore, uri: str, timeout: float = 20, attempts: int = 4) -> int:
        for name, value in {**NO_MACHINE, **store.env}.items():
            monkeypatch.setenv(name, value)
        patience = Patience(attempts, pause=0.001, timeout=timeout)
        copy = tmp_path / unique()
        source = open_source(uri, patience, os.environ)
        try:
            attempts = download(source, str(copy), sha256_bytes(DATA), 1 << 30, patience)[1]
        except ShimError as error:
            message = str(error)
            if any(secret in message for secret in SECRETS):
                raise AssertionError("a secret is in a message") from error
            raise
        assert copy.read_bytes() == DATA
        return attempts

    return run


@pytest.fixture(params=SCHEMES)
def published(request):
    """A store behind a proxy, the proxy, and the URI of DATA in it."""
    store = REAL_STORES[request.param]()
    uri = publish(store, f"{unique()}/a.tar.gz", DATA)
    with behind_proxy(store) as (reached, proxy):
        yield reached, proxy, uri


SURVIVED = {
    "a line that breaks in the middle": ([CutAnswer(2 << 20)], 2),
    "a line that breaks twice": ([CutAnswer(5000), CutAnswer(1 << 20)], 3),
    "a line that breaks before anything comes": ([CutAnswer(0)], 2),
    "errors that pass": ([Answer(503), Answer(500), Answer(429)], 4),
    "an answer that is lost": ([LoseAnswer()], 2),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_passes_is_survived(published, fetch, name):
    reached, proxy, uri = published
    faults, attempts = SURVIVED[name]
    proxy.fault = in_turn(*faults)
    assert fetch(reached, uri) == attempts
    assert len(proxy.requests) == attempts
    assert not proxy.writes


def test_a_download_goes_on_where_it_broke_off_with_the_same_archive(published, fetch):
    reached, proxy, uri = published
    proxy.once(CutAnswer(2_500_000))
    fetch(reached, uri)
    first, second = proxy.requests
    assert "range" not in first.headers
    begin = int(re.fullmatch(r"bytes=(\d+)-", second.headers["range"])[1])
    # obstore hands on whole chunks.
    assert begin == 2_500_000 if uri.startswith("s3:") else 1 << 20 <= begin <= 2_500_000
    assert second.headers["if-match"]


def test_an_archive_that_was_replaced_is_fetched_anew(published, fetch):
    """The part of another archive, and another tag, is not put behind the part of the first."""
    reached, proxy, uri = published
    proxy.fault = in_turn(CutAnswer(2_500_000), Answer(412))
    assert fetch(reached, uri) == 3
    assert "range" not in proxy.requests[2].headers


_TOLD = (("ETag", '"x"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"))
FAILURES = {
    "a bit that is another": (Corrupt(1_500_000), HashMismatch, "it is damaged"),
    "half of it": (Answer(200, DATA[:1000], _TOLD), HashMismatch, r"\(1000 bytes\)"),
    "no right": (Answer(403), SourceDenied, "403"),
    "nothing there": (Answer(404), SourceMissing, "404"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_does_not_pass_is_said_at_once(published, fetch, name):
    reached, proxy, uri = published
    fault, error, message = FAILURES[name]
    proxy.times(10, fault)
    with pytest.raises(error, match=message):
        fetch(reached, uri)
    assert len(proxy.requests) == 1


def test_a_store_that_keeps_failing_is_given_up_on(published, fetch):
    reached, proxy, uri = published
    proxy.times(10, Answer(503))
    with pytest.raises(SourceUnavailable, match=r"503.*gave up after 3 attempts"):
        fetch(reached, uri, attempts=3)
    assert len(proxy.requests) == 3


def test_a_store_that_nobody_can_reach_is_named(published, fetch):
    reached, _, uri = published
    with pytest.raises(SourceUnavailable, match="no connection to"):
        fetch(reached.at("http://127.0.0.1:1"), uri, attempts=1)


def test_a_store_that_is_silent_is_asked_again(fetch):
    store = seaweedfs()
    uri = publish(store, f"{unique()}/a.tar.gz", DATA)
    with behind_proxy(store) as (reached, proxy):
        proxy.once(Delay(30))
        assert fetch(reached, uri, timeout=2) == 2


WRONG = {
    ("s3", "AWS_SECRET_ACCESS_KEY", "wrong"): (
        77,
        "403 SignatureDoesNotMatch.*the secret from AWS_ACCESS_KEY_ID and AWS_SECRET",
    ),
    ("s3", "AWS_ACCESS_KEY_ID", "wrong"): (77, "403 InvalidAccessKeyId.*the key from AWS_ACC"),
    ("s3", "AWS_ACCESS_KEY_ID", ""): (77, "no credentials were found.*AWS_ACCESS_KEY_ID"),
    ("s3", "AWS_SKIP_SIGNATURE", "true"): (77, "AWS_SKIP_SIGNATURE forbids"),
    ("s3", "AWS_ENDPOINT_URL", "localhost"): (64, "AWS_ENDPOINT_URL is an invalid URL"),
    ("abfs", "AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc="): (77, r"403 Auth\w+.*the credentials are"),
    ("abfs", "AZURE_STORAGE_ACCOUNT_KEY", "not base 64"): (
        64,
        "AZURE_STORAGE_ACCOUNT_KEY has a blank",
    ),
    ("gs", "GOOGLE_SERVICE_ACCOUNT", "/nowhere"): (
        64,
        "GOOGLE_SERVICE_ACCOUNT names no readable file",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_wrong_settings_are_said_in_one_line(shim, bundle, case):
    scheme, variable, value = case
    code, message = WRONG[case]
    store = REAL_STORES[scheme]()
    uri = publish(store, f"{unique()}/{bundle.path.name}", bundle.path.read_bytes())
    environ = {**NO_MACHINE, **store.env, variable: value}
    if scheme == "gs":
        del environ["STORAGE_EMULATOR_HOST"]
    done = shim("--archive", uri, "--", "true", python=flyte_python(), **environ)
    (line,) = done.stderr.splitlines()
    assert line.startswith("flyte-shim: error: ")
    assert done.returncode == code
    assert re.search(message, line), line


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("missing", ["archive", "bucket"])
def test_what_is_not_there_is_said(shim, scheme, missing):
    store = REAL_STORES[scheme]()
    uri = f"{store.uri}/{unique()}/{'0' * 64}.tar.gz"
    if missing == "bucket":
        uri = uri.replace("://flyte-tests", "://nobodys-bucket")
    done = shim("--archive", uri, "--", "true", python=flyte_python(), **store.env)
    assert done.returncode == 66
    assert uri in done.stderr
    if missing == "bucket" and scheme != "gs":  # which says no more than 404
        assert re.search("there is no bucket (or container )?nobodys-bucket", done.stderr)


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_is_off_is_named(fetch, monkeypatch, minutes):
    store = seaweedfs()
    uri = publish(store, f"{unique()}/a.tar.gz", DATA)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + minutes * 60)
    assert s3_module.time is time
    side = "ahead of" if minutes > 0 else "behind"
    with pytest.raises(SourceDenied, match=f"this machine's clock is 20 minutes {side} the server"):
        fetch(store, uri)


@pytest.mark.parametrize("scheme", ["s3", "abfs"])
def test_a_signed_url_needs_no_credentials(shim, bundle, scheme):
    """Its hash is in its path; a0 is told the address without the signature."""
    store = REAL_STORES[scheme]()
    key = f"{unique()}/{bundle.path.name}"
    publish(store, key, bundle.path.read_bytes())
    url = signed_url(store, key, 60)
    assert "?" in url
    plain = url.partition("?")[0]
    done = shim("--", "sh", "-c", 'echo "$@"; ls -A', "a0", "--tgz", url, FLYTE_SHIM_LOG="json")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:2] == ["--tgz", plain]
    assert f".{bundle.path.name}.extracted" in words
    query = url.partition("?")[2]
    for part in (query, *query.split("&")):
        value = part.partition("=")[2]
        assert len(value) < 20 or value not in done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["s3", "abfs"])
def test_a_signed_url_that_has_expired_is_said_without_its_signature(shim, bundle, scheme):
    store = REAL_STORES[scheme]()
    key = f"{unique()}/{bundle.path.name}"
    publish(store, key, bundle.path.read_bytes())
    url = signed_url(store, key, 1)
    time.sleep(2.5)
    done = shim("--archive", url, "--", "true")
    assert done.returncode == 77, done.stderr
    assert "it has expired or does not fit. Make a new one" in done.stderr
    assert "?" not in done.stderr
    assert "ignature=" not in done.stderr


def test_without_obstore_the_way_out_is_said(shim, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none/obstore.py").write_text("raise ImportError\n")
    uri = f"gs://bucket/{'0' * 64}.tar.gz"
    path = f"{tmp_path}/none:{PYTHON_PATH}"
    done = shim("--archive", uri, "--", "true", PYTHONPATH=path)
    assert done.returncode == 64
    assert f"{uri} needs the package obstore, which Flyte depends on" in done.stderr


def test_a_full_disk_leaves_nothing(tmp_path, bundle):
    """A limit on the size of files breaks off a write in the middle, as a full disk does."""
    store = seaweedfs()
    uri = publish(store, f"{unique()}/{bundle.path.name}", bundle.path.read_bytes())
    limited = ["sh", "-c", 'ulimit -f 97 && exec "$0" "$@"', sys.executable, "-m", "flyte_shim"]
    done = subprocess.run(
        [*limited, "--archive", uri, "--cache", str(tmp_path / "cache"), "--", "true"],
        env=environment(tmp_path, **store.env),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 73, done.stderr
    assert "Free some space, or set FLYTE_SHIM_CACHE" in done.stderr
    left = [path for path in Path(tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == []
