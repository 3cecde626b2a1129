"""The command line: what it takes, what it becomes, and how it says what went wrong."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_shim import __version__
from flyte_shim.cli import USAGE
from flyte_shim.command import option
from flyte_shim.hashing import sha256_bytes
from tests.support.archives import END, Archive, archive_of, member, store
from tests.support.shim import PYTHON_PATH, environment, run_shim, start_shim

FILES = {"main.py": "value = 1\n", "pkg/data.csv": "1,2\n"}
OTHER_SHA256 = sha256_bytes(b"other")


@pytest.fixture
def bundle(tmp_path) -> Archive:
    return archive_of(tmp_path / "store", FILES)


@pytest.fixture
def workdir(tmp_path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def shim(tmp_path, workdir):
    """Runs the shim in the working directory; HOME is empty."""

    def run(*arguments, **variables) -> subprocess.CompletedProcess:
        return run_shim(*arguments, home=tmp_path / "home", cwd=workdir, variables=variables)

    return run


def error_of(done: subprocess.CompletedProcess) -> str:
    """What it says, which is one line."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("flyte-shim: error: ")
    assert done.stdout == ""
    return line


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
    ],
)
def test_the_commands_end_is_the_end(shim, bundle, command, code):
    assert shim("--archive", bundle.path, "--", *command).returncode == code


