"""A task in a `docker_image` of Pants' own: its link says where `publish` pushes that, and nothing is built for it."""

from __future__ import annotations

import pytest
from pants.backend.docker import register as docker_backend

from tests.support.flyte_rules import RuleRoot

ORG = 'registries=["ghcr.io/org"]'
PROD: dict[str, object] = {"address": "reg.test/org"}
OFF: dict[str, object] = {"address": "off.test", "skip_push": True}
HASH = 'image_tags=["{pants.hash}"'


@pytest.fixture(scope="module")
def docker_root() -> RuleRoot:
    return RuleRoot(more_backends=[docker_backend])


@pytest.fixture
def root(docker_root: RuleRoot) -> RuleRoot:
    docker_root.clear()
    return docker_root


def task(image: str, named: str = ":img") -> dict[str, str | bytes]:
    return {
        "ml/train/BUILD": "python_sources()\n"
        f'docker_image(name="img", instructions=["FROM base"], {image})\n'
        f'flyte_task(name="t", entry_point="t.py:env", image="{named}")\n',
        "ml/train/t.py": 'import flyte\nenv = flyte.TaskEnvironment("e")\n@env.task\ndef a(): ...\n',
    }


def registries(**named: dict[str, object]) -> tuple[str, ...]:
    return (f"--docker-registries={named}",)


@pytest.mark.parametrize(
    ("image", "options", "reference"),
    [
        (ORG, (), "ghcr.io/org/img:latest"),
        ('registries=["docker.io"], repository="org/Trainer"', (), "docker.io/org/trainer:latest"),
        (f'{ORG}, repository="{{parent_directory}}/{{directory}}/{{name}}"', (), "ghcr.io/org/ml/train/img:latest"),
        (ORG, ("--docker-default-repository={directory}",), "ghcr.io/org/train:latest"),
        # Of several registries and tags the first.
        ('registries=["a.test", "ghcr.io/org"], image_tags=["2", "1"]', (), "a.test/img:2"),
        ('registries=["@prod"]', registries(prod=PROD), "reg.test/org/img:latest"),
        ("", registries(b={"address": "b.test", "default": True}), "b.test/img:latest"),
        ('registries=["@prod"]', registries(prod={"address": "r.test", "repository": "x/{target_repository}"}), "r.test/x/img:latest"),
        ('registries=["@prod"], image_tags=[]', registries(prod={"address": "r.test", "extra_image_tags": ["more"]}), "r.test/img:more"),
        # To a registry with `skip_push` nothing is pushed.
        ('registries=["@off", "@prod"]', registries(prod=PROD, off=OFF), "reg.test/org/img:latest"),
        # A local name is none of the registry's.
        ('registries=["@prod"]', registries(prod={"address": "r.test", "use_local_alias": True}), "r.test/img:latest"),
        # Build args.
        (f'{ORG}, extra_build_args=["V=3"], image_tags=["v{{build_args.V}}"]', (), "ghcr.io/org/img:v3"),
        (f'{ORG}, image_tags=["{{build_args.V}}"]', ("--docker-build-args=['V']",), "ghcr.io/org/img:from-outside"),
        (f'{ORG}, image_tags=["{{build_args.W}}"]', ("--docker-build-args=['W']", "--docker-env-vars=['W=set']"), "ghcr.io/org/img:set"),
        # What only a build knows is passed over.
        (f'{ORG}, {HASH}, "{{tags.baseimage}}", "{{build_args.NONE}}", "{{}}", "main"]', (), "ghcr.io/org/img:main"),
    ],
)  # fmt: skip
def test_its_name_is_the_one_that_publish_pushes(root: RuleRoot, image, options, reference):
    root.options(*options, env={"V": "from-outside"})
    root.write(task(image))
    link = root.package("ml/train:t").link
    assert (link.image, link.published_by) == (reference, "ml/train:img")
    assert link.built_image is None
    assert link.image_is_reference


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ("", (), "its image ml/train:img is pushed nowhere: set its `registries` (Docker Hub is `docker.io`)"),
        ("registries=['@off']", registries(off=OFF), "is pushed nowhere: set its `registries`"),
        (f"{ORG}, skip_push=True", (), "is pushed nowhere: remove `skip_push`"),
        ('registries=["@prod"]', (), "is pushed nowhere: There is no Docker registry configured with alias: prod."),
        (f"{ORG}, {HASH}]", (), "no name of its image ml/train:img is known before it is built"),
        (f'{ORG}, repository="{{build_args.NONE}}"', (), "in `image_tags` and `repository`, only placeholders of build args"),
        (f"{ORG}, image_tags=[]", (), "no name of its image ml/train:img is known before it is built"),
        (f'{ORG}, image_tags=["a b"]', (), "its image ml/train:img: "),
    ],
)  # fmt: skip
def test_one_that_no_registry_has_under_a_known_name_is_refused(
    root: RuleRoot, image, options, message
):
    root.options(*options)
    root.write(task(image))
    said = root.refusal("ml/train:t")
    assert said.startswith("ml/train:t: ")
    assert message in said


def test_an_edit_of_the_image_selects_the_task_and_its_deployment(root: RuleRoot):
    more = 'files(name="note", sources=["note.txt"])\n'
    more += 'flyte_deployment(name="deploy", tasks=[":t"])\n'
    files = task(f'{ORG}, dependencies=[":note"]')
    build = str(files["ml/train/BUILD"]).replace('instructions=["FROM base"], ', "") + more
    root.write(
        {
            **files,
            "ml/train/BUILD": build,
            "ml/train/Dockerfile": "FROM base\nCOPY ml/train/note.txt /\n",
            "ml/train/note.txt": "one\n",
        }
    )
    assert "ml/train:img" not in root.dependencies("ml/train:t")
    for file in ("Dockerfile", "note.txt"):
        assert {"ml/train:img", "ml/train:t", "ml/train:deploy"} <= root.changed_by(
            f"ml/train/{file}"
        )
    # An edit of the code builds no image.
    assert "ml/train:img" not in root.changed_by("ml/train/t.py")
    assert "ml/train:deploy" in root.changed_by("ml/train/t.py")
