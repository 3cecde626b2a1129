"""Imports of Flyte's own packages are inferred, by the names that their distributions have."""

from __future__ import annotations

import pytest
from pants.backend.python.dependency_inference.default_module_mapping import (
    DEFAULT_MODULE_MAPPING,
)

from pants_flyte.flyte_modules import MODULES, add_to
from tests.support.flyte_rules import RuleRoot


@pytest.mark.parametrize(
    ("requirement", "statement"),
    [
        ("flyte", "import flyte"),
        ("flyte[sandbox]", "from flyte.app.extras import FastAPIAppEnvironment"),
        ("flyteidl2", "from flyteidl2.core import literals_pb2"),
        ("union", "from union.x import y"),
        ("unionai", "import unionai"),
        ("flyteplugins-ray", "from flyteplugins.ray import RayJobConfig"),
        ("flyteplugins_ray>=2", "import flyteplugins.ray.task"),
        ("Flyteplugins.Ray", "from flyteplugins import ray"),
        ("flyteplugins-pytorch", "def f():\n    from flyteplugins.pytorch.task import Elastic"),
        ("flyteplugins-union", "from flyteplugins.union.io.volume import Volume"),
        ("flyteplugins-typesafe-ai", "from flyteplugins.typesafe_ai import x"),
        ("flyteplugins-agents-core", "from flyteplugins.agents.core import tool"),
        ("flyteplugins-agents-pydantic-ai", "from flyteplugins.agents.pydantic_ai import run"),
        ("flyteplugins-openai", "from flyteplugins.openai.agents import function_tool"),
        ("flyteplugins-hydra", "import hydra_plugins.hydra_flyte_launcher.launcher"),
        ("flyteplugins-rs", "import flyteplugins_rs"),
    ],
)
def test_an_import_of_flytes_packages_is_inferred(root: RuleRoot, requirement, statement):
    others = ("flyteplugins-dask", "flyteplugins-agents-google", "flyteplugins-gemini")
    root.write(
        {
            "BUILD": "python_sources(name='src')\n"
            + "".join(
                f"python_requirement(name={name!r}, requirements=[{value!r}])\n"
                for name, value in (("wanted", requirement), *((o, o) for o in others))
            ),
            "m.py": f"{statement}\n",
        }
    )
    assert root.dependencies("//m.py:src") == ["//:wanted"]


def test_what_a_repository_says_outweighs_the_table(root: RuleRoot):
    root.write(
        {
            "BUILD": """
                python_sources(name="src")
                python_requirement(name="ray", requirements=["flyteplugins-ray"], modules=["ours"])
                """,
            "m.py": "import ours\nfrom flyteplugins.ray import x\n",
        }
    )
    assert root.dependencies("//m.py:src") == ["//:ray"]
    root.write({"m.py": "from flyteplugins.ray import x\n"})
    assert root.dependencies("//m.py:src") == []


def test_pants_own_table_is_added_to_and_not_changed():
    assert set(MODULES) <= set(DEFAULT_MODULE_MAPPING)
    defaults = {"flyteplugins-ray": ("pants_knows_better",), "pyyaml": ("yaml",)}
    add_to(defaults)
    assert defaults.pop("flyteplugins-ray") == ("pants_knows_better",)
    assert defaults.pop("pyyaml") == ("yaml",)
    assert set(defaults) == set(MODULES) - {"flyteplugins-ray"}
