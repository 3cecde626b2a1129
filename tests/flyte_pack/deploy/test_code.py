"""The code that an image holds is unpacked from its layers, to an end."""

from __future__ import annotations

import gzip

import pytest

from flyte_pack.deploy import code
from flyte_pack.oci.model import OCI_LAYER_GZIP, InvalidImage
from tests.support.images import layout_of, listing, sha256, tar_of

TARS = [tar_of(("etc/x", b"1"), ("root/a/b/c.py", b"2")), tar_of(("root/a/d.py", b"3"))]


@pytest.fixture
def layout(tmp_path) -> str:
    layers = [gzip.compress(tar) for tar in TARS]
    diff_ids = [sha256(tar) for tar in TARS]
    place = tmp_path / "layout"
    return str(layout_of(place, layers, media_type=OCI_LAYER_GZIP, diff_ids=diff_ids))


def test_only_what_is_below_the_working_directory_is_code(layout, tmp_path):
    code.unpack_embedded(layout, "/root", str(tmp_path / "code"))
    expected = {"a": None, "a/b": None, "a/b/c.py": b"2", "a/d.py": b"3"}
    assert listing(tmp_path / "code") == expected


def test_files_and_directories_without_end_are_refused(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "_MAX_FILES", 3)
    with pytest.raises(InvalidImage, match="more than 3 files"):
        code.unpack_embedded(layout, "/root", str(tmp_path / "code"))
