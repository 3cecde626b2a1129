"""What tests of images share: a docker engine takes a while to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containers import DockerEngine, docker_engine


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """A docker engine of this session's own, without images."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine
