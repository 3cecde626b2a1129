"""What is said on a Pants that this backend was not tried on."""

from __future__ import annotations

import logging
import re

import pytest
from pants.base.exceptions import BackendConfigurationError
from pants.engine.rules import rule
from pants.version import PANTS_SEMVER

from flyte_shim import __version__
from pants_flyte.engine import tried


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
