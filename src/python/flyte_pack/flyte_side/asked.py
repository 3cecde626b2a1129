"""What is said of what the code's own Image asks for: when a task is packaged, and deployed.

Then the linked image is used as it is, and nothing builds the Image.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from .words import distribution_of_file, instead_of_file

NEW_LOCK = "to the requirements of its resolve and make the lock file anew"
CHECK = "the linked image is used as it is; see that it has that, or drop it from the Image"


# --- packages -------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?=\s*(?:$|[\[(<>=!~;@,#]))")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9][A-Za-z0-9._-]*)")


def distribution_of(requirement: str) -> str | None:
    """The name of the distribution; None if the text does not say it."""
    if name := distribution_of_file(requirement):
        return name
    found = _NAME.match(requirement.strip())
    if found:
        return found[0]
    egg = _EGG.search(requirement)
    if egg:
        return egg[1]
    # `git+https://host/name.git@v1`
    last = requirement.partition("#")[0].rstrip("/").rpartition("/")[2]
    return (_NAME.match(last.partition("@")[0].partition(".git")[0]) or [None])[0]


def requirements_in(text: str) -> list[str]:
    """The requirements in a requirements file, without options, hashes and comments."""
    lines = (re.split(r"\s(?:#|--|\\)", f"{line} ")[0].strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"[A-Za-z0-9]", line)]


_DEPENDENCIES = re.compile(r"^\[project\][^\n]*\n(?:(?!\[)[^\n]*\n)*?dependencies\s*=\s*\[", re.M)
_ELEMENT = re.compile(r"""\s*(?:"([^"\n]*)"|'([^'\n]*)'|\#[^\n]*|,)""")


def project_dependencies(text: str) -> list[str]:
    """The `dependencies` of a pyproject.toml (PEP 621): read as they are usually written, since not
    every Python has a reader of TOML.
    """
    start = _DEPENDENCIES.search(text)
    found: list[str] = []
    place = start.end() if start else len(text)
    while element := _ELEMENT.match(text, place):
        place = element.end()
        found += filter(None, element.groups())
    return found


def packages(unmet: Iterable[str]) -> Iterator[str]:
    """unmet: requirements that the resolve lacks."""
    every = list(unmet)
    files = [one for one in every if distribution_of_file(one)]
    if named := ", ".join(_without_address(one) for one in every if one not in files):
        yield (
            f"its Image declares pip packages that its resolve lacks: {named}. "
            f"Add them {NEW_LOCK}, or drop them from the Image"
        )
    for one in files:
        name = distribution_of_file(one)
        yield (
            f"its Image installs the file {_place(one)}, and its resolve lacks {name}. "
            f"{instead_of_file(name)}"
        )


def packages_of_file(file: str, unmet: Iterable[str]) -> Iterator[str]:
    """unmet: those of the requirements in `file` that the resolve lacks."""
    if missing := ", ".join(_without_address(one) for one in unmet):
        yield f"its Image declares {file}, and its resolve lacks {missing}. Add them {NEW_LOCK}"


def packages_left_out(names: Sequence[str], image: str, targets: Sequence[str]) -> str:
    """names: of distributions in the lock file that the image does not install. targets: what
    requires each; "" if there is no such target.
    """
    write = ", ".join(
        f'"{target}"' if target else f"a python_requirement for {name}"
        for name, target in zip(names, targets)
    )
    return (
        f"its Image declares pip packages that the linked image is not made with: "
        f"{', '.join(names)}. They are in the lock file: add {write} to `dependencies` of {image}, "
        "unless its base has them"
    )


def not_read(file: str, owner: str, task: str) -> str:
    """A file of requirements that nothing which the task reaches owns."""
    advice = (
        owner
        or f'its owner, such as file(name="requirements", source="{posixpath.basename(file)}"),'
    )
    return (
        f"its Image declares {file}, which is not compared, as the task reaches no target that "
        f"owns it: add {advice} to `dependencies` of {task}"
    )


def _without_address(requirement: str) -> str:
    """An address may hold a password."""
    if "://" not in requirement:
        return requirement
    return distribution_of(requirement) or "one by its address"


def _place(requirement: str) -> str:
    """The path of a file that a requirement names; of an address its last part."""
    place = requirement.rpartition(" @ ")[2].partition("#")[0].partition("?")[0].strip()
    return place.rpartition("/")[2] if "://" in place else place


# --- other layers ---------------------------------------------------------------------------------


def python(wanted: Sequence[int], has: str) -> str:
    version = ".".join(map(str, wanted))
    return f"its Image wants Python {version}; the linked image has {has}, as its resolve has"


def apt(names: Iterable[str]) -> str:
    every = list(names)
    return (
        f"its Image declares apt packages {' '.join(every)}: add those that the base lacks to the "
        f"linked image, apt_packages={_list(every)}"
    )


def commands(every: Iterable[str]) -> str:
    return (
        f"its Image declares commands ({'; '.join(every)}): nothing runs them here, so what they "
        "make has to be in the base of the linked image"
    )


def variables(names: Iterable[str]) -> str:
    """Names alone: a value may be a secret."""
    every = list(names)
    entries = ", ".join(f'"{name}": "..."' for name in every)
    return (
        f"its Image declares environment variables {', '.join(every)}: set them in the linked "
        f"image, env={{{entries}}}"
    )


def other_values(names: Iterable[str]) -> str:
    return (
        f"its Image declares environment variables that have other values in `env` of the linked "
        f"image: {', '.join(names)}. The linked image's hold"
    )


def workdir(path: str) -> str:
    return (
        f"its Image declares the working directory {path}: the linked image has its own. Set "
        f'workdir="{path}" there, or drop it from the Image'
    )


def copied(src: str, dst: str, field: str, entry: str) -> str:
    """field: of the linked image, or both. entry: what to write, if that is known."""
    write = f"add {entry} to {field}" if entry else f"use {field}"
    return f"its Image copies {src} to {dst}: {write} of the linked image"


def _list(names: Iterable[str]) -> str:
    return "[{}]".format(", ".join(f'"{name}"' for name in names))
