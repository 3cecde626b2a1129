"""What a user types after `./pants run path:deploy --`, parsed the same way by the build rules and by the program.

No input or output happens here and the process never ends here: the rules call `parse` inside the Pants daemon.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_image,
    check_project,
    check_ref_name,
    check_version,
)
from flyte_pack.store import StoreError, check_store_uri
from flyte_pack.task_link import COPY_STYLES
from flyte_shim.paths import path_problem

HELP = """\
./pants run path:deploy -- [options] [list | show [VERSION] | rollback VERSION]

Push the images of a flyte_deployment, put its bundles into its store, and record what was deployed. What is there already is not
written again; when nothing changed, nothing is written at all.

  ./pants run services:deploy                                       deploy
  ./pants run services:deploy -- --dry-run                          what would deploying do? writes nothing
  ./pants run services:deploy -- --domain staging --version v1.2    name the domain and the version yourself
  ./pants run services:deploy -- --image trainer=reg.example/trainer:3
  ./pants run services:deploy -- --copy-style none --version v1.2   the code is in the images
  ./pants run services:deploy -- list                               which versions are there, which is current?
  ./pants run services:deploy -- show v1.2                          what is in one (the current one, if none is named)
  ./pants run services:deploy -- rollback v1.1                      make an earlier version current again

list, show and rollback package nothing and work when the code does not build. VERSION may be cut short where what is
left fits one version only.

Options, before or after the command:
  --dry-run              print what would happen, write nothing
  --version V            the version's name; by default it is computed from all that decides what runs
  --project P            for a deployment that leaves `project` open
  --domain D             for a deployment that leaves `domain` open
  --copy-style STYLE     auto, all or none, for all tasks of the deployment
  --root-dir DIR         root_dir for all tasks of the deployment
  --image NAME=URI       the image that the code calls NAME; may be given several times
  --registry HOST        where the images are pushed that are built here: a host, perhaps with a path
  --store URI            file:///an/absolute/path, or file://a/path/below/the/build/root
  --repair               write damaged objects of the store anew, where this build makes the same ones
  --output text|json     json: one document on standard output, nothing else there
  --help                 print this

Exit codes: 0 done (or nothing to do), 1 refused or failed, 2 the command line can not be understood.
"""

_COMMANDS = {"list": (0, 0), "show": (0, 1), "rollback": (1, 1)}
_DEPLOY_ONLY = ("version", "copy_style", "root_dir", "images", "registry", "repair")


class UsageError(Exception):
    """The command line can not be understood; the message says what to type instead."""


@dataclass(frozen=True)
class DeployOptions:
    """What the user typed, checked as far as text alone can be.

    command: "deploy", "list", "show", "rollback" or "help". which: the version that `show` or `rollback` names, perhaps
    cut short. version, ...: the options, None where not given. images: (ref name, image) pairs, no name twice.
    """

    command: str = "deploy"
    which: str | None = None
    dry_run: bool = False
    version: str | None = None
    project: str | None = None
    domain: str | None = None
    copy_style: str | None = None
    root_dir: str | None = None
    images: tuple[tuple[str, str], ...] = ()
    registry: str | None = None
    store: str | None = None
    repair: bool = False
    output: str = "text"

    @property
    def packages(self) -> bool:
        """Whether the tasks of the deployment must be packaged for this."""
        return self.command == "deploy"


def parse(argv: Sequence[str]) -> DeployOptions:
    """Parse what the user typed. Raises `UsageError`."""
    known, unknown = _parser().parse_known_intermixed_args(list(argv))
    if unknown:
        raise UsageError(f"unknown option {_shown(unknown[0].partition('=')[0])}")
    parsed = vars(known)
    words = parsed.pop("words") or []
    if parsed.pop("help"):
        return DeployOptions(command="help")
    command, arguments = (words[0], words[1:]) if words else ("deploy", [])
    try:
        least, most = _COMMANDS[command] if words else (0, 0)
    except KeyError:
        raise UsageError(
            f"unknown command {_shown(command)}: there are {', '.join(_COMMANDS)}; without one it deploys"
        ) from None
    if not least <= len(arguments) <= most:
        takes = {(0, 0): "no VERSION", (0, 1): "at most one VERSION", (1, 1): "one VERSION"}
        raise UsageError(f"{command} takes {takes[least, most]}, not {len(arguments)}")
    parsed["images"] = tuple(parsed.pop("image"))
    if len({name for name, _ in parsed["images"]}) < len(parsed["images"]):
        raise UsageError("--image is given twice for one name")
    for name in _DEPLOY_ONLY:
        if words and parsed[name]:
            option = "--" + name.replace("_", "-").replace("images", "image")
            raise UsageError(f"{option} is for deploying; {command} does not take it")
    which = _checked(check_version)(arguments[0]) if arguments else None
    return DeployOptions(command=command, which=which, **parsed)


class _Parser(argparse.ArgumentParser):
    """argparse that raises where it would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> _Parser:
    # Named, because argparse looks into sys.argv otherwise, which is empty in the Pants daemon.
    parser = _Parser(prog="deploy", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--version", type=_checked(check_version))
    parser.add_argument("--project", type=_checked(check_project))
    parser.add_argument("--domain", type=_checked(check_domain))
    parser.add_argument("--copy-style", choices=COPY_STYLES)
    parser.add_argument("--root-dir", type=_root_dir)
    parser.add_argument("--image", type=_image, action="append", default=[])
    parser.add_argument("--registry", type=_registry)
    parser.add_argument("--store", type=_checked(check_store_uri))
    parser.add_argument("--repair", action="store_true")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _checked(check: Callable[[str], str]) -> Callable[[str], str]:
    """`check`, raising what a mistyped command line raises."""

    def checked(text: str) -> str:
        try:
            return check(text)
        except (InvalidName, StoreError) as error:
            raise UsageError(str(error)) from None

    return checked


def _root_dir(text: str) -> str:
    path = text[2:] if text.startswith("./") else text
    path = path.rstrip("/") if path != "/" else path
    problem = None if path == "." else path_problem(path)
    if problem:
        raise UsageError(
            f"--root-dir takes a directory below the build root, like src or '.', not {problem}"
        )
    return path


def _image(text: str) -> tuple[str, str]:
    name, equals, image = text.partition("=")
    if not equals:
        raise UsageError("--image takes NAME=URI, like trainer=registry.example/team/trainer:3")
    return _checked(check_ref_name)(name), _checked(check_image)(image)


def _registry(text: str) -> str:
    if "://" in text or "@" in text:
        raise UsageError(
            "--registry takes a host, perhaps with a path, like ghcr.io/org: no scheme, no user, no password"
        )
    _checked(check_image)(f"{text.rstrip('/')}/name:tag")
    return text.rstrip("/")


def _shown(text: str) -> str:
    """A word of the command line as it may be repeated: not what could be a URI with a password in it."""
    return ascii(text) if len(text) <= 40 and not set(text) & set("@:/") else "(not repeated here)"
