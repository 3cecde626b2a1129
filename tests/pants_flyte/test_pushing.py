"""Where images are pushed, and what `publish` and `run` start for them."""

from __future__ import annotations

import subprocess

import pytest
from pants.core.goals.publish import PublishPackages, PublishProcesses
from pants.core.goals.run import RunRequest
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.process import InteractiveProcess

from flyte_pack.json_fields import Sha256
from flyte_pack.provenance import Material
from flyte_pack.registry.plan import PushPlan
from flyte_shim.hashing import sha256_bytes
from pants_flyte.goals.publish import PublishImageFieldSet, PublishImageRequest
from pants_flyte.goals.run_image import RunImageFieldSet
from tests.support.bases import base_image
from tests.support.flyte_images import image, image_options
from tests.support.flyte_rules import RuleRoot, refusal

REGISTRY = "registries=['reg.test/team']"


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def publish(root: RuleRoot, spec: str = "app:image") -> PublishPackages:
    field_set = PublishImageFieldSet.create(root.target(spec))
    request = PublishImageRequest(field_set, ())
    (package,) = root.runner.request(PublishProcesses, [request])
    return package


def push_plan(root: RuleRoot, spec: str = "app:image") -> PushPlan:
    process = publish(root, spec).process
    assert isinstance(process, InteractiveProcess)
    contents = root.contents(process.process.input_digest)
    return PushPlan.from_json(contents["__push_plan.json"], "plan")


# --- publish --------------------------------------------------------------------------------------


def test_publishing_starts_the_pusher_with_the_plan_and_the_layout(root: RuleRoot):
    image_options(root, env={"AWS_PROFILE": "p", "UNRELATED": "x"})
    root.write(image(f"{REGISTRY}, image_tags=['1', 'latest']"))
    package = publish(root)
    built = root.built_image("app:image")
    assert package.names == ("reg.test/team/app/image:1", "reg.test/team/app/image:latest")
    assert package.description == "reg.test"
    assert isinstance(package.process, InteractiveProcess)
    process = package.process.process
    program, *arguments = process.argv
    assert program.startswith("{chroot}/")
    assert arguments == ["push", "--plan", "{chroot}/__push_plan.json", "--dir", "{chroot}"]
    assert package.process.run_in_workspace
    assert process.env["AWS_PROFILE"] == "p"
    assert "UNRELATED" not in process.env
    plan = push_plan(root)
    assert (plan.address, plan.layout, plan.digest) == (
        "app:image",
        "app/image",
        built.image_digest,
    )
    assert [(d.name, d.tags) for d in plan.destinations] == [
        ("reg.test/team/app/image", ("1", "latest"))
    ]
    assert (plan.insecure, plan.siblings) == ((), ())
    assert f"{plan.layout}/index.json" in root.contents(process.input_digest)


def test_a_report_is_written_where_one_is_asked_for(root: RuleRoot):
    image_options(root, "--flyte-report-dir=dist/reports")
    root.write(image(REGISTRY))
    package = publish(root)
    assert isinstance(package.process, InteractiveProcess)
    assert package.process.process.argv[-2:] == ("--report", "dist/reports/publish.app.image.json")
    digest = root.built_image("app:image").image_digest
    assert package.get_output_data()["digest"] == digest
    image_options(root, "--flyte-report-dir=/tmp/reports")
    with pytest.raises(ExecutionError) as caught:
        publish(root)
    assert "`[flyte].report_dir` names a directory below the build root" in refusal(caught.value)


def test_an_image_may_be_left_out_and_none_goes_nowhere_in_silence(root: RuleRoot):
    root.write(image(f"{REGISTRY}, skip_push=True"))
    package = publish(root)
    assert (package.names, package.process) == (("app:image",), None)
    assert package.description == "(by `skip_push` of the target)"
    root.write(image())
    package = publish(root)
    assert package.process is None
    assert package.description == (
        "(no registry is known: set `registries` of the target, or `[flyte].registries`)"
    )


def test_an_image_that_is_left_out_is_not_built(root: RuleRoot):
    root.write(image(f"{REGISTRY}, skip_push=True, user='nobody'"))
    assert publish(root).process is None


