"""What the control plane of `control_plane.py` keeps, as the tables of Flyte's open-source backend
keep it.

Paths in these docstrings are of flyteorg/flyte at commit 6fadb90d65, which the answers are those
of, as far as our tests go.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import control_plane_apps
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.common import list_pb2
from flyteidl2.task import common_pb2, run_pb2
from flyteidl2.task import task_service_pb2 as task_pb2
from flyteidl2.trigger import trigger_definition_pb2 as trigger_pb2
from google.protobuf.json_format import MessageToDict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    project TEXT, domain TEXT, name TEXT, version TEXT, environment TEXT, function_name TEXT,
    deployed_by TEXT, env_description TEXT, short_description TEXT, spec BLOB, request BLOB,
    created_at REAL, updated_at REAL, trigger_name TEXT, total_triggers INTEGER DEFAULT 0,
    active_triggers INTEGER DEFAULT 0, PRIMARY KEY (project, domain, name, version)
);
CREATE TABLE IF NOT EXISTS triggers (
    project TEXT, domain TEXT, task_name TEXT, name TEXT, latest_revision INTEGER, spec BLOB,
    automation_spec BLOB, task_version TEXT, active INTEGER, description TEXT, deployed_at REAL,
    updated_at REAL, triggered_at REAL, deleted_at REAL,
    PRIMARY KEY (project, domain, task_name, name)
);
CREATE TABLE IF NOT EXISTS trigger_revisions (
    project TEXT, domain TEXT, task_name TEXT, name TEXT, revision INTEGER, spec BLOB,
    automation_spec BLOB, task_version TEXT, active INTEGER, deployed_at REAL, updated_at REAL,
    triggered_at REAL, deleted_at REAL, action INTEGER
);
"""
# runs/repository/models/task.go and trigger.go: what a list may be filtered and sorted by.
TASK_COLUMNS = (
    *("project", "domain", "name", "version", "environment", "function_name", "deployed_by"),
    *("created_at", "updated_at", "trigger_name", "total_triggers", "active_triggers"),
    *("env_description", "short_description"),
)
VERSION_COLUMNS = ("version", "created_at")
TRIGGER_COLUMNS = (
    *("project", "domain", "task_name", "name", "task_version", "active", "description"),
    *("deployed_at", "updated_at", "triggered_at"),
)
# runs/repository/impl/requests.go
_DEFAULT_LIMIT, _MAX_LIMIT = 50, 200
_KEY = "project = ? AND domain = ? AND task_name = ? AND name = ?"
DEPLOY, ACTIVATE, DEACTIVATE, DELETE = 1, 2, 3, 4  # TriggerRevisionAction


class Store:
    """What is kept, in one file of SQLite and some beside it: it survives a restart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        for name in ("runs", "inputs"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._counts = self.directory / "requests.jsonl"
        self._counts.touch()
        self.sql = sqlite3.connect(self.directory / "tables.sqlite", isolation_level=None)
        self.sql.row_factory = sqlite3.Row
        self.sql.execute("PRAGMA synchronous = OFF")
        self.sql.executescript(_SCHEMA)
        self._last = 0.0

    def now(self) -> float:
        """The time, later than it ever was before."""
        self._last = max(time.time(), self._last + 1e-5)
        return self._last

    def count(self, method: str) -> None:
        with self._counts.open("a") as file:
            file.write(json.dumps({"method": method, "at": time.time()}) + "\n")

    def signature(self, name: str) -> str:
        return hashlib.sha256(f"planted-signature {name}".encode()).hexdigest()

    # --- tasks: runs/repository/impl/task.go -----------------------------------------------------

    def put_task(self, request: Any) -> None:
        """Insert it or put it in the place of the old one, whose `created_at` stays.

        Triggers that it does not have are deleted, but only if it has some.
        """
        task, spec, now = request.task_id, request.spec, self.now()
        environment = spec.environment.name
        function = task.name
        if environment and function.startswith(f"{environment}."):
            function = function[len(environment) + 1 :]
        else:
            function = function.rpartition(".")[2]
        with self.sql:
            self.sql.execute("BEGIN IMMEDIATE")
            self.sql.execute(
                "INSERT INTO tasks (project, domain, name, version, environment, function_name, "
                "deployed_by, spec, request, env_description, short_description, created_at, "
                "updated_at) VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (project, domain, name, version) DO UPDATE SET "
                "environment = EXCLUDED.environment, function_name = EXCLUDED.function_name, "
                "spec = EXCLUDED.spec, request = EXCLUDED.request, "
                "env_description = EXCLUDED.env_description, "
                "short_description = EXCLUDED.short_description, updated_at = EXCLUDED.updated_at",
                (
                    *(task.project, task.domain, task.name, task.version, environment, function),
                    *(spec.SerializeToString(deterministic=True), request.SerializeToString()),
                    spec.environment.description or None,
                    spec.documentation.short_description or None,
                    *(now, now),
                ),
            )
            if not request.triggers:
                return
            of_task = (task.project, task.domain, task.name)
            wanted = {one.name for one in request.triggers}
            for (name,) in self.sql.execute(
                "SELECT name FROM triggers WHERE project = ? AND domain = ? AND task_name = ? "
                "AND deleted_at IS NULL",
                of_task,
            ).fetchall():
                if name not in wanted:
                    self._delete((*of_task, name))
            for one in request.triggers:
                spec = trigger_pb2.TriggerSpec(
                    active=one.spec.active,
                    task_version=task.version,
                    description=cut(one.spec.description, 255),
                    run_spec=one.spec.run_spec,
                )
                inputs = one.spec.WhichOneof("input_wrapper")
                if inputs is not None:
                    getattr(spec, inputs).CopyFrom(getattr(one.spec, inputs))
                self._put_trigger((*of_task, one.name), spec, one.automation_spec, 0)

    def find_task(self, task: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.sql.execute(
            "SELECT * FROM tasks WHERE project = ? AND domain = ? AND name = ? AND version = ?",
            (task.project, task.domain, task.name, task.version),
        ).fetchone()
        return row

    def task(self, task: Any, missing: Code = Code.NOT_FOUND) -> sqlite3.Row:
        row = self.find_task(task)
        if row is None:
            key = (task.project, task.domain, task.name, task.version)
            raise ConnectError(missing, f"task not found: {{{' '.join(key)}}}")
        return row

    # --- triggers: runs/repository/impl/trigger.go -----------------------------------------------

    def put_trigger(
        self, key: Sequence[str], spec: Any, automation: Any, revision: int
    ) -> sqlite3.Row:
        with self.sql:
            self.sql.execute("BEGIN IMMEDIATE")
            return self._put_trigger(key, spec, automation, revision)

    def _put_trigger(
        self, key: Sequence[str], spec: Any, automation: Any, revision: int
    ) -> sqlite3.Row:
        """revision: the one that is to be replaced, 0 for whichever there is."""
        # runs/repository/transformers/trigger.go: whatever has no schedule is of type NONE.
        scheduled = automation.HasField("schedule")
        types = common_pb2.TriggerAutomationSpecType
        automation.type = types.TYPE_SCHEDULE if scheduled else types.TYPE_NONE
        now = self.now()
        old = self.sql.execute(f"SELECT * FROM triggers WHERE {_KEY}", key).fetchone()
        if old is not None and revision and old["latest_revision"] != revision:
            raise ConnectError(
                Code.INTERNAL,
                "optimistic lock failure: trigger was modified concurrently, please fetch latest "
                "and retry",
            )
        updated = old["updated_at"] if old and bool(old["active"]) == spec.active else now
        self.sql.execute(
            "INSERT OR REPLACE INTO triggers (project, domain, task_name, name, latest_revision, "
            "spec, automation_spec, task_version, active, description, deployed_at, updated_at, "
            "triggered_at, deleted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                *key,
                1 + (old["latest_revision"] if old else 0),
                *(spec.SerializeToString(), automation.SerializeToString(), spec.task_version),
                *(int(spec.active), spec.description or None, now, updated),
                old["triggered_at"] if old else None,
            ),
        )
        return self._revised(key, DEPLOY)

    def trigger(self, name: Any) -> sqlite3.Row:
        """One that is not deleted; without a task's name, the first of that name."""
        key, where = [name.project, name.domain, name.task_name, name.name], _KEY
        if not name.task_name:
            del key[2]
            where = where.replace(" AND task_name = ?", "")
        row: sqlite3.Row | None = self.sql.execute(
            f"SELECT * FROM triggers WHERE {where} AND deleted_at IS NULL", key
        ).fetchone()
        if row is None:
            raise ConnectError(Code.NOT_FOUND, f"trigger not found: {'/'.join(key)}")
        return row

    def activate(self, names: Sequence[Any], active: bool) -> None:
        """Names of none, and those that are so already, are passed over."""
        for name in names:
            key = (name.project, name.domain, name.task_name, name.name)
            with self.sql:
                done = self.sql.execute(
                    "UPDATE triggers SET active = ?, updated_at = ?, "
                    f"latest_revision = latest_revision + 1 WHERE {_KEY} AND deleted_at IS NULL "
                    "AND active != ?",
                    (int(active), self.now(), *key, int(active)),
                )
                if done.rowcount:
                    self._revised(key, ACTIVATE if active else DEACTIVATE)

    def delete(self, names: Sequence[Any]) -> None:
        for name in names:
            with self.sql:
                self._delete((name.project, name.domain, name.task_name, name.name))

    def _delete(self, key: Sequence[str]) -> None:
        done = self.sql.execute(
            "UPDATE triggers SET deleted_at = ?, active = 0, latest_revision = latest_revision + 1 "
            f"WHERE {_KEY} AND deleted_at IS NULL",
            (self.now(), *key),
        )
        if done.rowcount:
            self._revised(key, DELETE)

    def _revised(self, key: Sequence[str], action: int) -> sqlite3.Row:
        """Keep what it is now as a revision, and count it with its task; the trigger."""
        self.sql.execute(
            "INSERT INTO trigger_revisions SELECT project, domain, task_name, name, "
            "latest_revision, spec, automation_spec, task_version, active, deployed_at, "
            f"updated_at, triggered_at, deleted_at, ? FROM triggers WHERE {_KEY}",
            (action, *key),
        )
        row: sqlite3.Row = self.sql.execute(f"SELECT * FROM triggers WHERE {_KEY}", key).fetchone()
        found = self.sql.execute(
            "SELECT name, active FROM triggers WHERE project = ? AND domain = ? AND task_name = ? "
            "AND task_version = ? AND deleted_at IS NULL",
            (*key[:3], row["task_version"]),
        ).fetchall()
        self.sql.execute(
            "UPDATE tasks SET trigger_name = ?, total_triggers = ?, active_triggers = ? "
            "WHERE project = ? AND domain = ? AND name = ? AND version = ?",
            (
                found[0]["name"] if len(found) == 1 else None,
                len(found),
                sum(one["active"] for one in found),
                *(*key[:3], row["task_version"]),
            ),
        )
        return row

    # --- lists: runs/repository/impl/requests.go, filters.go, sorting.go -------------------------

    def listed(
        self,
        table: str,
        request: Any,
        columns: Sequence[str],
        scope: Sequence[tuple[str, str]],
        order: str,
    ) -> tuple[list[sqlite3.Row], str]:
        """A page of rows, and the token of the next one. scope: columns with their values."""
        limit = request.limit or _DEFAULT_LIMIT
        if not 0 <= limit <= _MAX_LIMIT:
            raise ConnectError(Code.INVALID_ARGUMENT, f"invalid limit: {limit}")
        if request.token and not request.token.isdigit():
            raise ConnectError(Code.INVALID_ARGUMENT, f'invalid token: "{request.token}"')
        offset = int(request.token or 0)
        where = [f"{column} = ?" for column, _ in scope]
        values: list[Any] = [value for _, value in scope]
        for one in request.filters:
            if one.field not in columns:
                raise ConnectError(Code.INVALID_ARGUMENT, f"invalid filter field: {one.field}")
            condition, bound = _condition(one)
            where.append(condition)
            values += bound
        by = list(request.sort_by_fields) or [one for one in (request.sort_by,) if one.key]
        if unknown := [one.key for one in by if one.key not in columns]:
            raise ConnectError(Code.INVALID_ARGUMENT, f"invalid sort field: {unknown[0]}")
        up = list_pb2.Sort.ASCENDING
        order = ", ".join(f"{o.key} {'ASC' if o.direction == up else 'DESC'}" for o in by) or order
        rows = self.sql.execute(
            f"SELECT * FROM {table} WHERE {' AND '.join(where) or '1'} ORDER BY {order} "
            "LIMIT ? OFFSET ?",
            (*values, limit, offset),
        ).fetchall()
        return rows, str(offset + limit) if rows and len(rows) == limit else ""

    # --- for tests -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for line in self._counts.read_text().splitlines():
            method = json.loads(line)["method"]
            counts[method] = counts.get(method, 0) + 1
        tasks = self.sql.execute("SELECT * FROM tasks ORDER BY updated_at").fetchall()
        triggers = self.sql.execute("SELECT * FROM triggers ORDER BY task_name, name").fetchall()
        return {
            "tasks": [_state_of_task(row) for row in tasks],
            "triggers": [_state_of_trigger(row) for row in triggers],
            "runs": [
                json.loads(file.read_text()) for file in sorted((self.directory / "runs").iterdir())
            ],
            "apps": control_plane_apps.state(self.directory),
            "requests": counts,
        }


def _state_of_task(row: sqlite3.Row) -> dict[str, Any]:
    request = task_pb2.DeployTaskRequest.FromString(row["request"])
    container = request.spec.task_template.container
    return {
        **{key: row[key] for key in ("project", "domain", "name", "version")},
        "created_at": row["created_at"],
        "image": container.image,
        "command": list(container.args),
        "env": {e.key: e.value for e in container.env},
        "triggers": [trigger.name for trigger in request.triggers],
        # As it was last asked for, before the backend cut or dropped something.
        "request": MessageToDict(request),
    }


def _state_of_trigger(row: sqlite3.Row) -> dict[str, Any]:
    spec = trigger_pb2.TriggerSpec.FromString(row["spec"])
    names = ("project", "domain", "task_name", "name", "task_version", "latest_revision")
    return {
        **{key: row[key] for key in names},
        "active": bool(row["active"]),
        "deleted": row["deleted_at"] is not None,
        "spec": MessageToDict(spec),
        "automation": MessageToDict(
            common_pb2.TriggerAutomationSpec.FromString(row["automation_spec"])
        ),
    }


_OPERATORS = {
    "EQUAL": "=",
    "NOT_EQUAL": "!=",
    "GREATER_THAN": ">",
    "GREATER_THAN_OR_EQUAL": ">=",
    "LESS_THAN": "<",
    "LESS_THAN_OR_EQUAL": "<=",
}
_PATTERNS = {
    "CONTAINS": ("{0} LIKE ?", "%{0}%"),
    "ENDS_WITH": ("{0} LIKE ?", "%{0}"),
    "NOT_ENDS_WITH": ("{0} NOT LIKE ?", "%{0}"),
    "CONTAINS_CASE_INSENSITIVE": ("LOWER({0}) LIKE LOWER(?)", "%{0}%"),
}


