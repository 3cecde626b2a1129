"""Splits what a user types after `./pants run path:task --` into our options and the task's.

The build rules and the runner both use it: the rules build what the options say, the task gets the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyte_pack.errors import UsageError
from flyte_pack.task_link import COPY_STYLES
from flyte_shim import shown

_OPTIONS = {"--root-dir": "root_dir", "--copy-style": "copy_style", "--engine": "engine"}
_IN_IMAGE, _REMOTE = "--in-image", "--remote"
# After `--remote`: the deployment, and those of its own options that say where it is.
_DEPLOYMENT, _INSECURE = "--deployment", "--insecure"
_OF_DEPLOYMENT = (
    *("--config", "--domain", "--endpoint", "--flyte-config", "--org", "--project", "--store"),
    "--version",
)


@dataclass(frozen=True)
class RunOptions:
    """root_dir, copy_style, engine: None if not given. in_image: run it in its image, by `engine`.

    remote: have Flyte run what was deployed, by `deployment`, which takes `of_deployment`. rest:
    the task's.
    """

    root_dir: str | None = None
    copy_style: str | None = None
    in_image: bool = False
    engine: str | None = None
    remote: bool = False
    deployment: str | None = None
    of_deployment: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def split(argv: Sequence[str]) -> RunOptions:
    """Take our options off the front of `argv`. Raises `UsageError`.

    `--` ends them, so that a task's input may have the name of one of ours.
    """
    found: dict[str, str] = {}
    switches: set[str] = set()
    of_deployment: list[str] = []
    rest = list(argv)
    while rest:
        option, equals, value = rest[0].partition("=")
        remote = _REMOTE in switches
        if rest[0] in (_IN_IMAGE, _REMOTE):
            switches.add(rest.pop(0))
        elif remote and rest[0] == _INSECURE:
            of_deployment.append(rest.pop(0))
        elif option in _OPTIONS or (remote and option in (_DEPLOYMENT, *_OF_DEPLOYMENT)):
            del rest[0]
            if not equals and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            if not value:
                raise UsageError(f"{option} needs a value")
            if option in _OF_DEPLOYMENT:
                of_deployment.append(f"{option}={value}")
            else:
                found[_OPTIONS.get(option, "deployment")] = value
        else:
            break
    if rest[:1] == ["--"]:
        del rest[0]
    _check(found, switches)
    return RunOptions(
        in_image=_IN_IMAGE in switches,
        remote=_REMOTE in switches,
        of_deployment=tuple(of_deployment),
        rest=tuple(rest),
        **found,
    )


def _check(found: dict[str, str], switches: set[str]) -> None:
    style = found.get("copy_style", COPY_STYLES[0])
    if style not in COPY_STYLES:
        raise UsageError(
            f"--copy-style is one of {', '.join(COPY_STYLES)}, not {shown.word(style)}"
        )
    if "engine" in found and _IN_IMAGE not in switches:
        raise UsageError(f"--engine says how to run the task in its image: give {_IN_IMAGE} too")
    if _REMOTE in switches and (_IN_IMAGE in switches or found.keys() - {"deployment"}):
        raise UsageError(
            f"{_REMOTE} runs what was deployed, as it was deployed: leave out {_IN_IMAGE}, "
            "--copy-style and --root-dir"
        )
