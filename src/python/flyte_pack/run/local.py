"""Runs a task, or serves an app, on this machine, out of its bundle: `python -m flyte_pack run`.

The build starts it in the build root, on an interpreter that has the target's resolve. It puts the
bundle into the store, the shim verifies it and unpacks it into a fresh directory, and there this
process becomes Flyte's own local runner (`flyte_side/run_here.py`), or the program that serves apps
(`flyte_side/run_app.py`), as in a container: terminal, signals and exit code are the task's. Or it
has a process run the task that stands by (`stand_in.py`). Another process removes the directory
when it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence

from flyte_pack import command
from flyte_pack.deploy.bundles import Beaten, check_files, settle
from flyte_pack.errors import UserError
from flyte_pack.flyte_side import MAIN
from flyte_pack.names import TargetAddress
from flyte_pack.progress import write
from flyte_pack.remembered import private_cache
from flyte_pack.run.options import HELP, split
from flyte_pack.scratch import scratch_place
from flyte_pack.store import Blob, Store
from flyte_pack.store.opening import open_store
from flyte_pack.task_link import LinkedBundle, TaskLink, module_of
from flyte_shim.cli import main as shim
from flyte_shim.command import become
from flyte_shim.files import remove_tree

# These bring code in from elsewhere, or belong to the environment that we were started in.
_PYTHON = (
    *("PEX", "__PEX", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH"),
    *("PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
)
# Settings of a control plane or a container: a local run has neither. FLYTE_AWS_* and the like
# stay: a task reaches its data with them.
_CONTROL_PLANE = (
    *("FLYTE_ADMIN_", "FLYTE_API_KEY", "FLYTE_AUTH_", "FLYTE_CONSOLE_", "FLYTE_IMAGE_"),
    *("FLYTE_INTERNAL_", "FLYTE_LOCAL_", "FLYTECTL_CONFIG", "UCTL_CONFIG", "_F_", "_U_", "_UNION_"),
)
# Stands in for a user's ~/.flyte/config.yaml, which may name a control plane. Project and domain,
# which a task may ask for, are the defaults of `[flyte]`; FLYTE_TASK_PROJECT and FLYTE_TASK_DOMAIN
# override them.
SETTINGS = "task:\n  project: flytesnacks\n  domain: development\n"


def main(argv: Sequence[str]) -> int:
    """Become the task that `argv` names; returns only the exit code of a failure before that."""
    # Pants leaves its own files open in what it starts; keep them from the task.
    for number in _open_files():
        os.set_inheritable(number, False)
    parser = command.parser("python -m flyte_pack run")
    parser.usage = (
        "%(prog)s --task TASK.json --dir DIR --store URI [--known FILE] [--standby] -- "
        "[ARGUMENT]..."
    )
    parser.add_argument("--task", required=True, help="the packaged task's link")
    parser.add_argument("--dir", required=True, help="the directory that its bundle is in")
    parser.add_argument("--store", required=True, help="URI of the store that the bundle goes into")
    parser.add_argument("--known", help="what the build knows of modules, for messages")
    parser.add_argument(
        "--standby", action="store_true", help="whether processes may stand by for the next run"
    )
    return command.run(parser, argv, _run)


def _run(given: argparse.Namespace) -> int:
    # The build has used its own options (`--copy-style`, `--root-dir`); the rest is the task's.
    options = split(given.typed)
    with open(given.task, "rb") as file:
        link = TaskLink.from_json(file.read(), given.task)
    if options.help and link.kind != "app":
        write(sys.stdout, f"{HELP}\n")
    if link.bundle is None:
        raise UserError(
            f'{link.address} has copy_style="none": its code is in its image, and it has no bundle '
            "to run from. To run it here, have a bundle made: `-- --copy-style auto`"
        )
    directory = os.path.abspath(given.dir)
    known = given.known and os.path.abspath(given.known)
    root = os.getcwd()
    store = open_store(given.store, root)
    # The directory that we were started in holds the user's code.
    os.chdir("/")
    archive = _put(store, directory, link.address, link.bundle)
    uri = store.uri_of(archive.key)
    standby = given.standby and link.kind != "app"
    return _become_task(uri, archive.sha256, link, options.rest, known, root, standby)


def _put(store: Store, directory: str, address: TargetAddress, bundle: LinkedBundle) -> Blob:
    """Put the bundle into the store; returns the archive that has its content there."""
    check_files(directory, address, bundle)
    while True:
        settled = settle(store, directory, bundle, repair=False)
        try:
            for put in settled.puts:
                put.into(store)
        except Beaten:
            continue  # Somebody else put the same content in another archive: use that one.
        return settled.bundle.archive


def _become_task(
    archive_uri: str,
    sha256: str,
    link: TaskLink,
    arguments: Sequence[str],
    known: str | None,
    root: str,
    standby: bool,
) -> int:
    # A real path: Flyte computes a module's path relative to its root.
    fresh = tempfile.mkdtemp(prefix="flyte-run-", dir=scratch_place())
    held = _remove_at_the_end(fresh)
    config = os.path.join(fresh, "flyte", "config.yaml")
    os.mkdir(os.path.dirname(config))
    with open(config, "w") as file:
        file.write(SETTINGS)
    environment = clean_environment(os.environ, config)
    os.environ.clear()
    os.environ.update(environment)

    def begin(words: list[str]) -> None:
        if standby:
            from flyte_pack.run.stand_in import stand_in  # not where none may

            stand_in(words, held)
        become(words)

    return shim(
        [
            *("--archive", archive_uri, "--sha256", sha256),
            # Its own cache, and copies: as in a new container, where the task may write anywhere.
            *("--cache", os.path.join(fresh, "cache"), "--mode", "copy"),
            *("--workdir", os.path.join(fresh, "bundle"), "--"),
            # After "--" the shim looks for no options that it knows (a task may have an input
            # "tgz").
            *(sys.executable, "-s", "-u", MAIN),
            *("run_app" if link.kind == "app" else "run_here", "--"),
            *(
                app_arguments(link, archive_uri, arguments, known)
                if link.kind == "app"
                else runner_arguments(
                    link,
                    config,
                    arguments,
                    known=known,
                    root=root,
                    bytecode=private_cache("bytecode"),
                )
            ),
        ],
        begin,
    )


def app_arguments(
    link: TaskLink, tgz: str, arguments: Sequence[str], known: str | None = None
) -> tuple[str, ...]:
    """What `flyte_side/run_app.py` takes after `--`. tgz: the address of the bundle."""
    path, _, name = link.entry_point.rpartition(":")
    spec = {"target": link.address, "file": path, "module": link.module, "app": name, "tgz": tgz}
    return (json.dumps({**spec, "known": known}), *arguments)


def runner_arguments(
    link: TaskLink, config: str, arguments: Sequence[str], **more: object
) -> tuple[str, ...]:
    """What `flyte_side/run_here.py` takes after `--`; `more` is for its JSON object."""
    path, _, name = link.entry_point.rpartition(":")
    spec = {
        "target": link.address,
        "file": path,
        "module": link.module,
        "tasks": {task.name: module_of(task.command) or link.module for task in link.tasks},
        "config": config,
        **more,
    }
    task = (name,) if link.kind == "task" else ()
    return (json.dumps({**spec, "given": " ".join([path, *task])}), *task, *arguments)


def clean_environment(environ: Mapping[str, str], config: str) -> dict[str, str]:
    """`environ` as the task gets it; `config` is the file of Flyte's settings.

    Flyte keeps its local cache of results beside that file, which is fresh: its cache key leaves
    out the code that a task calls.
    """
    kept = {n: v for n, v in environ.items() if not n.startswith((*_PYTHON, *_CONTROL_PLANE))}
    # As in an image, `python` and the programs of the packages come first.
    programs = os.path.dirname(sys.executable)
    path = kept.get("PATH", os.defpath)
    return {
        "DO_NOT_TRACK": "1",
        **kept,
        "PATH": f"{programs}{os.pathsep}{path}",
        "UCTL_CONFIG": config,
    }


def _remove_at_the_end(directory: str) -> int:
    """Have `directory` removed when this process ends, after any exec and even by SIGKILL.

    Another process waits for the end of a pipe that this one holds open, by what is returned. It is
    not our child, since a task may wait for all of its children, and Ctrl-C does not reach its
    session.
    """
    waiting, held = os.pipe()
    os.set_inheritable(held, True)
    child = os.fork()
    if child:
        os.close(waiting)
        os.waitpid(child, 0)
        return held
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
    """The open descriptors other than the standard ones."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        try:
            os.fstat(number)  # Not the one of the listing, which is closed by now.
        except OSError:
            continue
        if number > 2:
            found.append(number)
    return found
