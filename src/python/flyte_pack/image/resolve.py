"""Finds what an image needs of a lock file: `python -m flyte_pack image-resolve`.

Or what a task needs that runs on this machine. That is what the code requires, transitively: by the
lock file's own graph or, if it has none, by the metadata of the wheels. uv reads that, with every
version pinned to the lock file's.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.fresh import fresh_file
from flyte_pack.image.lock_files import read_lock_file
from flyte_pack.image.pins import Choice, Lock, Pin, holds
from flyte_pack.image.uv import add_indexes, run_uv, take_indexes
from flyte_pack.image.wheel_target import GLIBC, InterpreterTarget, WheelTarget
from flyte_pack.scratch import scratch_place
from flyte_shim import shown


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-resolve")
    parser.add_argument("--lock", required=True, help="the lock file of the resolve")
    parser.add_argument("--roots", required=True, help="requirements, one on a line")
    parser.add_argument("--python", help="version of the image's Python: 3.12.4")
    parser.add_argument("--platform", help="linux/amd64 or linux/arm64")
    parser.add_argument("--interpreter", help="of this machine, for which to choose, not an image")
    parser.add_argument("--libc", default=GLIBC, help="of the base: musl, or glibc's: %(default)s")
    parser.add_argument("--out", required=True, help="requirements with hashes, to be written")
    parser.add_argument("--resolve", help="name of the resolve, for errors")
    parser.add_argument("--extra", action="append", default=[], help="to read the lock file for")
    parser.add_argument("--group", action="append", default=[], help="to read the lock file for")
    add_indexes(parser)
    return command.run(parser, argv, _resolve)


def _resolve(given: argparse.Namespace) -> None:
    take_indexes(given.indexes)
    if given.interpreter is not None:
        target: WheelTarget = InterpreterTarget.asked(given.interpreter)
    elif given.python is not None and given.platform is not None:
        target = WheelTarget(given.python, given.platform, given.libc)
    else:
        raise UserError("give --python and --platform of an image, or --interpreter")
    lock = read_lock_file(given.lock, target, Choice.of(given.extra, given.group))
    with open(given.roots, encoding="utf-8") as file:
        roots = parse_roots(file.read())
    name = f"the lock file of the resolve {given.resolve}" if given.resolve else "the lock file"
    pins = needed(lock, roots, target, name)
    with fresh_file(given.out) as path, open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(format_pins(pins))


def parse_roots(text: str) -> list[Requirement]:
    """Requirements (dependency specifiers), one on a line, with empty lines and comments."""
    roots = []
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        try:
            root = Requirement(line)
        except InvalidRequirement as error:
            raise UserError(
                f"{shown.line(line, longest=120)} is not a requirement: "
                f"{str(error).splitlines()[0]}"
            ) from None
        if root.url is not None:
            raise UserError(
                f"{root.name} is asked for by URL, and an image takes wheels from a package index "
                "only: build its wheel, put that on an index, and ask for it by name and version"
            )
        roots.append(root)
    return roots


def needed(
    lock: Lock, roots: Sequence[Requirement], target: WheelTarget, lock_name: str = "the lock file"
) -> list[Pin]:
    """The pins that `roots` need on `target`, transitively, sorted by name."""
    roots = [root for root in roots if holds(root.marker, target)]
    for root in roots:
        pin = _pin(lock, root.name, [target.code], target, lock_name)
        if not root.specifier.contains(pin.version, prereleases=True):
            raise UserError(
                f"{target.code} asks for {root.name}{root.specifier}, and {lock_name} has "
                f"{pin.version}: make it anew"
            )
    if not roots:
        return []
    told = graph_tells(lock, roots)
    by = _by_graph(lock, roots, target) if told else _by_metadata(lock, roots, target)
    return [_pin(lock, name, by[name], target, lock_name) for name in sorted(by)]


def graph_tells(lock: Lock, roots: Sequence[Requirement]) -> bool:
    """Whether the lock's own graph has all that `roots` need, so that no index is asked."""
    return lock.has_graph and not any(_asks_more(root, lock) for root in roots)


