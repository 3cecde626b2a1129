"""Statements about reading the sources; what is refused is in test_bundle.py."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack.errors import UserError
from flyte_pack.sources import SourceTree
from tests.support.packing import write_tree

FILES = ["x", "a/x", "a/b/x", "a/b/c/x", "a/bc/x", "ab/c/x", "ü/x", "ü/b/x"]
MISSING = ["a/gone", "gone/x", "a/b/gone/x", "a/x/x"]


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A tree whose files hold their own paths."""
    return write_tree(tmp_path_factory.mktemp("sources"), {path: path.encode() for path in FILES})


@given(st.lists(st.sampled_from(FILES + MISSING), max_size=20))
def test_files_are_found_in_whatever_order_and_after_any_failure(top, paths):
    descriptors = len(os.listdir("/proc/self/fd"))
    with SourceTree(str(top)) as tree:
        for path in paths:
            if path in MISSING:
                with pytest.raises(UserError, match=path):
                    tree.open(path)
                continue
            fd, status = tree.open(path)
            assert os.read(fd, 100).decode() == path
            assert status.st_size == len(path.encode())
            os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_directory_of_pants_may_be_kept_elsewhere(tmp_path):
    kept = write_tree(tmp_path / "kept", {"a/x": b"kept"})
    top = write_tree(tmp_path / "sources", {"1/x": b""})
    (top / "0").symlink_to(kept)
    with SourceTree(str(top)) as tree:
        for path, content in {"0/a/x": b"kept", "1/x": b""}.items():
            fd, _ = tree.open(path)
            assert os.read(fd, 100) == content
            os.close(fd)
