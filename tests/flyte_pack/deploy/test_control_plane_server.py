"""The control plane that tests register with answers as Flyte's open-source backend does, line by
line of what was measured of that (flyteorg/flyte at the commit that its services name).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import urllib.error
import urllib.request
from base64 import b32encode, b64encode
from textwrap import dedent

import pytest

from tests.support.control_plane import control_plane
from tests.support.flyte_versions import python_with_flyte

PROGRAM = """
import asyncio, json, sys
from google.protobuf.json_format import MessageToDict, ParseDict
from connectrpc.errors import ConnectError
from flyteidl2.auth import auth_service_connect, auth_service_pb2, identity_connect, identity_pb2
from flyteidl2.cluster import payload_pb2, service_connect
from flyteidl2.dataproxy import dataproxy_service_connect, dataproxy_service_pb2
from flyteidl2.project import project_service_connect, project_service_pb2
from flyteidl2.task import task_service_connect, task_service_pb2
from flyteidl2.trigger import trigger_service_connect, trigger_service_pb2
from flyteidl2.workflow import run_service_connect, run_service_pb2

async def main():
    for line in sys.stdin:
        asked = json.loads(line)
        client_of, messages, method = {
            "DeployTask": (task_service_connect.TaskServiceClient, task_service_pb2, "deploy_task"),
            "GetTaskDetails":
                (task_service_connect.TaskServiceClient, task_service_pb2, "get_task_details"),
            "ListTasks": (task_service_connect.TaskServiceClient, task_service_pb2, "list_tasks"),
            "ListVersions":
                (task_service_connect.TaskServiceClient, task_service_pb2, "list_versions"),
            "ListTriggers":
                (trigger_service_connect.TriggerServiceClient, trigger_service_pb2, "list_triggers"),
            "GetTriggerDetails":
                (trigger_service_connect.TriggerServiceClient, trigger_service_pb2,
                 "get_trigger_details"),
            "UpdateTriggers":
                (trigger_service_connect.TriggerServiceClient, trigger_service_pb2,
                 "update_triggers"),
            "GetProject":
                (project_service_connect.ProjectServiceClient, project_service_pb2, "get_project"),
            "ListProjects":
                (project_service_connect.ProjectServiceClient, project_service_pb2,
                 "list_projects"),
            "CreateRun": (run_service_connect.RunServiceClient, run_service_pb2, "create_run"),
            "CreateUploadLocation":
                (dataproxy_service_connect.DataProxyServiceClient, dataproxy_service_pb2,
                 "create_upload_location"),
            "UploadInputs":
                (dataproxy_service_connect.DataProxyServiceClient, dataproxy_service_pb2,
                 "upload_inputs"),
            "SelectCluster":
                (service_connect.ClusterServiceClient, payload_pb2, "select_cluster"),
            "UserInfo": (identity_connect.IdentityServiceClient, identity_pb2, "user_info"),
            "GetOAuth2Metadata":
                (auth_service_connect.AuthMetadataServiceClient, auth_service_pb2,
                 "get_o_auth2_metadata"),
            "GetPublicClientConfig":
                (auth_service_connect.AuthMetadataServiceClient, auth_service_pb2,
                 "get_public_client_config"),
        }[asked["method"]]
        request = ParseDict(asked["request"], getattr(messages, asked["method"] + "Request")())
        try:
            answer = MessageToDict(await getattr(client_of(sys.argv[1]), method)(request))
        except ConnectError as error:
            answer = {"code": error.code.name}
        print(json.dumps(answer), flush=True)

asyncio.run(main())
"""
NO_CRON = {"schedule": {"cron": {"expression": "not a cron"}}}
PLACE = {"project": "bikes", "domain": "development"}


class Asked:
    """Answers of a control plane, as the JSON of its messages; {"code": ...} for an error."""

    def __init__(self, plane):
        self.plane = plane
        self.process = subprocess.Popen(
            [str(python_with_flyte()), "-c", dedent(PROGRAM), f"http://{plane.endpoint}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, method, **request):
        self.process.stdin.write(json.dumps({"method": method, "request": request}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def deploy(self, name="a.task", version="v1", image="i", **more):
        task = {**PLACE, "name": name, "version": version, **more.pop("where", {})}
        spec = {"task_template": {"container": {"image": image}}, **more.pop("spec", {})}
        return self("DeployTask", task_id=task, spec=spec, **more)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        asked = Asked(plane)
        yield asked
        asked.process.stdin.close()
        asked.process.wait()


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"where": {"domain": "moon"}},
        {"name": ""},
        {"version": ""},
        {"image": ""},
        {"name": "n" * 300},
        {"version": "v" * 300},
    ],
    ids=str,
)
def test_what_it_takes(ask, task):
    assert ask.deploy(**task) == {}


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"where": {"project": "nowhere"}}, "NOT_FOUND"),
        ({"where": {"project": ""}}, "INTERNAL"),
        ({"triggers": [{"name": "t", "automation_spec": NO_CRON}]}, "INVALID_ARGUMENT"),
        ({"spec": {"documentation": {"short_description": "x" * 254 + "ä"}}}, "INTERNAL"),
    ],
    ids=str,
)
def test_what_it_refuses(ask, task, code):
    assert ask.deploy(**task) == {"code": code}
    assert ask("DeployTask") == {"code": "INTERNAL"}


def test_a_version_that_is_registered_again_is_overwritten_and_is_no_newer(ask):
    for version, image in (("v1", "one"), ("v2", "two"), ("v1", "three")):
        assert ask.deploy("b.task", version, image, where={"org": "acme"}) == {}
    task = {**PLACE, "name": "b.task", "version": "v1", "org": "acme"}
    details = ask("GetTaskDetails", task_id=task)["details"]
    assert details["spec"]["taskTemplate"]["container"]["image"] == "three"
    assert "org" not in details["taskId"]
    assert details["metadata"]["deployedAt"]
    of = {**PLACE, "name": "b.task"}
    listed = ask("ListVersions", task_name=of)["versions"]
    assert [one["version"] for one in listed] == ["v2", "v1"]
    page = ask("ListVersions", task_name=of, request={"limit": 1})
    assert [one["version"] for one in page["versions"]] == ["v2"]
    page = ask("ListVersions", task_name=of, request={"limit": 1, "token": page["token"]})
    assert [one["version"] for one in page["versions"]] == ["v1"]
    wanted = {"field": "name", "function": "EQUAL", "values": ["b.task"]}
    place = {"name": "bikes", "domain": "development"}
    tasks = ask("ListTasks", project_id=place, request={"filters": [wanted]})["tasks"]
    assert [one["taskId"]["version"] for one in tasks] == ["v2"]
    assert ask("ListTasks", request={"limit": 201}) == {"code": "INVALID_ARGUMENT"}
    task["version"] = "v3"
    assert ask("GetTaskDetails", task_id=task) == {"code": "NOT_FOUND"}


def test_triggers_have_revisions_and_are_pruned_only_where_one_is_left(ask):
    def cron(name):
        schedule = {"cron": {"expression": "0 * * * *"}}
        return {
            "name": name,
            "spec": {"active": True},
            "automation_spec": {"type": "TYPE_SCHEDULE", "schedule": schedule},
        }

    def listed():
        found = ask("ListTriggers", task_name={**PLACE, "name": "c.task"}).get("triggers", [])
        return {one["id"]["name"]["name"]: one.get("active", False) for one in found}

    ask.deploy("c.task", "v1", triggers=[cron("one"), cron("two")])
    ask.deploy("c.task", "v2")
    assert listed() == {"one": True, "two": True}
    name = {**PLACE, "task_name": "c.task", "name": "one"}
    details = ask("GetTriggerDetails", name=name)["trigger"]
    assert (details["spec"]["taskVersion"], details["id"]["revision"]) == ("v1", "1")
    assert ask("UpdateTriggers", names=[name], active=False) == {}
    assert listed() == {"one": False, "two": True}
    ask.deploy("c.task", "v3", triggers=[cron("one")])
    assert listed() == {"one": True}
    details = ask("GetTriggerDetails", name=name)["trigger"]
    assert (details["spec"]["taskVersion"], details["id"]["revision"]) == ("v3", "3")
    name["name"] = "two"
    assert ask("GetTriggerDetails", name=name) == {"code": "NOT_FOUND"}


def test_projects_have_the_domains(ask):
    domains = ["development", "staging", "production"]
    project = ask("GetProject", id="bikes")["project"]
    assert [one["id"] for one in project["domains"]] == domains
    [project] = ask("ListProjects")["projects"]["projects"]
    assert [one["id"] for one in project["domains"]] == domains
    assert ask("GetProject", id="nowhere") == {"code": "NOT_FOUND"}
    assert ask("GetProject") == {"code": "INVALID_ARGUMENT"}


def test_who_somebody_is_without_an_identity_provider(ask):
    assert ask("GetOAuth2Metadata") == {"code": "UNIMPLEMENTED"}
    assert ask("UserInfo") == {"code": "UNAUTHENTICATED"}
    config = ask("GetPublicClientConfig")
    assert "clientId" not in config
    assert config["dataplaneDomain"]
    for operation in ("OPERATION_CREATE_UPLOAD_LOCATION", "OPERATION_UPLOAD_TRIGGER"):
        cluster = ask("SelectCluster", operation=operation)
        assert cluster == {"clusterEndpoint": f"http://{ask.plane.endpoint}"}


def test_uploads_go_to_a_path_of_their_md5_which_is_signed(ask):
    def put(url, headers):
        request = urllib.request.Request(url, data, headers, method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(request).status
        except urllib.error.HTTPError as error:
            return error.code

    data = b"a bundle"
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    text, of = b64encode(md5).decode(), {**PLACE, "filename": "b.tar.gz"}
    at = ask("CreateUploadLocation", **of, content_md5=text)
    assert at["nativeUrl"].endswith(f"/bikes/development/{b32encode(md5).decode()}/b.tar.gz")
    assert "======/" in at["nativeUrl"]
    assert at["headers"] == {"Content-MD5": text}
    assert put(at["signedUrl"], {}) == 403
    assert put(at["signedUrl"], {"Content-MD5": b64encode(b"0" * 16).decode()}) == 403
    assert put(at["signedUrl"], at["headers"]) == 200
    of["filename_root"] = "mine"
    at = ask("CreateUploadLocation", **of, content_md5=text)
    assert put(at["signedUrl"], at["headers"]) == 200
    other = b64encode(b"0" * 16).decode()
    assert ask("CreateUploadLocation", **of, content_md5=other) == {"code": "ALREADY_EXISTS"}
    assert ask("CreateUploadLocation", **of) == {"code": "ALREADY_EXISTS"}
    del of["filename_root"]
    invalid = {"code": "INVALID_ARGUMENT"}
    assert ask("CreateUploadLocation", **of) == invalid
    assert ask("CreateUploadLocation", **of, content_md5=text, content_length=101 << 20) == invalid
    assert ask("CreateUploadLocation", **of, content_md5=text, expires_in="3601s") == invalid
    of["domain"] = "moon"
    assert "signedUrl" in ask("CreateUploadLocation", **of, content_md5=text)


def test_inputs_are_offloaded_to_a_directory(ask):
    inputs = {"literals": [{"name": "n", "value": {"scalar": {"primitive": {"integer": "1"}}}}]}
    spec = {"task_template": {}}
    assert ask("UploadInputs", inputs=inputs, task_spec=spec) == {"code": "INVALID_ARGUMENT"}
    of = {"name": "bikes", "domain": "development"}
    data = ask("UploadInputs", inputs=inputs, task_spec=spec, project_id=of)["offloadedInputData"]
    assert f"/bikes/development/offloaded-inputs/{data['inputsHash']}" in data["uri"]


def test_a_run_is_kept_with_its_environment_and_labels(ask):
    ask.deploy("d.task")
    task = {**PLACE, "name": "d.task", "version": "v1"}
    spec = {
        "envs": {"values": [{"key": "LOG_LEVEL", "value": "30"}]},
        "labels": {"values": {"team": "ml"}},
    }
    of = {"name": "bikes", "domain": "development"}
    run = ask("CreateRun", project_id=of, task_id=task, run_spec=spec)["run"]
    name = run["action"]["id"]["run"]["name"]
    [kept] = [one for one in ask.plane.state()["runs"] if one["name"] == name]
    assert (kept["env"], kept["labels"]) == ({"LOG_LEVEL": "30"}, {"team": "ml"})
    task["version"] = "v9"
    assert ask("CreateRun", project_id=of, task_id=task) == {"code": "UNKNOWN"}
    of["name"] = "nowhere"
    assert ask("CreateRun", project_id=of, task_id=task) == {"code": "NOT_FOUND"}
    assert ask("CreateRun", task_id=task) == {"code": "INVALID_ARGUMENT"}
    bad = {**PLACE, "name": "Not_A_Label"}
    assert ask("CreateRun", run_id=bad, task_id=task) == {"code": "INVALID_ARGUMENT"}


def test_the_other_kind_of_backend_keeps_a_version(tmp_path):
    with control_plane(tmp_path, "--existing", "already_exists") as plane:
        ask = Asked(plane)
        assert ask.deploy(image="one") == {}
        assert ask.deploy(image="two") == {"code": "ALREADY_EXISTS"}
        assert plane.state()["tasks"][0]["image"] == "one"
        ask.process.stdin.close()
        ask.process.wait()
