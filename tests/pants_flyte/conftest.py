"""One build root for all tests: making the rule graph takes seconds, emptying the directory does
not.
"""

from __future__ import annotations

import pytest

from tests.support.flyte_rules import RuleRoot


@pytest.fixture(scope="session")
def shared_root() -> RuleRoot:
    return RuleRoot()


@pytest.fixture
def root(shared_root: RuleRoot) -> RuleRoot:
    """An empty build root with the usual options."""
    shared_root.clear()
    return shared_root
