"""Straight-line trends. `libs/features` has no `__init__.py`: it is a namespace package."""

import numpy as np


def next_value(values: list[float]) -> float:
    """The value that a straight line through `values` reaches one step after the last."""
    steps = np.arange(len(values), dtype=float)
    slope, start = np.polyfit(steps, np.asarray(values, dtype=float), deg=1)
    return round(float(start + slope * len(values)), 1)
