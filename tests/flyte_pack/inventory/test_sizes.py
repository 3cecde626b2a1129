"""What files take in an archive adds up to it, and is what their content compresses to."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from flyte_pack.errors import UserError
from flyte_pack.inventory import sizes
from flyte_pack.inventory.plan import ArchiveSizes, PackageSizes
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.model import blob_path

SITE = "opt/venv/lib/python3.12/site-packages"
NOISE = random.Random(3).randbytes(300_000)  # no codec makes it smaller


def written(place: Path, files: dict[str, bytes], member_after: str = "") -> Path:
    """A layer. member_after: after which file another member of gzip begins."""
    with LayerWriter(str(place)) as layer:
        for path, content in files.items():
            layer.add_parents(path, "opt/venv")
            layer.add_bytes(path, content)
            if path == member_after:
                layer.next_member()
        return place / blob_path(layer.finish("a layer").digest)


def measured(archive: Path) -> ArchiveSizes:
    with archive.open("rb") as file:
        return sizes.sizes_of(file, str(archive))


FILES = {
    "a": b"",
    "b/noise": NOISE,
    "b/zeros": bytes(2_000_000),
    "é" * 150: b"its path needs a pax header",
    "z/noise": NOISE[:70_000],
}


@pytest.mark.parametrize("member_after", ["", "b/noise", "b/zeros"])
def test_each_file_has_its_share_of_the_archive(tmp_path: Path, member_after: str):
    archive = written(tmp_path, FILES, member_after)
    found = {path: (size, packed) for path, size, packed in measured(archive).files}
    assert {path: size for path, (size, _) in found.items()} == {p: len(c) for p, c in FILES.items()}  # fmt: skip
    whole = archive.stat().st_size
    assert whole - 40 < sum(packed for _, packed in found.values()) < whole
    for path in ("b/noise", "z/noise"):
        assert found[path][1] == pytest.approx(found[path][0], rel=0.02)
    assert found["b/zeros"][1] < 20_000
    assert max(found["a"][1], found["é" * 150][1]) < 400


def test_files_of_distributions_are_theirs(tmp_path: Path):
    record = "pf_a/__init__.py,,\n../../../bin/pf,,\npf_a-1.0.dist-info/RECORD,,\n"
    installed = {
        "opt/venv/bin/pf": b"#!",
        f"{SITE}/pf_a-1.0.dist-info/RECORD": record.encode(),
        f"{SITE}/pf_a/__init__.py": b"A = 1",
        f"{SITE}/pf_a/__pycache__/__init__.cpython-312.pyc": b"bytes",
        f"{SITE}/loose.py": b"",
    }
    found = measured(written(tmp_path, installed))
    (package,) = found.packages
    size = sum(map(len, installed.values()))
    assert package == PackageSizes("distribution", "pf-a", "1.0", 4, size, package.packed)
    assert [path for path, *_ in found.files] == [f"{SITE}/loose.py"]


def test_files_of_debian_packages_are_theirs(tmp_path: Path):
    records = "var/lib/dpkg/status.d"
    found = measured(
        written(
            tmp_path,
            {
                "usr/bin/x": b"1234",
                "usr/lib/libx.so": b"12345",
                f"{records}/libx": b"Package: libx\n",
                f"{records}/libx.md5sums": b"00  usr/bin/x\n00  lib/libx.so\n",
            },
        )
    )
    assert [(one.kind, one.name, one.files) for one in found.packages] == [("debian", "libx", 4)]
    assert found.files == ()


def test_what_is_damaged_is_an_error(tmp_path: Path):
    data = written(tmp_path, FILES).read_bytes()
    for broken in (data[: len(data) // 2], b"no gzip file", data[:400] + b"?" * 40 + data[440:]):
        with pytest.raises(UserError, match="archive: is"):
            sizes.sizes_of(io.BytesIO(broken), "archive")
