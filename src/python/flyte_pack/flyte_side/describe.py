"""The process of a bundle's code: imports its modules, describes their tasks and apps for Flyte.

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

from . import apps, bytecode, images, missing, words
from .leaks import leaks
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
    serve(role())


def role() -> _Code:
    """What answers requests."""
    return _Code()


class _Recorder:
    """Stands in for Flyte's client while Flyte makes a request, and keeps the request."""

    request: Any = None
    endpoint = ""  # by which Flyte chooses a registry for the stock image, which is not used

    @property
    def task_service(self) -> _Recorder:
        return self

    app_service = dataproxy_service = task_service

    async def create(self, request: Any, **_: Any) -> Any:
        self.request = request
        return request  # an answer has an app as well

    async def deploy_task(self, request: Any, **_: Any) -> None:
        self.request = request

    async def upload_trigger(self, *_: Any, **__: Any) -> NoReturn:
        # Then Flyte keeps the inputs in the request; the client process uploads them if it has to.
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        raise ConnectError(Code.UNIMPLEMENTED, "later")


class _Code:
    """flyte, answer: set by `serve`."""

    flyte: Any = None
    answer: Answer
    starts_processes = True
    needs = ("flyte.app", "flyte.extend", "flyte.git", "flyte.remote")

    def rest(self) -> None:
        pass

    def load(
        self,
        *,
        root: str,
        uri: str | None,
        archive_hash: str | None,
        entries: list[dict[str, Any]],
        elsewhere: list[dict[str, Any]],
        org: str | None,
        project: str,
        domain: str,
        names: dict[str, str],
        seconds: float,
        known: str | None,
        bytecode: str | None,
    ) -> dict[str, Any]:
        """Import the modules of `entries` from `root` within `seconds`; describe their tasks.

        known: a file for `missing.read`. bytecode: a directory for `finder_of`.
        """
        self.known = known
        self.root, self.images, self.archive_hash, self.uri = root, names, archive_hash, uri
        self._imitate_a_container(root, bytecode)
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
        replace("deploy_app_status", _Silent())
        self._tell_source(None, "")
        with self._deadline(seconds):
            found = [(entry, self._entry_point(entry)) for entry in entries]
        # As far as they are imported: what depends on one has imported it.
        self.elsewhere = [
            getattr(sys.modules.get(entry["module"]), entry["attribute"], None)
            for entry in elsewhere
        ]
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

    def _imitate_a_container(self, root: str, kept: str | None) -> None:
        """Put the code's directory first, and hide the user's settings of Flyte."""
        os.chdir(root)
        sys.path_hooks.insert(0, bytecode.finder_of(root, kept))
        os.environ["UCTL_CONFIG"] = os.devnull
        more = [part for part in os.environ.get("_F_SYS_PATH", "").split(":") if part]
        sys.path[:0] = [root, *(os.path.normpath(os.path.join(root, part)) for part in more)]

    def _entry_point(self, entry: dict[str, Any]) -> Any:
        address, file, attribute = entry["address"], entry["file"], entry["attribute"]
        module = self._import(address, file, entry["module"])
        where = os.path.realpath(getattr(module, "__file__", None) or "")
        if where != os.path.join(self.root, file):
            raise Refused(
                f"{address}: {file} is the module {entry['module']}, and Python has another one of "
                f"that name ({where or 'built in'}): rename the file"
            )
        for name in entry["modules"]:
            self._import(address, f"{name.replace('.', '/')}.py", name)
        found = getattr(module, attribute, None)
        is_task, flyte = entry["kind"] == "task", self.flyte
        kind = {
            "task": flyte.extend.TaskTemplate,
            "environment": flyte.TaskEnvironment,
            "app": apps.environment_class(),
        }[entry["kind"]]
        lonely = is_task and (getattr(found, "parent_env", None) or (lambda: None))() is None
        if not isinstance(found, kind) or lonely:
            said = words.not_named(found, entry["kind"])
            raise Refused(f"{address}: `{attribute}` in {file} {said}")
        return found

    def _import(self, address: str, file: str, name: str) -> Any:
        """The module of that name, which is `file` in the code's directory."""
        self.importing = f"{address}: {file}"
        self.answer({"importing": self.importing})
        try:
            return importlib.import_module(name)
        except BaseException as error:
            known = missing.read(self.known)
            said = words.import_failure(self.root, file, error, known)
            raise Refused(f"{address}: {said}") from None

    # -- what there is to register, and which image each environment has

    def _plan(self, found: _Found) -> None:
        roots = [(e, thing.parent_env() if e["kind"] == "task" else thing) for e, thing in found]
        addresses = ", ".join(dict.fromkeys(entry["address"] for entry, _ in roots))
        try:
            plans = private("plan_deploy")(*(env for _, env in roots))
        except ValueError as error:
            raise Refused(f"{addresses}: {words.without(self.root, str(error))}") from None
        reached = [one for _, env in roots for one in self._reached(env)]
        envs = {
            name: env
            for plan in plans
            for name, env in plan.envs.items()
            if any(env is one for one in reached)
        }
        self.warnings: list[str] = []
        self.leaks: list[tuple[str, str, str]] = []
        self.named = {id(thing): entry["attribute"] for entry, thing in found}
        owners = self._find_tasks(found, roots)
        own = partial(images.own_image, self.flyte.Image.from_debian_base(), self.images)
        self.lookup, warnings = images.choose(self.root, roots, envs, owners, own, self._depends_on)
        self.warnings += warnings
        for name, env in envs.items():
            images.check_includes(self.root, env, owners.get(name, addresses))
        for env, address in self.apps.values():
            self.warnings += apps.check(env, address, self.uri is not None)

    def _find_tasks(self, found: _Found, roots: _Found) -> dict[str, str]:
        """Set `tasks` and `apps`, each with its address; returns those of the environments."""
        self.tasks: dict[str, tuple[Any, str]] = {}
        self.attributes: dict[str, str] = {}
        self.apps: dict[str, tuple[Any, str]] = {}
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
            for reached in self._reached(env):
                owner = owners.setdefault(reached.name, entry["address"])
                if isinstance(reached, apps.environment_class()):
                    self.apps.setdefault(reached.name, (reached, owner))
                elif not isinstance(reached, self.flyte.TaskEnvironment):
                    self.warnings.append(
                        f"{owner}: environment {reached.name} is a {type(reached).__name__}, not a "
                        "TaskEnvironment or AppEnvironment: deploy it with `flyte deploy`"
                    )
                elif entry["kind"] != "task":
                    self._add_tasks(reached, entry["address"])
        # What a task may start goes along with it: Flyte looks it up under the version of the task.
        named = set(self.tasks)
        for entry, env in roots:
            for reached in self._reached(env) if entry["kind"] == "task" else ():
                if isinstance(reached, self.flyte.TaskEnvironment):
                    self._add_tasks(reached, entry["address"])
        self.along = self.tasks.keys() - named
        return owners

    def _reached(self, env: Any) -> list[Any]:
        """An environment and all that it depends on, each once."""
        found = [env]
        for one in found:
            others = self._depends_on(one)
            found += [child for child in others if not any(child is known for known in found)]
        return found

    def _depends_on(self, env: Any) -> list[Any]:
        """What an environment depends on, without the apps that other code has."""
        return [
            child for child in env.depends_on if not any(child is one for one in self.elsewhere)
        ]

    def _add_tasks(self, env: Any, address: str) -> None:
        for task in env.tasks.values():
            self.tasks.setdefault(task.name, (task, address))

    # -- what Flyte is told

    async def _request(self, thing: Any, version: str, canonical: bool = False) -> Any:
        """The request that Flyte deploys a task, or an app, with.

        canonical: for a hash, without the compression, which differs between machines.
        """
        is_app = isinstance(thing, apps.environment_class())
        context = self._context(version, canonical)
        self.recorder.request = None
        try:
            await (
                apps.deploy(thing, context) if is_app else private("deploy_task")(thing, context)
            )
        except Exception as error:
            last = list(words.causes(error))[-1]
            text = words.without(self.root, f"{type(last).__name__}: {last}")
            if "Raw data path" in text:
                text = _UPLOAD
            kind, known = ("app", self.apps) if is_app else ("task", self.tasks)
            raise Refused(
                f"{known[thing.name][1]}: Flyte cannot describe {kind} {thing.name}: {text}"
            ) from None
        request: Any = self.recorder.request
        if not is_app and thing.name in self.along:
            # Nobody has asked for what starts it by itself.
            del request.triggers[:]
        if not is_app:
            _cut_whole_characters(request)
        return request

    def _tell_source(self, source: dict[str, Any] | None, path: str) -> None:
        """Have Flyte link to `path` in the repository `source`, or to nothing.

        It would look for a repository around the code, and start `git` for each task.
        source: as of `deploy.source_link`.
        """
        status = importlib.import_module("flyte.git").GitStatus

        class Known(status):  # type: ignore[misc,valid-type]
            def build_url(self, _: Any, line_number: int) -> str:
                where = self.repo_dir / path
                return str(super().build_url(where, line_number)) if path else ""

        known = source and Known(
            is_valid=True,
            is_tree_clean=source["clean"],
            remote_url=source["url"],
            repo_dir=Path(self.root),
            commit_sha=source["commit"],
        )
        status.from_current_repo = classmethod(lambda _: known or status())

    def _context(self, version: str, canonical: bool) -> Any:
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
        return SerializationContext(
            org=cfg.org,
            project=cfg.project,
            domain=cfg.domain,
            version=version,
            root_dir=cfg.root_dir,
            code_bundle=bundle,
            image_cache=cache,
        )

    async def _describe(self) -> dict[str, Any]:
        tasks = []
        for name, (task, address) in list(self.tasks.items()):
            try:
                tasks.append(await self._describe_task(name, task, address))
            except Refused as error:
                if name not in self.along:
                    raise
                del self.tasks[name]
                self.warnings.append(f"{error}. So it is not registered along with what starts it")
        for name, (env, address) in self.apps.items():
            tasks.append(await self._describe_app(name, env, address))
        return {
            "tasks": tasks,
            "warnings": self.warnings,
            "leaks": self.leaks,
            "flyte": self.flyte.version(),
        }

    async def _describe_task(self, name: str, task: Any, address: str) -> dict[str, Any]:
        request = await self._request(task, VERSION_HOLE)
        canonical = await self._request(task, VERSION_HOLE, canonical=True)
        command, image = images.container(request.spec.task_template)
        # What a connector or a plugin runs elsewhere needs none.
        if not image and task.task_type == self.flyte.extend.TaskTemplate.task_type:
            raise Refused(
                f"{address}: task {name} has no image: do not set `image=None` on its environment"
            )
        template = request.spec.task_template
        pod = template.k8s_pod if template.HasField("k8s_pod") else None
        self.leaks += leaks(f"{address}: task {name}", template, pod)
        environment = task.parent_env()
        spec = canonical.SerializeToString(deterministic=True)
        return {
            "address": address,
            "attribute": self._attribute(name, command),
            "name": name,
            "spec": hashlib.sha256(spec).hexdigest(),
            "command": command,
            "triggers": [trigger.name for trigger in request.triggers],
            "environments": [one.name for one in self._reached(environment)],
            "reusable": task.reusable is not None,
            "file": self._file(task),
            "along": name in self.along,
        }

    def _file(self, task: Any) -> str | None:
        """The file of its function, as Flyte links to it, if it is one of the code."""
        function = getattr(getattr(task, "func", None), "__code__", None)
        path = os.path.realpath(function.co_filename) if function is not None else ""
        below = f"{self.root}{os.sep}"
        return path[len(below) :] if path.startswith(below) else None

    def _attribute(self, name: str, command: list[str]) -> str:
        """The name of a task in its module, as a container's command or its entry point has it."""
        if command[-2:-1] == ["instance"]:
            return command[-1]
        return self.attributes.get(name) or name.rpartition(".")[2]

    async def _describe_app(self, name: str, env: Any, address: str) -> dict[str, Any]:
        request = await self._request(env, VERSION_HOLE)
        canonical = await self._request(env, VERSION_HOLE, canonical=True)
        command, image = apps.container(request.app.spec)
        if not image:
            raise Refused(f"{address}: app {name} has no image: do not set `image=None` on it")
        apps.check_found(self.root, env, address, command)
        pod = request.app.spec.pod if request.app.spec.HasField("pod") else None
        self.leaks += leaks(f"{address}: app {name}", request.app.spec, pod)
        return {
            "kind": "app",
            "address": address,
            "attribute": self.named.get(id(env)) or apps.attribute(command, name),
            "name": name,
            "spec": hashlib.sha256(canonical.SerializeToString(deterministic=True)).hexdigest(),
            "command": command,
            "triggers": [],
        }

    def requests(
        self,
        versions: dict[str, str],
        paused: list[list[str]],
        source: dict[str, Any] | None,
    ) -> list[str]:
        """The requests, in base64, of this code's tasks that `versions` names.

        paused: [task, name] of triggers that are to stay inactive. source: where the source is, of
        which the description that is hashed says nothing.
        """
        made = asyncio.run(self._requests(self.tasks, versions, source))
        for one in made:
            for trigger in one.triggers:
                if [one.task_id.name, trigger.name] in paused:
                    trigger.spec.active = False
        return [base64.b64encode(one.SerializeToString()).decode() for one in made]

    def app_requests(self, versions: dict[str, str], source: dict[str, Any] | None) -> list[str]:
        """The same for its apps."""
        made = asyncio.run(self._requests(self.apps, versions, source))
        return [base64.b64encode(one.SerializeToString()).decode() for one in made]

    async def _requests(
        self,
        known: dict[str, tuple[Any, str]],
        versions: dict[str, str],
        source: dict[str, Any] | None,
    ) -> list[Any]:
        made = []
        for name, (thing, _) in known.items():
            if name in versions:
                self._tell_source(source, source["paths"].get(name, "") if source else "")
                made.append(await self._request(thing, versions[name]))
        return made


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
