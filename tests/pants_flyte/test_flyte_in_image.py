"""An image for tasks has flyte: of a requirement, or of its base. Otherwise `package` refuses it, and
says what of the repository could bring it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from flyte_pack.image.base import BaseFacts
from tests.support.bases import base_image, base_platform
from tests.support.flyte_images import BASE, TASK, image_options
from tests.support.flyte_rules import RuleRoot

ONE = 'python_requirement(name="flyte", requirements=["flyte>=2"])\n'
TWO = f'{ONE}python_requirement(name="Flyte", requirements=["Flyte[all]==2.12"])\n'
OTHER = 'python_requirement(name="other", requirements=["flyte"], resolve="other")\n'
NOT_IT = 'python_requirement(name="x", requirements=["flyteidl2", "flyte-sdk"], modules=["x"])\n'
IMAGE = 'flyte_image(name="image", base="//img:base", dependencies=[":t"])\n'
T = 'flyte_task(name="t", entry_point="w.py:train", image=":image")\n'

# BUILD files of 3rdparty and app, and what is said.
REFUSED = {
    "several owners": (
        TWO,
        IMAGE + T,
        "app:t and has no `flyte`",
        "3rdparty:Flyte, 3rdparty:flyte own the module",
        "`dependencies` of app:t",
    ),
    "one, to which nothing leads": (
        ONE,
        IMAGE.replace("])", ", '!!3rdparty:flyte'])", 1) + T,
        "no dependency leads to 3rdparty:flyte",
    ),
    "none": (
        NOT_IT,
        IMAGE + T,
        "no target of the resolve `python-default` requires it. Write",
        'requirements=["flyte"], resolve="python-default")`',
    ),
    "one of another resolve": (OTHER, IMAGE + T, "3rdparty:other is of another"),
    "one with a marker": (
        ONE.replace(">=2", "; python_version<'3.10'"),
        IMAGE.replace("])", ", '3rdparty:flyte'])", 1) + T,
        "does not ask for it on the platform and Python of the image",
    ),
    "a task that the image does not name": (
        NOT_IT,
        IMAGE.replace('[":t"]', "[]") + T,
        "it is for app:t and",
    ),
    "a task elsewhere in the graph": (
        NOT_IT,
        IMAGE.replace('":t"', '":all"') + 'target(name="all", dependencies=[":t"])\n' + T,
        "it is for app:t and",
    ),
    "the second of two images": (
        NOT_IT,
        IMAGE + IMAGE.replace('"image"', '"second"').replace('":t"', "") + T,
        "app:image: it is for app:t and",
    ),
}


def write(root: RuleRoot, requirements: str, app: str, has_flyte: bool | None = False) -> None:
    image_options(root)
    facts = None if has_flyte is None else BaseFacts(has_flyte=has_flyte)
    root.write(
        {
            **BASE,
            "img/base.lock.json": base_image(replace(base_platform(), facts=facts)).to_json(),
            "3rdparty/BUILD": requirements,
            "app/BUILD": f"python_sources()\n{app}",
            "app/w.py": f"import flyte\n{TASK}",
        }
    )


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_an_image_for_tasks_without_flyte_is_refused_with_what_could_bring_it(root: RuleRoot, case):
    requirements, app, *says = case
    write(root, requirements, app)
    said = root.refusal("app:image")
    assert all(text in said for text in says), said
    assert "\n" not in said


@pytest.mark.parametrize("has_flyte", [True, None], ids=["has it", "may have it"])
def test_a_base_may_bring_it(root: RuleRoot, has_flyte):
    write(root, TWO, IMAGE + T, has_flyte)
    assert root.built_image("app:image").layers


def test_an_image_for_no_task_needs_none(root: RuleRoot):
    second = IMAGE.replace('"image"', '"second"').replace('":t"', '"./w.py"')
    write(root, TWO, IMAGE + T + second)
    assert root.built_image("app:second").layers
