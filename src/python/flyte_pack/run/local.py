"""Runs a task on this machine, out of its bundle, as a container would: `python -m flyte_pack run`.

The build starts it in the build root, on the interpreter of an environment with the target's resolve. The bundle goes
into the store, the shim verifies it and unpacks it into a fresh directory, and there this process becomes Flyte's own
local runner (`flyte_side/runner.py`), on the same interpreter. It is one process all along: terminal, signals and exit code
are the task's. What it leaves behind is removed by a process that waits for its end, however it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyte_pack.deploy.bundles import Beaten, check_files, settle
from flyte_pack.deploy.plan import Refused
from flyte_pack.json_fields import InvalidData
from flyte_pack.run.options import RunUsageError, split
from flyte_pack.store import Blob, Store, StoreError
from flyte_pack.store.opening import open_store
from flyte_pack.task_link import LinkedBundle, TaskLink
from flyte_shim.cli import main as shim
from flyte_shim.files import remove_tree

# What would bring code in from elsewhere, or belongs to the environment that we were started in.
_PYTHON = (
    *("PEX", "__PEX", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH"),
    *("PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
)
# Settings of a control plane, or of a container: a local run has neither. (FLYTE_AWS_* and the like stay: they are how
# a task reaches its data.)
_CONTROL_PLANE = (
    *("FLYTE_ADMIN_", "FLYTE_API_KEY", "FLYTE_AUTH_", "FLYTE_CONSOLE_", "FLYTE_IMAGE_"),
    *("FLYTE_INTERNAL_", "FLYTE_LOCAL_", "FLYTECTL_CONFIG", "UCTL_CONFIG", "_F_", "_U_", "_UNION_"),
)
# Stands in for a user's ~/.flyte/config.yaml, which may name a control plane. A task may ask for the project and domain
# that it runs in: these are what `[flyte]` has as defaults, and FLYTE_TASK_PROJECT and FLYTE_TASK_DOMAIN override them.
SETTINGS = "task:\n  project: flytesnacks\n  domain: development\n"


def main(argv: Sequence[str]) -> int:
    """Do what `argv` asks for. Becomes the task; returns only the exit code of a failure before that."""
    # Pants leaves files of its own open in what it starts; the task gets none of them.
    for number in _open_files():
        os.set_inheritable(number, False)
    try:
        options = _options(argv)
        link = _read_link(options.task)
        bundle = _bundle(link)
        directory = os.path.abspath(options.dir)
        store = open_store(options.store, os.getcwd())
        # From here on nothing depends on the directory that we were started in, which holds the user's code.
        os.chdir("/")
        archive = _put(store, directory, link.address, bundle)
        return _become_task(store.uri_of(archive.key), archive.sha256, link, options.arguments)
    except (Refused, InvalidData, StoreError, RunUsageError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except KeyboardInterrupt:
        return 130
    print(f"flyte_pack run: {message}", file=sys.stderr)
    return 1


@dataclass(frozen=True)
class _Options:
    task: str
    dir: str
    store: str
    arguments: tuple[str, ...]


def _options(argv: Sequence[str]) -> _Options:
    cut = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="python -m flyte_pack run", allow_abbrev=False)
    parser.usage = f"{parser.prog} --task TASK.json --dir DIR --store URI -- [ARGUMENT]..."
    parser.add_argument("--task", required=True, help="the packaged task's link")
    parser.add_argument("--dir", required=True, help="the directory that its bundle is in")
    parser.add_argument("--store", required=True, help="URI of the store that the bundle goes into")
    ours = parser.parse_args(list(argv[:cut]))
    # The build has heeded what is meant for it (`--copy-style`, `--root-dir`); the rest is the task's.
    return _Options(ours.task, ours.dir, ours.store, split(argv[cut + 1 :]).rest)


def _read_link(path: str) -> TaskLink:
    with open(path, "rb") as file:
        return TaskLink.from_json(file.read(), path)


def _bundle(link: TaskLink) -> LinkedBundle:
    if link.bundle is None:
        raise Refused(
            f'{link.address} has copy_style="none": its code is in its image, and there is no bundle to run it from. '
            "To run it here all the same, have a bundle made: `-- --copy-style auto`"
        )
    return link.bundle


def _put(store: Store, directory: str, address: str, bundle: LinkedBundle) -> Blob:
    """Have the bundle in the store; returns the archive that stands for its content there."""
    check_files(directory, address, bundle)
    while True:
        settled = settle(store, directory, bundle, repair=False)
        try:
            for put in settled.puts:
                put.into(store)
        except Beaten:
            continue  # Somebody else put the same content, in another archive: that one is used.
        return settled.bundle.archive


def _become_task(archive_uri: str, sha256: str, link: TaskLink, arguments: Sequence[str]) -> int:
    # A real path: Flyte takes a module's file relative to its root, and a link in between would break that.
    fresh = os.path.realpath(tempfile.mkdtemp(prefix="flyte-run-"))
    _remove_at_the_end(fresh)
    config = os.path.join(fresh, "flyte", "config.yaml")
    os.mkdir(os.path.dirname(config))
    with open(config, "w") as file:
        file.write(SETTINGS)
    environment = clean_environment(os.environ, config)
    os.environ.clear()
    os.environ.update(environment)
    path, _, name = link.entry_point.rpartition(":")
    spec = {
        "target": link.address,
        "file": path,
        "module": link.module,
        "tasks": [task.name for task in link.tasks],
        "config": config,
    }
    chosen = (name,) if link.kind == "task" else ()
    runner = os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "flyte_side", "runner.py"
    )
    return shim(
        [
            *("--archive", archive_uri, "--sha256", sha256),
            # A cache of its own, and copies: as in a new container, and the task may write wherever it likes.
            *("--cache", os.path.join(fresh, "cache"), "--mode", "copy"),
            *("--workdir", os.path.join(fresh, "bundle"), "--"),
            # After "--" the shim looks for no options that it knows (a task may have an input "tgz").
            *(sys.executable, "-s", "-u", runner, "--", json.dumps(spec), *chosen, *arguments),
        ]
    )


def clean_environment(environ: Mapping[str, str], config: str) -> dict[str, str]:
    """`environ` as the task gets it; `config` is the file of Flyte's settings.

    Flyte keeps its local cache of results beside those settings, so that nothing computed by other code than the
    bundle's is taken for a result: its cache key leaves out what a task calls.
    """
    kept = {n: v for n, v in environ.items() if not n.startswith((*_PYTHON, *_CONTROL_PLANE))}
    # As in an image, the programs of the environment come first (`python`, and what its packages install).
    programs = os.path.dirname(sys.executable)
    path = kept.get("PATH", os.defpath)
    return {
        "DO_NOT_TRACK": "1",
        **kept,
        "PATH": f"{programs}{os.pathsep}{path}",
        "UCTL_CONFIG": config,
    }


def _remove_at_the_end(directory: str) -> None:
    """Have `directory` removed when this process, and whatever it becomes, has ended; SIGKILL included.

    A process of its own waits for the end of a pipe that this one holds open, across exec. It is nobody's child here
    (a task may wait for all of its own) and in a session of its own (Ctrl-C does not reach it).
    """
    waiting, held = os.pipe()
    os.set_inheritable(held, True)
    child = os.fork()
    if child:
        os.close(waiting)
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            os.dup2(waiting, 3)
            for number in _open_files():
                if number != 3:
                    os.close(number)
            os.chdir("/")
            os.read(3, 1)
            remove_tree(directory)
    finally:
        os._exit(0)


def _open_files() -> list[int]:
    """The open descriptors, but for the three standard ones."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        try:
            os.fstat(number)  # Not the one of the listing, which is closed by now.
        except OSError:
            continue
        if number > 2:
            found.append(number)
    return found
