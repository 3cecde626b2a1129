"""Runs programs in an image: by docker or podman if one answers, else unpacked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.image.running import Command, Runner, private_file, quietly, supervise
from flyte_pack.image.unpacked import unpacked
from flyte_pack.oci.docker_archive import stream_archive
from flyte_pack.oci.layout import Layout, LayoutImage
from flyte_pack.progress import Say
from flyte_shim import shown
from flyte_shim.words import joined

ENGINES = ("auto", "docker", "podman", "unpack")
# The command of each client that its engine must answer.
_PROBES = {"docker": ("version", "--format", "{{.Server.Version}}"), "podman": ("info",)}
_ANSWER_SECONDS = 5
# What `--env-file` gives exactly by every reader: docker's, and those of podman's versions, of
# which some know quotes and comments.
_FILE_LINE = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*=[^\s'\"`#\ud800-\udfff](?:[^#\r\n\ud800-\udfff]*[^\s#\ud800-\udfff])?"
)
_LONGEST_LINE = 60_000  # bytes; docker reads lines up to 64 KiB


@contextmanager
def open_runner(
    layout: Layout, image: LayoutImage, engine: str, name: str, say: Say
) -> Iterator[Runner]:
    """`image`, ready to run by `engine` (of `ENGINES`); all its layers must be at hand.

    name: of the image in a container engine. say: told in one line how it runs. Raises `UserError`
    or `OSError`.
    """
    for client in _PROBES:
        if engine in ("auto", client) and (program := _answering(client, engine == client)):
            yield _load(program, layout, image, name, say)
            return
    with unpacked(layout, image, say) as runner:
        yield runner


def _answering(client: str, must: bool) -> str | None:
    """The path of the client, if its engine answers. Raises `UserError` if it `must`."""
    program = shutil.which(client)
    if program is None:
        if must:
            raise UserError(f"there is no {client} on PATH: install it, or leave out --engine")
        return None
    try:
        asked = quietly([program, *_PROBES[client]], _ANSWER_SECONDS)
        if asked.returncode == 0:
            return program
        said = asked.stderr.strip()
    except subprocess.TimeoutExpired:
        said = f"it does not answer within {_ANSWER_SECONDS} seconds"
    except OSError as error:
        said = str(error)
    if must:
        raise UserError(f"{client} cannot be used: {said:.500}")
    return None


def _load(program: str, layout: Layout, image: LayoutImage, name: str, say: Say) -> Runner:
    client = os.path.basename(program)
    digests = (image.manifest.config.digest, image.descriptor.digest)
    loaded = _find(program, digests)
    reference = f"{name}:{image.descriptor.digest.partition(':')[2][:12]}"
    if loaded is None:
        with children.started(
            [program, "load", "--quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as load:
            assert load.stdin is not None
            assert load.stdout is not None
            try:
                stream_archive(layout, image, [reference], load.stdin.write)
                load.stdin.close()
            except BrokenPipeError:
                pass  # what it says tells more
            said = load.stdout.read().decode(errors="replace").strip()
        if load.returncode:
            raise UserError(f"{client} does not load the image: {said:.500}")
        loaded = _find(program, (*digests, reference))
        if loaded is None:
            raise UserError(f"{client} took the image, but does not have it: {said:.500}")
    say(f"running in {client}, as {loaded}")
    return _Engine(program, loaded)


def _find(program: str, names: Sequence[str]) -> str | None:
    """The first of `names` that the engine has. Stores differ in the digest that is the ID."""
    for name in names:
        asked = quietly([program, "image", "inspect", "--format", "{{.Id}}", name])
        if asked.returncode == 0:
            return name
    return None


@dataclass(frozen=True)
class _Engine:
    program: str
    reference: str

    def run(self, command: Command) -> int:
        ours = command.stdin is None and command.stdout is None
        tty = ours and sys.stdin.isatty() and sys.stdout.isatty()
        options, environment, lines = container_environment(command.env, os.environ)
        file = private_file(joined(lines, "\n", "a variable"))
        options += ["--env-file", f"/dev/fd/{file}"] if lines else []
        options += ["--tty"] if tty else []
        try:
            # With a terminal, the client minds it.
            return supervise(
                [self.program, "run", "--rm", "--interactive", *options, *self._words(command)],
                environment,
                command,
                own_session=not tty,
                pass_fds=(file,),
            )
        finally:
            os.close(file)

    def _words(self, command: Command) -> list[str]:
        """What follows the environment on the client's command line."""
        argv = []
        for mount in command.mounts:
            source, target = mount.source, mount.target
            if set(',"\r\n') & set(source + target):  # they are read as a line of CSV
                raise UserError(
                    "a mount cannot have a comma, a quote or a line end in its paths: "
                    f"{shown.uri(source)}:{shown.uri(target)}"
                )
            read_only = ",readonly" if mount.read_only else ""
            argv += ["--mount", f"type=bind,source={source},target={target}{read_only}"]
        if command.network is not None:
            argv += ["--network", command.network]
        if command.workdir is not None:
            argv += ["--workdir", command.workdir]
        words = command.argv
        if command.entrypoint is not None:
            words = (*command.entrypoint, *words)
            if not words or not words[0]:
                raise UserError("there is no command to run")
            argv += ["--entrypoint", words[0]]
            words = words[1:]
        return [*argv, self.reference, *words]


def container_environment(
    env: Mapping[str, str], ours: Mapping[str, str]
) -> tuple[list[str], dict[str, str], list[str]]:
    """How a client is told the variables `env` of a container; `ours` is the client's environment.

    Gives options for its command line, which have no value in them, its environment, and the lines
    of its `--env-file`. A file has no effect on the client itself; what it cannot carry goes by the
    client's environment. Raises `UserError` for what neither can.
    """
    options: list[str] = []
    environment, lines = dict(ours), []
    for name, value in env.items():
        line = f"{name}={value}"
        # To podman `--env NAME*` means all of its own variables that begin so.
        if not name or {"=", "*", "\0"} & set(name) or "\0" in value:
            raise UserError(f"{name!a:.80} cannot be a variable")
        if not value:
            options += ["--env", line]
        elif _FILE_LINE.fullmatch(line) and len(os.fsencode(line)) <= _LONGEST_LINE:
            lines.append(line)
        elif ours.get(name, value) == value:
            environment[name] = value
            options += ["--env", name]
        else:
            raise UserError(
                f"{name} is set here too, for the container engine's client, so it cannot have a "
                "value with lines, quotes, '#' or spaces at its ends: unset it here"
            )
    return options, environment, lines
