"""The images of a deployment: built with its tasks, pushed with it, each once, and not at all where they are there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pants.core.goals.deploy import DeployProcess
from pants.core.goals.run import RunRequest
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.process import InteractiveProcess

from flyte_pack.deploy.plan import DeployPlan
from flyte_pack.registry.plan import PushPlan
from flyte_pack.task_link import TaskLink
from pants_flyte.goals.deploy import DeployDeploymentFieldSet, RunDeploymentFieldSet
from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot, refusal

REGISTRY = "registries=['reg.test/team']"


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def deployment(image: str = REGISTRY, fields: str = "", task: str = "") -> dict[str, str | bytes]:
    files = app(image, task, source="import app.lib\n")
    return {
        **files,
        "deploy/BUILD": f"""
            flyte_deployment(name="d", tasks=["//app:t"], {fields})
            """,
    }


def deployed(root: RuleRoot, *typed: str, options: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files that the deploy program is given."""
    image_options(root, *options, "run", "deploy:d", "--", *typed)
    field_set = RunDeploymentFieldSet.create(root.target("deploy:d"))
    return root.contents(root.runner.request(RunRequest, [field_set]).digest)


def pushes(contents: dict[str, bytes]) -> list[PushPlan]:
    plan = DeployPlan.from_json(contents["__deploy_plan.json"])
    return [PushPlan.from_json(contents[name], name) for name in plan.pushes]


def link(contents: dict[str, bytes]) -> TaskLink:
    return TaskLink.from_json(contents["app/t.json"])


def layouts(contents: dict[str, Any]) -> set[str]:
    return {path[: -len("/oci-layout")] for path in contents if path.endswith("/oci-layout")}


def test_a_deployment_ships_the_image_of_its_tasks_and_where_it_goes(root: RuleRoot):
    root.write(deployment())
    contents = deployed(root)
    (push,) = pushes(contents)
    built = root.built_image("app:image")
    assert (push.address, push.digest, push.layout) == (
        "app:image",
        built.image_digest,
        "app/image",
    )
    assert [d.name for d in push.destinations] == ["reg.test/team/app/image"]
    assert link(contents).built_image.digest == push.digest
    assert layouts(contents) == {"app/image"}
    assert "app/t.tar.gz" in contents


def test_experimental_deploy_ships_the_same(root: RuleRoot):
    root.write(deployment())
    field_set = DeployDeploymentFieldSet.create(root.target("deploy:d"))
    process = root.runner.request(DeployProcess, [field_set]).process
    assert isinstance(process, InteractiveProcess)
    contents = root.contents(process.process.input_digest)
    ours = {path for path in contents if path.startswith(("app/", "__"))}
    assert ours == {path for path in deployed(root) if path.startswith(("app/", "__"))}


@pytest.mark.parametrize(
    ("fields", "typed"),
    [("copy_style='none', version='v1'", ()), ("", ("--copy-style=none", "--version=v1"))],
)
def test_one_image_with_the_code_goes_under_tags_of_its_own(root: RuleRoot, fields, typed):
    root.write(deployment(fields=fields, image=f"{REGISTRY}, image_tags=['{{version}}', 'main']"))
    contents = deployed(root, *typed)
    (push,) = pushes(contents)
    assert push.layout == "app/image-with-code"
    assert push.destinations[0].tags == ("v1-with-code", "main-with-code")
    assert layouts(contents) == {"app/image-with-code"}
    assert "app/t.tar.gz" not in contents
    assert link(contents).bundle is None


def test_an_image_that_always_holds_the_code_keeps_its_tags(root: RuleRoot):
    root.write(
        deployment(
            image=f"{REGISTRY}, code=True, image_tags=['main']",
            fields="copy_style='none', version='1'",
        )
    )
    (push,) = pushes(deployed(root))
    assert (push.layout, push.destinations[0].tags) == ("app/image", ("main",))


@pytest.mark.parametrize(
    ("fields", "typed", "options", "name"),
    [
        ("", ("--registry", "typed.test/x/"), (), "typed.test/x"),
        ("registry='field.test'", (), (), "field.test"),
        ("registry='field.test'", ("--registry=typed.test",), (), "typed.test"),
        ("", (), ("--flyte-registries=['option.test']",), "reg.test/team"),
    ],
)
def test_the_registry_of_a_deployment_takes_the_place_of_the_images(
    root, fields, typed, options, name
):
    root.write(deployment(fields=fields))
    (push,) = pushes(deployed(root, *typed, options=options))
    assert [d.name for d in push.destinations] == [f"{name}/app/image"]


def test_without_a_registry_there_is_a_plan_without_a_destination(root: RuleRoot):
    """The program refuses it, and tells what to type."""
    root.write(deployment(image=""))
    (push,) = pushes(deployed(root))
    assert push.destinations == ()


@pytest.mark.parametrize(
    ("fields", "typed", "options"),
    [
        ("images={'ml': 'reg.test/there:1'}", (), ()),
        ("", ("--image", "ml=reg.test/there:1"), ()),
        ("", (), ("--flyte-images={'ml': 'reg.test/there:1'}",)),
    ],
)
def test_an_image_whose_name_is_mapped_is_not_built(root: RuleRoot, fields, typed, options):
    # `user` could not be built.
    root.write(deployment(image=f"{REGISTRY}, ref_name='ml', user='nobody'", fields=fields))
    contents = deployed(root, *typed, options=options)
    assert pushes(contents) == []
    assert layouts(contents) == set()
    assert (link(contents).image, link(contents).built_image) == ("ml", None)


def test_a_name_that_is_mapped_for_another_image_changes_nothing(root: RuleRoot):
    root.write(deployment(image=f"{REGISTRY}, ref_name='ml'", fields="images={'other': 'a/b:1'}"))
    contents = deployed(root)
    assert link(contents).built_image.ref_name == "ml"
    assert len(pushes(contents)) == 1


@pytest.mark.parametrize(
    "typed", [("list",), ("show",), ("rollback", "v1"), ("--help",), ("--no-such",)]
)
def test_what_deploys_nothing_builds_no_image(root: RuleRoot, typed):
    root.write(deployment(image="user='nobody'"))
    contents = deployed(root, *typed)
    assert pushes(contents) == []
    assert layouts(contents) == set()


def test_two_tasks_of_one_image_push_it_once(root: RuleRoot):
    root.write(deployment())
    root.edit(
        "app/BUILD",
        "python_sources()",
        'python_sources()\nflyte_task(name="u", entry_point="w.py:train", image=":image")',
    )
    root.edit("deploy/BUILD", '["//app:t"]', '["//app:t", "//app:u"]')
    contents = deployed(root)
    assert len(pushes(contents)) == 1
    links = [json.loads(contents[f"app/{name}.json"]) for name in ("t", "u")]
    assert links[0]["built_image"] == links[1]["built_image"]


def test_a_dry_run_builds_what_it_would_push(root: RuleRoot):
    root.write(deployment())
    assert len(pushes(deployed(root, "--dry-run"))) == 1


def test_a_mistake_in_an_image_is_the_deployments(root: RuleRoot):
    root.write(deployment(image="user='nobody'"))
    with pytest.raises(ExecutionError) as caught:
        deployed(root)
    assert refusal(caught.value).startswith("app:image: `user` is 'nobody'")


def test_digests_do_not_depend_on_where_an_image_goes(root: RuleRoot):
    root.write(deployment())
    digests = {
        pushes(deployed(root, *typed))[0].digest
        for typed in ((), ("--registry=a.test",), ("--version=v1",), ("--dry-run",))
    }
    assert digests == {root.built_image("app:image").image_digest}
