"""What a user types after `./pants run path:deploy --`.

The build rules and the program parse it in the same way. The rules call `parse` inside the Pants
daemon, so it does no input or output, and never ends the process.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from flyte_pack import command
from flyte_pack.deploy.config import TEXTS, UNSET, Settings
from flyte_pack.errors import UsageError
from flyte_pack.json_fields import InvalidData
from flyte_shim import shown
from flyte_shim.paths import path_problem

HELP = """\
./pants run path:deploy -- [options] [command]

Push the images of a flyte_deployment, put its bundles into its store, record what was deployed, and
register its tasks with Flyte, if an endpoint is known. What is there already is not written again;
when nothing changed, nothing is written at all.

  ./pants run services:deploy                                       deploy
  ./pants run services:deploy -- --dry-run                          what would happen? write nothing
  ./pants run services:deploy -- --domain staging --version v1.2    name both yourself
  ./pants run services:deploy -- --endpoint flyte.example.com       register the tasks there
  ./pants run services:deploy -- --config deploy.yaml               take settings from a file
  ./pants run services:deploy -- --image trainer=reg.example/trainer:3
  ./pants run services:deploy -- --copy-style none --version v1.2   the code is in the images

Commands, in the place of deploying; they package nothing and work when the code does not build:
  list                   which versions are there, which is current?
  show [VERSION]         what is in one (by default the current one)?
  diff [A] [B]           what differs between two versions: files, dependencies, packages, settings?
                         By default between the one before and the current one; with --checkout,
                         between A (by default the current one) and what is packaged for it now
  rollback [VERSION|-N]  make an earlier version current again, and what Flyte runs; without one,
                         the one before; -2, the one before that
  verify [VERSION]       read all that a version needs (by default the current one): is it whole?
  prune                  list what no version needs; with --yes, delete it
  export DIR [VERSION]   write all of a version into a new folder, images too, for a site without
                         network
  import DIR             deploy what `export` wrote
  promote [VERSION]      deploy what another domain runs, the same archives and images
VERSION may be cut short if it still fits one version only. A relative DIR is below the build root.

Options, before or after the command:
  --dry-run              print what would happen, write nothing
  --version V            the version's name; by default computed from all that decides what runs
  --project P            for a deployment that leaves `project` open
  --domain D             for a deployment that leaves `domain` open
  --copy-style STYLE     auto, all or none, for all tasks of the deployment
  --root-dir DIR         root_dir for all tasks of the deployment
  --image NAME=URI       the image that the code calls NAME; may be given several times
  --no-image-check       do not check that images from elsewhere exist, if their registry cannot be
                         reached; for verify: do not check any image
  --registry HOST        where images that are built here are pushed: a host, perhaps with a path,
                         or @NAME of [flyte].named_registries
  --store URI            file:///an/absolute/path, file://a/path/below/the/build/root, or an object
                         store
  --upload store|flyte   how bundles get into the store: straight (store, the default), or by
                         Flyte's data proxy, for people without rights on the bucket (flyte)
  --repair               rewrite damaged objects of the store, if this build (or folder) has them
  --config FILE          settings in YAML, a file below the build root
  --output text|json     json: one document on standard output, nothing else there
  --exit-code            end with 3 if something was changed, or would be; not for commands that
                         only look
  --help                 print this

Options for registering with Flyte, for deploying, rollback, import, promote and prune --keep:
  --endpoint HOST[:PORT] Flyte's control plane, or its URL; without one here, in the target, in
                         --config or in --flyte-config, nothing is registered
  --insecure             the endpoint speaks plain HTTP, no TLS
  --org NAME             the organization, where the control plane serves several
  --flyte-config FILE    Flyte's own config.yaml: endpoint, how to log in
  --no-register          store and record only; for prune: do not ask which versions triggers run

Options for promote:
  --from DOMAIN          whose current version, or VERSION, to take
  --from-store URI       its store, if that is another one

Options for diff, verify and prune:
  --checkout             compare with the checkout, which is packaged for that
  --all                  verify every version
  --yes                  delete what prune lists
  --keep N               prune all but the last N versions of this deployment; the current one and
                         those that active triggers of Flyte run stay
  --older-than DAYS      prune only what was written that long ago (default 1: somebody may be about
                         to deploy it)
  --runs-older-than DAYS prune versions that were run without a deployment (path:task -- --remote),
                         last that long ago (default 30), but for the last of each task

