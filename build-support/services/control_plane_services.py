"""The services of `control_plane.py`, on what Flyte generates for them: tasks, triggers, projects,
and who somebody is. Runs and data are in `control_plane_runs.py`.

They answer as the open-source backend does, flyteorg/flyte at commit 6fadb90d65, as far as our
tests go; each says which file of it does so. `--existing already_exists` is the other kind of
backend, which the SDK provides for.
"""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass, field
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from control_plane_store import (
    TASK_COLUMNS,
    TRIGGER_COLUMNS,
    VERSION_COLUMNS,
    Store,
    cut,
)
from flyteidl2.auth import auth_service_connect, auth_service_pb2, identity_connect, identity_pb2
from flyteidl2.cluster import payload_pb2 as cluster_pb2
from flyteidl2.cluster import service_connect as cluster_connect
from flyteidl2.common import identifier_pb2
from flyteidl2.project import project_service_connect, project_service_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_connect
from flyteidl2.task import task_service_pb2 as task_pb2
from flyteidl2.trigger import trigger_definition_pb2 as trigger_pb2
from flyteidl2.trigger import trigger_service_connect
from flyteidl2.trigger import trigger_service_pb2 as triggers_pb2
from google.protobuf.timestamp_pb2 import Timestamp

CLIENT_ID = "ci"
EXISTING = ("upsert", "already_exists")


@dataclass
class Plane:
    """What the services share. address: of the server. outcomes: how runs end, by task."""

    options: argparse.Namespace
    store: Store
    address: str = ""
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check_project(self, project: str) -> None:
        """runs/service/utils.go, validateProjectExists: domains are not looked at."""
        if not project:
            raise ConnectError(Code.INTERNAL, "failed to validate project: id is required")
        if project not in self.options.project:
            raise ConnectError(Code.NOT_FOUND, f'project "{project}" not found')


def applications(plane: Plane) -> list[Any]:
    """An ASGI application for each service, which has its `path`."""
    return [
        task_service_connect.TaskServiceASGIApplication(Tasks(plane)),
        trigger_service_connect.TriggerServiceASGIApplication(Triggers(plane)),
        project_service_connect.ProjectServiceASGIApplication(Projects(plane)),
        auth_service_connect.AuthMetadataServiceASGIApplication(AuthMetadata(plane)),
        identity_connect.IdentityServiceASGIApplication(Identity(plane)),
        cluster_connect.ClusterServiceASGIApplication(Clusters(plane)),
    ]


