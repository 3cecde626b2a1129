"""What is said on a Pants that this backend was not tried on."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pants.base.exceptions import BackendConfigurationError
from pants.engine.rules import rule
from pants.version import PANTS_SEMVER

import pants_flyte
from flyte_shim import __version__
from pants_flyte.engine import tried

PAGE = Path(__file__).parents[2] / "docs" / "pants-versions.md"
# Packages of Pants that its plugin documentation does not describe.
UNPROMISED = re.compile(r"pants\.(engine\.internals|base)\.|pants\.option\.global_options$")


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ((2, 17, 1), False),
        ((2, 30, 0), False),
        ((2, 33, 0), False),
        ((2, 33, 9), False),
        ((2, 34, 0), True),
        ((2, 100, 0), True),
        ((3, 0, 0), True),
    ],
)
def test_a_newer_minor_version_is_untried(release: tuple[int, ...], expected: bool):
    assert tried.untried(release) is expected


def test_an_untried_pants_is_told_of_in_one_line(caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        tried.warn_if_untried()
        assert caplog.messages == []
        monkeypatch.setattr(tried, "NEWEST", "2.16")
        tried.warn_if_untried()
    assert caplog.messages == [
        f"pants-flyte {__version__} was last tried on Pants 2.16, and this is {PANTS_SEMVER}."
    ]


def test_a_rule_that_pants_does_not_understand_is_told_of_with_the_versions():
    with pytest.raises(BackendConfigurationError) as caught, tried.explained():

        @rule
        async def unknown_to_the_engine(x) -> int:  # no type: Pants refuses it
            return x

    said = str(caught.value)
    assert f"Pants {PANTS_SEMVER} cannot load pants-flyte {__version__}" in said
    assert f"tried on Pants {tried.OLDEST} to {tried.NEWEST}" in said
    assert re.search(r"Pants says: \w+: .*unknown_to_the_engine", said)
    assert caught.value.__cause__ is not None


def test_what_is_missing_in_pants_is_told_of_with_the_versions():
    with pytest.raises(BackendConfigurationError, match="Pants says: ImportError: cannot import"):
        with tried.explained():
            from pants.engine.rules import no_such_name  # noqa: F401


def unpromised_names() -> Iterator[str]:
    """What we import that Pants does not promise, but for its own types of errors and options."""
    for path in Path(pants_flyte.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and UNPROMISED.match(f"{node.module}."[:-1]):
                for alias in node.names:
                    if alias.name not in ("BackendConfigurationError", "GlobalOptions"):
                        yield f"{node.module}.{alias.name}"


def test_the_page_of_versions_lists_what_pants_does_not_promise():
    page = PAGE.read_text()
    names = set(unpromised_names())
    assert "pants.engine.internals.graph.OwnersRequest" in names
    missing = [n for n in names if n not in page and n.rpartition(".")[0] not in page]
    assert missing == []


def test_the_page_of_versions_names_the_newest_one_tried():
    (row,) = re.findall(r"^\| (2\.\d+)\.\d+ \|.*test_on\.sh", PAGE.read_text(), re.MULTILINE)
    assert row == tried.NEWEST
