"""Seeded input for fuzzers: the same on each run, and more of it by FUZZ=FACTOR (docs/security.md)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

FACTOR = int(os.environ.get("FUZZ") or 1)


def fuzz(rounds: int) -> Iterator[random.Random]:
    """Yields `rounds` times FACTOR generators, each with a fixed seed of its own."""
    for seed in range(rounds * FACTOR):
        yield random.Random(seed)
