"""Runs a command in a packaged image, or writes the image out: `python -m flyte_pack image-run`.

`./pants run path:image -- ...` starts it. Layers that only a registry has are fetched, and kept.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from flyte_pack import command
from flyte_pack.command import say
from flyte_pack.errors import UsageError, UserError
from flyte_pack.image.engines import ENGINES, open_runner
from flyte_pack.image.running import Command, Mount, Runner
from flyte_pack.names import TargetAddress
from flyte_pack.oci.docker_archive import write_archive
from flyte_pack.oci.layout import DirectoryFiles, Layout, LayoutImage, read_layout, write_complete
from flyte_pack.oci.model import BASE_NAME, InvalidImage, Platform
from flyte_pack.progress import Say
from flyte_pack.scratch import user_cache
from flyte_shim import shown

_HELP = """\
Run a command in the image, by docker or podman if one answers, else by bubblewrap.

  ./pants run path:image -- [OPTION]... [COMMAND [ARGUMENT]...]

The image's entry point runs the command; without one it runs the image's own, if it has any.
"""


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code, or that of the command in the image."""
    parser = command.parser("python -m flyte_pack image-run")
    parser.add_argument("--layout", required=True, help="the packaged image: an OCI layout")
    parser.add_argument("--address", required=True, help="the target's, for errors")
    command.add_insecure(parser)
    return command.run(parser, argv, _do, hint="./pants run {} -- --help")


def _do(ours: argparse.Namespace) -> int:
    options = _typed(ours.typed)
    with ready_image(ours.layout, say, ours.insecure) as (layout, image):
        if options.complete is not None:
            write_complete(layout, image, options.complete)
            say(f"{options.complete}: the image as a layout with all layers")
        if options.archive is not None:
            write_archive(layout, image, [f"{_slug(ours.address)}:latest"], options.archive)
            say(f"{options.archive}: the image as an archive, for `docker load` and others")
        if options.command.argv or (options.archive, options.complete) == (None, None):
            return _run(layout, image, ours.address, options)
    return 0


@contextmanager
def image_runner(
    directory: str,
    address: TargetAddress,
    engine: str = "auto",
    insecure: Collection[str] = (),
    say: Say = say,
) -> Iterator[Runner]:
    """The image of this machine's platform in the layout `directory`, ready to run commands.

    address: of its target; the image is named after it. insecure: registries with plain HTTP.
    say: told what takes time, and how it runs. Raises `UserError` or `OSError`.
    """
    with ready_image(directory, say, insecure) as (layout, image):
        with open_runner(layout, image, engine, _slug(address), say) as runner:
            yield runner


def _run(
    layout: Layout, image: LayoutImage, address: TargetAddress, options: argparse.Namespace
) -> int:
    typed: Command = options.command
    config = image.parsed_config
    if not typed.argv:
        if not config.cmd:
            raise UserError(
                "the image has no command of its own: say what to run in it, as in `./pants run "
                f"{address} -- python -V`"
            )
        typed = Command(config.cmd, typed.env, typed.mounts, typed.network)
    with open_runner(layout, image, options.engine, _slug(address), say) as runner:
        return runner.run(typed)


# --- what is typed -------------------------------------------------------------------------------


def _typed(words: list[str]) -> argparse.Namespace:
    """Our options, and the `command`. Raises `UsageError`; `SystemExit` after the help."""
    parser = command.parser(
        "./pants run path:image --",
        _HELP,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help="print this")
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="how to run it (default: %(default)s)"
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="write the image as one file for `docker load`, skopeo and others",
    )
    parser.add_argument(
        "--complete", metavar="DIR", help="write the image as an OCI layout with all layers"
    )
    for name, form, text in (
        ("--env", "NAME[=VALUE]", "set a variable, or pass it on"),
        ("--mount", "SRC:DST[:ro]", "have a file or directory in it"),
    ):
        parser.add_argument(name, action="append", default=[], metavar=form, help=text)
    parser.add_argument("--network", metavar="NAME", help="none, host, or what the engine knows")
    cut = _end_of_options(words)
    found = parser.parse_args(list(words[:cut]))
    argv = words[cut + 1 :] if words[cut : cut + 1] == ["--"] else words[cut:]
    env, mounts = dict(map(_variable, found.env)), tuple(map(parse_mount, found.mount))
    found.command = Command(tuple(argv), env, mounts, found.network)
    return found


def _end_of_options(words: Sequence[str]) -> int:
    """Where the command begins: after our options and their values, or at `--`."""
    at = 0
    while at < len(words) and words[at].startswith("--") and words[at] != "--":
        at += 1 if "=" in words[at] or words[at] == "--help" else 2
    return min(at, len(words))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise UsageError("--env takes NAME=VALUE, or the NAME of a variable that is set here")
    if equals:
        return name, value
    if name not in os.environ:
        said = shown.word(name)
        raise UsageError(f"--env {said}: it is not set here; say --env NAME=VALUE")
    return name, os.environ[name]


def parse_mount(text: str) -> Mount:
    """`SRC:DST[:ro]`, where SRC may be relative."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro"):
        raise UsageError(
            f"--mount {shown.name(text)}: not SRC:DST or SRC:DST:ro with an absolute DST"
        )
    if not os.path.exists(source):
        raise UsageError(f"--mount {shown.name(text)}: there is nothing at {shown.uri(source)}")
    return Mount(os.path.abspath(source), target, mode == "ro")


# --- complete images -----------------------------------------------------------------------------


@contextmanager
def ready_image(
    directory: str, say: Say, insecure: Collection[str] = ()
) -> Iterator[tuple[Layout, LayoutImage]]:
    """The image of this machine's platform in the layout `directory`, with all its layers at hand.

    Layers of a base in a registry are fetched into the user's cache, once. Raises `UserError` or
    `OSError`.
    """
    cache = os.path.join(user_cache(), "base-layers")
    layout = read_layout(_Both(directory, DirectoryFiles(cache)))
    images = [image for top in layout.tops() for image in layout.images(top)]
    image = images[0] if len(images) == 1 else layout.image(_platform())
    if absent := layout.missing(image.manifest.layers):
        base = image.manifest.annotations.get(BASE_NAME)
        if base is None:
            raise InvalidImage(
                "layers are missing in the layout, and it does not say where they are: "
                "package it anew"
            )
        # Only here, as it needs an HTTP library.
        from flyte_pack.registry.pull import complete

        os.makedirs(cache, exist_ok=True)
        complete(base, absent, cache, say, insecure)
    yield layout, image


@dataclass(frozen=True)
class _Both(DirectoryFiles):
    """The files of a layout, and such blobs besides as the cache has."""

    cache: DirectoryFiles

    def open(self, path: str) -> BinaryIO | None:
        file = super().open(path)
        return file if file is not None or not path.startswith("blobs/") else self.cache.open(path)


def _slug(address: TargetAddress) -> str:
    """A repository's name (distribution's `reference` package, "path-component")."""
    parts = re.split(r"[^a-z0-9]+", address.lower())
    return f"pants-flyte/{'-'.join(filter(None, parts)) or 'image'}"


def _platform() -> Platform:
    return Platform.normal("linux", os.uname().machine)