Exit codes: 0 done (or nothing to do), 1 refused or failed, 2 the command line cannot be understood,
3 with --exit-code: something was changed.
"""

_DEPLOY = "deploy"
# What a command takes: words after it, at least and at most, and which.
_COMMANDS = {
    "list": (0, 0, "no VERSION"),
    "show": (0, 1, "at most one VERSION"),
    "diff": (0, 2, "at most two VERSIONs"),
    "rollback": (0, 1, "at most one VERSION"),
    "verify": (0, 1, "at most one VERSION"),
    "prune": (0, 0, "no VERSION"),
    "export": (1, 2, "a folder, and at most one VERSION"),
    "import": (1, 1, "one folder"),
    "promote": (0, 1, "at most one VERSION"),
}
_REGISTERING = (_DEPLOY, "rollback", "import", "promote")
# The commands that an option is for, where it is not for all of them.
_FOR = {
    **dict.fromkeys(("version", "copy_style", "root_dir", "images", "upload"), (_DEPLOY,)),
    "no_image_check": (_DEPLOY, "verify"),
    **dict.fromkeys(("registry", "repair"), (_DEPLOY, "import", "promote")),
    **dict.fromkeys(("from_domain", "from_store"), ("promote",)),
    "exit_code": _REGISTERING,
    **dict.fromkeys(
        ("endpoint", "insecure", "org", "flyte_config", "no_register"), (*_REGISTERING, "prune")
    ),
    "checkout": ("diff",),
    "all_versions": ("verify",),
    **dict.fromkeys(("yes", "keep", "older_than", "runs_older_than"), ("prune",)),
}
_OPTIONS = {"images": "image", "all_versions": "all", "from_domain": "from"}
_STEPS = re.compile(r"-[1-9][0-9]{0,5}")
_MOST_DAYS = 36500
_MOST_KEPT = 1_000_000


@dataclass(frozen=True)
class DeployOptions:
    """What the user typed, checked as far as text alone can be.

    command: "deploy", one of the commands of `HELP`, or "help". which: the version that `show`,
    `diff`, `rollback`, `verify`, `export` or `promote` names; it may be cut short, or -N for
    `diff` and `rollback`. other: the second that `diff` names.
    directory: the folder of `export` or `import`. register: False with --no-register. image_check:
    False with --no-image-check. older_than, runs_older_than: days. from_domain, from_store: of
    `promote`. checkout: whether `diff` compares with that.
    """

    command: str = _DEPLOY
    settings: Settings = UNSET
    which: str | None = None
    other: str | None = None
    directory: str | None = None
    dry_run: bool = False
    image_check: bool = True
    upload: str | None = None
    repair: bool = False
    config: str | None = None
    register: bool = True
    checkout: bool = False
    all_versions: bool = False
    yes: bool = False
    keep: int | None = None
    older_than: int | None = None
    runs_older_than: int | None = None
    from_domain: str | None = None
    from_store: str | None = None
    exit_code: bool = False
    output: str = "text"

    @property
    def packages(self) -> bool:
        """Whether the tasks of the deployment must be packaged for this."""
        return self.command == _DEPLOY or self.checkout

    @property
    def ships(self) -> bool:
        """Whether it makes a version current, for which there is a report."""
        return self.command in _REGISTERING

    @property
    def registers(self) -> bool:
        """Whether Flyte may be told or asked something, which takes the packages of the resolves.

        A prune that drops versions asks which ones Flyte's triggers run.
        """
        drops = self.command == "prune" and self.keep is not None
        return self.register and (self.command in _REGISTERING or drops)


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
    which, other, directory = _arguments(command, arguments) if words else (None, None, None)
    for name, commands in _FOR.items():
        if parsed[name] not in (None, False, []) and command not in commands:
            option = "--" + _OPTIONS.get(name, name).replace("_", "-")
            does = "deploying" if command == _DEPLOY else command
            raise UsageError(f"{option} is for {_listed(commands)}; {does} does not take it")
    _check_contradictions(parsed, command, which, other)
    parsed["register"] = not parsed.pop("no_register")
    parsed["image_check"] = not parsed.pop("no_image_check")
    typed = {field.name: parsed.pop(field.name) for field in fields(Settings)}
    typed["images"] = tuple(sorted(typed["images"]))
    return DeployOptions(
        command=command,
        settings=Settings(**typed),
        which=which,
        other=other,
        directory=directory,
        **parsed,
    )


def _check_contradictions(
    parsed: dict[str, Any], command: str, which: str | None, other: str | None
) -> None:
    if len(dict(parsed["images"])) < len(parsed["images"]):
        raise UsageError("--image is given twice for one name")
    if parsed["dry_run"] and command == "export":
        raise UsageError("export has no --dry-run: `show` tells what is in a version")
    if parsed["dry_run"] and parsed["yes"]:
        raise UsageError("--yes and --dry-run contradict: prune without --yes only lists")
    if command == "promote" and parsed["from_domain"] is None:
        raise UsageError("promote takes --from DOMAIN: whose version is it to deploy?")
    if parsed["checkout"] and other is not None:
        raise UsageError("diff takes two VERSIONs, or one and --checkout")
    if which is not None and parsed["all_versions"]:
        raise UsageError("verify takes a VERSION or --all, not both")
    if parsed["insecure"] and (parsed["endpoint"] or "").lower().startswith("https:"):
        raise UsageError("--insecure means plain HTTP, and --endpoint says https: leave one out")


def _arguments(command: str, arguments: list[str]) -> tuple[str | None, str | None, str | None]:
    """(the version, another one, the folder) that a command names."""
    if command not in _COMMANDS:
        raise UsageError(
            f"unknown command {shown.word(command)}: there are {', '.join(_COMMANDS)}; "
            "without one it deploys"
        )
    least, most, which = _COMMANDS[command]
    if not least <= len(arguments) <= most:
        raise UsageError(f"{command} takes {which}, not {len(arguments)}")
    directory = None
    if command in ("export", "import"):
        directory, arguments = arguments[0], arguments[1:]
        _read("flyte_config", directory, f"{command} DIR")  # any path
    steps = command in ("diff", "rollback")
    versions = [
        text if steps and _STEPS.fullmatch(text) else _read("version", text, command)
        for text in arguments
    ]
    which, other, *_ = [*versions, None, None]
    return which, other, directory


def _parser() -> argparse.ArgumentParser:
    # Named, because argparse looks into sys.argv otherwise, which is empty in the Pants daemon.
    parser = command.parser("deploy", add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    for option in (
        "--dry-run",
        "--no-image-check",
        "--repair",
        "--no-register",
        "--yes",
        "--exit-code",
        "--checkout",
    ):
        parser.add_argument(option, action="store_true")
    for name in TEXTS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=partial(_read, name, option=option))
    # None, so that what is not typed leaves other settings as they are.
    parser.add_argument("--insecure", action="store_true", default=None)
    parser.add_argument("--image", type=_image, action="append", default=[], dest="images")
    parser.add_argument("--upload", type=_one_of("--upload", ("store", "flyte")))
    parser.add_argument("--config", type=_config)
    parser.add_argument(
        "--from", type=partial(_read, "domain", option="--from"), dest="from_domain"
    )
    parser.add_argument("--from-store", type=partial(_read, "store", option="--from-store"))
    parser.add_argument("--all", action="store_true", dest="all_versions")
    parser.add_argument("--keep", type=_number("--keep", 1, _MOST_KEPT))
    parser.add_argument("--older-than", type=_number("--older-than", 0, _MOST_DAYS))
    parser.add_argument("--runs-older-than", type=_number("--runs-older-than", 0, _MOST_DAYS))
    parser.add_argument("--output", type=_one_of("--output", ("text", "json")), default="text")
    return parser


def _read(name: str, text: object, option: str) -> Any:
    """A setting's value, checked."""
    try:
        return Settings.read(name, text, option)
    except InvalidData as error:
        raise UsageError(str(error)) from None


def _config(text: str) -> str:
    path = text[2:] if text.startswith("./") else text
    problem = path_problem(path)
    if problem:
        # The build rules read it, and they see what is below the build root.
        raise UsageError(
            f"--config takes a file below the build root, like services/deploy.yaml, not {problem}"
        )
    return path


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
    pair: tuple[str, str] = _read("images", {name: image}, "--image")[0]
    return pair


def _listed(commands: Sequence[str]) -> str:
    names = ["deploying" if name == _DEPLOY else name for name in commands]
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