def _condition(one: Any) -> tuple[str, list[str]]:
    name, values = list_pb2.Filter.Function.Name(one.function), list(one.values)
    if not values:
        raise ConnectError(Code.INVALID_ARGUMENT, f"filter {one.field} has no values")
    if name == "VALUE_IN":
        return f"{one.field} IN ({', '.join('?' * len(values))})", values
    if name in _OPERATORS:
        return f"{one.field} {_OPERATORS[name]} ?", values[:1]
    if name in _PATTERNS:
        condition, pattern = _PATTERNS[name]
        return condition.format(one.field), [pattern.format(values[0])]
    raise ConnectError(Code.INVALID_ARGUMENT, f"unsupported filter function: {name}")


def cut(text: str, most: int) -> str:
    """As runs/service/utils.go cuts descriptions: at a byte, which may be within a character.

    What is left of that cannot be stored, so the backend fails then (`invalid UTF-8`).
    """
    try:
        return text.encode()[:most].decode()
    except UnicodeDecodeError:
        raise ConnectError(Code.INTERNAL, "string field contains invalid UTF-8") from None


def run_spec_of(row: sqlite3.Row) -> run_pb2.RunSpec:
    """What the runs of a trigger have besides the task's own."""
    return trigger_pb2.TriggerSpec.FromString(row["spec"]).run_spec
