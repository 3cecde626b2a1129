"""What to do about a module or file that a task lacks on this machine, by what the build knows.

The build knows the modules of the repository, and the resolve's lock file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

_UNKNOWN = (
    "First-party code that is not inferred goes into `dependencies`, third-party code into the "
    "resolve's requirements"
)


def normalized(distribution: str) -> str:
    """PyPA, "Names and normalization"."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def read(path: str | None) -> dict[str, Any] | None:
    """The file that `pants_flyte.known_modules` makes; None without one.

    {"resolve": name, or null without resolves, "lock": path or null, "locked": [normalized names of
    distributions] or null, "first_party": {module: address}, "requirements": {module: [address,
    distribution]}, "distributions": {module: distribution of Flyte's own}}
    """
    if path is None:
        return None
    with open(path, "rb") as file:
        found: dict[str, Any] = json.load(file)
    return found


def advice(module: str, known: dict[str, Any] | None) -> str:
    """What provides a module, or what might, and what to write; without a full stop."""
    if known is None:
        return _UNKNOWN
    if module in known["first_party"]:
        owner = known["first_party"][module]
        return (
            f"It is in this repository ({owner}), and nothing that the task reaches imports it in "
            f"a way that Pants infers: add {owner} to the `dependencies` of what imports it"
        )
    resolve, locked = known["resolve"], known["locked"]
    where = f"the lock file of the resolve {resolve}" if resolve else "the requirements"
    anew = ", and make the lock file anew" if resolve else ""
    for name in _with_parents(module):
        if name in known["requirements"]:
            address, distribution = known["requirements"][name]
            if locked is not None and distribution not in locked:
                return (
                    f"{address} requires {distribution}, but the lock file {known['lock']} of the "
                    f"resolve {resolve} lacks it: make the lock file anew"
                )
            return (
                f"It is in {where}, by {address}, but nothing that the task reaches depends on "
                f"that: add {address} to the `dependencies` of what imports it"
            )
    for name in _with_parents(module):
        distribution = normalized(known["distributions"].get(name, name))
        if distribution in (locked or ()):
            return (
                f"{distribution} is in {where}, but no requirement is said to provide {module}: "
                f"write a `python_requirement` for {distribution}, or say so in the "
                "`module_mapping` of its `python_requirements`"
            )
    for name in _with_parents(module):
        if name in known["distributions"]:
            distribution = known["distributions"][name]
            return (
                f"{distribution} provides it, and is not in {where}: add it to the requirements"
                f"{anew}"
            )
    first = module.partition(".")[0]
    here = [one for one in known["first_party"] if one == first or one.startswith(f"{first}.")]
    if here:
        return (
            f"No target of this repository owns a module {module}, though {len(here)} below "
            f"{first} have one: mind the spelling, or give its file a target"
        )
    return (
        f"Nothing in {where} is known to provide it. Add a requirement that does{anew}. If one of "
        "the requirements does under a name of its own, say so in the `module_mapping` of its "
        "`python_requirements`"
    )


_NO_FILE = re.compile(r"\[Errno 2\] [^:'\n]*: '((?:[^'\\\n]|\\.){1,1000})'")


def file_of(error: BaseException | None) -> str | None:
    """The path that an error is about, or one that it comes from, where there is no such file."""
    for _ in range(50):
        if error is None:
            return None
        if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
            return error.filename
        found = _NO_FILE.search(str(error))
        if found:
            return found[1]
        error = error.__cause__ or error.__context__
    return None


def file_advice(path: str, bundle: str, root: str, known: dict[str, Any] | None) -> str | None:
    """What to write for a file that the bundle lacks and the repository has; None for others.

    path: as the code has it, from `bundle`, the directory that the task started in. root: of the
    repository.
    """
    bundle = os.path.realpath(bundle)
    inside = os.path.relpath(os.path.realpath(os.path.join(bundle, path)), bundle)
    if inside.split(os.sep)[0] == os.pardir:
        return None
    directory, name = os.path.split(inside)
    for place in dict.fromkeys((directory, *_sources_of(directory, known))):
        there = os.path.join(place, name)
        if not os.path.exists(os.path.join(root, there)):
            continue
        # What code finds beside itself moves with it; what it finds from where it started does not.
        kind = "resources" if os.path.isabs(path) or place != directory else "files"
        sources = f"{name}/**" if os.path.isdir(os.path.join(root, there)) else name
        return (
            f"{there} is in the repository, but not in the bundle: let "
            f'`{kind}(name="data", sources=["{sources}"])` in {os.path.join(place, "BUILD")} own '
            "it, and name that in `dependencies` of the target whose code reads it"
        )
    return None


def _sources_of(directory: str, known: dict[str, Any] | None) -> Iterator[str]:
    """Where the modules of a directory of the bundle are in the repository."""
    package = directory.replace(os.sep, ".")
    for module, address in (known or {"first_party": {}})["first_party"].items():
        path = address.partition(":")[0]
        if module.rpartition(".")[0] == package and path.endswith(".py"):
            yield os.path.dirname(path)
            return


def _with_parents(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]
