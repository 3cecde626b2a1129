"""Runs programs by bubblewrap in an image that is unpacked into a directory.

The directory is removed after the session, with what programs wrote in it, as in a container.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.image.running import Command, Runner, private_file, supervise
from flyte_pack.image.unpack import Resolver, unpack
from flyte_pack.oci.config import DEFAULT_PATH, ImageConfig
from flyte_pack.oci.layout import Layout, LayoutImage
from flyte_pack.progress import Say
from flyte_pack.scratch import scratch_place
from flyte_shim import shown
from flyte_shim.files import forbids_programs
from flyte_shim.words import check_word, joined

_IN_MEMORY = 512 << 20  # bytes of compressed layers that may be unpacked into memory
_PREFIX = "flyte-image-"
_PROBE_SECONDS = 10
_MAX_LIST = 1 << 20  # characters of a list of users
_MAX_ID = (1 << 32) - 2  # Linux takes the number above it for none (chown(2))
_OF_THIS_MACHINE = ("/etc/resolv.conf", "/etc/hosts")


@contextmanager
def unpacked(layout: Layout, image: LayoutImage, say: Say) -> Iterator[Runner]:
    """`image` unpacked and ready. Raises `UserError`, `InvalidImage` or `OSError`."""
    if not sys.platform.startswith("linux"):
        raise UserError("an image runs unpacked on Linux only: start docker or podman")
    config = image.parsed_config
    program = _bubblewrap()
    directory, lock = _make_directory(_scratch(sum(layer.size for layer in image.manifest.layers)))
    root = os.path.join(directory, "root")
    try:
        os.mkdir(root)
        unpack(layout, image.manifest.layers, root)
        _make_new(root, "proc")
        say("running unpacked, in bubblewrap, which gives all files to the image's user")
        yield _Bubblewrap(root, config, _find_user(root, config.user or ""), program)
    finally:
        _remove(directory)
        os.close(lock)


def _make_directory(scratch: str) -> tuple[str, int]:
    """A directory of our own in `scratch`, and the lock on it, which lasts as long as we do.

    First it removes those whose makers were killed. Another process that locks the new directory
    before us removes it; then we make another.
    """
    for name in os.listdir(scratch):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                lock = _open_directory(os.path.join(scratch, name))
                try:
                    if os.fstat(lock).st_uid == os.geteuid():
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _remove(os.path.join(scratch, name))
                finally:
                    os.close(lock)
    while True:
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=scratch)
        with contextlib.suppress(FileNotFoundError):
            lock = _open_directory(directory)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(directory):
                return directory, lock
            os.close(lock)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _scratch(size: int) -> str:
    """Where to unpack layers of `size` bytes: in memory, six times as fast, if it has room."""
    memory = "/dev/shm"  # noqa: S108  # a directory of our own is made in it
    if "TMPDIR" not in os.environ and size <= _IN_MEMORY and os.access(memory, os.W_OK):
        status = os.statvfs(memory)
        if not forbids_programs(memory) and status.f_bavail * status.f_frsize > 16 * size:
            return memory
    return scratch_place(executable=True)


def _remove(directory: str) -> None:
    try:
        shutil.rmtree(directory)
    except OSError:  # a program may have taken our right to write to its directories
        for place, names, _ in os.walk(directory):
            for path in (os.path.join(place, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(directory, ignore_errors=True)


def _bubblewrap() -> str:
    """The path of the program. Raises `UserError` if it is missing or does not work."""
    program = shutil.which("bwrap")
    if program is None:
        raise UserError(
            "no docker or podman answers, and there is no bubblewrap (bwrap) on PATH: "
            "start or install one of them"
        )
    options = ("--unshare-all", "--uid", "1000", "--ro-bind", "/", "/", "--proc", "/proc")
    probe = [program, *options, "--", "true"]
    try:
        done = children.run(probe, timeout=_PROBE_SECONDS)
        if done.returncode == 0:
            return program
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    raise UserError(
        f"no docker or podman answers, and bubblewrap does not work here ({reason:.300}): start "
        "docker or podman, or allow new namespaces (in a container: run that with --privileged)"
    )


@dataclass(frozen=True)
class _User:
    uid: int
    gid: int
    home: str


def _find_user(root: str, text: str) -> _User:
    """`user[:group]`, names or numbers (image specification, "User"), by the image's own lists."""
    name, _, group = text.partition(":")
    name = name or "0"
    entry = next((e for e in _entries(root, "etc/passwd", 6) if name in (e[0], e[2])), None)
    if entry is None and not _is_id(name):
        raise UserError(f"the image's user {name!a:.80} is not in its /etc/passwd")
    uid = int(name if entry is None else entry[2])
    gid = int(entry[3]) if entry is not None else 0
    if group:
        groups = _entries(root, "etc/group", 3)
        named = next((e for e in groups if group in (e[0], e[2])), None)
        if named is None and not _is_id(group):
            raise UserError(f"the image's group {group!a:.80} is not in its /etc/group")
        gid = int(group if named is None else named[2])
    home = check_word(entry[5], "the image's /etc/passwd: a home") if entry is not None else "/"
    return _User(uid, gid, home)


