"""What a user types after `./pants run path:task --`, as far as it is for us and not for the task.

The build rules and the runner split it in the same way, so that the rules know what to build and the
task gets the rest. No input or output happens here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyte_pack.task_link import COPY_STYLES

_OPTIONS = {"--root-dir": "root_dir", "--copy-style": "copy_style", "--engine": "engine"}
_IN_IMAGE = "--in-image"


class RunUsageError(Exception):
    """An option of ours that can't be understood; the message says what to type instead."""


@dataclass(frozen=True)
class RunOptions:
    """root_dir, copy_style, engine: None where not given. in_image: whether to run it in its image, by `engine`. rest: what
    follows, which is the task's.
    """

    root_dir: str | None = None
    copy_style: str | None = None
    in_image: bool = False
    engine: str | None = None
    rest: tuple[str, ...] = ()


def split(argv: Sequence[str]) -> RunOptions:
    """Take our options off the front of `argv`. Raises `RunUsageError`.

    A task's own input of that name (`--root_dir` to Flyte, which also takes dashes) stays reachable:
    a `--` ends our options.
    """
    found: dict[str, str] = {}
    in_image = False
    rest = list(argv)
    while rest:
        option, equals, value = rest[0].partition("=")
        if rest[0] == _IN_IMAGE:
            in_image = True
            del rest[0]
            continue
        if option not in _OPTIONS:
            if rest[0] == "--":
                del rest[0]
            break
        if not equals:
            value = "".join(rest[1:2])
        if not value or (value.startswith("--") and not equals):
            raise RunUsageError(f"{option} needs a value")
        found[_OPTIONS[option]] = value
        del rest[: 1 if equals else 2]
    style = found.get("copy_style")
    if style is not None and style not in COPY_STYLES:
        raise RunUsageError(f"--copy-style is one of {', '.join(COPY_STYLES)}, not {style!r}")
    if "engine" in found and not in_image:
        raise RunUsageError(f"--engine says how to run the task in its image: give {_IN_IMAGE} too")
    return RunOptions(in_image=in_image, rest=tuple(rest), **found)
