"""What a `flyte_base_image` may be, how it is locked, and what is said where it can't be used."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from pants.core.goals.run import RunRequest
from pants.engine.internals.scheduler import ExecutionError

from flyte_pack.image.base import BaseDistribution, BaseFacts
from flyte_pack.oci.model import OCI_LAYER_GZIP
from pants_flyte.goals.run_image import RunBaseImageFieldSet
from tests.support.bases import PYTHON_IMAGE, base_image, base_platform
from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot, refusal
from tests.support.images import layout_of, sha256, tar_of

D = "sha256:" + "0" * 64


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def base(fields: str, lock: bytes | None = None) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        "img/BUILD": f"""
            flyte_base_image(name="base", {fields})
            flyte_image(name="i", base=":base")
            """
    }
    return files if lock is None else {**files, "img/base.lock.json": lock}


IMAGE = f'image="{PYTHON_IMAGE}"'
RUN = "run img:base -- lock`"


# --- locks ----------------------------------------------------------------------------------------


def test_a_base_without_a_lock_file_is_an_error_that_says_what_to_run(root: RuleRoot):
    root.write(base(IMAGE))
    message = root.refusal("img:i")
    assert "img:base: it is not locked: there is no file img/base.lock.json. Run `" in message
    assert f"{RUN}, and commit it." in message


@pytest.mark.parametrize(
    ("fields", "lock", "message"),
    [
        (IMAGE, base_image(name="docker.io/library/python:3.11-slim"), "is the lock file of docker.io/library/python:3.11-slim@sha256:"),
        (IMAGE, base_image(name="docker.io/library/debian:3.12-slim"), "is the lock file of docker.io/library/debian:3.12-slim@"),
        (IMAGE, base_image(name="ghcr.io/library/python:3.12-slim"), "is the lock file of ghcr.io/"),
        (IMAGE, base_image(name=None), "is the lock file of None@sha256:"),
        (f'image="{PYTHON_IMAGE}@{D}"', base_image(), f"and `image` is {PYTHON_IMAGE}@{D}"),
        (f'{IMAGE}, platforms=["linux/arm64"]', base_image(), "does not lock linux/arm64"),
        (f'{IMAGE}, platforms=["linux/amd64", "linux/arm64", "linux/s390x"]', base_image(), "does not lock linux/arm64, linux/s390x"),
    ],
)  # fmt: skip
def test_a_lock_file_of_something_else_is_refused(root: RuleRoot, fields, lock, message):
    root.write(base(fields, lock.to_json()))
    found = root.refusal("img:i")
    assert found.startswith("img:base: img/base.lock.json ")
    assert message in found
    assert f"Run `./pants {RUN}" in found.replace("`pants ", "`./pants ")


BROKEN = json.loads(base_image().to_json())


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (b"", "img/base.lock.json: not a JSON document"),
        (b"<<<<<<< HEAD\n{}\n", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b"{}", "not a JSON object with a schema"),
        (json.dumps({**BROKEN, "schema": 7}).encode(), "has schema 7"),
        (json.dumps({**BROKEN, "digest": D}).encode(), "does not belong to"),
        (json.dumps({**BROKEN, "name": "::::"}).encode(), "is not an image"),
        (json.dumps({**BROKEN, "platforms": []}).encode(), "has no platform"),
    ],
)
def test_a_broken_lock_file_is_refused_with_what_writes_it_anew(root: RuleRoot, lock, message):
    root.write(base(IMAGE, lock))
    found = root.refusal("img:i")
    assert message in found
    assert f"{RUN} to write it anew." in found


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("python:3.12-slim", PYTHON_IMAGE),
        ("docker.io/python:3.12-slim", PYTHON_IMAGE),
        (f"{PYTHON_IMAGE}@{base_image().digest}", PYTHON_IMAGE),
        ("python", "docker.io/library/python:latest"),
        ("localhost:5000/team/python:3", "localhost:5000/team/python:3"),
    ],
)
def test_an_image_may_be_written_as_docker_lets_one_write_it(root: RuleRoot, reference, name):
    root.write(base(f'image="{reference}"', base_image(name=name).to_json()))
    assert root.built_image("img:i").base_name == name


def test_the_lock_file_may_be_elsewhere(root: RuleRoot):
    root.write(
        {**base(f'{IMAGE}, lockfile="locks/py.json"'), "img/locks/py.json": base_image().to_json()}
    )
    assert root.built_image("img:i").base_name == PYTHON_IMAGE


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "give `image` (a reference) or `source` (a path, or `host`), one of them"),
        (f'{IMAGE}, source="host"', "give `image` (a reference) or `source`"),
        (f'{IMAGE}, source="layout"', "give `image` (a reference) or `source`"),
        ('image="Python:3"', "`image`: 'Python:3' is not an image"),
        ('image="https://ghcr.io/a"', "`image`: an image is registry/name:tag, without a scheme"),
        ('image=""', "`image`: "),
        ('source="nowhere"', "`source`: there is nothing at img/nowhere, or Pants ignores it"),
        ('source="../../outside"', "The `source` field in target img:base is '../../outside', which leaves the build root"),
        ('source="/srv/layout"', "which leaves the build root"),
        (f'{IMAGE}, lockfile="../../x.json"', "The `lockfile` field in target img:base is '../../x.json', which leaves"),
        ('source="host", interpreter_constraints=["CPython==2.7.*"]', "2.7"),
        (f'{IMAGE}, platforms=["amd64"]', "`platforms`: 'amd64' is not a platform"),
        (f'{IMAGE}, ref="v1"', "`ref` names an image in a layout or archive: set `source` to its path."),
        ('source="host", ref="v1"', "`ref` names an image in a layout or archive"),
    ],
)  # fmt: skip
def test_a_base_that_cant_be_meant_is_refused(root: RuleRoot, fields, message):
    root.write(base(fields, base_image().to_json()))
    with pytest.raises(ExecutionError) as caught:
        root.package("img:i")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "python", [None, "python3.12", "/usr/bin/python3", "/usr/bin/python", "/usr/bin/python3.12/"]
)
def test_a_base_must_say_where_its_python_is(root: RuleRoot, python):
    lock = base_image(base_platform(Env=["PATH=/bin"]))
    root.write(base(IMAGE + ("" if python is None else f", python={python!r}"), lock.to_json()))
    message = root.refusal("img:i")
    assert (
        'set `python` to its absolute path with the version, such as "/usr/bin/python3.11"'
        in message
    )
    assert python is None or message.endswith(f"not {python!r}.")


def test_the_python_that_a_target_names_is_the_virtual_environments(root: RuleRoot):
    root.write(base(f'{IMAGE}, python="/opt/py/bin/python3.13"', base_image().to_json()))
    tree = root.image("img:i").tree
    assert tree["opt/venv/bin/python"].content == "/opt/py/bin/python3.13"
    assert tree["opt/venv/bin/python3.13"].content == "python"
    assert "home = /opt/py/bin\n" in tree["opt/venv/pyvenv.cfg"].content
    assert "opt/venv/lib/python3.13/site-packages/flyte_shim/cli.py" in tree


def test_of_several_images_at_hand_the_named_one_is_the_base(root: RuleRoot, tmp_path):
    place = tmp_path / "layout"
    for name in ("one", "two"):
        tar = tar_of((f"srv/{name}", b"content"))
        gzipped = {"media_type": OCI_LAYER_GZIP, "diff_ids": [sha256(tar)]}
        layout_of(place, [gzip.compress(tar)], names=[name], **gzipped)
    files = {
        f"img/layout/{path.relative_to(place)}": path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }
    fields = 'source="layout", python="/usr/bin/python3.12"'
    root.write({**base(fields), **files})
    assert "holds 2 images for linux/amd64: set `ref` to the name of one" in root.refusal("img:i")
    root.write(base(f'{fields}, ref="two"'))
    tree = root.image("img:i").tree
    assert "srv/two" in tree
    assert "srv/one" not in tree


def test_wheels_are_chosen_for_the_bases_glibc(root: RuleRoot):
    files = app()
    files["img/BUILD"] = str(files["img/BUILD"]).replace("name=", 'glibc="2.16", name=')
    root.write(files)
    assert "the base's `glibc` is '2.16': give a version from 2.17 on" in root.refusal("app:image")
    root.write({"img/BUILD": str(files["img/BUILD"]).replace("2.16", "2.17")})
    assert "opt/venv/lib/python3.12/site-packages/pftest_a.py" in root.image("app:image").tree


def test_what_a_base_has_in_our_place_stays_but_for_what_is_locked(root: RuleRoot):
    """No layer of the base is needed for that."""
    site = "opt/venv/lib/python3.12/site-packages"
    distributions = (
        BaseDistribution(f"/{site}", "pftest-a", "0.1", (f"{site}/old", "opt/venv/bin/old")),
        BaseDistribution(f"/{site}", "other", "3.0", (f"{site}/other",)),
    )
    facts = BaseFacts(
        "/usr/local/bin/python3.12", "3.12.7", "2.36", False, True, (f"/{site}",),
        has_flyte=True, distributions=distributions, isolated=True,
    )  # fmt: skip
    files = app()
    files["img/base.lock.json"] = base_image(replace(base_platform(), facts=facts)).to_json()
    root.write(files)
    built, tree = root.built_image("app:image"), root.image("app:image").tree
    assert {path for path in tree if "/.wh." in path} == {
        f"{site}/.wh.old",
        "opt/venv/bin/.wh.old",
    }
    assert "include-system-site-packages = false" in tree["opt/venv/pyvenv.cfg"].content
    assert f"{site}/pftest_a.py" in tree
    assert built.notes == (
        "the base's packages in /opt/venv stay importable, after the locked ones, which replace "
        "pftest-a 0.1",
    )

    unknown = replace(distributions[0], paths=None)
    facts = replace(facts, distributions=(unknown, distributions[1]))
    root.write({"img/base.lock.json": base_image(replace(base_platform(), facts=facts)).to_json()})
    tree = root.image("app:image").tree
    assert {path for path in tree if "/.wh." in path} == {"opt/.wh.venv"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('python_version="3.12"', "The `python_version` field in target img:base is '3.12'; give"),
        ('python_version="3.13.1"', "`python_version` is 3.13.1, and its Python, /usr/local/bin/python3.12, is 3.12.7: leave it out"),
    ],
)  # fmt: skip
def test_a_version_of_python_that_cannot_be_is_refused(root: RuleRoot, fields, message):
    root.write(base(f"{IMAGE}, {fields}", base_image().to_json()))
    with pytest.raises(ExecutionError) as caught:
        root.package("img:i")
    assert message in str(caught.value)


# --- run ------------------------------------------------------------------------------------------


def request(root: RuleRoot) -> RunRequest:
    return root.runner.request(RunRequest, [RunBaseImageFieldSet.create(root.target("img:base"))])


@pytest.mark.parametrize(
    "lock", [None, b"<<<<<<< HEAD", base_image(name="docker.io/library/x:1").to_json()]
)
def test_locking_needs_no_lock_file_that_would_do(root: RuleRoot, lock):
    root.write(base(IMAGE, lock))
    program, *arguments = request(root).args
    assert program.startswith("{chroot}/")
    assert arguments == [
        *("base-lock", "--address", "img:base", "--image", PYTHON_IMAGE),
        *("--lockfile", "img/base.lock.json", "--platform", "linux/amd64", "--"),
    ]


def test_locking_is_told_all_that_the_target_says(root: RuleRoot):
    image_options(root, "--flyte-insecure-registries=['reg.test:80']")
    root.write(
        base(
            'image="reg.test:80/py:3", platforms=["linux/arm64/v8", "linux/amd64"], lockfile="../l.json",'
            'python="/usr/bin/python3.11"'
        )
    )
    assert request(root).args[1:] == (
        *("base-lock", "--address", "img:base", "--image", "reg.test:80/py:3"),
        *("--lockfile", "l.json", "--platform", "linux/amd64", "--platform", "linux/arm64"),
        *("--python", "/usr/bin/python3.11", "--insecure", "reg.test:80", "--"),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('source="host"', "only a base in a registry has a lock file; this one comes from 'host'"),
        ("", "give `image` (a reference) or `source`"),
        ('image="a b"', "`image`: "),
        (f'{IMAGE}, platforms=["x"]', "`platforms`: "),
    ],
)
def test_what_cant_be_locked_says_why(root: RuleRoot, fields, message):
    root.write(base(fields))
    with pytest.raises(ExecutionError) as caught:
        request(root)
    assert message in refusal(caught.value)


# --- this machine's -------------------------------------------------------------------------------


def test_a_base_of_this_machine_is_whole_and_marked(root: RuleRoot):
    root.write(base('source="host", interpreter_constraints=["CPython==3.11.*"]'))
    built = root.built_image("img:i")
    assert (built.production, built.base_name, len(built.platforms)) == (False, None, 1)
    layout = root.image("img:i")
    assert all(layer.members is not None for layer in layout.layers())
    mark = "dev.pants-flyte.not-for-production"
    assert mark in layout.config["Labels"]
    assert mark in layout.manifest()["annotations"]
    assert "org.opencontainers.image.base.name" not in layout.manifest()["annotations"]
    link = layout.tree["opt/venv/bin/python"].content
    assert layout.tree[link[1:]].kind == "file"
