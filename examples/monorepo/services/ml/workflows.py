"""Forecast tomorrow's rides: a parent task that fans out over the stations."""

import csv
from functools import partial
from pathlib import Path

import flyte
from libs.features.trend import next_value
from libs.limits.plausible import plausible

env = flyte.TaskEnvironment(name="ml", image=flyte.Image.from_ref_name("ml"))

RIDES = Path("data/rides.csv")


def counts(station: str) -> list[int]:
    with RIDES.open(newline="") as rows:
        rides = [int(row["rides"]) for row in csv.DictReader(rows) if row["station"] == station]
    if not rides:
        raise ValueError(f"no station is called {station!r} in {RIDES}")
    return [count for count in rides if plausible(count)]


def stations() -> list[str]:
    with RIDES.open(newline="") as rows:
        return sorted({row["station"] for row in csv.DictReader(rows)})


@env.task
def fit(station: str, n: int = 5) -> float:
    """Tomorrow's rides at one station, from its last n days."""
    return next_value(counts(station)[-n:])


@env.task
def headline(forecast: dict[str, float]) -> str:
    """One line about a forecast."""
    from libs.reporting.render import headline as render  # only this task needs it

    return render(forecast)


@env.task
def train(n: int = 5) -> str:
    """Forecast every station, one child task each, and report the busiest."""
    names = stations()
    forecast = dict(zip(names, flyte.map(partial(fit, n=n), names)))
    for name, rides in forecast.items():
        print(f"{name}: {rides}")
    return headline(forecast)
