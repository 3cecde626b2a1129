"""A real remote cache for a test's own, and what a run of Pants says about using it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.build_root import CHECKOUT, clean_environment

SCRIPT = CHECKOUT / "build-support" / "services" / "remote_cache.py"


@contextmanager
def remote_cache(directory: Path) -> Iterator[str]:
    """The address of an empty cache, for the time of a `with` block."""
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address, "the remote cache did not start: see what it printed to stderr"
        yield address
    finally:
        server.terminate()
        server.communicate()


@dataclass(frozen=True)
class Executed:
    """A process that Pants started on this machine."""

    description: str
    cache_scope: str
    inputs: str
    """The hash of the tree of its input files."""


@dataclass(frozen=True)
class Account:
    """What one run of Pants says of its processes, with `-ldebug --stats-log`."""

    executed: tuple[Executed, ...]
    hits: frozenset[str]
    """Descriptions of the processes whose results came from the remote cache."""
    counters: dict[str, int]

    @property
    def cacheable(self) -> dict[str, Executed]:
        """The executed ones that Pants would have taken from a cache, by description.

        The others it keeps in memory alone, as their results are a machine's own: where an
        interpreter or a program lies.
        """
        return {
            e.description: e for e in self.executed if not e.cache_scope.startswith("PerRestart")
        }


_EXECUTED = re.compile(
    r"spawned local process .*?input_digests: InputDigests \{ complete: DirectoryDigest "
    r"\{ digest: Digest \{ hash: Fingerprint<(?P<inputs>\w+)>.*?"
    r'description: "(?P<description>.*?)", level: .*?cache_scope: (?P<scope>\w+)'
)
_HIT = re.compile(r'remote cache hit for: "(.*?)" digest=')
_COUNTER = re.compile(r"^  (\w+): (\d+)$", re.MULTILINE)


def account(log: str) -> Account:
    """Read what Pants 2.17 wrote to stderr."""
    return Account(
        executed=tuple(
            Executed(found["description"], found["scope"], found["inputs"])
            for found in _EXECUTED.finditer(log)
        ),
        hits=frozenset(_HIT.findall(log)),
        counters={name: int(value) for name, value in _COUNTER.findall(log)},
    )
