"""`[flyte].named_registries`: registries that fields and options may call `@NAME`, as Docker's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from pants.build_graph.address import Address

from flyte_pack import names
from flyte_shim import shown
from pants_flyte.errors import FlyteTargetError

OPTION = "`[flyte].named_registries`"


@dataclass(frozen=True)
class Registry:
    """A registry, with what holds for it alone.

    address: a host, perhaps with a path. repository: a template, instead of the image's own.
    """

    address: str
    repository: Optional[str] = None
    extra_image_tags: Tuple[str, ...] = ()
    skip_push: bool = False


def registries(
    address: Address, wanted: Sequence[str], named: Mapping[str, object]
) -> Tuple[Registry, ...]:
    """Those to push to. wanted: addresses, and names with "@". address: the image's, for errors."""
    found = []
    for one in wanted:
        if not one.startswith("@"):
            found.append(Registry(one))
        elif one[1:] in named:
            found.append(_read(address, one[1:], named[one[1:]]))
        else:
            known = ", ".join(f"@{name}" for name in sorted(named)) or "none"
            raise FlyteTargetError(
                address,
                f"{OPTION} has no {shown.name(one[1:])}. It knows {known}.",
            )
    return tuple(found)


def address_of(
    address: Address, registry: Optional[str], named: Mapping[str, object]
) -> Optional[str]:
    """What a program is told of a registry that may be named."""
    if registry is None or not registry.startswith("@"):
        return registry
    return registries(address, [registry], named)[0].address


_KINDS: Dict[str, Any] = {
    "address": (str, "a string"),
    "repository": (str, "a string"),
    "extra_image_tags": (list, "a list of strings"),
    "skip_push": (bool, "a boolean"),
}


def _read(address: Address, name: str, raw: object) -> Registry:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("address"), str):
        raise FlyteTargetError(
            address,
            f'{OPTION}: `{name}` is no table with an `address`, like {{address = "ghcr.io/org"}}.',
        )
    for key, value in raw.items():
        if key not in _KINDS:
            raise FlyteTargetError(
                address, f"{OPTION}: `{name}` has no key `{key}`; known are {', '.join(_KINDS)}."
            )
        kind, words = _KINDS[key]
        of_strings = kind is not list or all(isinstance(part, str) for part in value or ())
        if not isinstance(value, kind) or not of_strings:
            raise FlyteTargetError(address, f"{OPTION}: `{key}` of `{name}` is not {words}.")
    try:
        names.check_registry(raw["address"])
    except names.InvalidName as error:
        raise FlyteTargetError(address, f"{OPTION}: `{name}`: {error}.") from None
    tags = tuple(raw.get("extra_image_tags", ()))
    return Registry(raw["address"], raw.get("repository"), tags, raw.get("skip_push", False))
