"""The process of a bundle's code: imports its task modules and describes their tasks for Flyte.

It never talks to the control plane, and never holds the code of another bundle.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from . import images, words
from .private import private, replace
from .serve import Answer, serve
from .words import Refused

VERSION_HOLE = "${VERSION}"
_UPLOAD = (
    "the default of an input has to be uploaded, which only a run can do. "
    "Use None or a URI as the default, and make the value in the task"
)
_Found = list[tuple[dict[str, Any], Any]]  # entries, each with its object or its environment


def main(_: list[str]) -> NoReturn:
    serve(_Code())


class _Recorder:
    """Stands in for Flyte's client while Flyte makes a task's request, and keeps the request."""

    request: Any = None

    @property
    def task_service(self) -> _Recorder:
        return self

    dataproxy_service = task_service

    async def deploy_task(self, request: Any, **_: Any) -> None:
        self.request = request

    async def upload_trigger(self, *_: Any, **__: Any) -> NoReturn:
        # Then Flyte keeps the inputs in the request; the client process uploads them if it has to.
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        raise ConnectError(Code.UNIMPLEMENTED, "later")


class _Code:
    """flyte, answer: set by `serve`."""

    flyte: Any
    answer: Answer
    starts_processes = True

    def load(
        self,
        *,
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
        """Import the modules of `entries` from `root` within `seconds`; describe their tasks."""
        self.root, self.images, self.archive_hash, self.uri = root, names, archive_hash, uri
        self._imitate_a_container(root)
        self.flyte.init(
            org=org,
            project=project,
            domain=domain,
            root_dir=Path(root),
            images=names,
            sync_local_sys_paths=False,
            log_level=logging.CRITICAL,
        )
        replace("deploy_status", _Silent())
        # Record no links to a Git repository around the directory, and start no `git` for each
        # task.
        status = importlib.import_module("flyte.git").GitStatus
        status.from_current_repo = classmethod(lambda cls: cls())
        with self._deadline(seconds):
            found = [(entry, self._entry_point(entry)) for entry in entries]
        self._plan(found)
        # Only now: task modules see no client, as in a container.
        self.recorder = _Recorder()
        replace("init_config", private("init_config").replace(client=self.recorder))
        try:
            return asyncio.run(self._describe())
        finally:
            sys.stderr.flush()

    # -- importing

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """End the process, and say where it is, if the block takes longer."""
        timer = threading.Timer(seconds, self._expired, (seconds, threading.get_ident()))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expired(self, seconds: float, thread: int) -> None:
        stack = traceback.extract_stack(sys._current_frames()[thread])
        ours = [frame for frame in stack if frame.filename.startswith(f"{self.root}{os.sep}")]
        at = ""
        if ours:
            file = words.without(self.root, ours[-1].filename)
            at = f" It is at {file}, line {ours[-1].lineno}."
        said = f"{self.importing} takes longer than {seconds:g} s to import.{at} {words.TAKES_TIME}"
        self.answer({"error": said})
        os._exit(1)

    def _imitate_a_container(self, root: str) -> None:
        """Put the code's directory first, and hide the user's settings of Flyte."""
        os.chdir(root)
        os.environ["UCTL_CONFIG"] = os.devnull
        more = [part for part in os.environ.get("_F_SYS_PATH", "").split(":") if part]
        sys.path[:0] = [root, *(os.path.normpath(os.path.join(root, part)) for part in more)]

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
                f"{address}: {file} is the module {entry['module']}, and Python has another one of "
                f"that name ({where or 'built in'}): rename the file"
            )
        found = getattr(module, attribute, None)
        if found is None:
            raise Refused(f"{address}: {file} has no `{attribute}` once it is imported")
        is_task, flyte = entry["kind"] == "task", self.flyte
        kind = flyte.extend.TaskTemplate if is_task else flyte.TaskEnvironment
        if not isinstance(found, kind):
            raise Refused(
                f"{address}: `{attribute}` in {file} is not a Flyte {entry['kind']} once it is "
                f"imported, but a {type(found).__name__}"
            )
        if is_task and (found.parent_env is None or found.parent_env() is None):
            raise Refused(f"{address}: the task `{attribute}` in {file} belongs to no environment")
        return found

    # -- what there is to register, and which image each environment has

    def _plan(self, found: _Found) -> None:
        roots = [(e, thing.parent_env() if e["kind"] == "task" else thing) for e, thing in found]
        addresses = ", ".join(dict.fromkeys(entry["address"] for entry, _ in roots))
        try:
            plans = private("plan_deploy")(*(env for _, env in roots))
        except ValueError as error:
            raise Refused(f"{addresses}: {words.without(self.root, str(error))}") from None
        envs = {name: env for plan in plans for name, env in plan.envs.items()}
        self.warnings: list[str] = []
        owners = self._find_tasks(found, roots)
        own = partial(images.own_image, self.flyte.Image.from_debian_base(), self.images)
        self.lookup, warnings = images.choose(self.root, roots, envs, owners, own)
        self.warnings += warnings
        for name, env in envs.items():
            images.check_includes(self.root, env, owners.get(name, addresses))

    def _find_tasks(self, found: _Found, roots: _Found) -> dict[str, str]:
        """Set `tasks`, each with its address; returns the addresses of the environments."""
        self.tasks: dict[str, tuple[Any, str]] = {}
        self.attributes: dict[str, str] = {}
        for entry, thing in found:
            if entry["kind"] == "task":
                self.attributes.setdefault(thing.name, entry["attribute"])
                self.tasks.setdefault(thing.name, (thing, entry["address"]))
        # The tasks of an address's own environments come before those that others reach.
        for entry, env in roots:
            if entry["kind"] == "environment":
                self._add_tasks(env, entry["address"])
        owners: dict[str, str] = {env.name: entry["address"] for entry, env in roots}
        for entry, env in roots:
            for reached in _reached(env):
                owner = owners.setdefault(reached.name, entry["address"])
                if not isinstance(reached, self.flyte.TaskEnvironment):
                    self.warnings.append(
                        f"{owner}: environment {reached.name} is a {type(reached).__name__}, not a "
                        "TaskEnvironment: only tasks are registered; deploy it with `flyte deploy`"
                    )
                elif entry["kind"] == "environment":
                    self._add_tasks(reached, entry["address"])
        return owners

    def _add_tasks(self, env: Any, address: str) -> None:
        for task in env.tasks.values():
            self.tasks.setdefault(task.name, (task, address))

    # -- what Flyte is told

    async def _request(self, task: Any, version: str, canonical: bool = False) -> Any:
        """The request that Flyte deploys a task with.

        canonical: for a hash, without the compression, which differs between machines.
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
                f"{self.tasks[task.name][1]}: Flyte cannot describe task {task.name}: {text}"
            ) from None
        _cut_whole_characters(self.recorder.request)
        return self.recorder.request

    async def _describe(self) -> dict[str, Any]:
        tasks = []
        for name, (task, address) in self.tasks.items():
            request = await self._request(task, VERSION_HOLE)
            canonical = await self._request(task, VERSION_HOLE, canonical=True)
            command, image = images.container(request.spec.task_template)
            # What a connector or a plugin runs elsewhere needs none.
            if not image and task.task_type == self.flyte.extend.TaskTemplate.task_type:
                raise Refused(
                    f"{address}: task {name} has no image: do not set `image=None` on its "
                    "environment"
                )
            environment = task.parent_env()
            spec = canonical.SerializeToString(deterministic=True)
            tasks.append(
                {
                    "address": address,
                    "attribute": self._attribute(name, command),
                    "name": name,
                    "spec": hashlib.sha256(spec).hexdigest(),
                    "command": command,
                    "triggers": [trigger.name for trigger in request.triggers],
                    "environments": [one.name for one in _reached(environment)],
                    "reusable": task.reusable is not None,
                }
            )
        return {"tasks": tasks, "warnings": self.warnings, "flyte": self.flyte.version()}

    def _attribute(self, name: str, command: list[str]) -> str:
        """The name of a task in its module, as a container's command or its entry point has it."""
        if command[-2:-1] == ["instance"]:
            return command[-1]
        return self.attributes.get(name) or name.rpartition(".")[2]

    def requests(self, versions: dict[str, str], paused: list[list[str]]) -> list[str]:
        """The requests, in base64, of this code's tasks that `versions` names.

        paused: [task, name] of triggers that are to stay inactive.
        """

        async def each() -> list[str]:
            made = [
                await self._request(task, versions[name])
                for name, (task, _) in self.tasks.items()
                if name in versions
            ]
            for one in made:
                for trigger in one.triggers:
                    if [one.task_id.name, trigger.name] in paused:
                        trigger.spec.active = False
            return [base64.b64encode(one.SerializeToString()).decode() for one in made]

        return asyncio.run(each())


def _cut_whole_characters(request: Any) -> None:
    """Shorten texts that a backend would cut within a character, which it cannot store then.

    It cuts at a byte, and the SDK, if it does, at a character. Other long texts stay as they are.
    """
    spec = request.spec
    texts = [(spec.environment, "description", 255), (spec.documentation, "short_description", 255)]
    texts.append((spec.documentation, "long_description", 2048))
    texts += [(trigger.spec, "description", 255) for trigger in request.triggers]
    for message, name, most in texts:
        start = getattr(message, name).encode()[:most]
        text = start.decode(errors="ignore")
        if text.encode() != start:
            setattr(message, name, text)


class _Silent:
    """Stands in for Flyte's progress messages, which would claim a deployment here."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _reached(env: Any) -> list[Any]:
    """An environment and all that it depends on, each once."""
    found = [env]
    for one in found:
        found += [child for child in one.depends_on if not any(child is known for known in found)]
    return found
