"""What a user types after `./pants run path:deploy --`, parsed the same way by the build rules and by the program.

No input or output happens here and the process never ends here: the rules call `parse` inside the Pants daemon.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flyte_pack import command
from flyte_pack.errors import UsageError
from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_endpoint,
    check_image,
    check_org,
    check_project,
    check_ref_name,
    check_registry,
    check_version,
)
from flyte_pack.store.uris import StoreError, check_store_uri
from flyte_pack.task_link import COPY_STYLES
from flyte_shim import shown
from flyte_shim.paths import path_problem

HELP = """\
./pants run path:deploy -- [options] [command]

Push the images of a flyte_deployment, put its bundles into its store, record what was deployed, and register its tasks with
Flyte, if an endpoint is known. What is there already is not written again; when nothing changed, nothing is written at all.

  ./pants run services:deploy                                       deploy
  ./pants run services:deploy -- --dry-run                          what would deploying do? writes nothing
  ./pants run services:deploy -- --domain staging --version v1.2    name the domain and the version yourself
  ./pants run services:deploy -- --endpoint flyte.example.com       register the tasks there
  ./pants run services:deploy -- --config deploy.yaml               take settings from a file
  ./pants run services:deploy -- --image trainer=reg.example/trainer:3
  ./pants run services:deploy -- --copy-style none --version v1.2   the code is in the images

Commands, in the place of deploying; they package nothing and work when the code does not build:
  list                   which versions are there, which is current?
  show [VERSION]         what is in one (the current one, if none is named)
  rollback VERSION       make an earlier version current again, and register it again
  verify [VERSION]       read all that a version needs (the current one, if none is named): is it there, is it whole?
  prune                  list what no version needs; with --yes, delete it
  export DIR [VERSION]   write all of a version into a new folder, images too, to be carried where there is no network
  import DIR             deploy what `export` wrote
VERSION may be cut short where what is left fits one version only. DIR is below the build root, if it is relative.

Options, before or after the command:
  --dry-run              print what would happen, write nothing
  --version V            the version's name; by default it is computed from all that decides what runs
  --project P            for a deployment that leaves `project` open
  --domain D             for a deployment that leaves `domain` open
  --copy-style STYLE     auto, all or none, for all tasks of the deployment
  --root-dir DIR         root_dir for all tasks of the deployment
  --image NAME=URI       the image that the code calls NAME; may be given several times
  --no-image-check       don't look whether images that were not built here exist, where their registry can't be reached;
                         for verify: don't look for any image
  --registry HOST        where the images are pushed that are built here: a host, perhaps with a path
  --store URI            file:///an/absolute/path, or file://a/path/below/the/build/root, or an object store
  --upload store|flyte   how bundles get into the store: straight (store, the default), or by Flyte's data proxy, for
                         people without rights on the bucket (flyte)
  --repair               write damaged objects of the store anew, where this build (or folder) has the same ones
  --config FILE          settings in YAML, a file below the build root
  --output text|json     json: one document on standard output, nothing else there
  --help                 print this

Options for registering with Flyte, for deploying, rollback and import:
  --endpoint HOST[:PORT] Flyte's control plane, or its URL; without one here, in the target, in --config or in --flyte-config,
                         nothing is registered
  --insecure             the endpoint speaks plain HTTP, no TLS
  --org NAME             the organization, where the control plane serves several
  --flyte-config FILE    Flyte's own config.yaml: endpoint, how to log in
  --no-register          store and record only

Options for verify and prune:
  --all                  verify every version
  --yes                  delete what prune lists
  --keep N               prune all but the last N versions of this deployment, too, never the current one
  --older-than DAYS      prune only what was written that long ago (default 1: somebody may be about to deploy it)