def test_the_command_has_our_process_id_environment_and_streams(bundle, tmp_path, workdir):
    script = "echo $$ $FOO; cat; echo err >&2"
    process = subprocess.Popen(
        [sys.executable, "-m", "flyte_shim", "--archive", bundle.path, "--", "sh", "-c", script],
        cwd=workdir,
        env=environment(tmp_path, FOO="bar"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.communicate("in\n") == (f"{process.pid} bar\nin\n", "err\n")


@pytest.fixture(autouse=True)
def no_signals_ignored():
    """Tests may be started by `nohup`, and a process that ignores a signal hands that on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_signals_reach_the_command(bundle, tmp_path, workdir, name):
    script = f"trap 'echo got {name}; exit 7' {name[3:]}; echo ready; while :; do sleep 0.01; done"
    process = start_shim(
        "--archive", bundle.path, "--", "sh", "-c", script, home=tmp_path, cwd=workdir
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    assert process.communicate() == (f"got {name}\n", "")
    assert process.returncode == 7


def test_the_command_is_not_left_with_signals_ignored(shim, bundle):
    """Python ignores SIGPIPE and SIGXFSZ; a pipeline in the command counts on the first."""
    done = shim("--archive", bundle.path, "--", "grep", "SigIgn", "/proc/self/status")
    assert int(done.stdout.split()[1], 16) == 0


def test_arguments_are_passed_as_they_are(shim, bundle):
    odd = ["--archive", "x", "--help", "a b", "", "*", "ü", "--"]
    done = shim("--archive", bundle.path, "--", "printf", "[%s]", *odd)
    assert done.stdout == "".join(f"[{argument}]" for argument in odd)


def test_two_dashes_before_the_command_are_not_needed(shim, bundle):
    assert shim("--archive", bundle.path, "cat", "main.py").stdout == FILES["main.py"]


def test_the_command_runs_in_the_working_directory_that_is_named(shim, bundle, tmp_path):
    done = shim(
        "--archive", bundle.path, "--workdir", "../new", "--", "sh", "-c", "pwd; cat main.py"
    )
    assert done.stdout == f"{tmp_path}/new\n{FILES['main.py']}"


@pytest.mark.parametrize("form", ["--mode=copy", "--mode copy", "environment"])
def test_options_take_both_forms_and_some_come_from_the_environment(shim, bundle, workdir, form):
    variables = {"FLYTE_SHIM_MODE": "copy"} if form == "environment" else {}
    options = [] if variables else form.split()
    assert shim(*options, f"--archive={bundle.path}", "true", **variables).returncode == 0
    assert not (workdir / "main.py").is_symlink()


@pytest.mark.parametrize("variable", [False, True])
def test_an_archive_of_any_name_needs_its_hash(shim, bundle, tmp_path, variable):
    plain = tmp_path / "plain.tgz"
    plain.write_bytes(bundle.path.read_bytes())
    refused = shim("--archive", plain, "--", "cat", "main.py")
    assert refused.returncode == 64
    assert error_of(refused).endswith(f"no SHA-256 for {plain}: give it by --sha256")
    given = bundle.sha256.upper()
    if variable:
        done = shim("--archive", plain, "--", "cat", "main.py", FLYTE_SHIM_SHA256=given)
    else:
        done = shim("--archive", plain, "--sha256", given, "--", "cat", "main.py")
    assert done.stdout == FILES["main.py"]


def test_help_and_version(shim):
    assert shim("--help").stdout == shim("-h").stdout == USAGE
    assert shim("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 64, "no command to run; see flyte-shim --help"),
        (["--archive", "{archive}"], 64, "no command to run"),
        (["--archive"], 64, "--archive needs a value"),
        (["--archive=", "true"], 64, "--archive needs a value"),
        (["--verbose", "true"], 64, "there is no option --verbose"),
        (["--help=x", "true"], 64, "there is no option --help"),
        (["--archive", "{archive}", "--mode", "move", "true"], 64, "is one of: link, copy"),
        (["--archive", "{archive}", "--sha256", "x", "true"], 64, "'x' is not a SHA-256"),
        (["--archive", "{archive}", "--sha256", OTHER_SHA256, "true"], 64, "says another"),
        (["--archive", "ftp://b/{name}", "true"], 64, "plain paths and abfs://, abfss://, file://"),
        (["--archive", "/{name}", "true"], 66, "there is no archive to read at /"),
        (["--archive", "{damaged}", "true"], 65, "was expected"),
        (["--archive", "{hostile}", "true"], 65, "a symbolic link ('evil')"),
        (
            ["--archive", "{archive}", "--cache", "/dev/null", "true"],
            73,
            "directory /dev/null cannot be",
        ),
        (["--archive", "{archive}", "--workdir", "/dev/null", "true"], 73, "directory /dev/null: "),
        (["--workdir", "/nowhere", "true"], 73, "no working directory /nowhere"),
        (["--archive", "{archive}", "no-such-command"], 127, "no command 'no-such-command'"),
        (["--archive", "{archive}", "/no/such/command"], 127, "no command '/no/such/command'"),
        (
            ["--archive", "{archive}", "pkg/data.csv"],
            126,
            "pkg/data.csv cannot be run: Permission",
        ),
        (["--archive", "{archive}", "/"], 126, "the command / cannot be run: Permission denied"),
        (["--archive", "{archive}", "{script}"], 126, "its interpreter is missing"),
        (["--archive", "{archive}", "{garbage}"], 126, "Exec format error"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line_with_its_own_code(
    shim, bundle, tmp_path, arguments, code, message
):
    damaged = tmp_path / "damaged" / bundle.path.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"damaged")
    hostile = store(tmp_path, gzip.compress(member(b"evil", kind=b"2", link=b"/etc") + END))
    for name, content in (("script", b"#!/no/such/interpreter\n"), ("garbage", b"\0\1\2\3")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    names = {
        "archive": bundle.path,
        "name": bundle.path.name,
        "damaged": damaged,
        "hostile": hostile.path,
        "script": tmp_path / "script",
        "garbage": tmp_path / "garbage",
    }
    done = shim(*(argument.format(**names) for argument in arguments))
    assert message in error_of(done)
    assert done.returncode == code


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("FLYTE_SHIM_MAX_FILES", "more than 1 files and directories"),
        ("FLYTE_SHIM_MAX_BYTES", "more than 1 bytes"),
        ("FLYTE_SHIM_MAX_ARCHIVE_BYTES", "larger than 1 bytes"),
    ],
)
def test_limits_come_from_the_environment(shim, bundle, variable, message):
    done = shim("--archive", bundle.path, "true", **{variable: "1"})
    assert done.returncode == 65
    assert message in error_of(done)
    assert f"set {variable}" in done.stderr
    done = shim("--archive", bundle.path, "true", **{variable: "many"})
    assert done.returncode == 64
    assert "takes a number" in error_of(done)
    assert shim("--archive", bundle.path, "true", **{variable: "100000"}).returncode == 0


def test_a_message_stays_one_line_and_an_error_of_ours_has_no_traceback(shim, bundle):
    done = shim("--archive", "/no\nwhere", "--sha256", bundle.sha256, "true")
    assert r"/no\nwhere" in error_of(done)
    assert "Traceback" not in done.stderr


def test_without_a_standard_error_the_exit_code_still_tells(tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m flyte_shim 2>&-', sys.executable],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (64, "")


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("a0 --tgz x", "x"),
        ("a0 --tgz=x --dest .", "x"),
        ("a0 --version v --tgz x mod m", "x"),
        ("a0 --tgz x --tgz y", "y"),
        ("a0 -- --tgz x", None),
        ("a0 --tgzz x --atgz y -tgz z", None),
        ("a0 --tgz", None),
        ("--tgz x", None),
        ("a0", None),
    ],
)
def test_an_option_is_found_where_click_finds_it(command, value):
    assert option(command.split(), "--tgz") == value


def fake_a0(*arguments: object) -> list[str]:
    """Replaces a0 where only its arguments matter; the first word is its path, as a0 passes it."""
    return ["/bin/sh", "-c", 'printf "%s\\n" "$@"; cat main.py', *map(str, arguments)]


def test_as_a_wrapper_the_bundle_is_the_commands_own(shim, bundle, workdir):
    done = shim(*fake_a0("a0", "--tgz", bundle.path, "--dest", ".", "mod", "m"))
    assert done.stdout.endswith(FILES["main.py"])
    name = bundle.path.name
    assert {name, f".{name}.extracted"} <= set(os.listdir(workdir))


def test_as_a_wrapper_the_destination_is_the_commands_own_and_nobody_moves(shim, bundle, workdir):
    done = shim("sh", "-c", "pwd", "a0", f"--tgz={bundle.path}", "--dest=below/here")
    assert done.stdout == f"{workdir}\n"
    assert (workdir / "below/here/main.py").read_text() == FILES["main.py"]
    assert (workdir / f"below/here/.{bundle.path.name}.extracted").exists()


def test_as_a_wrapper_options_may_stand_before_the_command(shim, bundle, workdir):
    done = shim("--mode", "copy", "--", *fake_a0("a0", "--tgz", bundle.path))
    assert done.returncode == 0
    assert not (workdir / "main.py").is_symlink()


def test_a_command_without_a_bundle_is_just_run(shim, workdir, tmp_path):
    assert shim("echo", "a0", "--dest", ".").stdout == "a0 --dest .\n"
    assert os.listdir(workdir) == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("argument", ["--tgz={plain}", "--pkl=/x.pkl.gz"])
def test_a_bundle_that_nothing_says_the_hash_of_is_refused(shim, bundle, tmp_path, argument):
    plain = tmp_path / "fast123.tar.gz"
    plain.write_bytes(bundle.path.read_bytes())
    command = ["echo", "a0", argument.format(plain=plain)]
    refused = shim(*command)
    assert refused.returncode == 64
    assert "FLYTE_SHIM_SHA256, or FLYTE_SHIM_UNVERIFIED=1" in error_of(refused)
    passed = shim(*command, FLYTE_SHIM_UNVERIFIED="1")
    assert (passed.returncode, passed.stdout) == (0, " ".join(command[1:]) + "\n")
    assert "warning: the command downloads" in passed.stderr


def test_the_hash_of_a_commands_bundle_may_come_from_the_environment(shim, bundle, tmp_path):
    plain = tmp_path / "fast123.tar.gz"
    plain.write_bytes(bundle.path.read_bytes())
    done = shim(*fake_a0("a0", "--tgz", plain), FLYTE_SHIM_SHA256=bundle.sha256)
    assert done.stdout.endswith(FILES["main.py"])
    wrong = shim(*fake_a0("a0", "--tgz", bundle.path), FLYTE_SHIM_SHA256=OTHER_SHA256)
    assert wrong.returncode == 64


def test_the_archive_may_lie_elsewhere_than_the_commands_bundle(shim, bundle, workdir):
    """A mirror of the store: same hash, other place. The marker has the name that a0 expects."""
    tgz = f"s3://bucket/{bundle.path.name}"
    done = shim("--archive", bundle.path, "--", *fake_a0("a0", "--tgz", tgz))
    assert done.returncode == 0
    assert (workdir / f".{bundle.path.name}.extracted").exists()
    for other in (f"s3://bucket/{OTHER_SHA256}.tar.gz", "s3://bucket/other.tar.gz"):
        refused = shim("--archive", bundle.path, "--", "true", "--tgz", other)
        assert refused.returncode == 64
        assert "is another bundle" in error_of(refused)


@pytest.mark.parametrize("uri", ["/store/", "file:///store/..", "."])
def test_an_address_that_names_no_file_is_refused(shim, bundle, uri):
    refused = shim("--archive", uri, "--sha256", bundle.sha256, "true")
    assert refused.returncode == 64
    assert "does not name a file" in error_of(refused)


def test_modules_in_the_working_directory_do_not_run_in_the_shim(shim, tmp_path, workdir):
    """They come out of bundles, and `python -m` would find them first."""
    names = ("errno", "fcntl", "hashlib", "zlib", "stat", "flyte_shim/other")
    evil = "raise SystemExit('a module of the task ran in the shim')\n"
    bundle = archive_of(tmp_path / "store", {f"{name}.py": evil for name in names})
    for _ in range(2):
        (workdir / "flyte_shim").unlink(missing_ok=True)
        done = shim("--archive", bundle.path, "--mode", "link", "--", "true")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_warm_start_imports_next_to_nothing(bundle, tmp_path, workdir):
    """Beyond what `python -m` does of itself; that is not little before CPython 3.11."""
    (tmp_path / "empty.py").touch()

    def imported(*module: object) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-S", "-X", "importtime", "-m", *module],
            cwd=workdir,
            env=environment(tmp_path, PYTHONPATH=f"{PYTHON_PATH}:{tmp_path}"),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0
        return set(re.findall(r"\| +(\S+)\n", done.stderr))

    always = imported("empty")
    start = ["flyte_shim", "--archive", bundle.path, "--", "true"]
    assert {"flyte_shim.fetch", "hashlib", "zlib"} <= imported(*start) - always
    assert {name for name in imported(*start) - always if "flyte_shim" not in name} == {
        "__future__",
        "errno",
        "fcntl",
    }


def test_it_runs_as_a_zipapp(bundle, tmp_path, workdir):
    """One file to copy into an image, where there is no pip."""
    archive = tmp_path / "flyte-shim.pyz"
    source = tmp_path / "source"
    shutil.copytree(Path(PYTHON_PATH, "flyte_shim"), source / "flyte_shim")
    build = ["zipapp", source, "-m", "flyte_shim.__main__:main", "-o", archive]
    subprocess.run([sys.executable, "-m", *build], check=True)
    done = subprocess.run(
        [sys.executable, archive, "--archive", bundle.path, "--", "cat", "main.py"],
        cwd=workdir,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (FILES["main.py"], "")


@pytest.mark.parametrize(
    ("wrapper", "marked"),
    [
        ("/opt/venv/bin/flyte-shim", "1"),
        ("flyte-shim --mode copy", "1"),
        ("nsys launch", ""),
        ("", ""),
    ],
)
def test_a0_need_not_start_a_shim_that_was_there_already(shim, wrapper, marked):
    done = shim("--", "sh", "-c", 'printf %s "$_F_EXEC_WRAPPED"', _F_EXEC_WRAPPER=wrapper)
    assert done.stdout == marked
