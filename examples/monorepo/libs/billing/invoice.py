"""A library that no task reaches, so no bundle holds it."""


def total(rides: int, cents_each: int) -> str:
    return f"{rides * cents_each / 100:.2f}"
