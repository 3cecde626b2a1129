"""Runs and data of `control_plane.py`: what is asked for is kept, and nothing runs.

As in `control_plane_services.py`, each answer says which file of the open-source backend gives it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from control_plane_services import Plane, task_id
from control_plane_store import run_spec_of
from flyteidl2.common import identifier_pb2, phase_pb2, run_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.dataproxy import dataproxy_service_connect
from flyteidl2.dataproxy import dataproxy_service_pb2 as proxy_pb2
from flyteidl2.logs.dataplane import payload_pb2 as logs_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.task import run_pb2 as task_run_pb2
from flyteidl2.trigger import trigger_definition_pb2 as trigger_pb2
from flyteidl2.workflow import run_definition_pb2 as run_def
from flyteidl2.workflow import run_service_connect
from flyteidl2.workflow import run_service_pb2 as runs_pb2
from google.protobuf.json_format import MessageToDict

# dataproxy/config/config.go
MOST_BYTES = 100 << 20
MOST_SECONDS = 3600
# runs/service/utils.go, validateRunName: a DNS-1035 label
_RUN_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,28}[a-z0-9])?")


def applications(plane: Plane) -> list[Any]:
    return [
        run_service_connect.RunServiceASGIApplication(Runs(plane)),
        dataproxy_service_connect.DataProxyServiceASGIApplication(DataProxy(plane)),
    ]


class DataProxy(dataproxy_service_connect.DataProxyService):
    """dataproxy/service/dataproxy_service.go"""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def create_upload_location(self, request: Any, ctx: Any) -> Any:
        _check_upload(request)
        self.plane.check_project(request.project)
        prefix = request.filename_root or base64.b32encode(request.content_md5).decode()
        parts = (request.project, request.domain, prefix, request.filename)
        name = "/".join(part for part in parts if part)
        bucket, directory = self.plane.options.uploads, self.plane.store.directory / "uploads"
        md5 = base64.b64encode(request.content_md5).decode()
        if bucket:
            signed, native = _presigned(bucket, name), f"{bucket.rstrip('/')}/{name}"
        else:
            if request.filename and request.filename_root and (directory / name).is_file():
                found = hashlib.md5((directory / name).read_bytes(), usedforsecurity=False)
                if not md5:
                    raise ConnectError(
                        Code.ALREADY_EXISTS,
                        f"file already exists at [{name}]; content_md5 is "
                        "required to verify safe overwrite",
                    )
                if found.digest() != request.content_md5:
                    raise ConnectError(
                        Code.ALREADY_EXISTS,
                        f"file already exists at [{name}] with different content (hash mismatch)",
                    )
            signature = self.plane.store.signature(f"{name}{md5}")
            signed = f"{self.plane.address}/upload/{quote(name)}?signature={signature}"
            native = f"file://{directory}/{name}"
        headers = {"Content-MD5": md5} if md5 else {}
        if md5 and request.add_content_md5_metadata and not bucket:
            headers["x-amz-meta-flyteContentMD5"] = md5
        return proxy_pb2.CreateUploadLocationResponse(
            signed_url=signed, native_url=native, headers=headers
        )

    async def upload_inputs(self, request: Any, ctx: Any) -> Any:
        """The URI is that of a directory, whose inputs.pb it is."""
        kind = request.WhichOneof("id")
        if kind is None:
            raise ConnectError(Code.INVALID_ARGUMENT, "id is required")
        of = getattr(request, kind)
        is_run = kind == "run_id"
        org, project = (of.org, of.project) if is_run else (of.organization, of.name)
        self.plane.check_project(project)
        template = self._template(request)
        ignored = set(template.metadata.cache_ignore_input_vars)
        kept = [one for one in request.inputs.literals if one.name not in ignored]
        filtered = common_pb2.Inputs(literals=kept)
        if not ignored:
            filtered = request.inputs
        digest = _fnv64(filtered.SerializeToString(deterministic=True))
        parts = (org, project, of.domain, "offloaded-inputs", digest)
        base = str(self.plane.store.directory / "inputs")
        if getattr(request, "base_dir", ""):
            base = request.base_dir.rstrip("/")
            base = base[len("file://") :] if base.startswith("file://") else base
        directory = Path(base, *filter(None, parts))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "inputs.pb").write_bytes(request.inputs.SerializeToString())
        return proxy_pb2.UploadInputsResponse(
            offloaded_input_data=run_pb2.OffloadedInputData(
                uri=f"file://{directory}", inputs_hash=digest
            )
        )

    def _template(self, request: Any) -> Any:
        kind, store = request.WhichOneof("task"), self.plane.store
        if kind is None:
            raise ConnectError(Code.INVALID_ARGUMENT, "task is required")
        if kind == "task_spec":
            return request.task_spec.task_template
        identifier = getattr(request, kind)
        if kind == "trigger_name":
            identifier = _task_of(store.trigger(identifier))
        spec = store.task(identifier)["spec"]
        return task_definition_pb2.TaskSpec.FromString(spec).task_template

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


def _check_upload(request: Any) -> None:
    """dataproxy/service/validation.go"""
    problem = None
    if not request.filename_root and not request.content_md5:
        problem = "either filename_root or content_md5 must be provided"
    elif request.HasField("expires_in") and request.expires_in.ToSeconds() > MOST_SECONDS:
        problem = "expires_in exceeds maximum allowed duration of 1h0m0s"
    elif request.content_length > MOST_BYTES:
        problem = (
            f"content_length ({request.content_length} bytes) exceeds maximum allowed size of "
            f"{MOST_BYTES} bytes"
        )
    if problem:
        raise ConnectError(Code.INVALID_ARGUMENT, problem)


class Runs(run_service_connect.RunService):
    """runs/service/run_service.go"""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def create_run(self, request: Any, ctx: Any) -> Any:
        kind, store = request.WhichOneof("id"), self.plane.store
        if kind is None:
            raise ConnectError(Code.INVALID_ARGUMENT, "invalid run ID type")
        if kind == "run_id":
            project, domain = request.run_id.project, request.run_id.domain
            name = request.run_id.name
            if not _RUN_NAME.fullmatch(name):
                raise ConnectError(Code.INVALID_ARGUMENT, f'invalid run name "{name}"')
        else:
            project, domain = request.project_id.name, request.project_id.domain
            name = f"r{secrets.token_hex(10)[:19]}"
        self.plane.check_project(project)
        kind, uri = request.WhichOneof("task"), request.offloaded_input_data.uri
        run_spec = request.run_spec if request.HasField("run_spec") else None
        if kind == "task_spec":
            spec, task = request.task_spec, request.task_spec.task_template.id
        else:
            identifier = request.task_id
            if kind == "trigger_name":
                row = store.trigger(request.trigger_name)
                identifier = _task_of(row)
                stored = trigger_pb2.TriggerSpec.FromString(row["spec"])
                uri = uri or stored.offloaded_input_data.uri
                run_spec = run_spec or run_spec_of(row)
            # What the repository says goes out as it is, without a code.
            row = store.task(identifier, missing=Code.UNKNOWN)
            task, spec = task_id(row), task_definition_pb2.TaskSpec.FromString(row["spec"])
        if uri:
            inputs = Path(uri[len("file://") :], "inputs.pb").read_bytes()
        else:
            inputs = _filled(request.inputs, spec).SerializeToString()
        record = {
            "name": name,
            "project": project,
            "domain": domain,
            "task": task.name,
            "version": task.version,
            "command": list(spec.task_template.container.args),
            "image": spec.task_template.container.image,
            "inputs": base64.b64encode(inputs).decode(),
            "spec": base64.b64encode(spec.SerializeToString()).decode(),
            "run_spec": MessageToDict(run_spec or task_run_pb2.RunSpec()),
            "env": {one.key: one.value for one in run_spec.envs.values} if run_spec else {},
            "labels": dict(run_spec.labels.values) if run_spec else {},
            "by": request.WhichOneof("task"),
            "outcome": self.plane.outcomes.get(task.name, {}),
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


def _task_of(trigger: Any) -> Any:
    return task_definition_pb2.TaskIdentifier(
        project=trigger["project"],
        domain=trigger["domain"],
        name=trigger["task_name"],
        version=trigger["task_version"],
    )


def _filled(inputs: Any, spec: Any) -> Any:
    given = {one.name for one in inputs.literals}
    for one in spec.default_inputs:
        if one.name not in given and one.parameter.HasField("default"):
            value = one.parameter.default
            inputs.literals.append(common_pb2.NamedLiteral(name=one.name, value=value))
    return inputs


def _fnv64(data: bytes) -> str:
    """FNV-1a of 64 bits, as the backend names offloaded inputs."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % (1 << 64)
    return base64.urlsafe_b64encode(found.to_bytes(8, "big")).decode().rstrip("=")


def _read_run(plane: Plane, name: str) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((plane.store.directory / "runs" / name).read_text())
    except FileNotFoundError:
        raise ConnectError(Code.NOT_FOUND, f"run {name} not found") from None
    return run


def _action_id(run: dict[str, Any]) -> Any:
    return identifier_pb2.ActionIdentifier(
        run=identifier_pb2.RunIdentifier(
            project=run["project"], domain=run["domain"], name=run["name"]
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
    AWS_*. Unlike the backend's, its signature leaves Content-MD5 open, and no header of the
    bucket's own may come along.
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
