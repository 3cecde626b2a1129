"""Every failure has one base class; the commands turn it into a message and an exit code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flyte_pack
import flyte_shim
from flyte_pack import command
from flyte_pack.__main__ import main
from flyte_pack.errors import UsageError, UserError
from flyte_pack.oci.model import InvalidImage
from flyte_pack.registry.client import Refused

# Exceptions that are no failures, by the reason why none of them reaches a person.
SIGNALS = {
    "flyte_pack.http.retry.Broken": "told again as an HttpError or StoreError after the last try",
    "flyte_pack.store.remote.Exists": "tells a writer that another was first",
    "flyte_pack.deploy.bundles.Beaten": "tells a deployment to plan again",
    "flyte_pack.deploy.contents.Wrong": "becomes a line of a report, or a UserError of a deployment",
    "flyte_pack.image.installed.Contested": "tells the installer to try each wheel alone",
    "flyte_shim.obstore_client.Panic": "becomes the StorageError of the store's client",
    "flyte_pack.code.entry_names.Wanted": "tells who asks to scan another module first",
    "flyte_pack.code.image_scan._Unread": "leaves out what the source does not say literally",
    "flyte_pack.json_fields._Wrong": "becomes an InvalidData that names the field",
    "flyte_shim.stopping.Stopped": "a signal of the system; the programs end by its code",
    "flyte_pack.flyte_side.words.Refused": "runs in the user's environment, and goes over a pipe",
}

TELLS = "tells what can be typed"


def modules():
    for package in (flyte_pack, flyte_shim):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield found.name


def exceptions():
    found = {}
    for name in modules():
        try:
            module = importlib.import_module(name)
        except ImportError:  # not among the packages of this resolve
            assert name.startswith(("flyte_pack.flyte_side.", "flyte_pack.store.by_obstore"))
            continue
        for thing in vars(module).values():
            ours = isinstance(thing, type) and thing.__module__ == name
            if ours and issubclass(thing, BaseException):
                found[f"{name}.{thing.__qualname__}"] = thing
    return found


def test_every_exception_is_a_user_error_or_a_signal_with_a_reason():
    found = exceptions()
    assert len(found) > 20
    others = {name for name, kind in found.items() if not issubclass(kind, UserError)}
    assert others <= set(SIGNALS)


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (UserError("no"), 1, "//a:b: no\n"),
        (InvalidImage("no"), 1, "//a:b: no\n"),
        (UserError("two\nlines \x1b[1m"), 1, "//a:b: two\nlines \\x1b[1m\n"),
        (UsageError("what?"), 2, f"//a:b: what?\n(./pants run //a:b -- --help {TELLS})\n"),
        (FileNotFoundError(2, "No such file", "a.json"), 1, "//a:b: a.json: No such file\n"),
        (OSError(28, "No space left"), 1, "//a:b: No space left\n"),
        (OSError("odd"), 1, "//a:b: odd\n"),
        (KeyboardInterrupt(), 130, "//a:b: interrupted\n"),
        (SystemExit(0), 0, ""),
    ],
)
def test_a_failure_becomes_one_message_and_an_exit_code(capsys, failure, code, message):
    def work():
        raise failure

    assert command.guarded("//a:b", work, hint="./pants run {} -- --help") == code
    assert capsys.readouterr() == ("", message)


PROGRAM = """
import os, signal, sys, tempfile
for number in (1, 2, 3):
    signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)
from flyte_pack import command
from flyte_pack.image.running import quietly
def work():
    with tempfile.TemporaryDirectory(dir=sys.argv[1]):
        quietly(["sh", "-c", "echo $$ > $0; exec sleep 100", sys.argv[2]])
sys.exit(command.guarded("//a:b", work))
"""


@pytest.mark.parametrize("as_process_1", [False, True])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_program_that_is_stopped_cleans_up_and_stops_its_children(tmp_path, name, as_process_1):
    if as_process_1 and (os.geteuid() != 0 or not shutil.which("unshare")):
        pytest.skip("needs root and unshare")
    (tmp_path / "scratch").mkdir()
    child, number = tmp_path / "child", getattr(signal, name)
    program = subprocess.Popen(
        [
            *(["unshare", "--pid", "--fork", "--kill-child"] if as_process_1 else []),
            *(sys.executable, "-c", PROGRAM, str(tmp_path / "scratch"), str(child)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (child.exists() and child.read_text()):
        assert program.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    os.kill(int(children.read_text()) if as_process_1 else program.pid, number)
    _, said = program.communicate(timeout=60)
    how = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert (program.returncode, said) == (128 + number, f"//a:b: {how}\n")
    assert not list((tmp_path / "scratch").iterdir())
    if not as_process_1:  # the kernel ends a namespace with its process 1
        deadline = time.monotonic() + 30
        while not has_ended(child.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert has_ended(child.read_text().strip())


def has_ended(process: str) -> bool:
    """Also one of which the machine's process 1 has not taken notice yet."""
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def test_every_exception_of_ours_ends_in_a_message():
    for kind in exceptions().values():
        if issubclass(kind, UserError):
            failure = kind("said", 404) if kind is Refused else kind("said")

            def work(failure=failure):
                raise failure

            said: list[str] = []
            code = command.guarded("x", work, tell=said.append)
            assert (code, said) == (2 if issubclass(kind, UsageError) else 1, ["x: said"])


