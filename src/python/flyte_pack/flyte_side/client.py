"""Talks to Flyte's control plane: registers what `describe` made, and uploads files.

It never imports task modules, so user code never sees a token. Signing in is the SDK's business:
its command line's way of reading a config file and the environment is used as it is.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import re
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import app_client, compared, words
from .private import private
from .serve import Answer, serve
from .words import Refused

if TYPE_CHECKING:
    from flyte_shim import shown
else:
    from . import shown

# A person may take this long to log in; only the first call waits for it.
LOGIN_SECONDS = 600.0
# Flyte itself gives a transfer ten minutes (FLYTE_UPLOAD_TIMEOUT), a few times.
UPLOAD_SECONDS = 3600.0
INTERACTIVE = ("Pkce", "DeviceFlow")
TRIES = 3
AT_ONCE = 8
# Errors worth another try; Flyte's client retries some of them already, three times within seconds.
TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
# With this as its file, Flyte reads its settings from the environment alone.
NO_FILE = os.devnull


def main(_: list[str]) -> NoReturn:
    serve(role())


def role() -> Client:
    """What answers requests."""
    return Client()


class Client:
    """flyte, answer: set by `serve`."""

    flyte: Any = None
    answer: Answer
    starts_processes = False
    needs = ("flyte.config",)

    def __init__(self) -> None:
        self._connected = self._rested = self._connects_ahead = False
        warnings.simplefilter("ignore")  # about the SDK's own ways

    def settings(
        self,
        *,
        endpoint: str | None,
        insecure: bool | None,
        org: str | None,
        config: str | None,
        project: str,
        domain: str,
        seconds: float,
    ) -> str | None:
        """Take the settings, without the network; returns the organisation of the tasks."""
        self._read_config(config)
        self._at = (endpoint, insecure, org, project, domain)
        self._seconds = seconds
        key = os.environ.get("FLYTE_API_KEY")
        address = endpoint or self.config.platform.endpoint
        if key:
            try:
                key_endpoint, _, _, key_org = private("decode_api_key")(key)
            except Exception:
                raise Refused(
                    "FLYTE_API_KEY is not an API key of Flyte: copy it once more, or unset it"
                ) from None
            address = endpoint or key_endpoint
            org = org or (None if key_org == "None" else key_org)
        if not address:
            raise Refused(
                "there is no control plane to register at: set `endpoint` (field, `--endpoint`, "
                "configuration file or [flyte]), or `admin.endpoint` in the Flyte config.yaml that "
                "`flyte_config` names"
            )
        self.endpoint = address
        self._connects_ahead = not self._may_ask_the_user()
        found: str | None = org or self.config.task.org or private("org_from_endpoint")(address)
        return found

    def _read_config(self, config: str | None) -> None:
        if config is not None and not os.path.isfile(config):
            raise Refused(f"there is no Flyte configuration file {config}: correct `flyte_config`")
        import flyte.config

        try:
            self.config = flyte.config.auto(config or NO_FILE)
        except Exception as error:
            raise Refused(
                # Not the message: it quotes values.
                f"{config}: Flyte cannot read its configuration file ({type(error).__name__})"
            ) from None

    def cli_config(self, config: Any) -> Any:
        """The state of Flyte's command line, with our settings over those of `config`."""
        endpoint, insecure, org, _, _ = self._at
        return private("CLIConfig")(
            config, None, endpoint=endpoint, insecure=insecure, org=org, log_level=logging.CRITICAL
        )

    def rest(self) -> None:
        """Import what connecting takes, and connect, while nobody waits for it.

        What goes wrong is told when it is needed.
        """
        if not self._rested:
            self._rested = True
            with suppress(Exception):
                private("CLIConfig"), private("ClientSet")
        if self._connects_ahead:
            self._connects_ahead = False
            with suppress(Refused):
                self.connect()

    def connect(self) -> None:
        """Have Flyte make its client. It may ask the user to sign in now, or later."""
        if self._connected:
            return
        *_, project, domain = self._at
        cli = self.cli_config(self.config)
        try:
            cli.init(project, domain, root_dir=os.getcwd(), sync_local_sys_paths=False)
        except Exception as error:
            raise Refused(self.explain(error)) from None
        self._connected = True

    # -- what is there already

    def survey(self, tasks: list[list[str]], triggers: list[list[str]]) -> dict[str, Any]:
        """Check that project and domain are there; what Flyte has of tasks and triggers.

        tasks: [name, version]. triggers: [name of the task, name]. Returns {"tasks": {name:
        {"exists": whether the version is there, "newest": the version that whoever names none
        gets, or null, "fresh": a version that is free, of which `version` is the start}},
        "triggers": [[task, name, version that it runs, whether it is active, whether it was paused
        by hand]]}. A task is left out if Flyte does not tell.
        """
        self.connect()
        return asyncio.run(self._survey(tasks, triggers))

    async def _survey(self, tasks: list[list[str]], triggers: list[list[str]]) -> dict[str, Any]:
        try:
            await self._check_place()
            free = asyncio.Semaphore(AT_ONCE)

            async def limited(what: Any) -> Any:
                async with free:
                    return await what

            found = await asyncio.gather(*(limited(self._look(*one)) for one in tasks))
            fired = await asyncio.gather(*(limited(self._trigger(*one)) for one in triggers))
        except Exception as error:
            raise Refused(self.explain(error)) from None
        return {
            "tasks": {name: seen for (name, _), seen in zip(tasks, found) if seen is not None},
            "triggers": [one for one in fired if one is not None],
        }

    async def _check_place(self) -> None:
        """Raise `Refused` for a project that is not there, or a domain that it does not have.

        The backend takes any domain, and nothing that is deployed to a wrong one is ever found.
        """
        from flyteidl2.project.project_service_pb2 import GetProjectRequest

        _, _, _, project, domain = self._at
        asked = GetProjectRequest(id=project, org=private("get_init_config")().org or "")
        # Nothing else was asked yet, so this is the call that may wait for a person.
        usual = self._seconds
        self._seconds = LOGIN_SECONDS if self._may_ask_the_user() else usual
        try:
            found = await self._asked("project_domain_service", "get_project", asked)
        finally:
            self._seconds = usual
        domains = [] if found is None else [one.id for one in found.project.domains]
        if domains and domain not in domains:
            raise Refused(
                f"project {project} at {self.endpoint} has no domain {domain}, only "
                f"{', '.join(sorted(domains))}: correct `project` and `domain`"
            )

    async def _look(self, name: str, version: str) -> dict[str, Any] | None:
        from flyteidl2.common.list_pb2 import ListRequest, Sort
        from flyteidl2.task.task_definition_pb2 import TaskName
        from flyteidl2.task.task_service_pb2 import ListVersionsRequest

        _, _, _, project, domain = self._at
        org = private("get_init_config")().org
        latest = Sort(key="created_at", direction=Sort.DESCENDING)
        found = await self._asked(
            "task_service",
            "list_versions",
            ListVersionsRequest(
                task_name=TaskName(org=org, project=project, domain=domain, name=name),
                request=ListRequest(limit=1, sort_by=latest),
            ),
        )
        if found is None:
            return None
        newest = found.versions[0].version if found.versions else None
        if newest is None or newest == version:
            return {"exists": newest is not None, "newest": newest, "fresh": version}
        exists, number = await self._details(name, version) is not None, 2
        while exists and await self._details(name, words.again(version, number)) is not None:
            number += 1
        fresh = words.again(version, number) if exists else version
        return {"exists": exists, "newest": newest, "fresh": fresh}

    async def _details(self, name: str, version: str) -> Any:
        """What Flyte has under a version of a task; None if it has none."""
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError
        from flyteidl2.task.task_definition_pb2 import TaskIdentifier
        from flyteidl2.task.task_service_pb2 import GetTaskDetailsRequest

        _, _, _, project, domain = self._at
        org = private("get_init_config")().org
        task = TaskIdentifier(org=org, project=project, domain=domain, name=name, version=version)
        try:
            found = await self._asked(
                "task_service", "get_task_details", GetTaskDetailsRequest(task_id=task)
            )
        except ConnectError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return None
        return found and found.details

    async def _asked(self, service: str, method: str, request: Any) -> Any:
        """The answer; None if the control plane does not tell: it need not let us read."""
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        try:
            return await self._call_of(service, method, request)
        except ConnectError as error:
            if error.code in (Code.UNIMPLEMENTED, Code.PERMISSION_DENIED):
                return None
            raise

    async def _call_of(self, service: str, method: str, request: Any) -> Any:
        call = getattr(getattr(private("get_client")(), service), method)
        return await self._call(lambda: call(request))

    # -- triggers

    async def _trigger(self, task: str, name: str) -> list[Any] | None:
        """[task, name, version that it runs, active, paused by hand]; None if there is none."""
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError
        from flyteidl2.common.list_pb2 import ListRequest
        from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2

        of = self._trigger_name(task, name)
        try:
            found = await self._asked(
                "trigger_service",
                "get_trigger_details",
                trigger_service_pb2.GetTriggerDetailsRequest(name=of),
            )
        except ConnectError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return None
        if found is None:
            return None
        spec, paused = found.trigger.spec, False
        if not spec.active:
            history = await self._asked(
                "trigger_service",
                "get_trigger_revision_history",
                trigger_service_pb2.GetTriggerRevisionHistoryRequest(
                    name=of, request=ListRequest(limit=1)
                ),
            )
            deactivated = trigger_definition_pb2.TRIGGER_REVISION_ACTION_DEACTIVATE
            paused = bool(history and history.triggers) and (
                history.triggers[0].action == deactivated
            )
        return [task, name, spec.task_version, spec.active, paused]

    def _trigger_name(self, task: str, name: str) -> Any:
        from flyteidl2.common.identifier_pb2 import TriggerName

        _, _, _, project, domain = self._at
        org = private("get_init_config")().org
        return TriggerName(org=org, project=project, domain=domain, task_name=task, name=name)

    def deactivate(self, triggers: list[list[str]]) -> None:
        """Stop triggers from firing, by [name of the task, name]."""
        from flyteidl2.trigger.trigger_service_pb2 import UpdateTriggersRequest

        self.connect()
        names = [self._trigger_name(*one) for one in triggers]
        asked = UpdateTriggersRequest(names=names, active=False)
        service = private("get_client")().trigger_service
        try:
            asyncio.run(self._call(lambda: service.update_triggers(asked)))
        except Exception as error:
            raise Refused(f"deactivating triggers: {self.explain(error)}") from None

    def active(self) -> list[list[str]]:
        """[task, name, version that it runs] of each active trigger of the project and domain."""
        self.connect()
        try:
            return asyncio.run(self._active())
        except Exception as error:
            raise Refused(self.explain(error)) from None

    async def _active(self) -> list[list[str]]:
        found = await self._firing(self._call_of)
        triggers = [await self._trigger(*one) for one in found]
        return [one[:3] for one in triggers if one is not None and one[3]]

    def firing(self) -> list[list[str]]:
        """[task, name] of each active trigger; none if the control plane does not tell."""
        self.connect()
        try:
            return asyncio.run(self._firing(self._asked))
        except Exception as error:
            raise Refused(self.explain(error)) from None

    async def _firing(self, ask: Callable[[str, str, Any], Awaitable[Any]]) -> list[list[str]]:
        from flyteidl2.common.identifier_pb2 import ProjectIdentifier
        from flyteidl2.common.list_pb2 import ListRequest
        from flyteidl2.trigger.trigger_service_pb2 import ListTriggersRequest

        _, _, _, project, domain = self._at
        org = private("get_init_config")().org
        place = ProjectIdentifier(organization=org, name=project, domain=domain)
        found: list[list[str]] = []
        token = ""
        while True:
            asked = ListTriggersRequest(
                project_id=place, request=ListRequest(limit=100, token=token)
            )
            listed = await ask("trigger_service", "list_triggers", asked)
            if listed is None:
                return []
            names = (one.id.name for one in listed.triggers if one.active)
            found += [[one.task_name, one.name] for one in names]
            token = listed.token
            if not token:
                return found

    # -- registering

    def check(self, requests: list[str]) -> None:
        """Raise `Refused` if Flyte has another content under a version of `requests`."""
        self.connect()
        asyncio.run(self._check(_parsed(requests)))

    async def _check(self, requests: list[Any]) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(request: Any) -> None:
            async with free:
                await self._check_same(request)

        try:
            await asyncio.gather(*map(one, requests))
        except Exception as error:
            raise Refused(self.explain(error)) from None

    def register(self, requests: list[str], statuses: dict[str, str]) -> None:
        """Register the tasks of `requests`, in base64, some at once; answer with each in turn.

        statuses: of those that are not new, by name.
        """
        self.connect()

        async def deploy(request: Any) -> dict[str, Any]:
            task, status = request.task_id, await self._deploy(request)
            if status == "new":
                status = statuses.get(task.name, status)
            return {"name": task.name, "version": task.version, "status": status}

        asyncio.run(self._each(_parsed(requests), deploy))

    def register_apps(self, requests: list[str], versions: dict[str, str]) -> None:
        """Deploy the apps of `requests`, as `register` does tasks; `versions` are ours, by name."""
        self.connect()
        from flyteidl2.app.app_payload_pb2 import CreateRequest

        parsed = [CreateRequest.FromString(base64.b64decode(one)) for one in requests]

        async def deploy(request: Any) -> dict[str, Any]:
            status, url = await app_client.deploy(self._call, self.flyte, request)
            name = self._name(request)
            done = {"name": name, "version": versions[name], "status": status}
            return {**done, "kind": "app", "url": url or None}

        asyncio.run(self._each(parsed, deploy))

    def active_apps(self, strict: bool) -> list[list[Any]]:
        """[name, whole command] of each app of the project and domain that is not stopped.

        None if there are no apps, or we may not read them; strict: then that is an error.
        """
        self.connect()
        *_, project, domain = self._at
        ask = self._call_of if strict else self._asked
        try:
            return asyncio.run(app_client.active(ask, self.flyte, project, domain))
        except Exception as error:
            raise Refused(self.explain(error)) from None

    def stop_apps(self, names: list[str]) -> None:
        """Deactivate apps."""
        self.connect()
        *_, project, domain = self._at
        try:
            for name in names:
                asyncio.run(app_client.stop(self._call, self.flyte, name, project, domain))
        except Exception as error:
            raise Refused(f"deactivating apps: {self.explain(error)}") from None

    def _name(self, request: Any) -> str:
        has_task = hasattr(request, "task_id")
        return str((request.task_id if has_task else request.app.metadata.id).name)

    async def _each(
        self, requests: list[Any], deploy: Callable[[Any], Awaitable[dict[str, Any]]]
    ) -> None:
        """Do what `deploy` does with each, some at once; answer with what it returns."""
        free = asyncio.Semaphore(AT_ONCE)
        failed: dict[str, list[str]] = {}

        async def one(request: Any) -> None:
            async with free:
                # Later ones would fail in the same way.
                if failed:
                    return
                try:
                    done = await deploy(request)
                except Exception as error:
                    failed.setdefault(self.explain(error), []).append(self._name(request))
                    return
                self.answer({"registered": done})

        await asyncio.gather(*map(one, requests))
        if failed:
            lines = (f"{', '.join(names)}: {said}" for said, names in failed.items())
            raise Refused("\n".join(lines))

    def _may_ask_the_user(self) -> bool:
        _, insecure, _, _, _ = self._at
        platform = self.config.platform
        plain = platform.insecure if insecure is None else insecure
        return (
            not plain
            and not os.environ.get("FLYTE_API_KEY")
            and str(platform.auth_mode) in INTERACTIVE
        )

    async def _deploy(self, request: Any) -> str:
        from connectrpc.code import Code
        from connectrpc.errors import ConnectError

        task = request.task_id
        for trigger in request.triggers:
            # Some control planes store inputs elsewhere; Flyte's own deploy does the same.
            if not trigger.spec.inputs.literals:
                continue
            data = await private("offload_inputs")(
                trigger.spec.inputs,
                org=task.org,
                project=task.project,
                domain=task.domain,
                task_version=task.version,
                task_spec=request.spec,
            )
            if data is not None:
                trigger.spec.offloaded_input_data.CopyFrom(data)
        client = private("get_client")()
        try:
            await self._call(lambda: client.task_service.deploy_task(request))
        except ConnectError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            await self._check_same(request)
            return "present"
        return "new"

    async def _check_same(self, request: Any) -> None:
        """Raise `Refused` if Flyte has something else under the version."""
        task = request.task_id
        found = await self._details(task.name, task.version)
        if found is None:  # or the right to register does not include the right to read
            return
        if differs := compared.difference(request.spec, found.spec):
            raise Refused(
                f"{task.name}: Flyte has other content under version {task.version} already "
                f"({', '.join(differs[:5])}): take another `version`, or none, to have it computed "
                "from the content"
            )

    async def _call(self, call: Callable[[], Any]) -> Any:
        """What the control plane answers, with retries of transient errors."""
        from connectrpc.errors import ConnectError

        for left in range(TRIES - 1, -1, -1):
            try:
                return await asyncio.wait_for(call(), self._seconds)
            except (ConnectError, TimeoutError, asyncio.TimeoutError) as error:
                code = _code(error)
                if code not in TRANSIENT or _is_tls(str(error)) or not left:
                    raise
                pause = 2 ** (TRIES - left) * random.uniform(0.25, 0.75)  # noqa: S311
                what = code.lower().replace("_", " ")
                self.answer({"note": f"Flyte: {what}; trying again in {pause:.1f} s"})
                await asyncio.sleep(pause)
        raise AssertionError

    # -- uploading

    def upload(self, path: str, name: str) -> str:
        """Upload a file through the control plane's data proxy; returns its URI."""
        self.connect()
        try:
            uploading = self.flyte.remote.upload_file.aio(Path(path), fname=name)
            _, uri = asyncio.run(asyncio.wait_for(uploading, UPLOAD_SECONDS))
        except Exception as error:
            raise Refused(f"upload of {name}: {self.explain(error)}") from None
        return str(uri)

    # -- errors

    def explain(self, error: BaseException) -> str:
        """What went wrong with the control plane, and what to change."""
        from connectrpc.errors import ConnectError

        if isinstance(error, Refused):
            return str(error)
        causes = list(words.causes(error))
        names = {type(one).__name__ for one in causes}
        found = next((one for one in causes if isinstance(one, ConnectError)), None)
        code = _code(found) if found is not None else ""
        if any(isinstance(one, (TimeoutError, asyncio.TimeoutError)) for one in causes):
            code = "DEADLINE_EXCEEDED"
        if names & _AUTH:
            code = "UNAUTHENTICATED"
        if _is_tls(" ".join(map(str, causes))):
            code = "TLS"
        if "RemoteTaskNotFoundError" in names:
            code = "NO_TASK"
        said = self._shown(str(found.message if found is not None else causes[-1]) or "nothing")
        where = self._shown(self.endpoint.replace("dns:///", ""))
        if code:
            text = _EXPLAINED.get(code, "{at} refuses it ({code}: {said})")
        else:
            text, code = _UNEXPLAINED, type(causes[-1]).__name__
        *_, project, domain = self._at
        source = str(getattr(self.config, "source", None) or NO_FILE)
        return text.format(
            at=f"the control plane at {where}",
            where=where,
            said=said,
            code=code.lower() if code.isupper() else code,
            place=f"project {project}, domain {domain}",
            project=project,
            domain=domain,
            file="the Flyte config.yaml" if source == NO_FILE else source,
            seconds=f"{self._seconds:g}",
            tries=TRIES,
            flyte=self.flyte.version(),
        )

    def _shown(self, text: str) -> str:
        """`text` without secrets, those that we sign in with among them."""
        key, of_key = os.environ.get("FLYTE_API_KEY") or "", ""
        with suppress(Exception):
            of_key = private("decode_api_key")(key)[2]
        platform = getattr(self.config, "platform", None)
        secret = getattr(platform, "client_credentials_secret", None) or ""
        return shown.line(text, (key, of_key, secret))


