"""Describes the tasks of a bundle to Flyte's control plane, registers them there, and starts runs: all that needs the SDK.

`flyte_pack.deploy.registration` starts this file by its path, on the interpreter of the tasks' resolve: it must import
nothing of ours, and it is the only file that knows names of Flyte that are not public (`PRIVATE`). A process is one of:

* `code`: imports the task modules of one bundle out of its unpacked directory and describes what Flyte is to be told.
  It never talks to the control plane, and nothing of another bundle is ever in it.
* `client`: talks to the control plane. It never imports task modules, so user code never sees a token.
* `run`: becomes Flyte's own command that runs a deployed task.

The first two read requests on stdin and answer on what was stdout, a line of JSON each. What user code prints goes to
stderr. They end when their stdin does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# What is used of Flyte beyond its public names, by what it is for: module, name, and the versions that have it there
# (newest first; an open end is the newest that is known).
PRIVATE: dict[str, tuple[tuple[str, str, str], ...]] = {
    "plan_deploy": (("flyte._deploy", "plan_deploy", "2.5-"),),
    "deploy_task": (("flyte._deploy", "_deploy_task", "2.5-"),),
    "deploy_status": (("flyte._deploy", "status", "2.5-"),),
    "init_config": (("flyte._initialize", "_init_config", "2.5-"),),
    "get_init_config": (("flyte._initialize", "get_init_config", "2.5-"),),
    "get_client": (("flyte._initialize", "get_client", "2.5-"),),
    "ImageCache": (
        ("flyte._internal.image_cache", "ImageCache", "2.10.7-"),
        ("flyte._internal.imagebuild.image_builder", "ImageCache", "2.5-2.10.6"),
    ),
    "offload_trigger_inputs": (
        ("flyte._internal.runtime.trigger_serde", "offload_trigger_inputs", "2.5-"),
    ),
    "org_from_endpoint": (("flyte._utils", "org_from_endpoint", "2.5-"),),
    "decode_api_key": (("flyte.remote._client.auth._auth_utils", "decode_api_key", "2.5-"),),
    "CLIConfig": (("flyte.cli._common", "CLIConfig", "2.5-"),),
    "RunRemoteTaskCommand": (("flyte.cli._run", "RunRemoteTaskCommand", "2.5-"),),
    "RunArguments": (("flyte.cli._run", "RunArguments", "2.5-"),),
}
VERSION_HOLE = "${VERSION}"


def _sibling(name: str) -> Any:
    """A file beside this one, as a module: its directory is not on `sys.path`, and must not be."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"flyte_adapter_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


words = _sibling("words")
images = _sibling("images")
Refused: type[Exception] = words.Refused


def private(purpose: str) -> Any:
    """What `PRIVATE` has for a purpose, in the Flyte at hand."""
    for module, name, _ in PRIVATE[purpose]:
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    import flyte

    module, name, _ = PRIVATE[purpose][0]
    raise Refused(
        f"flyte {flyte.version()} moved {module}.{name}: this pants-flyte doesn't know it. "
        "Use an older flyte (2.5 to 2.12 are known), or a newer pants-flyte."
    )


def main(argv: list[str]) -> NoReturn:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.pop("PYTHONHASHSEED", None)  # meant for this process, not for what it starts
    if argv[0] == "code":
        _serve(_Code())
    client = _sibling("client")
    if argv[0] == "run":
        client.run(private, words, json.loads(argv[1]), argv[argv.index("--") + 1 :])
    _serve(client.Client(private, words))


def _serve(role: Any) -> NoReturn:
    """Do what is asked for on stdin until it ends; this process with all that it started ends then, whatever it does."""
    asked, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    lock = threading.Lock()

    def read() -> None:
        with open(asked, "rb") as file:
            for line in file:
                requests.put(json.loads(line))
        # The program that started this is gone, or done. Task modules may have started others: they go, too.
        if isinstance(role, _Code) and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def answer(what: dict[str, Any]) -> None:
        data = memoryview(json.dumps(what).encode() + b"\n")
        with lock:
            while data:
                data = data[os.write(answers, data) :]

    threading.Thread(target=read, daemon=True).start()
    try:
        import flyte
        import flyte.extend
        import flyte.remote
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        answer(
            {
                "error": "there is no `flyte` among the requirements of the resolve, so nothing can be registered. "
                "Add flyte 2.5 or newer to them, and make the lock file anew."
            }
        )
        os._exit(1)
    role.flyte, role.answer = flyte, answer
    while True:
        request = requests.get()
        try:
            answer({"done": getattr(role, request.pop("do"))(**request)})
        except Refused as error:
            answer({"error": str(error)})
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            answer(
                {
                    "error": f"flyte {flyte.version()}: {type(error).__name__}: {error} ({frame.filename}, line "
                    f"{frame.lineno}). That is not expected of a flyte from 2.5 to 2.12: report it, please"
                }
            )


# --- the process of a bundle's code --------------------------------------------------------------


