"""Starts a program inside an unpacked image without any other tool: `python enter.py FD`, with a JSON document in the file FD.

Where the kernel lets us, in namespaces of its own (namespaces(7)): mounts, and the network if it is to have none. Someone
who is not root becomes the image's user in a user namespace. Where root may not even do that, it is a bare chroot(2).
It is run as a script of its own, so that nothing but it is loaded in the process that changes its root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import stat
import sys
from typing import Any

# <sched.h> and <sys/mount.h> of Linux
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _SIGTERM = 1, 15
_DEVICES = {
    "null": 3,
    "zero": 5,
    "full": 7,
    "random": 8,
    "urandom": 9,
}  # minor numbers below major 1
NOT_FOUND, FAILED = 127, 126


def main() -> None:
    """Become the program; ends with 126 where that can't be done, 127 where there is no such program."""
    with os.fdopen(int(sys.argv[1])) as file:
        job = json.load(file)
    try:
        _enter(job)
    except OSError as error:
        print(f"flyte_pack: the image can't be entered: {error}", file=sys.stderr)
        sys.exit(FAILED)
    reason = _become(job["command"], job["env"])
    print(f"flyte_pack: {job['command'][0]}: {reason.strerror}", file=sys.stderr)
    sys.exit(NOT_FOUND)


def _become(command: list[str], env: dict[str, str]) -> OSError:
    """Become the program, which is looked for as execvp(3) does; gives why not. (Python's own would import a module here.)"""
    name = command[0]
    places = [name] if "/" in name else [f"{d or '.'}/{name}" for d in env["PATH"].split(":")]
    found: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for place in places:
        try:
            os.execve(place, command, env)  # noqa: S606  # as asked
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found = error
    return found


def _enter(job: dict[str, Any]) -> None:
    root, user, group = job["root"], job["user"], job["group"]
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.geteuid(), os.getegid()
    is_root = outside[0] == 0
    flags = _CLONE_NEWNS | (0 if is_root else _CLONE_NEWUSER)
    if not job["network"]:
        flags |= _CLONE_NEWNET
    if libc.unshare(flags) == 0:
        if not is_root:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {outside[0]} 1")
            _write("/proc/self/gid_map", f"{group} {outside[1]} 1")
        _mount(libc, "none", "/", _MS_REC | _MS_PRIVATE)
        for name in _DEVICES:
            with open(f"{root}/dev/{name}", "a"):
                pass
            _mount(libc, f"/dev/{name}", f"{root}/dev/{name}", _MS_BIND)
        _mount(libc, "/proc", f"{root}/proc", _MS_BIND | _MS_REC)
        for source, target, read_only in job["mounts"]:
            _mount(libc, source, target, _MS_BIND | _MS_REC)
            if read_only:
                _mount(libc, "none", target, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    elif not is_root or job["mounts"] or not job["network"]:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses new namespaces ({os.strerror(number)})")
    else:
        for name, minor in _DEVICES.items():
            with contextlib.suppress(FileExistsError):
                os.mknod(f"{root}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
                os.chmod(f"{root}/dev/{name}", 0o666)  # noqa: S103  # as they are everywhere
    # As every container has it: for POSIX semaphores, and for what opens its standard streams by name.
    shared = os.path.join(root, "dev", "shm")
    os.makedirs(shared, exist_ok=True)
    os.chmod(shared, 0o1777)  # noqa: S103  # as it is everywhere
    links = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(f"/proc/self/{target}", f"{root}/dev/{name}")
    os.chroot(root)
    os.chdir(job["workdir"])
    if is_root:
        os.setgroups(job["groups"])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGTERM, 0, 0, 0)  # here, as a change of the user would undo it


def _mount(libc: Any, source: str, target: str, flags: int) -> None:
    if libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None):
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} at {target}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
