"""Statements about the codec: its bytes are a function of the input, and it is the pinned one."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_pack import codec
from flyte_pack.errors import UserError
from tests.support.codec_envs import LOCK, codec_for
from tests.support.packing import noise

INPUT = noise(codec.CHUNK) + b"text " * codec.CHUNK + b"the end"


def compress_into(out: io.BytesIO, *pieces: bytes) -> codec.GzipWriter:
    with codec.GzipWriter(out) as writer:
        for piece in pieces:
            writer.add(piece)
        writer.finish()
    return writer


def compress(*pieces: bytes) -> bytes:
    out = io.BytesIO()
    writer = compress_into(out, *pieces)
    assert writer.sha256 == hashlib.sha256(out.getvalue()).hexdigest()
    assert writer.size == len(out.getvalue())
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, codec.CHUNK - 1, codec.CHUNK, codec.CHUNK + 1, len(INPUT)])
def test_what_comes_out_is_gzip_of_what_went_in(size):
    assert gzip.decompress(compress(INPUT[:size])) == INPUT[:size]


@given(st.lists(st.integers(0, len(INPUT)), max_size=8).map(sorted))
@settings(max_examples=30)
def test_how_the_input_is_cut_changes_no_byte(cuts):
    pieces = [INPUT[a:b] for a, b in zip([0, *cuts], [*cuts, len(INPUT)])]
    assert compress(*pieces) == compress(INPUT)


def test_the_gzip_header_names_no_file_time_or_system():
    # RFC 1952, 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
    assert compress(b"x")[:10] == b"\x1f\x8b\x08" + b"\0" + b"\0\0\0\0" + b"\0" + b"\xff"


class FullDisk(io.BytesIO):
    """Takes `room` bytes and then fails as a full disk does; every write takes a part only."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data) -> int:
        part = bytes(data[: 1 + len(data) // 2])
        if self.tell() + len(part) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(part)


@pytest.mark.parametrize("room", [0, 100, codec.CHUNK + 100])
def test_a_file_that_cannot_be_written_raises_what_it_raised(room):
    with pytest.raises(OSError, match="No space left"):
        compress_into(FullDisk(room), *[INPUT[: codec.CHUNK]] * 200)


def test_a_file_that_takes_a_part_at_a_time_gets_it_all():
    out = FullDisk(1 << 30)
    compress_into(out, INPUT)
    assert out.getvalue() == compress(INPUT)


def test_another_version_of_the_library_is_refused(monkeypatch):
    monkeypatch.setattr(codec, "ISAL_VERSION", "9.9.9")
    with pytest.raises(UserError, match=r"pinned to ISA-L 9\.9\.9.*flyte-pack\.lock"):
        codec.GzipWriter(io.BytesIO())


def test_a_missing_codec_is_named_with_the_lock_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "isal", None)
    with pytest.raises(UserError, match=r"isal cannot be imported.*flyte-pack\.lock"):
        codec.GzipWriter(io.BytesIO())


def test_the_lock_installs_the_version_that_archives_are_pinned_to():
    found = subprocess.run(
        [sys.executable, "-S", "-c", "import isal; print(isal.ISAL_VERSION)"],
        env={"PYTHONPATH": codec_for(sys.executable)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == codec.ISAL_VERSION


def test_the_lock_holds_one_version_with_hashes_and_no_address():
    text = LOCK.read_text()
    assert re.findall(r"^(\S+) \\$", text, re.MULTILINE) == ["isal==1.8.0"]
    assert len(re.findall(r"^    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) > 40
    assert "://" not in text
