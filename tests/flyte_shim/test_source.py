"""Where archives are read from, and what a download makes sure of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_shim.errors import (
    HashMismatch,
    ShimError,
    SourceChanged,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    TooLarge,
    UntrustedSource,
    UsageError,
)
from flyte_shim.fetch import open_source
from flyte_shim.hashing import sha256_bytes
from flyte_shim.source import Patience, Source, download

DATA = bytes(range(256)) * 20_000


def fetch(uri: str, copy: Path, sha256: str = sha256_bytes(DATA), limit: int = len(DATA)) -> None:
    patience = Patience(pause=0)
    download(open_source(uri, patience, {}), str(copy), sha256, limit, patience)


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
    fetch(uri, copy)
    assert copy.read_bytes() == DATA


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        (
            "ftp://host/a",
            UsageError,
            "cannot read ftp://host/a: .*plain paths and abfs://, .*s3",
        ),
        ("ftp://u:pw@host/a?sig=1", UsageError, "cannot read ftp://host/a: "),
        (
            "s3://bucket/a?versionId=1",
            UsageError,
            r"s3://bucket/a must not hold '\?'.*presigned URL unchanged",
        ),
        ("s3://key:secret@bucket/a", UsageError, "s3://bucket/a has an '@'"),
        ("s3:///a", UsageError, "has no bucket"),
        ("abfs://c@host.example/a", UsageError, "names no Azure account"),
        ("https:///a", UsageError, "is an invalid URL"),
        ("https://host:port/a", UsageError, "is an invalid URL"),
        ("https://u:secret@host/a", UsageError, "https://host/a has user information"),
        ("http://host/a", UsageError, "http://host/a is not encrypted.*FLYTE_SHIM_ALLOW_HTTP=1"),
        ("file://host/a.tar.gz", UsageError, "names a host; .*file:///absolute/path"),
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
        fetch(uri, tmp_path / "copy")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceMissing, match="not a regular file"):
        fetch(str(tmp_path / "fifo"), tmp_path / "copy")


def test_another_hash_is_an_error_that_names_both(tmp_path):
    (tmp_path / "archive").write_bytes(DATA)
    expected = sha256_bytes(b"something else")
    with pytest.raises(HashMismatch) as caught:
        fetch(str(tmp_path / "archive"), tmp_path / "copy", expected)
    assert expected in str(caught.value)
    assert sha256_bytes(DATA) in str(caught.value)


class Flaky(Source):
    """A source that breaks off: `script` holds how many bytes each read gives before it does.

    At a read with a negative number it was replaced.
    """

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
        if count < 0:
            raise SourceChanged("flaky://archive was replaced.")
        yield DATA[offset : offset + count]
        if offset + count < len(DATA):
            raise SourceUnavailable("reading flaky://archive failed: connection reset")


def get(source: Flaky, copy: Path, attempts: int = 5, limit: int = len(DATA)) -> tuple[int, int]:
    return download(source, str(copy), sha256_bytes(DATA), limit, Patience(attempts, pause=0))


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, size):
    source = Flaky([1000, 0, 50_000, len(DATA)], size)
    assert get(source, tmp_path / "copy") == (len(DATA), 4)
    assert (tmp_path / "copy").read_bytes() == DATA
    assert source.offsets == [0, 1000, 1000, 51_000]


def test_a_download_whose_archive_was_replaced_begins_again(tmp_path):
    source = Flaky([1000, -1, len(DATA)])
    get(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert source.offsets == [0, 1000, 0]


def test_a_source_that_stays_away_is_given_up_on(tmp_path):
    source = Flaky([1, 1, 1, len(DATA)])
    with pytest.raises(SourceUnavailable, match=r"connection reset; gave up after 3 attempts"):
        get(source, tmp_path / "copy", attempts=3)
    assert source.offsets == [0, 1, 2]


def test_attempts_that_bring_something_do_not_count(tmp_path):
    """A large archive over a bad line arrives in the end."""
    source = Flaky([1, 1 << 20, 1, 1 << 20, 1, len(DATA)])
    assert get(source, tmp_path / "copy", attempts=3) == (len(DATA), 6)


def test_what_comes_too_late_is_not_waited_for(tmp_path):
    source = Flaky([1, len(DATA)])
    patience = Patience(pause=1e9, deadline=0.5)
    with pytest.raises(SourceUnavailable, match=r"not done after 0.5 seconds.*FLYTE_SHIM_DEADLINE"):
        download(source, str(tmp_path / "copy"), sha256_bytes(DATA), len(DATA), patience)
    assert source.offsets == [0]


def test_pauses_grow_to_a_bound_differ_and_heed_what_the_store_asks_for():
    patience = Patience(pause=0.2)
    for attempt, longest in ((1, 0.2), (2, 0.4), (4, 1.6), (100, 10)):
        pauses = {patience.pause_after(attempt, 0) for _ in range(50)}
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert patience.pause_after(1, 7) == 7


@pytest.mark.parametrize("size", [len(DATA), None, 5])
def test_no_more_is_read_than_the_limit(tmp_path, size):
    """Whatever the store says about the size."""
    source = Flaky([len(DATA)], size)
    with pytest.raises(TooLarge, match=r"larger than 10 bytes.*FLYTE_SHIM_MAX_ARCHIVE_BYTES"):
        get(source, tmp_path / "copy", limit=10)
    assert (tmp_path / "copy").stat().st_size <= 10


def test_every_error_is_one_for_the_reader_of_a_log():
    errors = (HashMismatch, SourceDenied, SourceMissing, SourceUnavailable, TooLarge)
    for error in (*errors, UntrustedSource, UsageError):
        assert issubclass(error, ShimError)
        assert 64 <= error.code < 78
