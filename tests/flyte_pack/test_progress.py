"""Transfers say how far they are: in a redrawn line on a terminal, elsewhere in plain lines."""

from __future__ import annotations

import io
import os
import pty

import pytest

from flyte_pack.progress import Console, Progress, megabytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def terminal():
    """(a stream to a real terminal, what has been written to it so far)."""
    controller, device = pty.openpty()
    stream = os.fdopen(device, "w")

    def written() -> str:
        os.write(device, b"\0")  # for what comes before it may arrive in pieces
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(controller, 1 << 16)
        return text[:-1].decode().replace("\r\n", "\n")

    yield stream, written
    stream.close()
    os.close(controller)


def test_in_a_pipe_plain_lines_come_now_and_then_with_bytes_and_rate():
    clock, lines = Clock(), []
    progress = Progress(lines.append, "a.tar.gz", 100_000_000, clock)
    for second in range(1, 11):
        clock.now = 100.0 + second
        progress.add(2_000_000)
    assert lines == [
        "  a.tar.gz: 10.0 MB of 100.0 MB (10 %), 2.0 MB/s",
        "  a.tar.gz: 20.0 MB of 100.0 MB (20 %), 2.0 MB/s",
    ]


def test_a_transfer_that_is_short_says_nothing():
    lines = []
    progress = Progress(lines.append, "a", 10, Clock())
    assert list(progress.of([b"abc", b"defghij"])) == [b"abc", b"defghij"]
    assert (progress.done, lines) == (10, [])


def test_a_terminal_has_one_line_that_is_drawn_anew_and_gone_at_the_end(terminal):
    stream, written = terminal
    console, clock = Console(stream, {"TERM": "xterm"}), Clock()
    progress = Progress(console, "a", 4000, clock)
    progress.add(1000)
    assert written() == ""
    clock.now += 1
    progress.add(1000)
    assert written() == "\r\x1b[K  a: 2.0 kB of 4.0 kB (50 %), 2.0 kB/s"
    clock.now += 1
    progress.add(1000)
    assert written() == "\r\x1b[K  a: 3.0 kB of 4.0 kB (75 %), 1.5 kB/s"
    progress.add(1000)
    assert written() == "\r\x1b[K"


def test_what_is_said_meanwhile_stands_above_that_line(terminal):
    stream, written = terminal
    console = Console(stream, {"TERM": "xterm"})
    console("before")
    console.draw("half")
    console("between")
    console.draw("more")
    console.draw("")
    console("after")
    assert written() == "before\n\r\x1b[Khalf\r\x1b[Kbetween\n\r\x1b[Kmore\r\x1b[Kafter\n"


def test_a_line_is_cut_to_the_width_of_the_terminal(terminal, monkeypatch):
    stream, written = terminal
    monkeypatch.setenv("COLUMNS", "10")
    Console(stream, {"TERM": "xterm"}).draw("0123456789abc")
    assert written() == "\r\x1b[K012345678"


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": "xterm", "CI": "true"}])
def test_a_terminal_that_can_not_redraw_or_becomes_a_log_gets_plain_lines(terminal, environ):
    stream, written = terminal
    console, clock = Console(stream, environ), Clock()
    progress = Progress(console, "a", 4000, clock)
    clock.now += 10
    progress.add(1000)
    console.draw("never")
    assert written() == "  a: 1.0 kB of 4.0 kB (25 %), 100 B/s\n"


def test_a_name_that_the_encoding_lacks_is_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream, {})("é")
    assert raw.getvalue() == b"\\xe9\n"


def test_a_reader_that_has_gone_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        console = Console(stream, {})
        console("nobody")
        console("hears this")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB")),
        *((999_950, "1.0 MB"), (12_345_678_901, "12,345.7 MB")),
    ],
)  # fmt: skip
def test_sizes_for_a_person(count, text):
    assert megabytes(count) == text


def test_a_line_tells_no_secret_and_steers_no_terminal():
    stream = io.StringIO()
    Console(stream, {})("cannot read s3:/AKIA:planted@bucket/k\x1b[2J: no such key")
    assert stream.getvalue() == "cannot read s3:/bucket/k\\x1b[2J: no such key\n"