def test_a_bug_is_not_dressed_up_as_a_users_mistake():
    with pytest.raises(ZeroDivisionError):
        command.guarded("x", lambda: 1 // 0)


@pytest.mark.parametrize(
    ("argv", "ours", "typed"),
    [
        (["--a", "b"], ["--a", "b"], []),
        (["--a", "--", "b", "--", "c"], ["--a"], ["b", "--", "c"]),
        (["--"], [], []),
        ([], [], []),
    ],
)
def test_the_first_two_dashes_begin_what_was_typed(argv, ours, typed):
    assert command.cut(argv) == (ours, typed)


def test_a_failure_is_told_of_the_target_where_the_command_line_names_it(capsys):
    parser = command.parser("python -m flyte_pack x")
    parser.add_argument("--address")

    def work(given):
        raise UserError(" ".join(given.typed))

    assert command.run(parser, ["--", "y", "z"], work) == 1
    assert command.run(parser, ["--address", "//a:b", "--", "y"], work, failed=7) == 7
    assert capsys.readouterr().err == "flyte_pack x: y z\n//a:b: y\n"


def test_a_wrong_command_line_says_how_to_get_help(capsys):
    assert main(["push"]) == 2
    assert capsys.readouterr().err == (
        "flyte_pack push: the following arguments are required: --plan\n"
        "(python -m flyte_pack push --help tells what can be typed)\n"
    )


def test_help_is_printed(capsys):
    assert main(["push", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m flyte_pack push ")


# --- what is shown -------------------------------------------------------------------------------

SOURCE = Path(flyte_pack.__file__).parent.parent
# Who writes to a stream, and how what is written was made fit to be shown.
WRITERS = {
    "flyte_pack/__main__.py": "the command's name, as ASCII",
    "flyte_pack/bundle.py": "its help",
    "flyte_pack/inventory/bundle.py": "its help",
    "flyte_pack/code/module_scan.py": "runs alone; JSON for the rules, or the parser's reason",
    "flyte_pack/progress.py": "what `command`, or a rule of transfers, has made",
    "flyte_shim/cli.py": "its help and version",
    "flyte_shim/log.py": "through `shown`, or as JSON in ASCII",
}


def _trees():
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        # Runs in the user's environment, and prints to its own pipe or as Flyte's command line.
        if not name.startswith("flyte_pack/flyte_side/"):
            yield name, ast.parse(path.read_bytes())


def test_nobody_else_decides_what_may_be_shown():
    words = ("redact", "shown", "printable", "without_secret")
    found = {
        f"{name}: {node.name}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and any(word in node.name for word in words)
    }
    assert found == {"flyte_shim/shown.py: printable"}


def test_only_these_modules_write_to_a_stream():
    def writes(node):
        if not isinstance(node, ast.Call):
            return False
        called = ast.unparse(node.func)
        return called == "print" or called.endswith(
            ("stderr.write", "stdout.write", "stream.write")
        )

    found = {name for name, tree in _trees() if any(map(writes, ast.walk(tree)))}
    assert found == set(WRITERS)


def test_a_parser_can_be_made_where_nobody_may_ask_about_standard_output(monkeypatch):
    """As in a rule, while Pants draws its progress on a terminal."""

    class Taken:
        def fileno(self):
            raise Exception("A UI or process has exclusive access")  # noqa: TRY002  as Pants does

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", Taken())
    parser = command.parser("deploy")
    parser.add_argument("words", nargs="*")
    assert parser.parse_args(["list"]).words == ["list"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--what=S3CR3T", "S3CR3T"], "unknown option or argument '--what'"),
        (["S3CR3T@host", "x"], "unknown option or argument (not repeated here)"),
        (["--kind", "S3CR3T"], "argument --kind: invalid choice (choose from "),
        (["--kind", "a (choose from\nS3CR3T"], "argument --kind: invalid choice (choose from "),
    ],
)
def test_what_is_typed_in_the_wrong_place_is_not_repeated(typed, message):
    parser = command.parser("python -m it")
    parser.add_argument("--kind", choices=("a", "b"))
    with pytest.raises(UsageError) as wrong:
        parser.parse_args(typed)
    assert str(wrong.value).startswith(message)
    assert "S3CR3T" not in str(wrong.value)