class Tasks(task_service_connect.TaskService):
    """runs/service/task_service.go; no rule of the protocol's `buf.validate` is checked there."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def deploy_task(self, request: Any, ctx: Any) -> Any:
        store, documentation = self.plane.store, request.spec.documentation
        self.plane.check_project(request.task_id.project)
        kept = task_pb2.DeployTaskRequest.FromString(request.SerializeToString())
        if kept.spec.HasField("environment"):
            kept.spec.environment.description = cut(kept.spec.environment.description, 255)
        if kept.spec.HasField("documentation"):
            short, long = documentation.short_description, documentation.long_description
            kept.spec.documentation.short_description = cut(short, 255)
            kept.spec.documentation.long_description = cut(long, 2048)
        for one in kept.triggers:
            check_schedule(one.name, one.automation_spec)
        if self.plane.options.existing == "already_exists" and store.find_task(request.task_id):
            # flyte/_deploy.py of the SDK takes this for "there already".
            task = request.task_id
            raise ConnectError(Code.ALREADY_EXISTS, f"task {task.name}, version {task.version}")
        store.put_task(kept)
        return task_pb2.DeployTaskResponse()

    async def get_task_details(self, request: Any, ctx: Any) -> Any:
        row = self.plane.store.task(request.task_id)
        details = task_definition_pb2.TaskDetails(
            task_id=task_id(row),
            metadata=_metadata(row),
            spec=task_definition_pb2.TaskSpec.FromString(row["spec"]),
        )
        return task_pb2.GetTaskDetailsResponse(details=details)

    async def list_tasks(self, request: Any, ctx: Any) -> Any:
        """The version of each task that was registered first most lately."""
        scope = []
        if request.WhichOneof("scope_by") == "project_id":
            of = request.project_id
            scope = [("project", of.name), ("domain", of.domain)]
        # Whether it is an entry point is not looked at.
        scope += [
            ("deployed_by", one.deployed_by)
            for one in request.known_filters
            if one.WhichOneof("filter_by") == "deployed_by"
        ]
        latest = (
            "(SELECT * FROM tasks AS t WHERE created_at = (SELECT MAX(created_at) FROM tasks "
            "WHERE project = t.project AND domain = t.domain AND name = t.name))"
        )
        rows, token = self.plane.store.listed(
            latest, request.request, TASK_COLUMNS, scope, "created_at DESC"
        )
        return task_pb2.ListTasksResponse(
            tasks=[
                task_definition_pb2.Task(
                    task_id=task_id(row),
                    metadata=_metadata(row),
                    task_summary=task_definition_pb2.TaskSummary(),
                )
                for row in rows
            ],
            token=token,
        )

    async def list_versions(self, request: Any, ctx: Any) -> Any:
        of = request.task_name
        scope = [("project", of.project), ("domain", of.domain), ("name", of.name)]
        rows, token = self.plane.store.listed(
            "tasks", request.request, VERSION_COLUMNS, scope, "created_at DESC"
        )
        return task_pb2.ListVersionsResponse(
            versions=[
                task_pb2.ListVersionsResponse.VersionResponse(
                    version=row["version"], deployed_at=stamp(row["created_at"])
                )
                for row in rows
            ],
            token=token,
        )


def task_id(row: Any) -> Any:
    """runs/repository/transformers/task.go: an organization is not kept."""
    return task_definition_pb2.TaskIdentifier(
        **{key: row[key] for key in ("project", "domain", "name", "version")}
    )


def _metadata(row: Any) -> Any:
    metadata = task_definition_pb2.TaskMetadata(
        short_name=row["function_name"],
        environment_name=row["environment"],
        deployed_at=stamp(row["created_at"]),
        short_description=row["short_description"],
    )
    if row["total_triggers"] == 1:
        metadata.triggers_summary.details.name = row["trigger_name"]
        metadata.triggers_summary.details.active = row["active_triggers"] > 0
    elif row["total_triggers"]:
        metadata.triggers_summary.stats.total = row["total_triggers"]
        metadata.triggers_summary.stats.active = row["active_triggers"]
    return metadata


class Triggers(trigger_service_connect.TriggerService):
    """runs/service/trigger_service.go"""

    def __init__(self, plane: Plane) -> None:
        self.store = plane.store

    async def deploy_trigger(self, request: Any, ctx: Any) -> Any:
        check_schedule(request.name.name, request.automation_spec)
        row = self.store.put_trigger(
            _key(request.name), request.spec, request.automation_spec, request.revision
        )
        return triggers_pb2.DeployTriggerResponse(trigger=_details(row))

    async def get_trigger_details(self, request: Any, ctx: Any) -> Any:
        details = _details(self.store.trigger(request.name))
        return triggers_pb2.GetTriggerDetailsResponse(trigger=details)

    async def get_trigger_revision_details(self, request: Any, ctx: Any) -> Any:
        key = (*_key(request.id.name), request.id.revision)
        row = self.store.sql.execute(
            "SELECT * FROM trigger_revisions WHERE project = ? AND domain = ? AND task_name = ? "
            "AND name = ? AND revision = ?",
            key,
        ).fetchone()
        if row is None:
            raise ConnectError(Code.NOT_FOUND, f"trigger revision not found: {key}")
        return triggers_pb2.GetTriggerRevisionDetailsResponse(trigger=_details(row))

    async def list_triggers(self, request: Any, ctx: Any) -> Any:
        kind, scope = request.WhichOneof("scope_by"), []
        if kind == "project_id":
            of = request.project_id
            scope = [("project", of.name), ("domain", of.domain)]
        elif kind in ("task_id", "task_name"):
            of = getattr(request, kind)
            scope = [("project", of.project), ("domain", of.domain), ("task_name", of.name)]
            if kind == "task_id":
                scope.append(("task_version", of.version))
        rows, token = self.store.listed(
            "(SELECT * FROM triggers WHERE deleted_at IS NULL)",
            *(request.request, TRIGGER_COLUMNS, scope, "active DESC, updated_at DESC"),
        )
        found = [
            trigger_pb2.Trigger(
                id=_trigger_id(row, row["latest_revision"]),
                status=_status(row),
                active=bool(row["active"]),
                automation_spec=_automation(row),
            )
            for row in rows
        ]
        return triggers_pb2.ListTriggersResponse(triggers=found, token=token)

    async def get_trigger_revision_history(self, request: Any, ctx: Any) -> Any:
        of = request.name
        scope = [("project", of.project), ("domain", of.domain)]
        scope += [("task_name", of.task_name), ("name", of.name)]
        rows, token = self.store.listed(
            "trigger_revisions", request.request, TRIGGER_COLUMNS, scope, "revision DESC"
        )
        found = [
            trigger_pb2.TriggerRevision(
                id=_trigger_id(row, row["revision"]), status=_status(row), action=row["action"]
            )
            for row in rows
        ]
        return triggers_pb2.GetTriggerRevisionHistoryResponse(triggers=found, token=token)

    async def update_triggers(self, request: Any, ctx: Any) -> Any:
        self.store.activate(request.names, request.active)
        return triggers_pb2.UpdateTriggersResponse()

    async def delete_triggers(self, request: Any, ctx: Any) -> Any:
        self.store.delete(request.names)
        return triggers_pb2.DeleteTriggersResponse()


def check_schedule(name: str, automation: Any) -> None:
    """runs/schedule/cron.go reads five fields, or a word like @daily; here they are counted."""
    schedule = automation.schedule
    kind = schedule.WhichOneof("expression")
    if kind in ("cron", "cron_expression"):
        text = schedule.cron.expression if kind == "cron" else schedule.cron_expression
        if len(text.split()) != 5 and not text.startswith("@"):
            raise ConnectError(
                Code.INVALID_ARGUMENT,
                f'trigger "{name}" has invalid cron expression: "{text}"',
            )


def _key(name: Any) -> tuple[str, str, str, str]:
    return name.project, name.domain, name.task_name, name.name


def _trigger_id(row: Any, revision: int) -> Any:
    keys = ("project", "domain", "task_name", "name")
    name = identifier_pb2.TriggerName(**{key: row[key] for key in keys})
    return identifier_pb2.TriggerIdentifier(name=name, revision=revision)


def _details(row: Any) -> Any:
    """runs/repository/transformers/trigger.go"""
    spec = trigger_pb2.TriggerSpec.FromString(row["spec"])
    spec.active, spec.task_version = bool(row["active"]), row["task_version"]
    revision = row["revision"] if "revision" in row.keys() else row["latest_revision"]  # noqa: SIM118
    return trigger_pb2.TriggerDetails(
        id=_trigger_id(row, revision),
        spec=spec,
        status=_status(row),
        automation_spec=_automation(row),
    )


def _status(row: Any) -> Any:
    names = ("deployed_at", "updated_at", "triggered_at", "deleted_at")
    return trigger_pb2.TriggerStatus(**{n: stamp(row[n]) for n in names if row[n] is not None})


def _automation(row: Any) -> Any:
    return common_pb2.TriggerAutomationSpec.FromString(row["automation_spec"])


def stamp(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(int(seconds * 1e6) * 1000)
    return found


class Projects(project_service_connect.ProjectService):
    """runs/service/project_service.go: each project has the domains of the configuration."""

    def __init__(self, plane: Plane) -> None:
        self.options = plane.options

    async def get_project(self, request: Any, ctx: Any) -> Any:
        if not request.id:
            raise ConnectError(Code.INVALID_ARGUMENT, "id is required")
        if request.id not in self.options.project:
            raise ConnectError(Code.NOT_FOUND, "project not found")
        return project_service_pb2.GetProjectResponse(project=self._project(request.id))

    async def list_projects(self, request: Any, ctx: Any) -> Any:
        offset = int(request.token or 0)
        found = sorted(self.options.project)[offset:]
        if request.limit:
            found = found[: request.limit]
        more = request.limit and len(found) == request.limit
        projects = project_service_pb2.Projects(
            projects=map(self._project, found), token=str(offset + request.limit) if more else ""
        )
        return project_service_pb2.ListProjectsResponse(projects=projects)

    def _project(self, name: str) -> Any:
        domains = [project_service_pb2.Domain(id=one, name=one) for one in self.options.domain]
        return project_service_pb2.Project(id=name, name=name, domains=domains)


class AuthMetadata(auth_service_connect.AuthMetadataService):
    """runs/service/auth_metadata_service.go: without an identity provider, there is none."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        # A real one has a fixed port, which two tests at once would fight for.
        with socket.socket() as holder:
            holder.bind(("localhost", 0))
            self.callback = holder.getsockname()[1]

    async def get_o_auth2_metadata(self, request: Any, ctx: Any) -> Any:
        if self.plane.options.auth == "none":
            raise ConnectError(Code.UNIMPLEMENTED, "oauth2 metadata is not configured")
        at = self.plane.address
        return auth_service_pb2.GetOAuth2MetadataResponse(
            issuer=at,
            token_endpoint=f"{at}/oauth2/token",
            authorization_endpoint=f"{at}/oauth2/authorize",
            device_authorization_endpoint=f"{at}/oauth2/device",
        )

    async def get_public_client_config(self, request: Any, ctx: Any) -> Any:
        if self.plane.options.auth == "none":
            return auth_service_pb2.GetPublicClientConfigResponse(
                authorization_metadata_key="authorization", dataplane_domain="localhost"
            )
        return auth_service_pb2.GetPublicClientConfigResponse(
            client_id=CLIENT_ID,
            redirect_uri=f"http://localhost:{self.callback}/callback",
            scopes=["all"],
            authorization_metadata_key="authorization",
            dataplane_domain="localhost",
        )


class Identity(identity_connect.IdentityService):
    """runs/service/identity_service.go"""

    def __init__(self, plane: Plane) -> None:
        self.options = plane.options

    async def user_info(self, request: Any, ctx: Any) -> Any:
        if self.options.auth == "none":
            raise ConnectError(Code.UNAUTHENTICATED, "no authenticated identity on request")
        return identity_pb2.UserInfoResponse(name=CLIENT_ID)


class Clusters(cluster_connect.ClusterService):
    """dataproxy/service/cluster_service.go: where it was asked, whatever for.

    The scheme comes from a proxy's X-Forwarded-Proto; with --tls, this server is its own.
    """

    def __init__(self, plane: Plane) -> None:
        self.options = plane.options

    async def select_cluster(self, request: Any, ctx: Any) -> Any:
        headers = ctx.request_headers()
        host = headers.get("host", "")
        usual = "https" if self.options.tls else "http"
        scheme = headers.get("x-forwarded-proto", usual).partition(",")[0].strip().lower()
        return cluster_pb2.SelectClusterResponse(
            cluster_endpoint=f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"
        )
