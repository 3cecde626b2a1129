"""Plan the van's tour of the stations: async tasks that wait for one another."""

import asyncio
import csv
from pathlib import Path

import flyte
from geo import kilometres
from libs.limits.plausible import plausible

env = flyte.TaskEnvironment(
    name="etl", image=flyte.Image.from_base("registry.example.com/bikes/etl:3.2")
)

STATIONS = Path("data/stations.csv")
DEPOT = (53.5586, 9.9278)


def coordinates() -> dict[str, tuple[float, float]]:
    with STATIONS.open(newline="") as rows:
        return {
            row["station"]: (float(row["latitude"]), float(row["longitude"]))
            for row in csv.DictReader(rows)
        }


@env.task
async def distance(station: str) -> float:
    """Kilometres from the depot to a station."""
    return round(kilometres(DEPOT, coordinates()[station]), 2)


@env.task(triggers=flyte.Trigger.daily())
async def tour(longest: float = 100.0) -> list[str]:
    """The stations within reach, nearest first."""
    names = sorted(coordinates())
    distances = await asyncio.gather(*(distance(station=name) for name in names))
    reachable = sorted(pair for pair in zip(distances, names) if pair[0] <= longest)
    return [f"{name}: {km} km" for km, name in reachable]


@env.task
async def keep(rides: list[int]) -> list[int]:
    """The counts that a station can really have had."""
    return [count for count in rides if plausible(count)]