Exit codes: 0 done (or nothing to do), 1 refused or failed, 2 the command line can not be understood.
"""

_DEPLOY = "deploy"
# What a command takes: words after it, at least and at most.
_COMMANDS = {
    "list": (0, 0),
    "show": (0, 1),
    "rollback": (1, 1),
    "verify": (0, 1),
    "prune": (0, 0),
    "export": (1, 2),
    "import": (1, 1),
}
_WORDS = {
    "list": "no VERSION",
    "show": "at most one VERSION",
    "rollback": "one VERSION",
    "verify": "at most one VERSION",
    "prune": "no VERSION",
    "export": "a folder, and at most one VERSION",
    "import": "one folder",
}
_REGISTERING = (_DEPLOY, "rollback", "import")
# The commands that an option is for, where it is not for all of them.
_FOR = {
    "version": (_DEPLOY,),
    "copy_style": (_DEPLOY,),
    "root_dir": (_DEPLOY,),
    "images": (_DEPLOY,),
    "no_image_check": (_DEPLOY, "verify"),
    "upload": (_DEPLOY,),
    "registry": (_DEPLOY, "import"),
    "repair": (_DEPLOY, "import"),
    "endpoint": _REGISTERING,
    "insecure": _REGISTERING,
    "org": _REGISTERING,
    "flyte_config": _REGISTERING,
    "no_register": _REGISTERING,
    "all_versions": ("verify",),
    "yes": ("prune",),
    "keep": ("prune",),
    "older_than": ("prune",),
}
_OPTIONS = {"images": "image", "all_versions": "all"}
_MOST_DAYS = 36500
_MOST_KEPT = 1_000_000


@dataclass(frozen=True)
class DeployOptions:
    """What the user typed, checked as far as text alone can be.

    command: "deploy", one of the commands of `HELP`, or "help". which: the version that `show`, `rollback`, `verify` or
    `export` names, perhaps cut short. directory: the folder of `export` or `import`. version, ...: the options, None where
    not given. images: (ref name, image) pairs, no name twice. register: False with --no-register. image_check: False with
    --no-image-check. older_than: days.
    """

    command: str = _DEPLOY
    which: str | None = None
    directory: str | None = None
    dry_run: bool = False
    version: str | None = None
    project: str | None = None
    domain: str | None = None
    copy_style: str | None = None
    root_dir: str | None = None
    images: tuple[tuple[str, str], ...] = ()
    image_check: bool = True
    registry: str | None = None
    store: str | None = None
    upload: str | None = None
    repair: bool = False
    config: str | None = None
    endpoint: str | None = None
    insecure: bool = False
    org: str | None = None
    flyte_config: str | None = None
    register: bool = True
    all_versions: bool = False
    yes: bool = False
    keep: int | None = None
    older_than: int | None = None
    output: str = "text"

    @property
    def packages(self) -> bool:
        """Whether the tasks of the deployment must be packaged for this."""
        return self.command == _DEPLOY

    @property
    def registers(self) -> bool:
        """Whether tasks may be registered by this, which takes the packages of their resolves."""
        return self.register and self.command in _REGISTERING


def parse(argv: Sequence[str]) -> DeployOptions:
    """Parse what the user typed. Raises `UsageError`."""
    known, unknown = _parser().parse_known_intermixed_args(list(argv))
    if unknown:
        raise UsageError(f"unknown option {shown.word(unknown[0].partition('=')[0])}")
    parsed = vars(known)
    words = parsed.pop("words") or []
    if parsed.pop("help"):
        return DeployOptions(command="help")
    command, arguments = (words[0], words[1:]) if words else (_DEPLOY, [])
    which, directory = _arguments(command, arguments) if words else (None, None)
    parsed["images"] = tuple(parsed.pop("image"))
    if len({name for name, _ in parsed["images"]}) < len(parsed["images"]):
        raise UsageError("--image is given twice for one name")
    for name, commands in _FOR.items():
        if parsed[name] not in (None, False, ()) and command not in commands:
            option = "--" + _OPTIONS.get(name, name).replace("_", "-")
            does = "deploying" if command == _DEPLOY else command
            raise UsageError(f"{option} is for {_listed(commands)}; {does} does not take it")
    if parsed["dry_run"] and (command == "export" or parsed["yes"]):
        raise UsageError(
            "export has no --dry-run: `show` tells what is in a version"
            if command == "export"
            else "--yes and --dry-run contradict: prune without --yes only lists"
        )
    if which is not None and parsed["all_versions"]:
        raise UsageError("verify takes a VERSION or --all, not both")
    if parsed["insecure"] and (parsed["endpoint"] or "").lower().startswith("https:"):
        raise UsageError("--insecure means plain HTTP, and --endpoint says https: leave one out")
    parsed["register"] = not parsed.pop("no_register")
    parsed["image_check"] = not parsed.pop("no_image_check")
    return DeployOptions(command=command, which=which, directory=directory, **parsed)


def _arguments(command: str, arguments: list[str]) -> tuple[str | None, str | None]:
    """(the version, the folder) that a command names."""
    if command not in _COMMANDS:
        raise UsageError(
            f"unknown command {shown.word(command)}: there are {', '.join(_COMMANDS)}; without one it deploys"
        )
    least, most = _COMMANDS[command]
    if not least <= len(arguments) <= most:
        raise UsageError(f"{command} takes {_WORDS[command]}, not {len(arguments)}")
    directory = None
    if command in ("export", "import"):
        directory, arguments = _path(f"{command} DIR")(arguments[0]), arguments[1:]
    return (_checked(check_version)(arguments[0]) if arguments else None), directory


def _parser() -> argparse.ArgumentParser:
    # Named, because argparse looks into sys.argv otherwise, which is empty in the Pants daemon.
    parser = command.parser("deploy", add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--version", type=_checked(check_version))
    parser.add_argument("--project", type=_checked(check_project))
    parser.add_argument("--domain", type=_checked(check_domain))
    parser.add_argument("--copy-style", type=_one_of("--copy-style", COPY_STYLES))
    parser.add_argument("--root-dir", type=_root_dir)
    parser.add_argument("--image", type=_image, action="append", default=[])
    parser.add_argument("--no-image-check", action="store_true")
    parser.add_argument("--registry", type=_checked(check_registry, "--registry: "))
    parser.add_argument("--store", type=_checked(check_store_uri))
    parser.add_argument("--upload", type=_one_of("--upload", ("store", "flyte")))
    parser.add_argument("--repair", action="store_true")
    parser.add_argument("--config", type=_config)
    parser.add_argument("--endpoint", type=_checked(check_endpoint, "--endpoint: "))
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--org", type=_checked(check_org))
    parser.add_argument("--flyte-config", type=_path("--flyte-config"))
    parser.add_argument("--no-register", action="store_true")
    parser.add_argument("--all", action="store_true", dest="all_versions")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--keep", type=_number("--keep", 1, _MOST_KEPT))
    parser.add_argument("--older-than", type=_number("--older-than", 0, _MOST_DAYS))
    parser.add_argument("--output", type=_one_of("--output", ("text", "json")), default="text")
    return parser


def _checked(check: Callable[[str], str], before: str = "") -> Callable[[str], str]:
    """`check`, raising what a mistyped command line raises."""

    def checked(text: str) -> str:
        try:
            return check(text)
        except (InvalidName, StoreError) as error:
            raise UsageError(f"{before}{error}") from None

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


def _config(text: str) -> str:
    path = text[2:] if text.startswith("./") else text
    problem = path_problem(path)
    if problem:
        # The build rules read it, and they see what is below the build root.
        raise UsageError(
            f"--config takes a file below the build root, like services/deploy.yaml, not {problem}"
        )
    return path


def _path(option: str) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if not text or not text.isprintable() or "://" in text:
            raise UsageError(f"{option} takes a path, not {shown.word(text)}")
        return text

    return checked


def _one_of(option: str, known: Sequence[str]) -> Callable[[str], str]:
    # (What argparse says of its own `choices` repeats what was typed.)
    def checked(text: str) -> str:
        if text not in known:
            raise UsageError(f"{option} is one of {', '.join(known)}, not {shown.word(text)}")
        return text

    return checked


def _number(option: str, least: int, most: int) -> Callable[[str], int]:
    def checked(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= most:
            raise UsageError(
                f"{option} takes a whole number from {least} to {most}, not {shown.word(text)}"
            )
        return int(text)

    return checked


def _image(text: str) -> tuple[str, str]:
    name, equals, image = text.partition("=")
    if not equals:
        raise UsageError("--image takes NAME=URI, like trainer=registry.example/team/trainer:3")
    return _checked(check_ref_name)(name), _checked(check_image)(image)


def _listed(commands: Sequence[str]) -> str:
    names = ["deploying" if name == _DEPLOY else name for name in commands]
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
