"""A comparison for a person to read, from the document that `diff.compare` makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from flyte_pack.explain_text import counted, said
from flyte_pack.progress import megabytes
from flyte_shim import shown

_WIDEST = 64
_MODULES = 2
_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def text(differences: Sequence[Mapping[str, Any]], heading: str) -> str:
    """heading: says what is compared with what."""
    told = [line for part in parts(differences) for line in ("", *part)]
    return "".join(f"{shown.printable(line).rstrip()}\n" for line in (heading, *told))


def parts(differences: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The lines of each artifact; those that differ in the same way are told once."""
    same: dict[tuple[str, ...], list[str]] = {}
    for one in differences:
        same.setdefault(tuple(_lines(one)), []).append(one["address"])
    return [[f"{', '.join(names)}{lines[0]}", *lines[1:]] for lines, names in same.items()]


def _lines(told: Mapping[str, Any]) -> list[str]:
    status = told["status"]
    if status == "unchanged":
        return [": nothing differs"]
    if status != "changed":
        return [f": {status}{_whole(told)}"]
    lines = [f": {_summary(told)}"]
    for key, heading in (
        ("added", "Added, below the dependency that brings it:"),
        ("removed", "Removed, below the dependency that is gone:"),
    ):
        if told[key]:
            lines += ["", heading, *_moved(told[key], _MARKS[key])]
    if told["changed"]:
        lines += ["", "Changed:", *_changed(told["changed"])]
    if any(told["dependencies"].values()):
        lines += ["", "Dependencies on what is there in both:"]
        for key in ("added", "removed"):
            lines += [f"  {_MARKS[key]} {_dependency(one)}" for one in told["dependencies"][key]]
    if told["packages"]:
        lines += ["", "Third-party requirements:", *_packages(told["packages"])]
    if told["layers"]:
        lines += ["", "Layers:", *_layers(told["layers"])]
    if told["settings"]:
        lines += ["", "Settings:"]
        for one in told["settings"]:
            lines += [f"  {one['name']}", *_versus(one["before"], one["after"])]
    return lines


def _whole(told: Mapping[str, Any]) -> str:
    side = "after" if told["status"] == "added" else "before"
    files, size = told["files"][side], told["size"][side]
    return "" if files is None else f", {counted(files, size)}"


def _summary(told: Mapping[str, Any]) -> str:
    added, removed = (sum(len(one["files"]) for one in told[key]) for key in ("added", "removed"))
    words = [
        f"{count:,} {what}"
        for count, what in (
            (added, "added"),
            (removed, "removed"),
            (len(told["changed"]), "changed"),
        )
        if count
    ]
    size = told["size"]
    files = f"files: {', '.join(words)}" if words else "no file differs"
    if size["before"] is None or size["after"] is None:
        return "not the same"
    moved = size["after"] - size["before"]
    if not words:
        return files
    grown = f"{megabytes(abs(moved))} {'more' if moved > 0 else 'less'}" if moved else "same size"
    return f"{files}; {grown}, now {counted(told['files']['after'], size['after'])}"


def _moved(groups: Iterable[Mapping[str, Any]], mark: str) -> list[str]:
    lines = []
    for group in groups:
        files = group["files"]
        by = group["by"]
        lines.append(f"  {_dependency(by) if by else '(nothing leads to it)'}")
        width = _width(file["source"] for file in files)
        for file in files:
            moved = f" as {file['path']}" if file["path"] != file["source"] else ""
            lines.append(
                f"    {mark} {file['source']:<{width}}  {megabytes(file['size']):>9}"
                f"  [{file['kind']}]{moved}"
            )
    return lines


def _dependency(told: Mapping[str, str]) -> str:
    return f"{told['from']} -> {told['to']} [{said(told['reason'])}]"


def _changed(files: Sequence[Mapping[str, Any]]) -> list[str]:
    width = _width(file["source"] for file in files)
    lines = []
    for file in files:
        before, after = file["before"], file["after"]
        mode = ""
        if before["executable"] != after["executable"]:
            mode = ", now executable" if after["executable"] else ", not executable any more"
        sizes = [megabytes(one["size"]) for one in (before, after)]
        size = " -> ".join(dict.fromkeys(sizes))
        lines.append(f"  ~ {file['source']:<{width}}  {size}{mode}")
    return lines


def _packages(packages: Sequence[Mapping[str, Any]]) -> list[str]:
    width = _width(one["name"] for one in packages)
    lines = []
    for one in packages:
        by = one["needed_by"]
        others = len(by) - _MODULES
        more = f" and {others:,} more" if others > 0 else ""
        needed = f"  needed by {', '.join(by[:_MODULES])}{more}" if by else ""
        what = _values(one["before"], one["after"])
        lines.append(f"  {_mark(one)} {one['name']:<{width}}  {what}{needed}")
    return lines


def _layers(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    several = len({one["platform"] for one in layers}) > 1
    for one in layers:
        names, sizes = [], []
        for side in (one["before"], one["after"]):
            if side:
                names.append(side["what"])
                sizes.append(megabytes(side["size"]))
        what = " -> ".join(dict.fromkeys(names))
        where = f"  {one['platform']}" if several else ""
        lines.append(f"  {_mark(one)} {what}  {' -> '.join(dict.fromkeys(sizes))}{where}")
    return lines


def _mark(one: Mapping[str, Any]) -> str:
    if one["before"] is None:
        return _MARKS["added"]
    return _MARKS["removed" if one["after"] is None else "changed"]


def _values(before: Optional[str], after: Optional[str]) -> str:
    return " -> ".join(filter(None, (before, after)))


def _versus(before: Optional[str], after: Optional[str]) -> list[str]:
    return [
        f"    {mark} {value}" for mark, value in (("-", before), ("+", after)) if value is not None
    ]


def _width(names: Iterable[str]) -> int:
    return min(_WIDEST, max(map(len, names)))
