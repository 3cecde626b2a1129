"""Which distributions get a layer of their own."""

from __future__ import annotations

import pytest

from flyte_pack.image.dependency_layers import OWN_LAYER, split
from flyte_pack.image.installed import Distribution, Member


def distribution(name: str, size: int, path: str = "") -> Distribution:
    return Distribution(name, "1.0", (Member(f"opt/venv/{path or name}", 0o644, size, "f"),))


BIG, SMALL = OWN_LAYER, OWN_LAYER - 1

CASES = {
    "nothing": ({}, 40, []),
    "one small": ({"a": SMALL}, 40, ["a 1.0"]),
    "one large": ({"a": BIG}, 40, ["a 1.0"]),
    "small ones together, above": (
        {"a": SMALL, "b": BIG, "c": SMALL},
        40,
        ["b 1.0", "2 smaller distributions"],
    ),
    "by name, not by size": (
        {"z": 3 * BIG, "a": BIG, "m": 2 * BIG},
        40,
        ["a 1.0", "m 1.0", "z 1.0"],
    ),
    "as many as there may be": ({"a": BIG, "b": BIG}, 2, ["a 1.0", "b 1.0"]),
    "with small ones, as many as there may be": (
        {"a": BIG, "b": BIG, "c": SMALL, "d": SMALL},
        3,
        ["a 1.0", "b 1.0", "2 smaller distributions"],
    ),
    "too many: the largest stay alone": (
        {"a": BIG, "b": 3 * BIG, "c": 2 * BIG},
        2,
        ["b 1.0", "2 smaller distributions"],
    ),
    "too many, with small ones": (
        {"a": BIG, "b": 2 * BIG, "c": SMALL},
        2,
        ["b 1.0", "2 smaller distributions"],
    ),
    "too many of one size: by name": (
        {"b": BIG, "a": BIG, "c": BIG},
        2,
        ["a 1.0", "2 smaller distributions"],
    ),
    "one for all": ({"a": BIG, "b": SMALL}, 1, ["2 smaller distributions"]),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "in reverse"])
@pytest.mark.parametrize(("sizes", "most", "expected"), CASES.values(), ids=CASES)
def test_the_split(sizes, most, expected, reverse):
    distributions = [distribution(name, size) for name, size in sizes.items()]
    groups = split(distributions[:: -1 if reverse else 1], most)
    assert [group.what for group in groups] == expected


def test_each_distribution_is_in_one_layer():
    distributions = [distribution(f"d{n:02}", n * OWN_LAYER // 20) for n in range(60)]
    groups = split(distributions, 20)
    assert len(groups) == 20
    assert sorted(d.name for g in groups for d in g.distributions) == [
        d.name for d in distributions
    ]


def test_a_shared_file_is_there_once_in_a_layer_of_several():
    (group,) = split([distribution("a", 1, "shared"), distribution("b", 1, "shared")])
    assert [member.path for member in group.members()] == ["opt/venv/shared"]


def test_files_that_belong_to_nobody_are_with_the_small_ones():
    lost = Distribution("", "", (Member("opt/venv/lost", 0o644, 2 * BIG, "f"),))
    groups = split([lost, distribution("a", BIG), distribution("b", 1)])
    assert [(g.what, len(g.distributions)) for g in groups] == [("a 1.0", 1), ("b 1.0", 2)]
