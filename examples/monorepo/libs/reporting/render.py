"""Text for people. Tasks import this only inside functions: most of them never need it."""

import json
from importlib import resources


def headline(forecast: dict[str, float]) -> str:
    labels = json.loads(resources.files("libs.reporting").joinpath("labels.json").read_text())
    station = max(forecast, key=lambda name: forecast[name])
    return labels["headline"].format(station=station, rides=forecast[station])
