"""Matches texts against patterns with wildcards, in time that grows with text times pattern.

A regular expression for `*a*a*a*a*b` tries every way to part a text. Here, all ways are followed at
once, as the bits of one number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_S = TypeVar("_S")


@dataclass(frozen=True)
class Step(Generic[_S]):
    """A part of a pattern: symbols that `fits` takes. One of them, or with `many` any number."""

    fits: Callable[[_S], bool]
    many: bool = False


@dataclass(frozen=True)
class Maybe(Generic[_S]):
    """Says that the next two steps are there both or not at all."""


class Wildcards(Generic[_S]):
    """A pattern over symbols (characters or bytes), as its steps."""

    def __init__(self, steps: Sequence[Step[_S] | Maybe[_S]]) -> None:
        self._steps = [(1 << i, step) for i, step in enumerate(steps) if isinstance(step, Step)]
        self._end = 1 << len(steps)
        # Bit i: the text so far has led to step i.
        self._many = sum(bit for bit, step in self._steps if step.many)
        self._maybe = self._end - 1 - sum(bit for bit, _ in self._steps)
        self._fitting: dict[_S, int] = {}

    def match(self, text: Sequence[_S]) -> bool:
        """Whether the pattern matches the whole text."""
        at = self._skip(1)
        for symbol in text:
            fitting = self._fitting.get(symbol)
            if fitting is None:
                fitting = sum(bit for bit, step in self._steps if step.fits(symbol))
                self._fitting[symbol] = fitting
            at &= fitting
            if not at:
                return False
            at = self._skip((at & self._many) | ((at & ~self._many) << 1))
        return bool(at & self._end)

    def _skip(self, at: int) -> int:
        """The same, with the places behind what may be left out."""
        while True:
            maybe = at & self._maybe
            more = at | (at & self._many | maybe) << 1 | maybe << 3
            if more == at:
                return at
            at = more
