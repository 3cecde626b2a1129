"""What is imported from a folder is registered with the site's control plane as if its code had been packaged there."""

from __future__ import annotations

import json
import shutil
from textwrap import dedent

import pytest

from flyte_pack.task_link import LinkedImage
from tests.support.control_plane import control_plane
from tests.support.deploying import BuildRoot
from tests.support.flyte_versions import python_with_flyte
from tests.support.registries import make_image, real_registry

MODULE = """\
    import flyte

    helper = flyte.TaskEnvironment(name="{name}-helper")
    env = flyte.TaskEnvironment(name="{name}-env", depends_on=[helper])

    @helper.task
    async def double(x: int = 1) -> int:
        return x * 2

    @env.task
    async def {name}(x: int = 1) -> int:
        return await double(x)
"""


class Site(BuildRoot):
    """A build root with a registry and a control plane of its own."""

    def __init__(self, root, registry, plane):
        super().__init__(root)
        self.registry, self.plane = registry, plane
        self.pushes: list[str] = []
        program = self.dist / "python"
        program.write_text(f'#!/bin/sh\nexec {python_with_flyte()} "$@"\n')
        program.chmod(0o755)

    def package_environment(self, name, image, registry):
        """An environment of tasks, with what it depends on, in an image that is pushed to `registry`."""
        shutil.copytree(image.layout, self.dist / "image", dirs_exist_ok=True)
        linked = LinkedImage("services/ml:image", "image", image.digest, None, "/app")
        self.package(
            name,
            dedent(MODULE.format(name=name)),
            image=None,
            built_image=linked,
            kind="environment",
            entry_point=f"services/ml/{name}.py:env",
        )
        push = json.loads(image.plan(registry).to_json())
        (self.dist / "push.json").write_text(json.dumps({**push, "layout": "image"}))
        self.pushes = ["push.json"]

    def plan(self, **changes):
        environment = {
            "python": "python",
            "env": {},
            "identity": "packages",
            "known": None,
            "tasks": ["services/ml:train"],
        }
        given = {
            "endpoint": self.plane.endpoint,
            "insecure": True,
            "environments": [environment],
            "pushes": self.pushes,
            **changes,
        }
        return super().plan(**given)

    def deploy(self, *typed, **how):
        return super().deploy(*typed, env={"HOME": str(self.root), "FLYTE_API_KEY": ""}, **how)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two registries and two control planes: here and there."""
    make = tmp_path_factory.mktemp
    with real_registry(make("here")) as here, real_registry(make("there")) as there:
        with control_plane(make("plane"), "--project", "flytesnacks") as plane:
            with control_plane(make("site"), "--project", "flytesnacks") as other:
                yield (here, plane), (there, other)


@pytest.mark.parametrize("typed", [(), ("--version", "r1")])
def test_what_is_imported_is_registered_as_if_it_had_been_packaged_there(parts, tmp_path, typed):
    here, there = parts
    origin = Site(tmp_path / "origin", *here)
    site = Site(tmp_path / "site", *there)
    image = make_image(tmp_path / "layout", 1000, env=("A=b",))
    origin.package_environment("train", image, f"{origin.registry.host}/bikes/train:1")
    first = origin.deploy(*typed, "--output", "json").ok().json
    folder = tmp_path / "usb"
    origin.deploy("export", str(folder), first["version"]).ok()
    shutil.rmtree(origin.root)

    arguments = ("import", str(folder), "--registry", site.registry.host)
    done = site.deploy(*arguments, "--output", "json").ok().json
    registered = {one["name"]: one["version"] for one in done["registered"]}
    assert set(registered) == {"train-env.train", "train-helper.double"}
    assert site.plane.endpoint == done["control_plane"]
    found = {(task["name"], task["version"]): task for task in site.plane.state()["tasks"]}
    assert set(registered.items()) <= set(found)
    assert (done["version"] == first["version"]) == bool(typed)
    assert (set(registered.values()) == {"r1"}) == bool(typed)
    record = site.version(done["version"])
    assert origin.registry.host not in json.dumps(record)
    assert str(origin.root) not in json.dumps(record)
    site.deploy("verify").ok()
    assert "Nothing to do" in site.deploy(*arguments).ok().out

    # The same code, packaged there: the same deployment.
    site.package_environment("train", image, f"{site.registry.host}/bikes/train")
    again = site.deploy(*typed, "--output", "json").ok().json
    assert again["version"] == done["version"]
    assert {one["name"]: one["version"] for one in again["registered"]} == registered
    assert site.history()[0] == ("import", done["version"])


def test_an_import_without_registration_can_be_registered_later(parts, tmp_path):
    here, there = parts
    origin = Site(tmp_path / "origin", *here)
    site = Site(tmp_path / "site", *there)
    image = make_image(tmp_path / "layout", 1000)
    origin.package_environment("train", image, f"{origin.registry.host}/bikes/train:1")
    origin.deploy("--version", "r2").ok()
    folder = tmp_path / "usb"
    origin.deploy("export", str(folder)).ok()
    arguments = ("import", str(folder), "--registry", site.registry.host)
    done = site.deploy(*arguments, "--no-register", "--output", "json").ok().json
    assert done["registered"] == []
    (task,) = site.version("r2")["tasks"]
    assert "--image-cache" not in [part for one in task["tasks"] for part in one["command"]]
    registered = site.deploy(*arguments, "--output", "json").ok().json["registered"]
    assert {one["version"] for one in registered} == {"r2"}


def test_what_is_promoted_is_registered_in_the_other_domain(parts, tmp_path):
    site = Site(tmp_path / "site", *parts[0])
    image = make_image(tmp_path / "layout", 1000, env=("A=b",))
    site.package_environment("train", image, f"{site.registry.host}/bikes/train:1")
    site.deploy("--version", "p1", plan={"domain": "staging"}).ok()
    arguments = ("promote", "--from", "staging", "--output", "json")
    done = site.deploy(*arguments, plan={"domain": "production"}).ok().json
    assert {one["name"] for one in done["registered"]} == {"train-env.train", "train-helper.double"}
    tasks = [task for task in site.plane.state()["tasks"] if task["version"] == "p1"]
    specs = {}
    for task in tasks:
        specs.setdefault(task["name"], {})[task["domain"]] = task
    assert {frozenset(by_domain) for by_domain in specs.values()} == {
        frozenset(["staging", "production"])
    }
    again = site.deploy(*arguments, plan={"domain": "production"}).ok().json
    assert not again["deployed"]