@pytest.mark.parametrize(
    ("fields", "options", "names"),
    [
        (REGISTRY, (), ["reg.test/team/app/image"]),
        ("", ("--flyte-registries=['a.test', 'b.test:80/x/']",), ["a.test/app/image", "b.test:80/x/app/image"]),
        (REGISTRY, ("--flyte-registries=['a.test']",), ["reg.test/team/app/image"]),
        (f"{REGISTRY}, repository='{{directory}}-{{name}}'", (), ["reg.test/team/app-image"]),
        (REGISTRY, ("--flyte-repository=all/{path}",), ["reg.test/team/all/app"]),
        ("registries=['reg.test', 'reg.test/']", (), ["reg.test/app/image"]),
        ("registries=['localhost:5000']", (), ["localhost:5000/app/image"]),
    ],
)  # fmt: skip
def test_registries_and_repositories_come_from_the_target_or_the_options(
    root, fields, options, names
):
    image_options(root, *options)
    root.write(image(fields))
    assert [destination.name for destination in push_plan(root).destinations] == names


NAMED = """--flyte-named-registries={
    'prod': {'address': 'ghcr.io/org', 'extra_image_tags': ['latest'],
             'repository': 'flyte/{target_repository}'},
    'off': {'address': 'off.test', 'skip_push': True},
    'typo': {'address': 'x.test', 'tags': []},
    'text': 'x.test',
    'kind': {'address': 'x.test', 'skip_push': 'no'},
    'user': {'address': 'user:planted@x.test'},
}"""


@pytest.mark.parametrize(
    ("wanted", "pushed"),
    [
        ("['@prod', 'b.test']", {"ghcr.io/org/flyte/app/image": ("1", "latest"), "b.test/app/image": ("1",)}),
        ("['@off', '@prod']", {"ghcr.io/org/flyte/app/image": ("1", "latest")}),
    ],
)  # fmt: skip
def test_registries_may_be_named(root: RuleRoot, wanted, pushed):
    image_options(root, NAMED)
    root.write(image(f"registries={wanted}, image_tags=['1']"))
    assert {one.name: one.tags for one in push_plan(root).destinations} == pushed
    image_options(root, NAMED, f"--flyte-registries={wanted}")
    root.write(image("image_tags=['1']"))
    assert {one.name: one.tags for one in push_plan(root).destinations} == pushed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "`[flyte].named_registries` has no 'gone'. It knows @kind, @off, @prod"),
        ("typo", "`typo` has no key `tags`; known are address, repository"),
        ("text", "`text` is no table with an `address`"),
        ("kind", "`skip_push` of `kind` is not a boolean"),
        ("user", "`user`: a registry is a host"),
    ],
)  # fmt: skip
def test_a_named_registry_that_cannot_be_is_refused(root: RuleRoot, name, message):
    image_options(root, NAMED)
    root.write(image(f"registries=['@{name}']"))
    with pytest.raises(ExecutionError) as caught:
        publish(root)
    found = refusal(caught.value)
    assert message in found
    assert "planted" not in found


@pytest.mark.parametrize(
    ("template", "repository"),
    [
        ("{parent_directory}/{directory}/{name}", "b/c/image"),
        ("{full_directory}", "a/b/c"),
        ("x/{default_repository}", "x/a/b/c/image"),
    ],
)
def test_a_repository_has_the_places_that_those_of_docker_images_have(root, template, repository):
    files = image(f"registries=['a.test'], repository='{template}'")
    root.write({**files, "a/b/c/BUILD": files["app/BUILD"]})
    assert push_plan(root, "a/b/c:image").destinations[0].name == f"a.test/{repository}"


def test_the_path_of_an_image_may_be_long_or_none(root: RuleRoot):
    files = image(REGISTRY)
    root.write({**files, "a/b/c/BUILD": files["app/BUILD"], "BUILD": files["app/BUILD"]})
    assert push_plan(root, "a/b/c:image").destinations[0].name == "reg.test/team/a/b/c/image"
    assert push_plan(root, "//:image").destinations[0].name == "reg.test/team/image"
    # The others, with which it may share layers.
    assert push_plan(root, "//:image").siblings == (
        *("reg.test/team/a/b/c/image", "reg.test/team/app/image"),
    )


TAGS = {
    "": "{content_hash}",
    "image_tags=['{content_hash}', 'x']": "{content_hash} x",
    "image_tags=['v{version}']": "v1.4",
    "image_tags=['{git_commit}']": "{git_commit}",
    "image_tags=['{env.CI_RUN}-{env.CI_RUN}']": "77-77",
    "image_tags=['a', 'a', 'b']": "a b",
    "image_tags=[]": "",
}


