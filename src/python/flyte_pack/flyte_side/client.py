"""Talks to Flyte's control plane: registers what `adapter.py` described, uploads, and runs a deployed task.

For `adapter.py`, which loads this file by its path and hands it what is private to Flyte (`private`, by purpose)
and what is said to users (`words`). It imports nothing of ours. Who the user is, is the SDK's business: its own
command line's way of reading a config file and the environment is used as it is.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

# As long as a person may take to log in; the first call alone waits for that.
LOGIN_SECONDS = 600.0
# Flyte itself gives a transfer ten minutes (FLYTE_UPLOAD_TIMEOUT), a few times.
UPLOAD_SECONDS = 3600.0
INTERACTIVE = ("Pkce", "DeviceFlow")
TRIES = 3
AT_ONCE = 8
# What may go away by itself; Flyte's client retries some of it already, three times within seconds.
TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
# What Flyte's settings are read from where there is no file: the environment alone.
NO_FILE = os.devnull


class Client:
    """flyte, answer: set by whoever serves this."""

    flyte: Any
    answer: Callable[[dict[str, Any]], None]

    def __init__(self, private: Callable[[str], Any], words: Any) -> None:
        self._private, self._words = private, words
        self._connected = False
        # Of the SDK's own ways; users can do nothing about them.
        warnings.simplefilter("ignore")

    def settings(
        self,
        endpoint: str | None,
        insecure: bool | None,
        org: str | None,
        config: str | None,
        project: str,
        domain: str,
        seconds: float,
    ) -> dict[str, Any]:
        """Take the settings; nothing is asked of the network. Returns the organisation that tasks will belong to."""
        self._read_config(config)
        self._at = (endpoint, insecure, org, project, domain)
        self._seconds = seconds
        key = os.environ.get("FLYTE_API_KEY")
        address = endpoint or self.config.platform.endpoint
        if key:
            try:
                key_endpoint, _, _, key_org = self._private("decode_api_key")(key)
            except Exception:
                raise self._words.Refused(
                    "FLYTE_API_KEY is no API key of Flyte: copy it once more, or unset it"
                ) from None
            address = endpoint or key_endpoint
            org = org or (None if key_org == "None" else key_org)
        if not address:
            raise self._words.Refused(
                "there is no control plane to register at: set `endpoint` (field, `--endpoint`, configuration file or "
                "[flyte]), or `admin.endpoint` in the Flyte config.yaml that `flyte_config` names"
            )
        self.endpoint = address
        org = org or self.config.task.org or self._private("org_from_endpoint")(address)
        return {"org": org, "endpoint": address}

    def _read_config(self, config: str | None) -> None:
        if config is not None and not os.path.isfile(config):
            raise self._words.Refused(
                f"there is no Flyte configuration file {config}: correct `flyte_config`"
            )
        import flyte.config

        try:
            self.config = flyte.config.auto(config or NO_FILE)
        except Exception as error:
            raise self._words.Refused(
                # What is said of a value repeats it.
                f"{config}: Flyte can't read its configuration file ({type(error).__name__})"
            ) from None

    def connect(self) -> None:
        """Have Flyte make its client. What that needs of the user, such as a browser, may be asked for later, too."""
        if self._connected:
            return
        endpoint, insecure, org, project, domain = self._at
        cli = self._private("CLIConfig")(
            self.config,
            None,
            endpoint=endpoint,
            insecure=insecure,
            org=org,
            log_level=logging.CRITICAL,
        )
        try:
            cli.init(project, domain, root_dir=os.getcwd(), sync_local_sys_paths=False)
        except Exception as error:
            raise self._words.Refused(self.explain(error)) from None
        self._connected = True

    # -- registering

    def register(self, requests: list[str]) -> None:
        """Register the tasks of requests, in base64, some at once; answers with each that is."""
        self.connect()
        from flyteidl2.task.task_service_pb2 import DeployTaskRequest

        parsed = [DeployTaskRequest.FromString(base64.b64decode(one)) for one in requests]
        asyncio.run(self._register(parsed))

    async def _register(self, requests: list[Any]) -> None:
        free = asyncio.Semaphore(AT_ONCE)
        failed: dict[str, list[str]] = {}

        async def one(request: Any) -> None:
            async with free:
                # One that fails says it for all that come after it, too.
                if failed:
                    return
                name, version = request.task_id.name, request.task_id.version
                try:
                    status = await self._deploy(request)
                except Exception as error:
                    failed.setdefault(self.explain(error), []).append(name)
                    return
                self.answer({"registered": {"name": name, "version": version, "status": status}})

        if requests and self._may_ask_the_user():
            usual, self._seconds = self._seconds, LOGIN_SECONDS
            await one(requests[0])
            self._seconds, requests = usual, requests[1:]
        await asyncio.gather(*map(one, requests))
        if failed:
            lines = (f"{', '.join(names)}: {said}" for said, names in failed.items())
            raise self._words.Refused("\n".join(lines))

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
            # Some control planes keep inputs apart: they are sent there, as Flyte's own deploy does.
            if not trigger.spec.inputs.literals:
                continue
            data = await self._private("offload_trigger_inputs")(
                trigger.spec.inputs,
                org=task.org,
                project=task.project,
                domain=task.domain,
                task_version=task.version,
                task_spec=request.spec,
            )
            if data is not None:
                trigger.spec.offloaded_input_data.CopyFrom(data)
        client = self._private("get_client")()
        try:
            await self._call(lambda: client.task_service.deploy_task(request))
        except ConnectError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            await self._check_same(client, request)
            return "present"
        return "new"

    async def _check_same(self, client: Any, request: Any) -> None:
        """A version that is there stays as it is: say so where it would run something else. Raises `Refused`."""
        from connectrpc.errors import ConnectError
        from flyteidl2.task.task_service_pb2 import GetTaskDetailsRequest

        asked = GetTaskDetailsRequest(task_id=request.task_id)
        try:
            found = await self._call(lambda: client.task_service.get_task_details(asked))
        except ConnectError:
            return  # not everybody who may register may look
        ours, theirs = (
            (list(spec.task_template.container.args), spec.task_template.container.image)
            for spec in (request.spec, found.details.spec)
        )
        if ours != theirs:
            raise self._words.Refused(
                f"Flyte has other content under version {request.task_id.version} already, and keeps that: "
                "take another `version`, or none, so that it is computed from the content"
            )

    async def _call(self, call: Callable[[], Any]) -> Any:
        """What the control plane answers; asked again, after a while, where it might answer later."""
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
        """Upload a file through the control plane's data proxy; its URI."""
        self.connect()
        try:
            uploading = self.flyte.remote.upload_file.aio(Path(path), fname=name)
            _, uri = asyncio.run(asyncio.wait_for(uploading, UPLOAD_SECONDS))
        except Exception as error:
            raise self._words.Refused(f"upload of {name}: {self.explain(error)}") from None
        return str(uri)

    # -- errors

    def explain(self, error: BaseException) -> str:
        """What went wrong with the control plane, and what to change."""
        from connectrpc.errors import ConnectError

        if isinstance(error, self._words.Refused):
            return str(error)
        _, _, _, project, domain = self._at
        where = self._redacted(self.endpoint.replace("dns:///", ""))
        at = f"the control plane at {where}"
        causes = list(self._words.causes(error))
        found = next((one for one in causes if isinstance(one, ConnectError)), None)
        code = _code(found) if found is not None else ""
        said = self._redacted(str(found.message if found is not None else causes[-1]) or "nothing")
        whole = " ".join(str(one) for one in causes)
        source = getattr(self.config, "source", None)
        file = str(source) if source and str(source) != NO_FILE else "the Flyte config.yaml"
        if any(type(one).__name__ == "RemoteTaskNotFoundError" for one in causes):
            return f"{at} has no such version of the task in project {project}, domain {domain}: deploy it there first"
        if any(isinstance(one, (TimeoutError, asyncio.TimeoutError)) for one in causes):
            code = "DEADLINE_EXCEEDED"
        if _is_tls(whole):
            return (
                f"TLS with {at} fails ({said}). If it speaks plain HTTP, set `insecure: true`; if its certificate is of "
                f"your own authority, set `admin.caCertFilePath` in {file}, and SSL_CERT_FILE for where tokens come from"
            )
        if code == "UNAUTHENTICATED" or any(type(one).__name__ in _AUTH for one in causes):
            return (
                f"{at} doesn't let you in ({said}). Check `admin.authType` and what belongs to it in {file}, or "
                "FLYTE_API_KEY; where you log in with a browser, do it anew: `flyte whoami`"
            )
        texts = {
            "PERMISSION_DENIED": f"you may not do this in project {project}, domain {domain} at {at} ({said}). Ask whoever runs "
            "it for the right to register, or deploy to another project or domain",
            "NOT_FOUND": f"{at} knows no project {project} with a domain {domain} ({said}). Create it "
            f"(`flyte create project`), or correct `project` and `domain`",
            "UNAVAILABLE": f"{at} can't be reached ({said}). See that it is up, that `endpoint` is right, and that a proxy "
            "or VPN lets you through; then deploy again: what is there already is not sent again",
            "DEADLINE_EXCEEDED": f"{at} did not answer within {self._seconds:g} s, {TRIES} times. Deploy again later: what is "
            "there already is not sent again",
            "UNIMPLEMENTED": f"what answers at {where} is not a control plane of Flyte 2 ({said}): correct "
            "`endpoint`",
        }
        if code:
            return texts.get(code, f"{at} refuses it ({code.lower()}: {said})")
        return (
            f"flyte {self.flyte.version()} fails to talk to {at} ({type(causes[-1]).__name__}: {said}). If `flyte whoami` does "
            "so too in the environment of the resolve, the packages in its lock file don't fit one another"
        )

    def _redacted(self, text: str) -> str:
        """Without what makes a URL or a header a secret, and without what we sign in with: a server may repeat it all."""
        key, of_key = os.environ.get("FLYTE_API_KEY") or "", ""
        with suppress(Exception):
            of_key = self._private("decode_api_key")(key)[2]
        platform = getattr(self.config, "platform", None)
        for secret in (key, of_key, getattr(platform, "client_credentials_secret", None)):
            if secret:
                text = text.replace(secret, "...")
        return _redacted(text)


