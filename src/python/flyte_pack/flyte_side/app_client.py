"""Deploys and stops apps at Flyte's control plane, where an app has no versions: the last runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from . import apps
from .private import private
from .words import Refused

Call = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def deploy(call: Call, flyte: Any, request: Any) -> tuple[str, str]:
    """Deploy an app unless that very specification runs there; returns what was done, and its URL.

    What was done is "new", "changed" or "present". call: has a call made, with retries.
    """
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError

    service = private("get_client")().app_service
    before = await _before(call, service, request.app.metadata.id)
    if before is not None and _is_same(before.spec, request.app.spec):
        return "present", _url(before)
    try:
        answer = await call(lambda: service.create(request))
        after = answer.app
    except ConnectError as error:
        if error.code not in (Code.ALREADY_EXISTS, Code.ABORTED):
            raise
        app = request.app
        # As `App.create` of Flyte does.
        replaced = await flyte.remote.App.replace.aio(
            name=app.metadata.id.name,
            labels=app.metadata.labels,
            updated_app_spec=app.spec,
            reason="User requested serve from sdk",
            project=app.metadata.id.project,
            domain=app.metadata.id.domain,
        )
        after = replaced.pb2
    return "new" if before is None else "changed", _url(after)


async def active(
    ask: Callable[[str, str, Any], Awaitable[Any]], flyte: Any, project: str, domain: str
) -> list[list[Any]]:
    """[name, whole command] of each app that is not stopped. ask: calls a method of a service.

    None if `ask` gives none, or the control plane has no apps.
    """
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError
    from flyteidl2.app import app_definition_pb2, app_payload_pb2
    from flyteidl2.common import identifier_pb2, list_pb2

    org = private("get_init_config")().org
    place = identifier_pb2.ProjectIdentifier(organization=org, name=project, domain=domain)
    found: list[list[Any]] = []
    token = ""
    while True:
        asked = app_payload_pb2.ListRequest(
            request=list_pb2.ListRequest(limit=100, token=token), project=place
        )
        try:
            listed = await ask("app_service", "list", asked)
        except ConnectError as error:
            if error.code != Code.UNIMPLEMENTED:
                raise
            listed = None
        if listed is None:
            return []
        for app in listed.apps:
            stopped = app.spec.desired_state == app_definition_pb2.Spec.DESIRED_STATE_STOPPED
            if not stopped and not flyte.remote.App(app).is_deactivated():
                found.append([app.metadata.id.name, apps.container(app.spec)[0]])
        token = listed.token
        if not token:
            return found


async def stop(call: Call, flyte: Any, name: str, project: str, domain: str) -> None:
    """Deactivate an app, as Flyte's own command does."""
    app = await call(lambda: flyte.remote.App.get.aio(name=name, project=project, domain=domain))
    await call(app.deactivate.aio)


async def _before(call: Call, service: Any, identifier: Any) -> Any:
    """The app as it is there; None if there is none, or it may not be read."""
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError
    from flyteidl2.app import app_payload_pb2

    asked = app_payload_pb2.GetRequest(app_id=identifier)
    try:
        return (await call(lambda: service.get(asked))).app
    except ConnectError as error:
        if error.code == Code.UNIMPLEMENTED:
            raise Refused(
                f"the control plane does not serve apps ({error.message}): ask whoever runs it to "
                "enable them, or leave the apps out of the deployment"
            ) from None
        if error.code not in (Code.NOT_FOUND, Code.PERMISSION_DENIED):
            raise
        return None


def _is_same(there: Any, ours: Any) -> bool:
    """Whether a specification is ours, apart from what a control plane adds."""
    mine = type(ours)()
    mine.CopyFrom(ours)
    if there.HasField("creator"):
        mine.creator.CopyFrom(there.creator)
    if there.HasField("ingress") and not (ours.ingress.subdomain or ours.ingress.cname):
        mine.ingress.CopyFrom(there.ingress)
    return bool(
        mine.SerializeToString(deterministic=True) == there.SerializeToString(deterministic=True)
    )


def _url(app: Any) -> str:
    return str(app.status.ingress.public_url)
