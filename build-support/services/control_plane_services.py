"""The services of `control_plane.py`, on what Flyte generates for them, and the files that they
keep things in.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import control_plane_apps
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.auth import auth_service_connect, auth_service_pb2, identity_connect, identity_pb2
from flyteidl2.cluster import payload_pb2 as cluster_pb2
from flyteidl2.cluster import service_connect as cluster_connect
from flyteidl2.common import identifier_pb2, phase_pb2, run_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.dataproxy import dataproxy_service_connect
from flyteidl2.dataproxy import dataproxy_service_pb2 as proxy_pb2
from flyteidl2.logs.dataplane import payload_pb2 as logs_pb2
from flyteidl2.project import project_service_connect, project_service_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_connect
from flyteidl2.task import task_service_pb2 as task_pb2
from flyteidl2.workflow import run_definition_pb2 as run_def
from flyteidl2.workflow import run_service_connect
from flyteidl2.workflow import run_service_pb2 as runs_pb2
from google.protobuf.json_format import MessageToDict

CLIENT_ID = "ci"


@dataclass
class Plane:
    """What the services share. address: of the server. outcomes: how runs end, by task."""

    options: argparse.Namespace
    store: Store
    address: str = ""
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check_project(self, project: str, domain: str) -> None:
        if project not in self.options.project:
            raise ConnectError(Code.NOT_FOUND, f"project {project} not found")
        if domain not in self.options.domain:
            raise ConnectError(Code.NOT_FOUND, f"domain {domain} not found")


def applications(plane: Plane) -> list[Any]:
    """An ASGI application for each service, which has its `path`."""
    return [
        task_service_connect.TaskServiceASGIApplication(Tasks(plane)),
        run_service_connect.RunServiceASGIApplication(Runs(plane)),
        dataproxy_service_connect.DataProxyServiceASGIApplication(DataProxy(plane)),
        project_service_connect.ProjectServiceASGIApplication(Projects()),
        auth_service_connect.AuthMetadataServiceASGIApplication(AuthMetadata(plane)),
        identity_connect.IdentityServiceASGIApplication(Identity()),
        cluster_connect.ClusterServiceASGIApplication(Clusters()),
        *control_plane_apps.applications(plane),
    ]


class Store:
    """What is kept, in files: it survives a restart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        for name in ("tasks", "runs", "inputs"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._counts = self.directory / "requests.jsonl"
        self._counts.touch()

    def count(self, method: str) -> None:
        with self._counts.open("a") as file:
            file.write(json.dumps({"method": method, "at": time.time()}) + "\n")

    def signature(self, name: str) -> str:
        return hashlib.sha256(f"planted-signature {name}".encode()).hexdigest()

    def _task(self, task: Any) -> Path:
        parts = (task.project, task.domain, task.name, task.version)
        return self.directory / "tasks" / ",".join(quote(part, safe="") for part in parts)

    def put_task(self, request: Any) -> bool:
        """False if that version is there, which is then left as it is."""
        path = self._task(request.task_id)
        fresh = path.with_name(f".{secrets.token_hex(8)}")
        fresh.write_bytes(request.SerializeToString(deterministic=True))
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def task(self, task: Any) -> Any:
        try:
            return task_pb2.DeployTaskRequest.FromString(self._task(task).read_bytes())
        except FileNotFoundError:
            raise ConnectError(
                Code.NOT_FOUND, f"task {task.name} version {task.version} not found"
            ) from None

    def tasks(self) -> list[Any]:
        files = sorted(
            (self.directory / "tasks").glob("[!.]*"), key=lambda file: file.stat().st_mtime_ns
        )
        return [task_pb2.DeployTaskRequest.FromString(file.read_bytes()) for file in files]

    def state(self) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for line in self._counts.read_text().splitlines():
            method = json.loads(line)["method"]
            counts[method] = counts.get(method, 0) + 1
        return {
            "tasks": [
                {
                    **{key: getattr(one.task_id, key) for key in ("org", "project", "domain")},
                    "name": one.task_id.name,
                    "version": one.task_id.version,
                    "image": one.spec.task_template.container.image,
                    "command": list(one.spec.task_template.container.args),
                    "env": {e.key: e.value for e in one.spec.task_template.container.env},
                    "triggers": [trigger.name for trigger in one.triggers],
                    "request": MessageToDict(one),
                }
                for one in self.tasks()
            ],
            "runs": [
                json.loads(file.read_text()) for file in sorted((self.directory / "runs").iterdir())
            ],
            "apps": control_plane_apps.state(self.directory),
            "requests": counts,
        }


class Tasks(task_service_connect.TaskService):
    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def deploy_task(self, request: Any, ctx: Any) -> Any:
        task, template = request.task_id, request.spec.task_template
        self.plane.check_project(task.project, task.domain)
        if not (task.name and task.version):
            raise ConnectError(Code.INVALID_ARGUMENT, "a task needs a name and a version")
        if template.HasField("container") and not template.container.image:
            raise ConnectError(Code.INVALID_ARGUMENT, "a container needs an image")
        if not self.plane.store.put_task(request):
            raise ConnectError(Code.ALREADY_EXISTS, f"task {task.name}, version {task.version}")
        return task_pb2.DeployTaskResponse()

    async def get_task_details(self, request: Any, ctx: Any) -> Any:
        found = self.plane.store.task(request.task_id)
        details = task_definition_pb2.TaskDetails(task_id=found.task_id, spec=found.spec)
        return task_pb2.GetTaskDetailsResponse(details=details)

    async def list_tasks(self, request: Any, ctx: Any) -> Any:
        return task_pb2.ListTasksResponse(
            tasks=[
                task_definition_pb2.Task(
                    task_id=one.task_id,
                    metadata=task_definition_pb2.TaskMetadata(
                        short_name=one.spec.short_name, environment_name=one.spec.environment.name
                    ),
                )
                for one in reversed(self.plane.store.tasks())
            ]
        )


class DataProxy(dataproxy_service_connect.DataProxyService):
    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def create_upload_location(self, request: Any, ctx: Any) -> Any:
        self.plane.check_project(request.project, request.domain)
        prefix = request.filename_root or request.content_md5.hex()
        name = f"{request.project}/{request.domain}/{prefix}/{request.filename}"
        bucket = self.plane.options.uploads
        if bucket:
            signed, native = _presigned(bucket, name), f"{bucket.rstrip('/')}/{name}"
        else:
            signature = self.plane.store.signature(name)
            signed = f"{self.plane.address}/upload/{quote(name)}?signature={signature}"
            native = f"file://{self.plane.store.directory}/uploads/{name}"
        return proxy_pb2.CreateUploadLocationResponse(signed_url=signed, native_url=native)

    async def upload_inputs(self, request: Any, ctx: Any) -> Any:
        if request.WhichOneof("task") == "task_id":
            self.plane.store.task(request.task_id)
        data = request.inputs.SerializeToString(deterministic=True)
        digest = hashlib.sha256(data).hexdigest()
        path = self.plane.store.directory / "inputs" / digest
        path.write_bytes(data)
        return proxy_pb2.UploadInputsResponse(
            offloaded_input_data=run_pb2.OffloadedInputData(
                uri=f"file://{path}", inputs_hash=digest
            )
        )

    async def tail_logs(self, request: Any, ctx: Any) -> Any:
        run = _read_run(self.plane, request.action_id.run.name)
        lines = run["outcome"].get("logs", [])
        if lines is None:  # as where the pod is gone
            raise ConnectError(Code.NOT_FOUND, "no log context found")
        found = [logs_pb2.LogLine(message=f"{line}\n") for line in lines]
        yield proxy_pb2.TailLogsResponse(logs=[proxy_pb2.TailLogsResponse.Logs(lines=found)])

    async def get_action_data(self, request: Any, ctx: Any) -> Any:
        run = _read_run(self.plane, request.action_id.run.name)
        inputs = common_pb2.Inputs.FromString(base64.b64decode(run["inputs"]))
        outputs = common_pb2.Outputs(
            literals=[
                common_pb2.NamedLiteral(name=name, value=_literal(value))
                for name, value in run["outcome"].get("outputs", {}).items()
            ]
        )
        return proxy_pb2.GetActionDataResponse(inputs=inputs, outputs=outputs)


class Runs(run_service_connect.RunService):
    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def create_run(self, request: Any, ctx: Any) -> Any:
        if request.WhichOneof("task") == "task_spec":
            # A task that goes along with the run: it is kept there, not among the tasks.
            task = task_pb2.DeployTaskRequest(spec=request.task_spec)
            for key in ("org", "project", "domain", "name", "version"):
                setattr(task.task_id, key, getattr(request.task_spec.task_template.id, key))
        else:
            task = self.plane.store.task(request.task_id)
        self.plane.check_project(task.task_id.project, task.task_id.domain)
        name = request.run_id.name or f"r{secrets.token_hex(9)}"
        uri = request.offloaded_input_data.uri
        inputs = Path(uri[len("file://") :]).read_bytes() if uri else b""
        record = {
            "name": name,
            **{key: getattr(task.task_id, key) for key in ("org", "project", "domain")},
            "task": task.task_id.name,
            "version": task.task_id.version,
            "command": list(task.spec.task_template.container.args),
            "image": task.spec.task_template.container.image,
            "inputs": base64.b64encode(inputs).decode(),
            "env": {one.key: one.value for one in request.run_spec.envs.values},
            "labels": dict(request.run_spec.labels.values),
            "by": request.WhichOneof("task"),
            "spec": base64.b64encode(task.spec.SerializeToString()).decode(),
            "outcome": self.plane.outcomes.get(task.task_id.name, {}),
        }
        (self.plane.store.directory / "runs" / name).write_text(json.dumps(record))
        action = run_def.Action(
            id=_action_id(record),
            status=run_def.ActionStatus(phase=phase_pb2.ACTION_PHASE_QUEUED),
        )
        return runs_pb2.CreateRunResponse(run=run_def.Run(action=action))

    async def watch_action_details(self, request: Any, ctx: Any) -> Any:
        run = _read_run(self.plane, request.action_id.run.name)
        phases = [phase_pb2.ACTION_PHASE_QUEUED, phase_pb2.ACTION_PHASE_RUNNING]
        for phase in phases:
            yield runs_pb2.WatchActionDetailsResponse(details=self._details(run, phase))
        while run["outcome"].get("hold"):
            await asyncio.sleep(0.1)
        yield runs_pb2.WatchActionDetailsResponse(details=self._details(run, None))

    async def get_action_details(self, request: Any, ctx: Any) -> Any:
        run = _read_run(self.plane, request.action_id.run.name)
        return runs_pb2.GetActionDetailsResponse(details=self._details(run, None))

    async def get_run_details(self, request: Any, ctx: Any) -> Any:
        run = _read_run(self.plane, request.run_id.name)
        return runs_pb2.GetRunDetailsResponse(
            details=run_def.RunDetails(action=self._details(run, None))
        )

    def _details(self, run: dict[str, Any], phase: int | None) -> Any:
        error = run["outcome"].get("error")
        if phase is None:
            phase = phase_pb2.ACTION_PHASE_FAILED if error else phase_pb2.ACTION_PHASE_SUCCEEDED
        details = run_def.ActionDetails(
            id=_action_id(run),
            status=run_def.ActionStatus(phase=phase, attempts=1),
            task=task_definition_pb2.TaskSpec.FromString(base64.b64decode(run["spec"])),
        )
        if error and phase == phase_pb2.ACTION_PHASE_FAILED:
            details.error_info.message = error
        return details


class Projects(project_service_connect.ProjectService):
    async def list_projects(self, request: Any, ctx: Any) -> Any:
        return project_service_pb2.ListProjectsResponse()


class AuthMetadata(auth_service_connect.AuthMetadataService):
    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        # A real one has a fixed port, which two tests at once would fight for.
        with socket.socket() as holder:
            holder.bind(("localhost", 0))
            self.callback = holder.getsockname()[1]

    async def get_o_auth2_metadata(self, request: Any, ctx: Any) -> Any:
        at = self.plane.address
        return auth_service_pb2.GetOAuth2MetadataResponse(
            issuer=at,
            token_endpoint=f"{at}/oauth2/token",
            authorization_endpoint=f"{at}/oauth2/authorize",
            device_authorization_endpoint=f"{at}/oauth2/device",
        )

    async def get_public_client_config(self, request: Any, ctx: Any) -> Any:
        return auth_service_pb2.GetPublicClientConfigResponse(
            client_id=CLIENT_ID,
            redirect_uri=f"http://localhost:{self.callback}/callback",
            scopes=["all"],
            authorization_metadata_key="authorization",
        )


class Identity(identity_connect.IdentityService):
    async def user_info(self, request: Any, ctx: Any) -> Any:
        return identity_pb2.UserInfoResponse(name=CLIENT_ID)


class Clusters(cluster_connect.ClusterService):
    async def select_cluster(self, request: Any, ctx: Any) -> Any:
        operations = cluster_pb2.SelectClusterRequest.Operation
        if operations.Name(request.operation) == "OPERATION_UPLOAD_TRIGGER":
            raise ConnectError(Code.UNIMPLEMENTED, "triggers keep their inputs")
        return cluster_pb2.SelectClusterResponse()


def _read_run(plane: Plane, name: str) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((plane.store.directory / "runs" / name).read_text())
    except FileNotFoundError:
        raise ConnectError(Code.NOT_FOUND, f"run {name} not found") from None
    return run


def _action_id(run: dict[str, Any]) -> Any:
    return identifier_pb2.ActionIdentifier(
        run=identifier_pb2.RunIdentifier(
            org=run["org"], project=run["project"], domain=run["domain"], name=run["name"]
        ),
        name="a0",
    )


def _literal(value: Any) -> Any:
    field = {bool: "boolean", int: "integer", float: "float_value", str: "string_value"}[
        type(value)
    ]
    primitive = literals_pb2.Primitive(**{field: value})
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive))


def _presigned(bucket: str, name: str) -> str:
    """A URL by which one file can be put into an S3 bucket, of the server and with the keys in
    AWS_*.
    """
    from datetime import timedelta

    import obstore
    from obstore.store import S3Store

    host, _, prefix = bucket[len("s3://") :].partition("/")
    store = S3Store(
        host,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        region=os.environ.get("AWS_REGION", "us-east-1"),
        client_options={"allow_http": True},
    )
    path = f"{prefix.rstrip('/')}/{name}".lstrip("/")
    return str(obstore.sign(store, "PUT", path, timedelta(minutes=10)))
