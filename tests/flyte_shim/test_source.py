"""Where archives are read from, and what a download makes sure of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_shim.errors import (
    HashMismatch,
    ShimError,
    SourceMissing,
    SourceUnavailable,
    TooLarge,
    UsageError,
)
from flyte_shim.hashing import sha256_bytes
from flyte_shim.source import Source, download, open_source

DATA = bytes(range(256)) * 20_000


@pytest.fixture
def odd_directory(tmp_path, monkeypatch) -> Path:
    directory = tmp_path / "a b%?#ü"
    directory.mkdir()
    (directory / "archive").write_bytes(DATA)
    monkeypatch.chdir(directory)
    return directory


@pytest.mark.parametrize(
    "form",
    [
        "{path}",
        "archive",
        "./archive",
        "../{name}/archive",
        "{uri}",
        "file://localhost{quoted}",
        "FILE://LOCALHOST{quoted}",
        "file:{quoted}",
    ],
)
def test_a_path_and_every_kind_of_file_uri_name_the_file(odd_directory, tmp_path, form):
    path = odd_directory / "archive"
    uri = form.format(
        path=path,
        name=odd_directory.name,
        uri=path.as_uri(),
        quoted=path.as_uri()[len("file://") :],
    )
    copy = tmp_path / "copy"
    download(open_source(uri), str(copy), sha256_bytes(DATA), len(DATA))
    assert copy.read_bytes() == DATA


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("s3://bucket/a.tar.gz", UsageError, "No way to read s3://.*plain paths and file://"),
        ("https://host/a.tar.gz", UsageError, "No way to read https://"),
        ("file://host/a.tar.gz", UsageError, "the host 'host'.*file:///absolute/path"),
        ("file:a.tar.gz", UsageError, "no absolute path"),
        ("file://", UsageError, "no absolute path"),
        ("file:///a?b", UsageError, "%3F and %23"),
        ("file:///a#b", UsageError, "%3F and %23"),
        ("file:///a%2", UsageError, "two hexadecimal digits"),
        ("file:///a%zz", UsageError, "two hexadecimal digits"),
        ("file:///a%+1", UsageError, "two hexadecimal digits"),
        ("file:///a%00", UsageError, "NUL"),
        ("/nowhere/a.tar.gz", SourceMissing, "no archive to read at /nowhere/a.tar.gz: No such"),
        ("file:///nowhere/a", SourceMissing, "No such file"),
        ("/", SourceMissing, "not a regular file"),
        ("/dev/zero", SourceMissing, "not a regular file"),
    ],
)
def test_what_can_not_be_read_is_refused(tmp_path, uri, error, message):
    with pytest.raises(error, match=message):
        download(open_source(uri), str(tmp_path / "copy"), sha256_bytes(DATA), len(DATA))


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceMissing, match="not a regular file"):
        download(open_source(str(tmp_path / "fifo")), str(tmp_path / "copy"), "0" * 64, 1)


def test_another_hash_is_an_error_that_names_both(tmp_path):
    (tmp_path / "archive").write_bytes(DATA)
    expected = sha256_bytes(b"something else")
    with pytest.raises(HashMismatch) as caught:
        download(open_source(str(tmp_path / "archive")), str(tmp_path / "copy"), expected, 1 << 30)
    assert expected in str(caught.value)
    assert sha256_bytes(DATA) in str(caught.value)


class Flaky(Source):
    """A source that breaks off: `script` holds how many bytes each read gives before it does."""

    def __init__(self, script: list[int], size: int | None = len(DATA)) -> None:
        super().__init__("flaky://archive")
        self.script = script
        self.offsets: list[int] = []
        self._size = size

    def size(self) -> int | None:
        return self._size

    def read(self, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        count = self.script.pop(0)
        yield DATA[offset : offset + count]
        if offset + count < len(DATA):
            raise SourceUnavailable("Reading flaky://archive failed: connection reset.")


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, size):
    source = Flaky([1000, 0, 50_000, len(DATA)], size)
    copy = tmp_path / "copy"
    download(source, str(copy), sha256_bytes(DATA), len(DATA), pause=0)
    assert copy.read_bytes() == DATA
    assert source.offsets == [0, 1000, 1000, 51_000]


def test_a_source_that_stays_away_is_given_up_on(tmp_path):
    source = Flaky([1, 1, 1, len(DATA)])
    with pytest.raises(SourceUnavailable, match=r"connection reset. Gave up after 3 attempts."):
        download(source, str(tmp_path / "copy"), "0" * 64, len(DATA), pause=0, attempts=3)
    assert source.offsets == [0, 1, 2]


@pytest.mark.parametrize("size", [len(DATA), None, 5])
def test_no_more_is_read_than_the_limit(tmp_path, size):
    """Whatever the store says about the size."""
    source = Flaky([len(DATA)], size)
    with pytest.raises(TooLarge, match=r"larger than 10 bytes.*FLYTE_SHIM_MAX_ARCHIVE_BYTES"):
        download(source, str(tmp_path / "copy"), "0" * 64, 10, pause=0)
    assert (tmp_path / "copy").stat().st_size <= 10


def test_every_error_is_one_for_the_reader_of_a_log():
    for error in (HashMismatch, SourceMissing, SourceUnavailable, TooLarge, UsageError):
        assert issubclass(error, ShimError)
        assert 64 <= error.code < 78
