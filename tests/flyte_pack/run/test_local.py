"""`python -m flyte_pack run`: a packaged task runs out of its bundle, under Flyte's own local runner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.flyte_env import flyte_python
from tests.support.local_runs import FILES, Machine, of_task
from tests.support.task_bundle import PYTHON_PATH, PackagedTask, package_task


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> PackagedTask:
    return package_task(tmp_path_factory.mktemp("packaged"), FILES, "services/ml/workflows.py:leaf")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("task", "arguments", "result"),
    [
        ("leaf", ["--n", "4"], "8"),
        ("leaf", ["--n", "4", "--factor", "5"], "20"),
        ("leaf", ["--copy-style", "auto", "--n", "4"], "8"),
        ("parent", ["--n", "4"], "[8, 40]"),
        ("mapped", ["--n", "4"], "[0, 3, 6, 9]"),
        ("async_parent", ["--n", "3"], "[1, 2, 3]"),
        ("reads_a_file_by_relative_path", [], '"harbour,210"'),
        ("reads_a_resource", [], '"{"a": 1}"'),
        ("imports_lazily", [], "42"),
        ("imports_relatively", [], "42"),
        ("is_loaded_once", [], "[True, True, True]"),
        ("runs_a_module_in_a_process", [], '"worked\n"'),
        ("spawns_workers", [], "[2, 4]"),
        ("has_its_garbage_collected", [], "True"),
        ("finds_programs_of_its_environment", [], "True"),
        ("knows_where_it_runs", [], "['flytesnacks', 'development']"),
        ("takes_the_options_of_a0", ["--tgz", "a", "--dest", "b"], '"ab"'),
    ],
)
def test_a_task_runs(
    machine: Machine, packaged: PackagedTask, task: str, arguments: list[str], result: str
) -> None:
    assert machine.result(of_task(packaged, task), *arguments) == result


@pytest.mark.parametrize(
    ("task", "path", "said"),
    [
        ("reads_what_does_not_ship", "data/gone.csv", '`files(name="data", sources=["gone.csv"])` in data/BUILD'),
        ("reads_beside_itself_what_does_not_ship", "services/ml/gone.json", '`resources(name="data", sources=["gone.json"])` in services/ml/BUILD'),
        ("reads_what_nobody_has", "data/gone.csv", None),
    ],
)  # fmt: skip
def test_a_file_that_the_repository_has_and_the_bundle_lacks_is_named_with_its_target(
    machine: Machine, packaged: PackagedTask, task: str, path: str, said: str | None
) -> None:
    (machine.root / path).parent.mkdir(parents=True)
    (machine.root / path).touch()
    done = machine.run(of_task(packaged, task))
    assert done.returncode == 1
    assert "No such file or directory" in done.stdout + done.stderr
    if said is None:
        assert "is in the repository" not in done.stderr
    else:
        assert f"services/ml:task: {path} is in the repository, but not in the bundle: let {said}" in done.stderr  # fmt: skip


def test_a_task_in_an_init_module_runs_and_is_loaded_once(tmp_path: Path, machine: Machine) -> None:
    source = """\
        import sys

        import flyte

        from . import helpers

        env = flyte.TaskEnvironment(name="inits", image=flyte.Image.from_base("example.com/ml:1"))


        @env.task
        def main() -> list[bool]:
            import app.tasks

            return [app.tasks.env is env, helpers.NAME == "app.tasks.helpers"]
    """
    files = {
        "app/__init__.py": "",
        "app/tasks/__init__.py": source,
        "app/tasks/helpers.py": "NAME = __name__\n",
    }
    task = package_task(tmp_path / "task", files, "app/tasks/__init__.py:main")
    assert machine.result(task) == "[True, True]"


def test_an_environment_has_its_tasks_in_other_modules(tmp_path: Path, machine: Machine) -> None:
    files = {
        "p/envs.py": "import flyte\nenv = flyte.TaskEnvironment('e', image='i:1')\n",
        "p/load.py": "from p.envs import env\n@env.task\ndef load(n: int) -> int: return n\n",
        "p/fit.py": "from p.envs import env\n@env.task\ndef fit(n: int) -> int: return n * 2\n",
    }
    tasks = {"load": "p.load", "fit": "p.fit"}
    task = package_task(tmp_path / "task", files, "p/envs.py:env", tasks)
    assert machine.result(task, "load", "--n", "3") == "3"
    assert machine.result(task, "fit", "--n", "3") == "6"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("f = 3", "f in main.py is of type int once it is imported, and no task. Name a function"),
        ("f = flyte.TaskEnvironment('e')", "f in main.py is an environment once it is imported"),
        ("", "f in main.py is not there once the module is imported. Bind it"),
    ],
)
def test_what_turns_out_to_be_no_task_is_told_with_what_to_write(
    machine: Machine, tmp_path: Path, source: str, message: str
) -> None:
    task = package_task(tmp_path / "task", {"main.py": f"import flyte\n{source}\n"}, "main.py:f")
    done = machine.run(task)
    assert done.returncode == 1
    assert message in " ".join(re.sub("[^ -~]", " ", done.stderr).split())


def test_of_an_environment_the_first_argument_picks_a_task(
    machine: Machine, packaged: PackagedTask
) -> None:
    assert machine.result(of_task(packaged, "leaf", "parent"), "parent", "--n", "1") == "[2, 10]"


def test_an_environment_without_an_argument_lists_its_tasks_and_no_others(
    machine: Machine, packaged: PackagedTask
) -> None:
    done = machine.run(of_task(packaged, "leaf", "parent"))
    listed = done.stdout.partition("Commands")[2]
    assert re.findall(r"^│ (\w+)", listed, re.MULTILINE) == ["leaf", "parent"]


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("leaf", ["--help"]),
        ("leaf", []),
        ("leaf", ["--n", "four"]),
        ("leaf", ["--nosuch", "4"]),
        ("fails", ["--message", "no good"]),
    ],
)
def test_help_and_errors_are_those_of_flyte_run_local(
    machine: Machine, packaged: PackagedTask, tmp_path: Path, task: str, arguments: list[str]
) -> None:
    with tarfile.open(packaged.archive) as archive:
        archive.extractall(tmp_path / "flyte" / "services")
    # Flyte's own way needs imports that work from the file's name.
    unpacked = tmp_path / "flyte" / "services"
    (unpacked / "config.yaml").unlink()
    workflows = unpacked / "services" / "ml" / "workflows.py"
    workflows.write_text(workflows.read_text().replace("from .helpers", "from services.ml.helpers"))
    flyte = subprocess.run(
        [
            *(str(Path(flyte_python()).parent / "flyte"), "run", "--local"),
            *("services/ml/workflows.py", task, *arguments),
        ],
        cwd=unpacked,
        env={**machine.env, "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
    )
    ours = machine.run(of_task(packaged, task), *arguments)

    assert ours.returncode == flyte.returncode
    # Usage lines say what the user types; and there is no terminal, for which Flyte has colours.
    typed = f"flyte run services/ml/workflows.py {task}"
    said, complaint = (
        re.sub(r"\x1b\[[0-9;]*m", "", text).replace(
            typed, f"./pants run {packaged.link.address} --"
        )
        for text in (flyte.stdout, flyte.stderr)
    )
    assert "\x1b" not in ours.stdout + ours.stderr
    out, expected = _comparable(ours.stdout), _comparable(said)
    if arguments == ["--help"]:  # Flyte's words about the inputs stand below ours.
        assert out.startswith("./pants run path:task -- ")
        assert f" Usage: ./pants run {packaged.link.address} -- [OPTIONS] " in out
        out, expected = (text.partition("Options ─")[2] for text in (out, expected))
        assert "--n" in out
    assert out == expected
    assert _comparable(ours.stderr) == _comparable(complaint)


def test_colours_are_for_terminals_or_whoever_wants_them(
    machine: Machine, packaged: PackagedTask
) -> None:
    task = of_task(packaged, "leaf")
    assert "\x1b" not in machine.run(task, "--n", "4", TERM="xterm-256color").stdout
    coloured = machine.run(task, "--n", "4", TERM="xterm-256color", FORCE_COLOR="1")
    assert "\x1b[" in coloured.stdout


def _comparable(output: str) -> str:
    """Without times, ids, and a traceback, which names the directory; and however it is wrapped."""
    lines = [line for line in output.splitlines() if not line.startswith(" " * 20)]
    times_and_ids = r"\d\d:\d\d:\d\d\.\d+|\[[\w-]{20,}\]|[0-9a-f]{8}-[0-9a-f-]{27}"
    return " ".join(re.sub(times_and_ids, "", "\n".join(lines)).split())


def test_nothing_of_where_it_was_started_can_be_imported(
    machine: Machine, packaged: PackagedTask, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for directory in (machine.root, machine.root / "libs", elsewhere):
        directory.mkdir(exist_ok=True)
        (directory / "secret.py").write_text("")
    # What the build sets, and what a user's shell may have.
    env = {
        "PYTHONPATH": os.pathsep.join([PYTHON_PATH, str(machine.root), str(elsewhere)]),
        "PEX_EXTRA_SYS_PATH": f"{elsewhere}{os.pathsep}{PYTHON_PATH}",
        "PYTHONSTARTUP": str(elsewhere / "secret.py"),
    }
    for name in ("secret", "libs.secret", "flyte_pack", "flyte_shim"):
        result = machine.result(of_task(packaged, "cannot_import"), "--name", name, **env)
        assert (name, result) == (name, "True")
    found = machine.result(of_task(packaged, "paths"), **env)
    for directory in (machine.root, elsewhere, PYTHON_PATH, packaged.directory):
        assert str(directory) not in found
    assert f"'{machine.tmp}/flyte-run-" in found


def test_settings_of_a_control_plane_do_not_reach_it(
    machine: Machine, packaged: PackagedTask
) -> None:
    settings = machine.home / ".flyte" / "config.yaml"
    settings.parent.mkdir()
    settings.write_text("admin:\n  endpoint: dns:///localhost:1\nlocal:\n  tracked: true\n")
    env = {
        "FLYTE_ADMIN_ENDPOINT": "dns:///localhost:1",
        "FLYTE_API_KEY": "bm90IGEga2V5",
        "FLYTE_LOCAL_TRACKED": "true",
        "FLYTECTL_CONFIG": str(settings),
        "_F_EXEC_WRAPPER": "/nowhere",
        "PEX_ROOT": str(machine.home),
        "FLYTE_AWS_ENDPOINT": "http://localhost:1",
        "OF_THE_USER": "1",
    }
    found = machine.result(of_task(packaged, "environment"), **env)
    names = set(re.findall(r"'(\w+)'", found))
    assert names & env.keys() == {"FLYTE_AWS_ENDPOINT", "OF_THE_USER"}
    assert "DO_NOT_TRACK" in names
    # Nothing is written there, not even a cache of results, but what was compiled.
    assert sorted(path.name for path in machine.home.glob("**/*.*")) == [
        *(".cache", ".flyte", "config.yaml")
    ]
    assert [path.name for path in machine.home.glob(".cache/*/*")] == ["bytecode"]


def test_it_connects_to_nothing(machine: Machine, tmp_path: Path) -> None:
    source = """\
        import sys

        tried: list[str] = []
        sys.addaudithook(
            lambda event, arguments: tried.append(str(arguments[1]))
            if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo") else None
        )

        import flyte

        env = flyte.TaskEnvironment(name="quiet", image=flyte.Image.from_base("example.com/ml:1"))


        @env.task
        def child() -> list[str]:
            return tried


        @env.task
        def main() -> list[str]:
            return [*child(), *tried]
    """
    task = package_task(tmp_path / "task", {"quiet.py": source}, "quiet.py:main")
    assert machine.result(task) == "[]"


def test_a_result_of_other_code_is_not_taken_from_a_cache(machine: Machine, tmp_path: Path) -> None:
    source = """\
        import flyte

        from helpers import FACTOR

        env = flyte.TaskEnvironment(name="cached", image=flyte.Image.from_base("example.com/ml:1"))


        @env.task(cache="auto")
        def main(n: int) -> int:
            return n * FACTOR
    """
    for factor, result in ((2, "6"), (5, "15")):
        files = {"main.py": source, "helpers.py": f"FACTOR = {factor}\n"}
        task = package_task(tmp_path / str(factor), files, "main.py:main")
        assert machine.result(task, "--n", "3") == result


def test_each_run_has_a_directory_of_its_own_that_it_may_write_in(
    machine: Machine, packaged: PackagedTask
) -> None:
    task = of_task(packaged, "writes_where_it_likes")
    assert [machine.result(task) for _ in range(2)] == ["['x', 'x']", "['x', 'x']"]
    assert machine.result(of_task(packaged, "reads_a_file_by_relative_path")) == '"harbour,210"'


def test_output_comes_when_it_is_written_and_input_is_the_users(
    machine: Machine, packaged: PackagedTask
) -> None:
    with machine.start(of_task(packaged, "talks")) as process:
        assert process.stdout
        assert process.stdout.readline() == "what is your name?\n"
        out, err = process.communicate("Ada\n")
    assert process.returncode == 0, err
    assert "hello Ada" in out


def test_it_gets_no_files_that_whoever_started_it_has_open(
    machine: Machine, packaged: PackagedTask, tmp_path: Path
) -> None:
    with (tmp_path / "of-the-daemon").open("w") as file:
        inode = os.fstat(file.fileno()).st_ino
        done = subprocess.run(
            machine.command(of_task(packaged, "has_open"), "--inode", str(inode)),
            cwd=machine.root,
            env=machine.env,
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
        )
    assert "Outputs: ActionOutputs(o0=False)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("sent", "exit_code"),
    [
        (signal.SIGINT, 1),  # what `flyte run` makes of it: "Aborted!"
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_signal_ends_the_task_and_nothing_is_left(
    machine: Machine, packaged: PackagedTask, tmp_path: Path, sent: signal.Signals, exit_code: int
) -> None:
    ready = tmp_path / "ready"
    with machine.start(of_task(packaged, "waits"), READY=str(ready)) as process:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert any(machine.tmp.glob("flyte-run-*"))
        process.send_signal(sent)
        process.communicate()
    assert process.returncode == exit_code
    machine.wait_until_tidy()


def test_nothing_is_left_after_success_or_failure(machine: Machine, packaged: PackagedTask) -> None:
    assert machine.run(of_task(packaged, "leaf"), "--n", "1").returncode == 0
    machine.wait_until_tidy()
    assert machine.run(of_task(packaged, "fails"), "--message", "no").returncode == 1
    machine.wait_until_tidy()


def test_the_bundle_is_put_into_the_store_once(machine: Machine, packaged: PackagedTask) -> None:
    bundle = packaged.link.bundle
    assert bundle
    store = machine.root / "dist" / "flyte"
    seen = []
    for _ in range(2):
        machine.result(packaged, "--n", "1")
        files = [path for path in store.rglob("*") if path.is_file()]
        seen.append({str(p.relative_to(store)): p.stat().st_mtime_ns for p in files})
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == [
        f"archives/{bundle.archive_hash}.tar.gz",
        f"index/{bundle.content_hash}.json",
        f"manifests/{bundle.manifest_hash}.json",
    ]


def _no_bundle(task: PackagedTask, machine: Machine) -> PackagedTask:
    command = tuple(part for part in task.link.tasks[0].command if "$" not in part)
    tasks = (replace(task.link.tasks[0], command=command),)
    link = replace(task.link, copy_style="none", bundle=None, tasks=tasks)
    task.link_file.write_bytes(link.to_json())
    return task


def _other_archive(task: PackagedTask, machine: Machine) -> PackagedTask:
    task.archive.write_bytes(b"x" * task.archive.stat().st_size)
    return task


def _damaged_store(task: PackagedTask, machine: Machine) -> PackagedTask:
    assert task.link.bundle
    stored = machine.root / "dist/flyte/archives" / f"{task.link.bundle.archive_hash}.tar.gz"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"x")
    return task


def _no_link(task: PackagedTask, machine: Machine) -> PackagedTask:
    task.link_file.unlink()
    return task


def _store_is_a_file(task: PackagedTask, machine: Machine) -> PackagedTask:
    (machine.root / "dist").write_text("")
    return task


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_no_bundle, 'services/ml:task has copy_style="none".*--copy-style auto'),
        (
            _other_archive,
            "services/ml:task: its bundle task.tar.gz is not the one.*Package it again",
        ),
        (_damaged_store, r"archives/\w{64}.tar.gz is damaged"),
        (_no_link, "task.json: No such file"),
        (_store_is_a_file, "dist"),
    ],
)
def test_what_can_not_be_run_is_refused_in_one_sentence(
    machine: Machine, tmp_path: Path, harm, message: str
) -> None:
    files = {"main.py": "raise SystemExit('never imported')\n"}
    task = harm(package_task(tmp_path / "task", files, "main.py:main"), machine)
    done = machine.run(task)
    assert done.returncode == 1
    assert re.fullmatch(f"flyte_pack run: .*{message}.*\n", done.stderr)
    assert done.stdout == ""
    assert not any(machine.tmp.glob("flyte-run-*"))


def test_a_resolve_without_flyte_is_told_apart(machine: Machine, packaged: PackagedTask) -> None:
    # The interpreter of these tests has none.
    done = subprocess.run(
        [sys.executable, *machine.command(packaged, "--n", "1")[1:]],
        cwd=machine.root,
        env=machine.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        "services/ml:task: there is no `flyte` among the requirements.*\n", done.stderr
    )


def test_a_misspelled_task_is_told_with_those_there_are(machine: Machine, tmp_path: Path) -> None:
    code = "import flyte\nenv = flyte.TaskEnvironment('e')\n"
    code += "".join(f"@env.task\ndef {name}() -> int:\n    return 1\n" for name in ("fit", "train"))
    task = package_task(tmp_path / "task", {"main.py": code}, "main.py:env", ("train", "fit"))
    done = machine.run(task, "trian")
    assert done.returncode == 1
    assert "has no task 'trian'; it has: fit, train" in " ".join(
        re.sub("[│╭╰─╮╯]", " ", done.stderr).split()
    )


def test_a_module_that_the_bundle_lacks_is_named_with_the_fix(
    machine: Machine, tmp_path: Path
) -> None:
    task = package_task(tmp_path / "task", {"main.py": "import nowhere.to_be_found\n"}, "main.py:f")
    done = machine.run(task)
    assert done.returncode == 1
    assert "Failed to load main.py: ModuleNotFoundError: No module named 'nowhere'" in done.stderr
    assert "`dependencies`" in done.stderr
