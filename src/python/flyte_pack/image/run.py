"""Runs a command in an image that was packaged here, or writes the image out: `python -m flyte_pack image-run`.

What stands behind `./pants run path:image -- ...`. Layers that only a registry has are fetched first, and kept.
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
from flyte_pack.fresh import fresh_entries
from flyte_pack.image.engines import ENGINES, open_runner
from flyte_pack.image.running import Command, Mount, Runner, config_of
from flyte_pack.oci.docker_archive import write_archive
from flyte_pack.oci.layout import (
    REF_NAME,
    DirectoryFiles,
    Layout,
    LayoutImage,
    checked_blob,
    layout_files,
    read_layout,
)
from flyte_pack.oci.model import BASE_NAME, Descriptor, InvalidImage, Platform, blob_path
from flyte_pack.progress import Say

_HELP = """\
Run a command in the image, by a docker or podman engine where one answers, otherwise unpacked on this machine.

  ./pants run path:image -- [OPTION]... [COMMAND [ARGUMENT]...]

What follows the options is run by the image's entry point; without a command it is the image's own, if it has one.
"""


@dataclass(frozen=True)
class _Options:
    engine: str
    archive: str | None
    complete: str | None
    command: Command


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code, or that of the command in the image."""
    parser = command.parser("python -m flyte_pack image-run")
    parser.add_argument("--layout", required=True, help="the packaged image: an OCI layout")
    parser.add_argument("--address", required=True, help="the target's, for errors")
    parser.add_argument(
        "--tag", action="append", default=[], help="what it is to be called; may be repeated"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="unless the user says otherwise"
    )
    command.add_insecure(parser)
    return command.run(parser, argv, _do, hint="./pants run {} -- --help")


def _do(ours: argparse.Namespace) -> int:
    options = _typed(ours.typed, ours.engine)
    tags = tuple(ours.tag)
    with ready_image(ours.layout, say, ours.insecure) as (layout, image):
        if options.complete is not None:
            write_complete(layout, image, tags, options.complete)
            say(f"{options.complete}: the image as a layout with all layers")
        if options.archive is not None:
            write_archive(layout, image, tags or (default_name(ours.address),), options.archive)
            say(f"{options.archive}: the image as an archive, for `docker load` and others")
        if options.command.argv or (options.archive, options.complete) == (None, None):
            return _run(layout, image, ours.address, tags, options)
    return 0


@contextmanager
def image_runner(
    directory: str,
    address: str,
    engine: str = "auto",
    insecure: Collection[str] = (),
    say: Say = say,
) -> Iterator[Runner]:
    """The image of this machine's platform in the layout `directory`, ready to run any number of commands.

    address: of its target; the image is named after it. insecure: registries that speak plain HTTP. say: told what takes time, and which way it runs.
    Raises `UserError`, `InvalidImage` or `OSError`.
    """
    with ready_image(directory, say, insecure) as (layout, image):
        with open_runner(layout, image, engine, _slug(address), None, say) as runner:
            yield runner


def _run(
    layout: Layout, image: LayoutImage, address: str, tags: Sequence[str], options: _Options
) -> int:
    typed, config = options.command, config_of(image)
    if not typed.argv:
        if not config.cmd:
            raise UserError(
                f"the image has no command of its own: say what to run in it, as in `./pants run {address} -- python -V`"
            )
        typed = Command(config.cmd, typed.env, typed.mounts, typed.network)
    tag = tags[0] if tags else None
    with open_runner(layout, image, options.engine, _slug(address), tag, say) as runner:
        return runner.run(typed)


# --- what is typed -------------------------------------------------------------------------------


def _typed(words: list[str], engine: str) -> _Options:
    """Take our options off the front. Raises `UsageError`; `SystemExit` after the help."""
    parser = command.parser(
        "./pants run path:image --",
        _HELP,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help="print this")
    parser.add_argument(
        "--engine", choices=ENGINES, default=engine, help="how to run it (default: %(default)s)"
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="write the image as one file for `docker load`, skopeo and others",
    )
    parser.add_argument(
        "--complete", metavar="DIR", help="write the image as an OCI layout with all layers"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable, or pass it on",
    )
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="SRC:DST[:ro]",
        help="have a file or directory in it",
    )
    parser.add_argument("--network", metavar="NAME", help="none, host, or what the engine knows")
    cut = _end_of_options(words)
    found = parser.parse_args(list(words[:cut]))
    argv = words[cut + 1 :] if words[cut : cut + 1] == ["--"] else words[cut:]
    typed = Command(
        argv=tuple(argv),
        env=dict(map(_variable, found.env)),
        mounts=tuple(map(parse_mount, found.mount)),
        network=found.network,
    )
    return _Options(found.engine, found.archive, found.complete, typed)


