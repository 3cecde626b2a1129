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

HELP = """\
./pants run path:task -- [options] [TASK] [inputs of the task]

Run a task from its bundle, on this machine; or in its image; or have Flyte run it. For an
environment, type the name of the TASK before its inputs. Our options come first; `--` ends them,
for a task with an input of the same name.

  ./pants run services/ml:train -- --n 5                        here, in the packages of its resolve
  ./pants run services/ml:train -- --in-image --n 5             here, in its image
  ./pants run services/ml:train -- --remote --n 5               by Flyte: the code as it is on disk
  ./pants run services/ml:train -- --remote --deployed --n 5    by Flyte: what was deployed

Options:
  --copy-style STYLE     auto, all or none, in the place of the target's
  --root-dir DIR         root_dir, in the place of the target's
  --in-image             run it in its image, which is built for that
  --engine NAME          what runs the image: auto, docker, podman or unpack
  --remote               ship what is missing, start a run, and follow it with its logs
  --help                 print this, and the inputs of the task

Options for --remote:
  --detach               print the URL of the run, and do not follow it
  --deployed [VERSION]   run a version that was deployed (by default the current one); nothing is
                         packaged
  --deployment ADDRESS   take the settings of this flyte_deployment; by default of the only one that
                         has the task
  --endpoint HOST[:PORT] Flyte's control plane, or its URL
  --insecure             the endpoint speaks plain HTTP, no TLS
  --org NAME             the organization, where the control plane serves several
  --flyte-config FILE    Flyte's own config.yaml: endpoint, how to log in
  --project P, --domain D
                         where to run it
  --config FILE          settings in YAML, a file below the build root
  --store URI            where records go, and bundles (s3://, gs://, abfs://, file://)
  --upload store|flyte   how the bundle gets to Flyte: by the store, or by Flyte's data proxy
                         (flyte, the default where the store is a directory)
  --registry HOST        where an image that is built here is pushed: a host, perhaps with a path
  --image NAME=URI       the image that the code calls NAME; may be given several times
  --no-image-check       do not check that an image from elsewhere exists
  --repair               rewrite damaged objects of the store, if this build has them

Exit codes: 0 it succeeded, 1 it failed, 2 the command line cannot be understood, 130 interrupted
(Ctrl-C; what Flyte runs goes on).
"""

_TAKING = {"--root-dir": "root_dir", "--copy-style": "copy_style", "--engine": "engine"}
_IN_IMAGE, _REMOTE, _DETACH = "--in-image", "--remote", "--detach"
_DEPLOYED, _DEPLOYMENT = "--deployed", "--deployment"
# After `--remote`, those of deploying that say where and how.
_WHERE = (
    *("--config", "--domain", "--endpoint", "--flyte-config", "--org", "--project", "--store"),
)
_HOW = ("--image", "--registry", "--upload")
_WHERE_SWITCHES, _HOW_SWITCHES = ("--insecure",), ("--no-image-check", "--repair")
_OF_DEPLOYING = (*_WHERE, *_HOW)
_SWITCHES_OF_DEPLOYING = (*_WHERE_SWITCHES, *_HOW_SWITCHES)
# What comes too late, behind an input, is told to be ours.
OURS = (
    *(*_TAKING, _IN_IMAGE, _REMOTE, _DETACH, _DEPLOYED, _DEPLOYMENT),
    *(*_OF_DEPLOYING, *_SWITCHES_OF_DEPLOYING),
)
_HELP = ("--help", "-h")


@dataclass(frozen=True)
class RunOptions:
    """root_dir, copy_style, engine: None if not given. in_image: run it in its image, by `engine`.

    remote: have Flyte run it, and follow it unless `detach`: the code as it is, or what `deployed`
    names, "" being the current version. deployment: an address. of_deploying: options that the
    program that deploys parses. rest: the task's.
    """

    root_dir: str | None = None
    copy_style: str | None = None
    in_image: bool = False
    engine: str | None = None
    remote: bool = False
    detach: bool = False
    deployed: str | None = None
    deployment: str | None = None
    of_deploying: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @property
    def help(self) -> bool:
        """Whether the help is asked for."""
        return any(word in _HELP for word in self.rest)


def split(argv: Sequence[str]) -> RunOptions:
    """Take our options off the front of `argv`. Raises `UsageError`.

    `--` ends them, so that a task's input may have the name of one of ours. Those for `--remote`
    are ours only beside it, in any order.
    """
    front = _Front(argv, remote=True)
    if _REMOTE not in front.switches and not (front.missing and _REMOTE in argv):
        front = _Front(argv, remote=False)
    _check(front)
    return RunOptions(
        in_image=_IN_IMAGE in front.switches,
        remote=_REMOTE in front.switches,
        detach=_DETACH in front.switches,
        deployed=front.deployed,
        of_deploying=tuple(front.of_deploying),
        rest=tuple(front.rest),
        **front.found,
    )


class _Front:
    """Our options, as far as they come first. remote: whether those for `--remote` are ours."""

    def __init__(self, argv: Sequence[str], remote: bool) -> None:
        self.found: dict[str, str] = {}
        self.switches: set[str] = set()
        self.deployed: str | None = None
        self.of_deploying: list[str] = []
        self.missing = ""  # the option that lacks a value
        self.rest = list(argv)
        taking = {**_TAKING, **({_DEPLOYMENT: "deployment"} if remote else {})}
        switches = (_IN_IMAGE, _REMOTE, *((_DETACH,) if remote else ()))
        while self.rest and not self.missing:
            word = self.rest[0]
            option = word.partition("=")[0]
            if word in switches:
                self.switches.add(self.rest.pop(0))
            elif remote and word in _SWITCHES_OF_DEPLOYING:
                self.of_deploying.append(self.rest.pop(0))
            elif remote and option == _DEPLOYED:
                self.deployed = self._value() or ""
            elif option in taking:
                self.found[taking[option]] = self._needed(option)
            elif remote and option in _OF_DEPLOYING:
                self.of_deploying.append(f"{option}={self._needed(option)}")
            else:
                break
        if self.rest[:1] == ["--"]:
            del self.rest[0]

    def _value(self) -> str:
        """Of the first word of `rest`: what follows its `=`, or the next word."""
        _, equals, value = self.rest.pop(0).partition("=")
        if not equals and self.rest and not self.rest[0].startswith("-"):
            value = self.rest.pop(0)
        return value

    def _needed(self, option: str) -> str:
        value = self._value()
        if not value:
            self.missing = option
        return value


def _check(front: _Front) -> None:
    found, switches = front.found, front.switches
    if front.missing:
        raise UsageError(f"{front.missing} needs a value")
    style = found.get("copy_style", COPY_STYLES[0])
    if style not in COPY_STYLES:
        raise UsageError(
            f"--copy-style is one of {', '.join(COPY_STYLES)}, not {shown.word(style)}"
        )
    if "engine" in found and _IN_IMAGE not in switches:
        raise UsageError(f"--engine says how to run the task in its image: give {_IN_IMAGE} too")
    if _REMOTE not in switches:
        return
    if _IN_IMAGE in switches:
        raise UsageError(
            f"{_REMOTE} has Flyte run the task, {_IN_IMAGE} runs it on this machine: leave one out"
        )
    if front.deployed is None:
        return
    wrong = [option for option, name in _TAKING.items() if name in found]
    wrong += [
        word
        for word in (one.partition("=")[0] for one in front.of_deploying)
        if word in (*_HOW, *_HOW_SWITCHES)
    ]
    if wrong:
        raise UsageError(
            f"{_DEPLOYED} runs what was deployed, as it was deployed: leave {wrong[0]} out"
        )
