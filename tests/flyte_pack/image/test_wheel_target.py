"""What is chosen for a Python goes by its full version, where that is known."""

from __future__ import annotations

import pytest
from packaging.markers import Marker

from flyte_pack.image.wheel_target import WheelTarget


@pytest.mark.parametrize(
    ("python", "marker", "holds"),
    [
        ("3.11.7", "python_full_version < '3.11.4'", False),
        ("3.11.7", "python_full_version >= '3.11.4'", True),
        ("3.11.7", "implementation_version < '3.11.4'", False),
        ("3.11.7", "implementation_version == '3.11.7'", True),
        ("3.11.7", "implementation_name == 'cpython' and implementation_version >= '3.11.7'", True),
        ("3.11.7", "python_version == '3.11'", True),
        ("3.11.10", "python_full_version > '3.11.9'", True),
        # Nothing more is known: its first release.
        ("3.11", "python_full_version < '3.11.4'", True),
        ("3.11", "implementation_version == '3.11.0'", True),
        ("3.14.0rc1", "python_version >= '3.14'", True),
    ],
)
def test_markers_see_the_full_version(python, marker, holds):
    found = WheelTarget(python, "linux/amd64").marker_environment
    assert Marker(marker).evaluate(found) is holds


@pytest.mark.parametrize(
    ("python", "specifier", "holds"),
    [
        ("3.11.7", ">=3.11.4", True),
        ("3.11.2", ">=3.11.4", False),
        ("3.11.7", "!=3.11.7", False),
        ("3.11.7", "<3.11.7", False),
        ("3.11", ">=3.11.4", True),
        ("3.11", ">=3.12", False),
        # A pre-release counts as what it becomes.
        ("3.14.0rc1", ">=3.14", True),
        ("3.14.0rc1", "<3.14", False),
    ],
)
def test_requires_python_sees_the_full_version(python, specifier, holds):
    assert WheelTarget(python, "linux/amd64").satisfies(specifier) is holds
