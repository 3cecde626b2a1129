"""The service for apps of `control_plane.py`, as the open-source backend has it.

What it answers is read from flyteorg/flyte at 6fadb90d65af: `app/internal/service/
internal_app_service.go` (which requests are refused, what an answer holds) and
`app/internal/k8s/app_client.go` (names, the address of an app, when it is deployed anew).
Other backends refuse a second `Create` of an app with ALREADY_EXISTS: `--apps exists`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.app import app_definition_pb2, app_payload_pb2, app_service_connect
from google.protobuf.json_format import MessageToDict

MODES = ("upsert", "exists", "off")
_LONGEST_NAME = 63  # of a service of Kubernetes: maxKServiceNameLen
_STATUS = app_definition_pb2.Status
_STOPPED = app_definition_pb2.Spec.DESIRED_STATE_STOPPED


def applications(plane: Any) -> list[Any]:
    """The service, if the control plane has one (`apps.enabled` of the backend)."""
    if plane.options.apps == "off":
        return []
    return [app_service_connect.AppServiceASGIApplication(Apps(plane))]


def state(directory: Path) -> list[dict[str, Any]]:
    """The apps that there are, each with its requests and how often it was deployed anew."""
    found = [json.loads(file.read_text()) for file in sorted((directory / "apps").glob("[!.]*"))]
    return [
        {
            **{key: one["app"]["metadata"]["id"].get(key, "") for key in ("project", "domain")},
            "name": one["app"]["metadata"]["id"]["name"],
            "deployed": one["deployed"],
            "desired": one["app"]["spec"].get("desiredState"),
            "request": one["request"],
        }
        for one in found
    ]


class Apps(app_service_connect.AppService):
    def __init__(self, plane: Any) -> None:
        self.plane = plane
        self.directory = plane.store.directory / "apps"
        self.directory.mkdir(exist_ok=True)

    async def create(self, request: Any, ctx: Any) -> Any:
        app = request.app
        if not app.metadata.HasField("id"):
            raise ConnectError(Code.INVALID_ARGUMENT, "app identifier is required")
        if not app.HasField("spec"):
            raise ConnectError(Code.INVALID_ARGUMENT, "app spec is required")
        if app.spec.WhichOneof("app_payload") is None:
            raise ConnectError(
                Code.INVALID_ARGUMENT, "app spec must include a container or pod payload"
            )
        if self.plane.options.apps == "exists" and self._path(app.metadata.id).exists():
            raise ConnectError(Code.ALREADY_EXISTS, f"app {app.metadata.id.name} already exists")
        self._deploy(app, {"create": MessageToDict(app)})
        answer = app_payload_pb2.CreateResponse(app=app)
        answer.app.status.CopyFrom(_STATUS(ingress=self._ingress(app.metadata.id)))
        return answer

    async def get(self, request: Any, ctx: Any) -> Any:
        if request.WhichOneof("identifier") != "app_id":
            raise ConnectError(Code.INVALID_ARGUMENT, "app_id is required")
        return app_payload_pb2.GetResponse(app=self._read(request.app_id))

    async def update(self, request: Any, ctx: Any) -> Any:
        app = request.app
        if not app.metadata.HasField("id"):
            raise ConnectError(Code.INVALID_ARGUMENT, "app identifier is required")
        if app.spec.desired_state == _STOPPED:
            path = self._path(app.metadata.id)
            if path.exists():
                kept = json.loads(path.read_text())
                kept["stopped"] = True
                kept["app"]["spec"]["desiredState"] = "DESIRED_STATE_STOPPED"
                self._write(path, kept)
        else:
            asked = {"update": MessageToDict(app), "reason": request.reason}
            self._deploy(app, asked)
        answer = app_payload_pb2.UpdateResponse(app=app)
        answer.app.status.CopyFrom(self._read(app.metadata.id).status)
        return answer

    async def delete(self, request: Any, ctx: Any) -> Any:
        self._path(request.app_id).unlink(missing_ok=True)
        return app_payload_pb2.DeleteResponse()

    async def list(self, request: Any, ctx: Any) -> Any:
        if request.WhichOneof("filter_by") in ("org", "cluster_id"):
            raise ConnectError(
                Code.UNIMPLEMENTED, "org and cluster_id filters are not supported by the data plane"
            )
        wanted = (request.project.name, request.project.domain)
        apps = []
        for file in sorted(self.directory.glob("[!.]*")):
            app = self._app(json.loads(file.read_text()))
            if all(not w or w == h for w, h in zip(wanted, _scope(app))):
                apps.append(app)
        return app_payload_pb2.ListResponse(apps=apps)

    # -- what is kept

    def _path(self, app: Any) -> Path:
        parts = (app.project, app.domain, app.name)
        path: Path = self.directory / ",".join(quote(part, safe="") for part in parts)
        return path

    def _read(self, identifier: Any) -> Any:
        try:
            return self._app(json.loads(self._path(identifier).read_text()))
        except FileNotFoundError:
            raise ConnectError(
                Code.NOT_FOUND, f"KService {service_name(identifier)} not found"
            ) from None

    def _app(self, kept: dict[str, Any]) -> Any:
        """As it is read back: of the metadata the identifier alone, with an organisation."""
        app = app_definition_pb2.App()
        app.spec.ParseFromString(bytes.fromhex(kept["spec"]))
        if kept["stopped"]:
            app.spec.desired_state = _STOPPED
        found = app_definition_pb2.Identifier(**kept["id"])
        found.org = found.org or "flyte"
        app.metadata.id.CopyFrom(found)
        status = "STOPPED" if kept["stopped"] else "ACTIVE"
        app.status.conditions.add(
            deployment_status=_STATUS.DeploymentStatus.Value(f"DEPLOYMENT_STATUS_{status}")
        )
        if not kept["stopped"]:
            app.status.ingress.CopyFrom(self._ingress(found))
        return app

    def _deploy(self, app: Any, asked: dict[str, Any]) -> None:
        """A specification that is the same, and runs, is not deployed anew."""
        path = self._path(app.metadata.id)
        spec = app.spec.SerializeToString(deterministic=True).hex()
        kept = json.loads(path.read_text()) if path.exists() else {"deployed": 0, "request": {}}
        anew = kept.get("spec") != spec or kept.get("stopped")
        identifier = app.metadata.id
        self._write(
            path,
            {
                "id": {k: getattr(identifier, k) for k in ("org", "project", "domain", "name")},
                "spec": spec,
                "stopped": False,
                "deployed": kept["deployed"] + bool(anew),
                "request": {**kept["request"], **asked},
                "app": MessageToDict(app),
            },
        )

    def _write(self, path: Path, kept: dict[str, Any]) -> None:
        fresh = path.with_name(f".{secrets.token_hex(8)}")
        fresh.write_text(json.dumps(kept))
        os.replace(fresh, path)

    def _ingress(self, app: Any) -> Any:
        url = f"https://{service_name(app)}.apps.example"
        return app_definition_pb2.Ingress(public_url=url)


def service_name(app: Any) -> str:
    """As `KServiceName` of the backend makes it."""
    name = f"{app.name}-{app.project}-{app.domain}".lower()
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(f"{app.project}/{app.domain}/{app.name}".encode()).digest()
    return f"{name[: _LONGEST_NAME - 9]}-{digest[:4].hex()}"


def _scope(app: Any) -> tuple[str, str]:
    return app.metadata.id.project, app.metadata.id.domain