def _parsed(requests: list[str]) -> list[Any]:
    from flyteidl2.task.task_service_pb2 import DeployTaskRequest

    return [DeployTaskRequest.FromString(base64.b64decode(one)) for one in requests]


def _code(error: Any) -> str:
    name = str(getattr(getattr(error, "code", None), "name", "DEADLINE_EXCEEDED"))
    # Nobody but the time limit cancels a call.
    return "DEADLINE_EXCEEDED" if name == "CANCELED" else name


_AUTH = {"AuthenticationError", "AccessTokenNotFoundError", "AuthenticationPending"}
_AGAIN = "what is there already is not sent again"
_EXPLAINED = {
    "NO_TASK": "{at} has no such version of the task in {place}: deploy it there first",
    "TLS": "TLS with {at} fails ({said}). If it speaks plain HTTP, set `insecure: true`; if its "
    "certificate is of your own authority, set `admin.caCertFilePath` in {file}, and SSL_CERT_FILE "
    "for where tokens come from",
    "UNAUTHENTICATED": "{at} does not let you in ({said}). Check `admin.authType` and what belongs "
    "to it in {file}, or FLYTE_API_KEY; if you log in with a browser, do it anew: `flyte whoami`",
    "PERMISSION_DENIED": "you may not do this in {place} at {at} ({said}). Ask whoever runs it for "
    "the right to register, or deploy to another project or domain",
    "NOT_FOUND": "{at} knows no project {project} with a domain {domain} ({said}). Create it "
    "(`flyte create project`), or correct `project` and `domain`",
    "UNAVAILABLE": "{at} cannot be reached ({said}). See that it is up, that `endpoint` is right, "
    f"and that a proxy or VPN lets you through; then deploy again: {_AGAIN}",
    "DEADLINE_EXCEEDED": "{at} did not answer within {seconds} s, {tries} times. "
    f"Deploy again later: {_AGAIN}",
    "UNIMPLEMENTED": "{where} answers, but is not a control plane of Flyte 2 ({said}): "
    "correct `endpoint`",
}
_UNEXPLAINED = (
    "flyte {flyte} fails to talk to {at} ({code}: {said}). If `flyte whoami` does so too in the "
    "environment of the resolve, the packages in its lock file do not fit one another"
)


def _is_tls(text: str) -> bool:
    return bool(
        re.search(r"certificate|\btls\b|\bssl\b|InvalidContentType|UnknownIssuer", text, re.I)
    )