def _is_id(text: str) -> bool:
    """Whether it is the number of a user or group."""
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID


def _entries(root: str, path: str, fields: int) -> list[list[str]]:
    resolver = Resolver(os.fsencode(root))
    try:
        place = resolver.place(resolver.resolve(path.encode()))
        if not os.path.isfile(place):
            return []
        with open(place, encoding="utf-8", errors="replace") as file:
            entries = [line.split(":") for line in file.read(_MAX_LIST).split("\n")]
    except OSError as error:
        raise UserError(f"the image's /{path} cannot be read: {error.strerror}") from None
    # The numbers come third and, in passwd, fourth.
    return [e for e in entries if len(e) >= fields and all(map(_is_id, e[2 : min(fields, 4)]))]


@dataclass(frozen=True)
class _Bubblewrap:
    root: str
    config: ImageConfig
    user: _User
    program: str

    def _words(self, command: Command) -> tuple[str, ...]:
        before = self.config.entrypoint if command.entrypoint is None else command.entrypoint
        words = (*before, *command.argv)
        if not words or not words[0]:
            raise UserError("there is no command to run")
        return words

    def _workdir(self, command: Command) -> str:
        return os.path.join("/", command.workdir or self.config.workdir or "")

    def _environment(self, command: Command) -> dict[str, str]:
        environment = {"PATH": DEFAULT_PATH, "HOME": self.user.home}
        if "TERM" in os.environ and sys.stdin.isatty():
            environment["TERM"] = os.environ["TERM"]
        return {**environment, **self.config.env, **command.env}

    def _prepare(self, command: Command) -> list[tuple[str, str, bool]]:
        """Make a place for each mount; gives (source, target below the root, read-only)."""
        if command.network not in (None, "none", "host"):
            raise UserError(
                f"an unpacked image has no network {shown.word(command.network or '')}: --network "
                "is `none` or `host`, or start docker"
            )
        resolver = Resolver(os.fsencode(self.root))
        if command.network != "none":
            for path in filter(os.path.isfile, _OF_THIS_MACHINE):
                self._copy(path, resolver)
        self._make_place(resolver, "/tmp", directory=True)  # noqa: S108  # the image's
        self._make_place(resolver, self._workdir(command), directory=True)
        mounts = []
        for mount in command.mounts:
            if not os.path.exists(mount.source):
                raise UserError(f"there is nothing to mount at {mount.source}")
            target = self._make_place(resolver, mount.target, os.path.isdir(mount.source))
            mounts.append((mount.source, target, mount.read_only))
        return mounts

    def _copy(self, path: str, resolver: Resolver) -> None:
        place = self._make_place(resolver, path, directory=False)
        os.unlink(os.path.join(self.root, place))
        shutil.copyfile(path, os.path.join(self.root, place))

    def _make_place(self, resolver: Resolver, path: str, directory: bool) -> str:
        try:
            resolved = resolver.resolve(os.fsencode(path))
            place = resolver.place(resolved)
            if not os.path.lexists(place):
                os.makedirs(place if directory else os.path.dirname(place), exist_ok=True)
                if not directory:
                    with open(place, "x"):
                        pass
        except OSError as error:
            raise UserError(
                f"{path!a:.200} cannot be made in the image: {error.strerror}"
            ) from None
        return os.fsdecode(resolved)

    def run(self, command: Command) -> int:
        words, mounts = self._words(command), self._prepare(command)
        settings = private_file(self._settings(command, mounts))
        status, told = os.pipe()
        os.set_blocking(status, False)
        fds = (settings, told)

        def program() -> int | None:
            """What bubblewrap has started."""
            try:
                pid = json.loads(os.read(status, 1 << 12).partition(b"\n")[0]).get("child-pid")
            except (OSError, ValueError):
                return None
            return pid if isinstance(pid, int) else None

        try:
            options = ("--args", str(settings), "--json-status-fd", str(told), "--")
            started = [self.program, *options, *words]
            return supervise(started, dict(os.environ), command, pass_fds=fds, target=program)
        finally:
            for fd in (*fds, status):
                os.close(fd)

    def _settings(self, command: Command, mounts: Sequence[tuple[str, str, bool]]) -> str:
        """Bubblewrap's arguments as it reads them from a file: each with a NUL after it."""
        argv = [
            *("--die-with-parent", "--unshare-all", "--as-pid-1", "--hostname", "flyte-image"),
            *([] if command.network == "none" else ["--share-net"]),
            *("--uid", str(self.user.uid), "--gid", str(self.user.gid)),
            *("--bind", self.root, "/", "--proc", "/proc", "--dev", "/dev"),
        ]
        for source, target, read_only in mounts:
            argv += ["--ro-bind" if read_only else "--bind", source, f"/{target}"]
        argv += ["--chdir", self._workdir(command), "--clearenv"]
        for name, value in self._environment(command).items():
            argv += ["--setenv", name, value]
        return joined(argv, "\0", "what the program gets")


def _make_new(root: str, name: str) -> None:
    """An empty directory at the top, whatever the image has there: a link could lead out of it."""
    place = os.path.join(root, name)
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    elif os.path.lexists(place):
        os.unlink(place)
    os.mkdir(place, 0o755)
