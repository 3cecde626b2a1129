"""Writes docs/reference.md: every field and option of the backend, from its help texts.

  $(build-support/dev_tools.sh)/python build-support/reference.py

What `pants help` says stands in the classes; this prints the same in one page. Of fields and options
that Pants itself brings there are only the names, since each version of Pants words them anew.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "python"))

from pants.engine.goal import GoalSubsystem
from pants.engine.target import Field, Target, TargetGenerator
from pants.help.help_info_extracter import TargetFieldHelpInfo
from pants.option.option_types import OptionsInfo
from pants.option.subsystem import Subsystem

from pants_flyte.register import target_types

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
COMMAND = "$(build-support/dev_tools.sh)/python build-support/reference.py"
HEAD = f"""\
# Reference: fields and options

All that `./pants help TARGET` and `./pants help-advanced SUBSYSTEM` say of this backend, in one page. It is made from these help
texts: `{COMMAND}` writes it anew.

A field is written in a BUILD file. An option such as `[flyte].copy_style` is written in `pants.toml` (`[flyte]`, and below it
`copy_style = "all"`), given on the command line (`--flyte-copy-style=all`; that of a goal behind it, without its name), or as a variable
(`PANTS_FLYTE_COPY_STYLE=all`).
"""

_KINDS = {
    "Dict[Union[str, Tuple[str, ...]], Dict[str, Any]]": "dictionary of dictionaries",
    "Iterable[Mapping[str, Any]]": "list of dictionaries",
    "Iterable[str]": "list of strings",
    "Dict[str, str]": "dictionary of strings",
    "str": "string",
    "bool": "`True` or `False`",
    "int": "number",
    "list": "list of strings",
    "dict": "dictionary",
}


def page() -> str:
    targets = sorted(target_types(), key=lambda kind: (kind.alias != "flyte_task", kind.alias))
    options = sorted(_subsystems(Subsystem), key=lambda one: (_is_goal(one), one.options_scope))
    names = [*(kind.alias for kind in targets), *map(_title, options)]
    contents = ", ".join(f"[`{name}`](#{_anchor(name)})" for name in names)
    sections = [*_targets(targets), *map(_subsystem, options)]
    return "\n".join([HEAD, f"{contents}.\n", *sections])


def _targets(targets: Iterable[type[Target]]) -> Iterator[str]:
    """A field that an earlier target has alike is not told again."""
    told: dict[tuple[str, str, str], str] = {}
    for kind in targets:
        fields = list(kind.core_fields)
        if issubclass(kind, TargetGenerator):
            fields += [field for field in kind.moved_fields if field not in fields]
        parts, same, of_pants = [], {}, []
        for field in sorted(fields, key=lambda field: (not field.required, field.alias)):
            if field.alias.startswith("_"):
                continue
            if not _is_ours(field):
                of_pants.append(field.alias)
                continue
            about, text = _field(field)
            first = told.setdefault((field.alias, about, text), kind.alias)
            if first != kind.alias:
                same.setdefault(first, []).append(field.alias)
            else:
                parts.append(f"**`{field.alias}`** ({about}): {text}\n")
        parts += [
            f"As in [`{first}`](#{_anchor(first)}): {_listed(names)}.\n"
            for first, names in same.items()
        ]
        parts.append(f"As in Pants' own targets: {_listed(['name', *of_pants])}.\n")
        yield f"## `{kind.alias}`\n\n{_text(kind.help)}\n\n### Fields of `{kind.alias}`\n\n" + (
            "\n".join(parts)
        )


def _field(field: type[Field]) -> tuple[str, str]:
    """What it takes, and its help."""
    info = TargetFieldHelpInfo.create(field, provider="")
    kinds = info.type_hint.replace(" | None", "")
    choices = [one.strip("'") for one in kinds.split(" | ")] if kinds.startswith("'") else None
    about = _one_of(choices) if choices else _KINDS[kinds]
    if info.required:
        about += "; required"
    elif info.default not in (None, "()"):
        about += f"; default: {_value(field.default)}"
    return about, _text(info.description)


def _subsystem(subsystem: type[Subsystem]) -> str:
    title, parts = _title(subsystem), []
    for info in _options(subsystem):
        given = info.flag_options
        name = info.flag_names[0].lstrip("-")
        kind = given["type"]
        about = (
            _one_of([one.value for one in kind])
            if issubclass(kind, Enum)
            else given.get("metavar") or _KINDS[getattr(kind, "__name__", "str")]
        )
        default = given.get("default")
        if default not in (None, [], {}):
            about += f"; default: {_value(default)}"
        shown = f"--{name}" if _is_goal(subsystem) else name.replace("-", "_")
        parts.append(f"**`{shown}`** ({about}): {_text(given['help'])}\n")
    return f"## `{title}`\n\n{_text(subsystem.help)}\n\n" + "\n".join(parts)


def _options(subsystem: type[Subsystem]) -> Iterator[OptionsInfo]:
    """Those of our own, in the order of the class."""
    for name in vars(subsystem):
        option = getattr(subsystem, name)
        if isinstance(option, OptionsInfo):
            yield option


def _subsystems(of: type) -> Iterator[type[Subsystem]]:
    """Those of the backend, once its modules are imported."""
    for one in of.__subclasses__():
        if _is_ours(one) and not inspect.isabstract(one):
            yield one
        yield from _subsystems(one)


def _is_ours(one: type) -> bool:
    return one.__module__.startswith("pants_flyte.")


def _is_goal(subsystem: type[Subsystem]) -> bool:
    return issubclass(subsystem, GoalSubsystem)


def _title(subsystem: type[Subsystem]) -> str:
    name = subsystem.name if _is_goal(subsystem) else None
    return f"./pants {name}" if name else f"[{subsystem.options_scope}]"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title).replace(" ", "-").lower()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _one_of(values: list[str]) -> str:
    return " or ".join(f"`{value}`" for value in values)


def _value(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return f"`{value}`"


def _text(help: Optional[Any]) -> str:
    """A help text as Markdown, which it nearly is: the command is called as in the other pages."""
    text = (help() if callable(help) else help or "").strip()
    # By the name that was Pants' own when the module was imported.
    return re.sub(r"(?<![\w./-])(?:\./)?pants ", "./pants ", str(text))


if __name__ == "__main__":
    PAGE.write_text(page())
