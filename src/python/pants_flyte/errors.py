"""The error of this backend: a mistake in a target, and the change that mends it."""

from __future__ import annotations

from pants.build_graph.address import Address

from flyte_pack.errors import UserError
from flyte_shim import shown


class FlyteTargetError(UserError):
    """What is wrong with a target, and what to change. Pants prints the message alone."""

    def __init__(self, address: Address, message: str) -> None:
        super().__init__(shown.message(f"{address}: {message}"))
        self.address = address
