"""What tests of registries share."""

from __future__ import annotations

import pytest

from tests.support.faulty_registry import faulty_registry
from tests.support.registries import real_registry


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    """A registry that asks for a user and a password."""
    with real_registry(tmp_path_factory.mktemp("basic"), "basic") as registry:
        yield registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def front(registry):
    with faulty_registry(registry.host) as front:
        yield front
