"""What a user types after `./pants run path:task --`, as far as it is for us and not for the task.

The build rules and the runner split it in the same way, so that the rules know what to build and the
task gets the rest. No input or output happens here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyte_pack.errors import UsageError
from flyte_pack.names import shown
from flyte_pack.task_link import COPY_STYLES

_OPTIONS = {"--root-dir": "root_dir", "--copy-style": "copy_style", "--engine": "engine"}
_IN_IMAGE = "--in-image"
_REMOTE = "--remote"
# After `--remote`: which deployment; and what says, as for `run path:deploy`, where that one is.
_OF_DEPLOYMENT = (
    *("--config", "--domain", "--endpoint", "--flyte-config", "--org", "--project", "--store"),
    "--version",
)
_DEPLOYMENT = "--deployment"
_INSECURE = "--insecure"


@dataclass(frozen=True)
class RunOptions:
    """root_dir, copy_style, engine: None where not given. in_image: whether to run it in its image, by `engine`. remote:
    whether to have Flyte run what was deployed, by `deployment`, to which the options `of_deployment` apply. rest: what
    follows, which is the task's.
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

    A task's own input of that name (`--root_dir` to Flyte, which also takes dashes) stays reachable:
    a `--` ends our options.
    """
    found: dict[str, str] = {}
    in_image = remote = False
    of_deployment: list[str] = []
    rest = list(argv)
    while rest:
        option, equals, value = rest[0].partition("=")
        if rest[0] in (_IN_IMAGE, _REMOTE):
            in_image, remote = in_image or rest[0] == _IN_IMAGE, remote or rest[0] == _REMOTE
            del rest[0]
            continue
        if remote and rest[0] == _INSECURE:
            of_deployment.append(rest.pop(0))
            continue
        takes_ours = option in _OPTIONS
        if remote and not takes_ours:
            takes_ours = option == _DEPLOYMENT or option in _OF_DEPLOYMENT
        if not takes_ours:
            if rest[0] == "--":
                del rest[0]
            break
        if not equals:
            value = "".join(rest[1:2])
        if not value or (value.startswith("--") and not equals):
            raise UsageError(f"{option} needs a value")
        if option in _OF_DEPLOYMENT:
            of_deployment.append(f"{option}={value}")
        else:
            found[_OPTIONS.get(option, "deployment")] = value
        del rest[: 1 if equals else 2]
    style = found.get("copy_style")
    if style is not None and style not in COPY_STYLES:
        raise UsageError(f"--copy-style is one of {', '.join(COPY_STYLES)}, not {shown(style)}")
    if "engine" in found and not in_image:
        raise UsageError(f"--engine says how to run the task in its image: give {_IN_IMAGE} too")
    if remote and (in_image or found.keys() - {"deployment"}):
        raise UsageError(
            f"{_REMOTE} runs what was deployed, as it was deployed: leave {_IN_IMAGE}, --copy-style and --root-dir out"
        )
    return RunOptions(
        in_image=in_image,
        remote=remote,
        of_deployment=tuple(of_deployment),
        rest=tuple(rest),
        **found,
    )
