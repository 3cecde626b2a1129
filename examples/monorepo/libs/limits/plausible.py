"""What a station can count in a day: the limits lie beside this module as package data."""

import json
from importlib import resources


def limits() -> dict[str, int]:
    return json.loads(resources.files("libs.limits").joinpath("limits.json").read_text())


def plausible(rides: int) -> bool:
    known = limits()
    return known["fewest_rides"] <= rides <= known["most_rides"]