_UPLOAD = (
    "the default of an input has to be uploaded, which only a run can do. Use None or a URI as the default, and make the "
    "value in the task"
)


class _Recorder:
    """Stands in for the client while Flyte makes a request out of a task: it keeps the request."""

    request: Any = None

    @property
    def task_service(self) -> _Recorder:
        return self

    dataproxy_service = task_service

    async def deploy_task(self, request: Any, **_: Any) -> None:
        self.request = request

    async def upload_trigger(self, *_: Any, **__: Any) -> NoReturn:
        # Flyte keeps the inputs in the request then; the client process sends them apart if it has to.
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        raise ConnectError(Code.UNIMPLEMENTED, "later")


class _Code:
    flyte: Any
    answer: Callable[[dict[str, Any]], None]

    def load(
        self,
        root: str,
        uri: str | None,
        archive_hash: str | None,
        entries: list[dict[str, Any]],
        org: str | None,
        project: str,
        domain: str,
        names: dict[str, str],
        seconds: float,
    ) -> dict[str, Any]:
        """Import the modules of `entries` out of `root` and describe their tasks; `seconds` is the time limit of that."""
        self.root, self.images, self.archive_hash, self.uri = root, names, archive_hash, uri
        os.chdir(root)
        # As in a container, nobody's settings of Flyte say anything (of which registry an Image is from, say) ...
        os.environ["UCTL_CONFIG"] = os.devnull
        # ... and the code's directory is first.
        more = [part for part in os.environ.get("_F_SYS_PATH", "").split(":") if part]
        sys.path[:0] = [root, *(os.path.normpath(os.path.join(root, part)) for part in more)]
        self.flyte.init(
            org=org,
            project=project,
            domain=domain,
            root_dir=Path(root),
            images=names,
            sync_local_sys_paths=False,
            log_level=logging.CRITICAL,
        )
        deploy: Any = importlib.import_module(PRIVATE["deploy_status"][0][0])
        deploy.status = _Silent()
        # No links to sources in whichever Git repository is around the directory (and no `git`, started for each task).
        status = importlib.import_module("flyte.git").GitStatus
        status.from_current_repo = classmethod(lambda cls: cls())
        with _Deadline(self, seconds):
            found = [(entry, self._entry_point(entry)) for entry in entries]
        self._plan(found)
        # Only now: task modules see no client, as in a container.
        initialize: Any = importlib.import_module(PRIVATE["init_config"][0][0])
        self.recorder = _Recorder()
        initialize._init_config = private("init_config").replace(client=self.recorder)
        try:
            return asyncio.run(self._describe())
        finally:
            sys.stderr.flush()

    # -- importing

    def _entry_point(self, entry: dict[str, Any]) -> Any:
        address, file, attribute = entry["address"], entry["file"], entry["attribute"]
        self.importing = f"{address}: {file}"
        self.answer({"importing": self.importing})
        try:
            module = importlib.import_module(entry["module"])
        except BaseException as error:
            raise Refused(f"{address}: {words.import_failure(self.root, file, error)}") from None
        where = os.path.realpath(getattr(module, "__file__", None) or "")
        if where != os.path.join(self.root, file):
            raise Refused(
                f"{address}: {file} is the module {entry['module']}, and Python has another one of that name "
                f"({where or 'built in'}): rename the file"
            )
        found = getattr(module, attribute, None)
        if found is None:
            raise Refused(f"{address}: {file} has no `{attribute}` once it is imported")
        kind = (
            self.flyte.extend.TaskTemplate
            if entry["kind"] == "task"
            else self.flyte.TaskEnvironment
        )
        if not isinstance(found, kind):
            raise Refused(
                f"{address}: `{attribute}` in {file} is no {entry['kind']} of Flyte once it is imported, "
                f"but a {type(found).__name__}"
            )
        if entry["kind"] == "task" and (found.parent_env is None or found.parent_env() is None):
            raise Refused(f"{address}: the task `{attribute}` in {file} belongs to no environment")
        return found

    # -- what there is to register, and which image each environment has

    def _plan(self, found: list[tuple[dict[str, Any], Any]]) -> None:
        self.warnings: list[str] = []
        self.tasks: dict[str, tuple[Any, str]] = {}
        roots = []
        for entry, thing in found:
            env = thing.parent_env() if entry["kind"] == "task" else thing
            roots.append((entry, env))
            if entry["kind"] == "task":
                self.tasks.setdefault(thing.name, (thing, entry["address"]))
        addresses = ", ".join(dict.fromkeys(entry["address"] for entry, _ in roots))
        try:
            plans = private("plan_deploy")(*(env for _, env in roots))
        except ValueError as error:
            raise Refused(f"{addresses}: {words.without(self.root, str(error))}") from None
        envs = {name: env for plan in plans for name, env in plan.envs.items()}
        # By address: its own environments first, and only then what others reach.
        for entry, env in roots:
            if entry["kind"] == "environment":
                for task in env.tasks.values():
                    self.tasks.setdefault(task.name, (task, entry["address"]))
        deployed: dict[str, str] = {env.name: entry["address"] for entry, env in roots}
        for entry, env in roots:
            for reached in _reached(env):
                owner = deployed.setdefault(reached.name, entry["address"])
                if not isinstance(reached, self.flyte.TaskEnvironment):
                    self.warnings.append(
                        f"{owner}: environment {reached.name} is a {type(reached).__name__}, not a TaskEnvironment: "
                        "only tasks are registered; deploy it with `flyte deploy`"
                    )
                elif entry["kind"] == "environment":
                    for task in reached.tasks.values():
                        self.tasks.setdefault(task.name, (task, entry["address"]))
        stock = self.flyte.Image.from_debian_base()
        own = partial(images.own_image, words, stock, self.images)
        self.lookup, said = images.choose(words, self.root, roots, envs, deployed, own)
        self.warnings += said
        self.includes = [
            include
            for name, env in envs.items()
            for include in images.includes(words, self.root, env, deployed.get(name, addresses))
        ]

    # -- what Flyte is told

    async def _request(self, task: Any, version: str, canonical: bool = False) -> Any:
        """The request by which Flyte deploys a task.

        canonical: what differs between machines and means the same is spelled in one way; for a hash.
        """
        from flyte.models import CodeBundle, SerializationContext

        cfg = private("get_init_config")()
        cache = private("ImageCache")(image_lookup=self.lookup)
        lookup = json.dumps({"image_lookup": self.lookup, "build_run_ids": {}}, sort_keys=True)
        cache.serialized_form = lookup if canonical else images.transported(lookup)
        bundle = None
        if self.uri is not None:
            bundle = CodeBundle(
                tgz=self.uri, destination=".", computed_version=self.archive_hash or ""
            )
        context = SerializationContext(
            org=cfg.org,
            project=cfg.project,
            domain=cfg.domain,
            version=version,
            root_dir=cfg.root_dir,
            code_bundle=bundle,
            image_cache=cache,
        )
        self.recorder.request = None
        try:
            await private("deploy_task")(task, context)
        except Exception as error:
            last = list(words.causes(error))[-1]
            text = words.without(self.root, f"{type(last).__name__}: {last}")
            if "Raw data path" in text:
                text = _UPLOAD
            raise Refused(
                f"{self.tasks[task.name][1]}: Flyte can't describe task {task.name}: {text}"
            ) from None
        return self.recorder.request

    async def _describe(self) -> dict[str, Any]:
        tasks = []
        for name, (task, address) in self.tasks.items():
            request = await self._request(task, VERSION_HOLE)
            canonical = await self._request(task, VERSION_HOLE, canonical=True)
            command, image = images.container(request.spec.task_template)
            if not image:
                raise Refused(
                    f"{address}: task {name} has no image: don't set `image=None` on its environment"
                )
            loader = command[-1] if command else ""
            tasks.append(
                {
                    "address": address,
                    "attribute": loader or name.rpartition(".")[2],
                    "name": name,
                    "environment": task.parent_env_name,
                    "spec": hashlib.sha256(
                        canonical.SerializeToString(deterministic=True)
                    ).hexdigest(),
                    "size": request.ByteSize(),
                    "command": command,
                    "image": image,
                    "triggers": [trigger.name for trigger in request.triggers],
                }
            )
        return {
            "tasks": tasks,
            "includes": self.includes,
            "warnings": self.warnings,
            "flyte": self.flyte.version(),
        }

    def requests(self, versions: dict[str, str]) -> list[str]:
        """The requests for those of this code's tasks that `versions` has, in base64."""

        async def each() -> list[str]:
            made = [
                await self._request(task, versions[name])
                for name, (task, _) in self.tasks.items()
                if name in versions
            ]
            return [base64.b64encode(one.SerializeToString()).decode() for one in made]

        return asyncio.run(each())


class _Silent:
    """Instead of Flyte's running commentary: nothing is deployed when it says so."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Deadline:
    """Ends the process, saying where it is, if the block takes longer."""

    def __init__(self, role: _Code, seconds: float) -> None:
        self._role, self._seconds = role, seconds
        self._main = threading.get_ident()
        self._timer = threading.Timer(seconds, self._expired)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _expired(self) -> None:
        stack = traceback.extract_stack(sys._current_frames()[self._main])
        ours = [frame for frame in stack if frame.filename.startswith(f"{self._role.root}{os.sep}")]
        at = ""
        if ours:
            at = f" It is at {words.without(self._role.root, ours[-1].filename)}, line {ours[-1].lineno}."
        self._role.answer(
            {
                "error": f"{self._role.importing} takes longer than {self._seconds:g} s to import.{at} What takes time, "
                "or waits for something, belongs in the task, not at the top of its module"
            }
        )
        os._exit(1)


def _reached(env: Any) -> list[Any]:
    """An environment and all that it depends on, each once."""
    found = [env]
    for one in found:
        found += [child for child in one.depends_on if not any(child is known for known in found)]
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
