"""A package in `src/` layout: its source root is `packages/geo/src`, so it is imported as `geo`."""

from geo.distance import kilometres

__all__ = ["kilometres"]