def _end_of_options(words: Sequence[str]) -> int:
    """Where the command begins: at the first word that is no option of ours, nor the value of one. `--` ends them too."""
    at = 0
    while at < len(words) and words[at].startswith("--") and words[at] != "--":
        at += 1 if "=" in words[at] or words[at] == "--help" else 2
    return min(at, len(words))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise UsageError(f"--env {text!a:.80}: not NAME=VALUE")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(f"--env {name}: it is not set here; say --env {name}=VALUE")
    return name, os.environ[name]


def parse_mount(text: str) -> Mount:
    """`SRC:DST[:ro]`, where SRC may be relative."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro"):
        raise UsageError(f"--mount {text!a:.200}: not SRC:DST or SRC:DST:ro with an absolute DST")
    if not os.path.exists(source):
        raise UsageError(f"--mount {text!a:.200}: there is nothing at {source}")
    return Mount(os.path.abspath(source), target, mode == "ro")


# --- complete images -----------------------------------------------------------------------------


@contextmanager
def ready_image(
    directory: str, say: Say, insecure: Collection[str] = ()
) -> Iterator[tuple[Layout, LayoutImage]]:
    """The image of this machine's platform in the layout `directory`, with all its layers at hand.

    Those of a base in a registry are fetched into the user's cache, once. Raises `InvalidImage`, `UserError` or `OSError`.
    """
    cache = os.path.join(_user_cache(), "base-layers")
    layout = read_layout(_Both(DirectoryFiles(directory), DirectoryFiles(cache)))
    images = [image for top in layout.tops() for image in layout.images(top)]
    image = images[0] if len(images) == 1 else layout.image(_platform())
    if absent := layout.missing(image.manifest.layers):
        _fetch(image, absent, cache, say, insecure)
    yield layout, image


def _fetch(
    image: LayoutImage,
    absent: Sequence[Descriptor],
    cache: str,
    say: Say,
    insecure: Collection[str],
) -> None:
    base = image.manifest.annotations.get(BASE_NAME)
    if base is None:
        raise InvalidImage(
            "layers are missing in the layout, and it does not say where they are: package it anew"
        )
    # Only here, as it needs an HTTP library.
    from flyte_pack.registry.pull import complete

    os.makedirs(cache, exist_ok=True)
    complete(base, absent, cache, say, insecure)


def write_complete(layout: Layout, image: LayoutImage, tags: Sequence[str], place: str) -> None:
    """Write the image of one platform as a layout with all its layers, named by `tags`, or `latest`.

    Raises `UserError`, `InvalidImage` or `OSError`; nothing is left then.
    """
    with fresh_entries(place) as directory:
        os.makedirs(os.path.join(directory, "blobs", "sha256"))
        for descriptor in {d.digest: d for d in (image.descriptor, *image.blobs)}.values():
            with open(os.path.join(directory, blob_path(descriptor.digest)), "xb") as file:
                for piece in checked_blob(layout, descriptor):
                    file.write(piece)
        top = image.descriptor
        names = [tag.rpartition("/")[2].partition(":")[2] or tag for tag in tags] or ["latest"]
        manifests = [
            Descriptor(top.media_type, top.digest, top.size, {REF_NAME: name}, image.platform)
            for name in dict.fromkeys(names)
        ]
        for name, document in layout_files(manifests).items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(document)


@dataclass(frozen=True)
class _Both:
    """The files of a layout, and such blobs besides as the cache has."""

    layout: DirectoryFiles
    cache: DirectoryFiles

    @property
    def name(self) -> str:
        return self.layout.name

    def open(self, path: str) -> BinaryIO | None:
        file = self.layout.open(path)
        return file if file is not None or not path.startswith("blobs/") else self.cache.open(path)

    def size(self, path: str) -> int | None:
        size = self.layout.size(path)
        return size if size is not None or not path.startswith("blobs/") else self.cache.size(path)


def default_name(address: str) -> str:
    """What an image without a tag is called: after its target."""
    return f"{_slug(address)}:latest"


def _slug(address: str) -> str:
    """A repository's name (distribution's `reference` package, "path-component")."""
    parts = re.split(r"[^a-z0-9]+", address.lower())
    return f"pants-flyte/{'-'.join(filter(None, parts)) or 'image'}"


def _platform() -> Platform:
    machine = os.uname().machine
    return Platform("linux", {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))


def _user_cache() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "pants-flyte")
