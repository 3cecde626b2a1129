"""What tests share: it takes a while to make, and no test changes it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

from tests.support.containers import docker_engine
from tests.support.images import run_flyte_pack

# A busy machine is not a failure: no example of a property has a limit of time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def docker(tmp_path_factory):
    """A docker engine of this session's own."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="session")
def host_base(tmp_path_factory):
    """base.json and blobs of a base of this machine's own files."""
    out = tmp_path_factory.mktemp("host-base") / "base"
    done = run_flyte_pack(
        "flyte_pack.image.host_base", "--python", sys.executable, "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    return out
