"""Flyte shows the source of what is registered, as it does after its own `flyte deploy` from the checkout."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest

from flyte_pack.checkout import Web
from flyte_pack.deploy.records import Provenance
from flyte_pack.deploy.source_link import SourceLink
from tests.support.control_plane import control_plane
from tests.support.flyte_versions import MATRIX, NEWEST, python_with_flyte
from tests.support.git import git
from tests.support.registering import Registering, body

MODULE = (
    body("train")
    + """
from flyte.app import AppEnvironment

app = AppEnvironment(name="page", image="registry.example/page:1", args="serve")
env.depends_on.append(app)
"""
)
HTTPS, SSH = "https://github.com/team/models.git", "git@gitlab.com:team/models.git"
# What Flyte's own deployment says of both.
OWN = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from services.ml.train import train
from flyte._deploy import _get_documentation_entity
from flyte.app._runtime.app_serde import _get_source_code
print(json.dumps([_get_documentation_entity(train).source_code.link, _get_source_code().link]))
os._exit(sys.stdout.flush() or 0)
"""


class InGit(Registering):
    """A build root in a directory of a checkout. `services/` is what it has in git."""

    def __init__(self, top, plane, remote, line=NEWEST):
        super().__init__(top / "repo", plane)
        (self.dist / "python").write_text(f'#!/bin/sh\nexec {python_with_flyte(line)} "$@"\n')
        self.top = top
        (top / ".gitignore").write_text("/repo/*\n!/repo/services\n")
        git(top, "init", "-q")
        git(top, "remote", "add", "origin", remote)

    def commit(self, value=1, note="of it"):
        source = MODULE.replace("x + 1", f"x + {value}")
        self.package("train", source)
        path = self.root / "services" / "ml" / "train.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        git(self.top, "add", ".")
        git(self.top, "commit", "-q", "--allow-empty", "-m", note)
        return git(self.top, "rev-parse", "HEAD")

    def told(self):
        """[link of the task, link of the app] that were sent last."""
        state = self.plane.state()
        task = next(one for one in reversed(state["tasks"]) if one["project"] == "flytesnacks")
        [app] = state["apps"]
        app = app["request"].get("update") or app["request"]["create"]
        of_task = task["request"]["spec"].get("documentation", {}).get("sourceCode", {})
        of_app = app["metadata"].get("sourceCode", {})
        return [of_task.get("link"), of_app.get("link")]


@pytest.fixture
def plane(tmp_path):
    with control_plane(tmp_path / "plane", "--project", "flytesnacks") as plane:
        yield plane


def own(root, line):
    program = [str(python_with_flyte(line)), "-B", "-c", OWN]
    done = subprocess.run(program, cwd=root.root, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", MATRIX)
@pytest.mark.parametrize("remote", [HTTPS, SSH])
@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_it_is_the_link_that_flyte_makes_in_the_checkout(tmp_path, plane, remote, dirty, line):
    root = InGit(tmp_path / "top", plane, remote, line)
    commit = root.commit()
    if dirty:
        (root.root / "services" / "new.py").write_text("")
    root.deploy().ok()
    told = root.told()
    assert told == own(root, line)
    of_task, of_app = told
    assert (
        f"/team/models/{'-/' if remote == SSH else ''}blob/{commit}/repo/services/ml/train.py"
        in of_task
    )
    assert ("#L" in of_task) is not dirty
    assert of_app.endswith(f"/team/models/tree/{commit}")


def test_a_commit_that_changes_no_task_registers_nothing_and_one_that_does_moves_the_link(
    tmp_path, plane
):
    root = InGit(tmp_path / "top", plane, "https://name:planted-secret@github.com/team/models")
    first = root.commit()
    one = root.deployed()
    before = plane.state()
    assert all("https://github.com/team/models/" in link for link in root.told())
    assert all(first in link for link in root.told())
    second = root.commit(note="nothing of the tasks")
    assert "Nothing to do" in root.deploy().ok().out
    # Another machine, too: it asks, and has the same version and specifications.
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    again = root.deploy("--output", "json", env=env).ok().json
    assert again["version"] == one["version"]
    assert {task["status"] for task in again["registered"]} == {"present"}
    assert [plane.state()[what] for what in ("tasks", "apps")] == [before["tasks"], before["apps"]]
    third = root.commit(2)
    root.deploy().ok()
    assert all(third in link for link in root.told())
    assert "planted-secret" not in json.dumps(plane.state())
    # What a rollback registers again is of the commit that it was deployed from.
    root.deploy("rollback", one["version"]).ok()
    assert all(first in link and second not in link for link in root.told())


@pytest.mark.parametrize("remote", [None, "/srv/models.git", "file:///srv/models.git"])
def test_without_a_page_there_is_no_link(tmp_path, plane, remote):
    root = InGit(tmp_path / "top", plane, remote or HTTPS)
    root.commit()
    if remote is None:
        git(root.top, "remote", "remove", "origin")
    root.deploy().ok()
    assert root.told() == [None, None]


@pytest.mark.parametrize(
    ("owner", "file", "root_dir", "found"),
    [
        ("src/ml/train.py:ml", "ml/train.py", None, "src/ml/train.py"),
        ("src/ml/train.py@resolve=a", "ml/train.py", None, "src/ml/train.py"),
        ("src/ml/sub/x.py:../ml", "ml/sub/x.py", None, "src/ml/sub/x.py"),
        ("src/ml:train", "ml/train.py", None, "src/ml/train.py"),
        ("//:train", "src/ml/train.py", None, "src/ml/train.py"),
        ("src/ml/api.proto:api", "ml/api_pb2.py", None, None),
        ("", "ml/train.py", "src", "src/ml/train.py"),
        ("", "src/ml/train.py", ".", "src/ml/train.py"),
        ("", "../../other.py", "src", None),
    ],
)
def test_the_path_in_the_repository_is_found_by_the_owner(tmp_path, owner, file, root_dir, found):
    for path in ("src/ml/train.py", "src/ml/sub/x.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    link = SourceLink(str(tmp_path), Provenance("2026-01-31T12:00:00Z", None, None), (), bytes)
    web = Web("https://github.com/team/models", str(tmp_path.resolve()))
    assert link._path(web, root_dir, file, owner) == found
    assert link.told(()) is None
    inside = dataclasses.replace(web, top=str(tmp_path.resolve().parent))
    above = found and f"{tmp_path.name}/{found}"
    if "other" not in file:
        assert link._path(inside, root_dir, file, owner) == above
