"""Tasks in a bundle, and a user's machine that runs them by `python -m flyte_pack run`."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from tests.support.flyte_env import flyte_python
from tests.support.task_bundle import PYTHON_PATH, PackagedTask

WORKFLOWS = """\
    import asyncio
    import gc
    import os
    import subprocess
    import sys
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from importlib import resources
    from multiprocessing import get_context
    from pathlib import Path

    import flyte

    from .helpers import double

    env = flyte.TaskEnvironment(name="ml", image=flyte.Image.from_base("example.com/ml:1"))


    @env.task
    def leaf(n: int, factor: int = 2) -> int:
        return n * factor


    @env.task
    def parent(n: int) -> list[int]:
        return [leaf(n=n), leaf(n=n, factor=10)]


    @env.task
    def mapped(n: int) -> list[int]:
        return list(flyte.map(partial(leaf, factor=3), range(n)))


    @env.task
    async def async_leaf(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1


    @env.task
    async def async_parent(n: int) -> list[int]:
        return list(await asyncio.gather(*(async_leaf(n=i) for i in range(n))))


    @env.task
    def reads_a_file_by_relative_path() -> str:
        return Path("data/rides.csv").read_text()


    @env.task
    def reads_what_does_not_ship() -> str:
        return parts(["data/gone.csv"])[0]


    def parts(names: list[str]) -> list[str]:
        return [Path(name).read_text() for name in names]


    @env.task
    def reads_beside_itself_what_does_not_ship() -> str:
        return parts([str(Path(__file__).with_name("gone.json"))])[0]


    @env.task
    def reads_what_nobody_has() -> str:
        return parts(["data/nowhere.csv"])[0]


    @env.task
    def reads_a_resource() -> str:
        return resources.files("services.ml").joinpath("labels.json").read_text()


    @env.task
    def imports_lazily() -> int:
        from libs.lazy import answer

        return answer()


    @env.task
    def imports_relatively() -> int:
        return double(21)


    @env.task
    def is_loaded_once() -> list[bool]:
        import services.ml.workflows as again

        stems = {"workflows", "__init__"}
        return [again.env is env, not stems & set(sys.modules), __name__ == "services.ml.workflows"]


    @env.task
    def runs_a_module_in_a_process() -> str:
        command = [sys.executable, "-m", "services.ml.worker"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


    @env.task
    def spawns_workers() -> list[int]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return list(pool.map(double, [1, 2]))


    @env.task
    def has_its_garbage_collected() -> bool:
        return gc.isenabled()


    @env.task
    def finds_programs_of_its_environment() -> bool:
        command = ["python", "-c", "import sys; print(sys.prefix)"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() == sys.prefix


    @env.task
    def writes_where_it_likes() -> list[str]:
        for path in ("made.txt", "services/ml/made.txt", "data/rides.csv"):
            with open(path, "a") as file:
                file.write("x")
        return [Path(path).read_text() for path in ("made.txt", "services/ml/made.txt")]


    @env.task
    def knows_where_it_runs() -> list[str]:
        return [flyte.current_project(), flyte.current_domain()]


    @env.task
    def takes_the_options_of_a0(tgz: str, dest: str) -> str:
        return tgz + dest


    @env.task
    def fails(message: str) -> int:
        raise ValueError(message)


    @env.task
    def cannot_import(name: str) -> bool:
        try:
            __import__(name)
        except ImportError:
            return True
        return False


    @env.task
    def paths() -> list[str]:
        return [os.getcwd(), *sys.path]


    @env.task
    def environment() -> list[str]:
        return sorted(os.environ)


    @env.task
    def has_open(inode: int) -> bool:
        for number in map(int, os.listdir("/dev/fd")):
            try:
                if os.fstat(number).st_ino == inode:
                    return True
            except OSError:
                pass
        return False


    @env.task
    def talks() -> str:
        print("what is your name?")
        return "hello " + input()


    @env.task
    def waits(seconds: int = 600) -> int:
        import time

        Path(os.environ["READY"]).touch()
        time.sleep(seconds)
        return 0
"""

FILES = {
    "services/__init__.py": "",
    "services/ml/__init__.py": "",
    "services/ml/workflows.py": WORKFLOWS,
    "services/ml/helpers.py": "def double(n: int) -> int:\n    return 2 * n\n",
    "services/ml/worker.py": "print('worked')\n",
    "services/ml/labels.json": '{"a": 1}',
    "libs/lazy.py": "def answer() -> int:\n    return 42\n",
    "data/rides.csv": "harbour,210",
    # A user's own file, which Flyte would take for its settings.
    "config.yaml": "admin:\n  endpoint: dns:///localhost:1\nlocal:\n  tracked: true\n",
}


def of_task(packaged: PackagedTask, *names: str) -> PackagedTask:
    """The same bundle, linked to another of its tasks, or to an environment that has several."""
    path, task = packaged.link.entry_point.split(":")[0], packaged.link.tasks[0]
    link = replace(
        packaged.link,
        entry_point=f"{path}:{names[0] if len(names) == 1 else 'env'}",
        kind="task" if len(names) == 1 else "environment",
        tasks=tuple(replace(task, name=name) for name in names),
    )
    link_file = packaged.directory / f"{'-'.join(names)}.json"
    link_file.write_bytes(link.to_json())
    return replace(packaged, link=link, link_file=link_file)


def result(output: str) -> str:
    """What the task returned, out of the frame that Flyte draws around it."""
    plain = re.sub(r" *│\n│ ", "\n", re.sub(r"\x1b\[[0-9;]*m", "", output))
    shown = re.search(r"Outputs: ActionOutputs\(o0=(.*)\)", plain, re.DOTALL)
    assert shown, output
    return shown[1]


class Machine:
    """A user's machine: a build root to start in, a home, a directory for temporary files.

    options: of the program that runs tasks, besides those that it has to have.
    """

    def __init__(self, path: Path, *options: str) -> None:
        self._options = options
        self.root, self.home, self.tmp = path / "root", path / "home", path / "tmp"
        for directory in (self.root, self.home, self.tmp):
            directory.mkdir()
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ},
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "COLUMNS": "4000",
            "PYTHONPATH": PYTHON_PATH,
        }

    def command(self, task: PackagedTask, *arguments: str) -> list[str]:
        return [
            *(flyte_python(), "-m", "flyte_pack", "run", "--task", str(task.link_file)),
            *("--dir", str(task.directory), "--store", "file://dist/flyte", *self._options, "--"),
            *arguments,
        ]

    def start(self, task: PackagedTask, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(task, *arguments),
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, task: PackagedTask, *arguments: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        with self.start(task, *arguments, **env) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def result(self, task: PackagedTask, *arguments: str, **env: str) -> str:
        """What the task returned, as Flyte shows it."""
        done = self.run(task, *arguments, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return result(done.stdout)

    def wait_until_tidy(self) -> None:
        """What a run leaves is removed by a process that outlives it by a moment."""
        for _ in range(2400):
            if not any(self.tmp.glob("flyte-run-*")):
                return
            time.sleep(0.05)
        raise AssertionError(f"left over: {list(self.tmp.rglob('*'))}")