@pytest.mark.parametrize(("fields", "tags"), TAGS.items())
def test_tags_are_filled_in(root: RuleRoot, fields, tags):
    image_options(root, "--flyte-version=1.4", env={"CI_RUN": "77"})
    root.write(image(f"{REGISTRY}, {fields}"))
    commit = ""
    if "git_commit" in tags:
        git = [
            "git",
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@a.test",
            "-c",
            "init.defaultBranch=main",
        ]
        for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
            subprocess.run([*git, *arguments], cwd=root.path, check=True)
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=root.path,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        commit = done.stdout.strip()
    digest = root.built_image("app:image").image_digest
    expected = tags.format(content_hash=digest[7:23], git_commit=commit).split()
    plan = push_plan(root)
    assert list(plan.destinations[0].tags) == expected
    if not expected:
        assert publish(root).names == (f"reg.test/team/app/image@{digest}",)


def test_tags_may_be_an_option(root: RuleRoot):
    image_options(root, "--flyte-image-tags=['main']", "--flyte-insecure-registries=['reg.test']")
    root.write(image(REGISTRY))
    plan = push_plan(root)
    assert (plan.destinations[0].tags, plan.insecure) == (("main",), ("reg.test",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("image_tags=['{version}']", "`image_tags` holds {version}, which has no value: give one: `--flyte-version=V`"),
        ("image_tags=['{vrsion}']", "`image_tags` holds {vrsion}, which has no value: known are {content_hash}"),
        ("image_tags=['{env.PF_UNSET}']", "`image_tags` holds {env.PF_UNSET}, which has no value"),
        ("image_tags=['{git_commit}']", "{git_commit} has no value: this is no git checkout with a commit"),
        ("image_tags=['a b']", "`image_tags`: 'a b' is not a tag: use up to 128 letters"),
        ("image_tags=['']", "`image_tags`: '' is not a tag"),
        ("image_tags=['.x']", "`image_tags`: '.x' is not a tag"),
        ("repository='{dir}'", "`repository` holds {dir}, which has no value: known are {default_repository}, {directory}, {full_directory}, {name}, {parent_directory}, {path}"),
        ("repository='App'", "The image cannot be pushed to 'reg.test/team/App': "),
        ("repository='a:b'", "The image cannot be pushed to 'reg.test/team/a:b': "),
        ("registries=['https://reg.test']", "The image cannot be pushed to (not repeated here): "),
        ("registries=['user:planted@reg.test']", "an image holds no user or password"),
    ],
)  # fmt: skip
def test_a_destination_that_cannot_be_is_refused(root: RuleRoot, fields, message):
    root.write(image(fields if "registries" in fields else f"{REGISTRY}, {fields}"))
    with pytest.raises(ExecutionError) as caught:
        publish(root)
    found = refusal(caught.value)
    assert found.startswith("app:image: ")
    assert message in found
    assert "planted" not in found


def test_another_image_whose_name_cannot_be_keeps_none_from_being_pushed(root: RuleRoot):
    root.write(
        {**image(REGISTRY), "Other/BUILD": f"flyte_image(name='I', base='img:base', {REGISTRY})"}
    )
    assert push_plan(root).siblings == ()


def test_git_is_not_asked_where_no_tag_names_a_commit(root: RuleRoot):
    image_options(root, env={"PATH": "/nonexistent"})
    root.write(image(REGISTRY))
    assert push_plan(root).destinations


# --- run ------------------------------------------------------------------------------------------


def test_running_an_image_starts_the_program_with_its_layout(root: RuleRoot):
    root.write(image())
    request = root.runner.request(RunRequest, [RunImageFieldSet.create(root.target("app:image"))])
    program, *arguments = request.args
    assert program.startswith("{chroot}/")
    assert arguments[:3] == ["image-run", "--layout", "{chroot}/app/image"]
    assert arguments[arguments.index("--address") + 1] == "app:image"
    assert arguments[-1] == "--"
    assert "app/image/index.json" in root.contents(request.digest)


def test_what_an_image_was_made_from_is_in_the_plan_if_it_is_asked(root: RuleRoot):
    root.write(image(REGISTRY))
    assert push_plan(root).materials is None
    image_options(root, "--flyte-provenance")
    lock = (root.path / "locks/default.txt").read_bytes()
    assert push_plan(root).materials == (
        Material("locks/default.txt", Sha256(sha256_bytes(lock))),
        Material("docker.io/library/python:3.12-slim", Sha256(base_image().digest[7:])),
    )