def format_pins(pins: Sequence[Pin]) -> str:
    """Requirements with hashes; equal pins give equal text."""
    words = ([f"{p.name}=={p.version}", *(f"--hash={h}" for h in sorted(p.hashes))] for p in pins)
    return "".join(" \\\n    ".join(line) + "\n" for line in words)


def _pin(lock: Lock, name: str, by: Sequence[str], target: WheelTarget, lock_name: str) -> Pin:
    name = canonicalize_name(name)
    pin, who = lock.pins.get(name), " and ".join(by[:3]) or target.code
    if pin is None:
        only = f"has it only for others than {target}"
        where = only if name in lock.elsewhere else "does not have it"
        anew = "make it anew"
        if name in ("setuptools", "pip", "distribute"):
            anew += " (pip-compile leaves it out unless it is told --allow-unsafe)"
        need = "need" if len(by) > 1 else "needs"
        raise UserError(f"{who} {need} {name}, and {lock_name} {where}: {anew}")
    if pin.problem is not None:
        raise UserError(f"{who} needs {pin}, but {pin.problem}")
    return pin


def _asks_more(root: Requirement, lock: Lock) -> bool:
    """Whether it asks for extras of which the lock's graph does not tell."""
    pin = lock.pins.get(canonicalize_name(root.name))
    known = None if pin is None else pin.extras
    return known is not None and not known.issuperset(map(canonicalize_name, root.extras))


def _by_graph(
    lock: Lock, roots: Sequence[Requirement], target: WheelTarget
) -> dict[str, list[str]]:
    """The names that are needed, each with who asks for it."""
    by: dict[str, list[str]] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(root, target.code) for root in roots]
    while queue:
        requirement, who = queue.pop(0)
        name = canonicalize_name(requirement.name)
        if name in lock.excluded:
            continue
        by.setdefault(name, []).append(who)
        pin = lock.pins.get(name)
        for extra in ("", *map(canonicalize_name, sorted(requirement.extras))):
            if pin is None or (name, extra) in seen:
                continue
            seen.add((name, extra))
            for required in pin.requires or ():
                # The first round takes what needs no extra, the others what needs that extra.
                if holds(required.marker, target, extra) and (
                    not extra or not holds(required.marker, target)
                ):
                    queue.append((required, str(pin)))
    return by


def _by_metadata(
    lock: Lock, roots: Sequence[Requirement], target: WheelTarget
) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory(dir=scratch_place()) as directory:
        asked, pinned = os.path.join(directory, "asked.txt"), os.path.join(directory, "pinned.txt")
        with open(asked, "w", encoding="utf-8") as file:
            file.writelines(f"{root}\n" for root in sorted(map(str, roots)))
        with open(pinned, "w", encoding="utf-8") as file:
            file.writelines(f"{p.name}=={p.version}\n" for p in lock.pins.values() if not p.problem)
        arguments = [
            *("compile", asked, "--constraints", pinned, "--no-header"),
            *("--annotation-style", "split", "--no-emit-index-url"),
        ]
        try:
            # What a version needs never changes. The index is asked only for what uv has not seen.
            output = run_uv([*arguments, "--offline"], target, os.environ)
        except UserError:
            output = run_uv(arguments, target, os.environ)
        return _annotated(output, lock, target)


def _annotated(output: str, lock: Lock, target: WheelTarget) -> dict[str, list[str]]:
    """Parse the output of `uv pip compile`: a pin on a line, then comments on who asked for it."""
    by: dict[str, list[str]] = {}
    askers: list[str] = []
    for line in output.splitlines():
        if found := re.fullmatch(r"([A-Za-z0-9._-]+)(\[.*\])?==\S+", line.strip()):
            askers = by.setdefault(canonicalize_name(found[1]), [])
        elif (who := re.sub(r"^\s*#\s*(via)?\s*", "", line).strip()) and not who.startswith("-c "):
            pin = lock.pins.get(canonicalize_name(who.partition("[")[0]))
            askers.append(str(pin) if pin else target.code if who.startswith("-r ") else who)
    return by
