"""docs/reference.md is what build-support/reference.py writes."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from pants_flyte.register import target_types

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("reference", TOP / "build-support" / "reference.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_current(script: ModuleType):
    if script.PAGE.read_text() != script.page():
        pytest.fail(f"docs/reference.md is not what the help texts say now: {script.COMMAND}")


def test_it_has_every_field_of_ours_and_its_links_lead_somewhere(script: ModuleType):
    text = script.page()
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.S | re.M))
    for kind in target_types():
        fields = {*kind.core_fields, *getattr(kind, "moved_fields", ())}
        named = {field.alias for field in fields if not field.alias.startswith("_")}
        assert named <= set(re.findall(r"`(\w+)`", sections[kind.alias])), kind.alias
    titles = re.findall(r"^## `(.*)`$", text, re.M)
    assert {"[flyte]", "[flyte-pack]", "./pants flyte-explain"} <= set(titles)
    anchors = {script._anchor(title) for title in titles}
    assert set(re.findall(r"\(#(.*?)\)", text)) <= anchors


def test_help_reads_as_markdown(script: ModuleType):
    """A list that is indented is shown as code, by `help` and by the page."""
    assert re.findall(r"^ +- .*", script.page(), re.M) == []