def _code(error: Any) -> str:
    name = str(getattr(getattr(error, "code", None), "name", "DEADLINE_EXCEEDED"))
    # Nobody but the time limit cancels a call.
    return "DEADLINE_EXCEEDED" if name == "CANCELED" else name


_AUTH = ("AuthenticationError", "AccessTokenNotFoundError", "AuthenticationPending")


def _is_tls(text: str) -> bool:
    return bool(
        re.search(r"certificate|\btls\b|\bssl\b|InvalidContentType|UnknownIssuer", text, re.I)
    )


_SECRETS = (
    (re.compile(r"(\w+://)[^/@\s'\"]+@"), r"\1"),
    (re.compile(r"(\w+://[^\s?'\"]+)\?[^\s'\"]*"), r"\1?..."),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 ..."),
    # Tokens: JSON web tokens, and others by their length, which nothing readable has.
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "..."),
    (re.compile(r"(?<!sha256:)\b(?=[A-Za-z_]*[0-9])[A-Za-z0-9_]{32,}\b"), "..."),
)


def _redacted(text: str) -> str:
    """Without what makes a URL or a header a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


# --- running -------------------------------------------------------------------------------------


def run(
    private: Callable[[str], Any], words: Any, spec: dict[str, Any], arguments: list[str]
) -> NoReturn:
    """Run a deployed task with what the user typed, and follow it; ends the process: 0 where the run succeeded.

    spec: {"settings": as of `Client.settings`, "name": Flyte's name of the task, "version", "program": what help shows}.
    """
    try:
        import flyte
    except ModuleNotFoundError:
        sys.exit(
            "there is no `flyte` among the requirements of the task's resolve: add flyte 2.5 or newer"
        )
    import flyte.remote

    client = Client(private, words)
    client.flyte = flyte
    try:
        client.settings(**spec["settings"])
        sys.exit(_run_command(client, private, spec, arguments))
    except words.Refused as error:
        sys.exit(f"{spec['name']} (version {spec['version']}): {error}")


def _run_command(
    client: Client, private: Callable[[str], Any], spec: dict[str, Any], arguments: list[str]
) -> int:
    import rich_click as click

    settings, name, version = spec["settings"], spec["name"], spec["version"]
    outcome: list[int] = []

    where = {"project": settings["project"], "domain": settings["domain"]}

    class Command(private("RunRemoteTaskCommand")):  # type: ignore[misc]
        """Flyte's command, with its options and their help; what it does is start the run and stay with it."""

        async def _execute_and_render(self, ctx: Any, config: Any) -> None:
            task = client.flyte.remote.Task.get(name, version=version)
            started = await client.flyte.with_runcontext(mode="remote").run.aio(task, **ctx.params)
            outcome.append(await _follow(started))

    command = Command(
        task_name=name,
        run_args=private("RunArguments")(**where),
        version=version,
        name=name,
        help=f"Run {name} (version {version}) on the control plane at {client.endpoint}.",
    )
    state = private("CLIConfig")(
        replace(client.config, task=replace(client.config.task, **where)),
        None,
        endpoint=settings["endpoint"],
        insecure=settings["insecure"],
        org=settings["org"],
        log_level=logging.CRITICAL,
    )
    try:
        code = command.main(
            args=arguments, prog_name=spec["program"], obj=state, standalone_mode=False
        )
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        raise client._words.Refused(client.explain(error)) from None
    return outcome[0] if outcome else int(code or 0)


async def _follow(run: Any) -> int:
    """Say what becomes of a run until it ends; 0 where it succeeded."""
    print(f"Run {run.name}: {run.url}", flush=True)
    phase = ""
    try:
        async for details in run.action.watch():
            now = str(getattr(details.phase, "value", details.phase))
            if now != phase:
                phase = now
                print(f"Run {run.name} is {phase}", flush=True)
            if details.done():
                break
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"\nThe run goes on without you: {run.url}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt from None
    if phase.lower() != "succeeded":
        details = await run.details.aio()
        info = details.action_details.error_info
        print(f"Run {run.name} {phase}: {info.message if info else ''}", file=sys.stderr)
        return 1
    outputs = await run.outputs.aio()
    print(f"Outputs: {outputs}", flush=True)
    return 0
