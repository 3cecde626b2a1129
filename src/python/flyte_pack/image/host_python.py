"""Finds what a CPython of this machine needs: its library, shared libraries and programs.

They are described as files in an image. Nothing is written, and no network is used.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flyte_pack.errors import UserError
from flyte_pack.image.elf import MAGIC, read_elf
from flyte_pack.image.running import quietly
from flyte_pack.oci.model import Platform

PREFIX = "usr/local"  # of the CPython in the image
_SECONDS = 60

_ASK = """\
import json, os, sys
dynload = [os.path.dirname(p) for p in sys.path if os.path.basename(p) == "lib-dynload"]
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "prefix": sys.base_prefix,
    "stdlib": [os.path.dirname(os.__file__), *dynload],
    "abiflags": sys.abiflags,
}))
"""
# What has no use in a container or belongs to this machine, relative to the standard library.
_LEFT_OUT = re.compile(
    r"site-packages|dist-packages|test|idlelib|tkinter|turtle\.py|turtledemo|ensurepip"
    r"|config-[^/]*|lib2to3/tests|(distutils|unittest|ctypes|sqlite3)/tests?|EXTERNALLY-MANAGED"
    r"|(site|user)customize\.py|__phello__.*"
    r"|lib-dynload/(_test|_ctypes_test|_tkinter|_xxtest|xx)[^/]*|.*\.(a|o)"
)
_PYC = re.compile(r"(.+)\.(cpython-[0-9]+|cpython-[0-9]+t)\.pyc")
_CONFIGURATION = re.compile(r"_sysconfig_?data.*\.(py|json)|build-details\.json")
# Programs load these by name at run time, and wheels rely on them ("manylinux" promises them), so
# no program's own list of libraries has them.
_LOADED_BY_NAME = (
    *("libgcc_s.so.1", "libstdc++.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"),
    *("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libm.so.6", "libanl.so.1"),
)
# `sh` is what subprocess and os.system start; the rest is what small scripts use.
_PROGRAMS = (
    *("[", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "expr"),
    *("false", "grep", "head", "id", "ln", "ls", "mkdir", "mktemp", "mv", "nproc", "printf", "pwd"),
    *("readlink", "rm", "rmdir", "sed", "sleep", "sort", "stat", "tail", "tee", "test", "touch"),
    *("tr", "true", "uname", "uniq", "wc", "whoami"),
)
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# ELF header, e_machine (System V ABI), by the names of the Go language.
_MACHINES = {62: "linux/amd64", 183: "linux/arm64"}


@dataclass(frozen=True)
class HostFile:
    """A file in the image; paths have no leading "/".

    It is a copy of `source`, or it holds `content`, or it is a symbolic link to `link`.
    """

    path: str
    source: str = ""
    content: bytes | None = None
    link: str | None = None
    executable: bool = False


@dataclass(frozen=True)
class Interpreter:
    """A CPython of this machine.

    executable: its program. linker: its dynamic linker. stdlib: the directories of the standard
    library, by their path below the prefix.
    """

    executable: str
    version: tuple[int, int, int]
    abiflags: str
    prefix: str
    stdlib: Mapping[str, str]
    platform: Platform
    linker: str

    @property
    def name(self) -> str:
        """Such as python3.12; python3.13t for the build without a global lock."""
        return f"python{self.version[0]}.{self.version[1]}{self.abiflags}"


def find_interpreter(python: str) -> Interpreter:
    """The CPython behind `python`, which may be a link or a virtual environment's."""
    if not os.path.isabs(python):
        raise UserError(f"{python!r} is not the absolute path of an interpreter")
    try:
        # Isolated: no PYTHON* of the caller, no user's packages. No bytecode is written.
        asked = quietly([python, "-I", "-B", "-c", _ASK], _SECONDS)
        answer = json.loads(asked.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{python} does not run: {error}") from None
    except (ValueError, IndexError):
        says = asked.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise UserError(
            f"{python} does not run as a Python should (exit code {asked.returncode}); "
            f"it says: {says[0]:.300}"
        ) from None
    if answer["implementation"] != "cpython":
        kind = answer["implementation"]
        raise UserError(f"{python} is {kind}: a base image is made of a CPython")
    major, minor, micro = answer["version"]
    # Where the interpreter looks for them, relative to its own place: `lib` or `lib64`.
    stdlib = {"/".join(path.split("/")[-2:]): os.path.realpath(path) for path in answer["stdlib"]}
    executable, abiflags = answer["executable"], answer["abiflags"].replace("d", "")
    version, elf = (major, minor, micro), _read_elf(executable)
    return Interpreter(executable, version, abiflags, answer["prefix"], stdlib, *elf)


def python_files(python: Interpreter) -> Iterator[HostFile]:
    """The program, its links, and the standard library with its bytecode."""
    yield HostFile(f"{PREFIX}/bin/{python.name}", python.executable, executable=True)
    for link in ("python", f"python{python.version[0]}"):
        yield HostFile(f"{PREFIX}/bin/{link}", link=python.name)
    for below, directory in sorted(python.stdlib.items()):
        for path, source in _walk(directory):
            if (found := _library_file(python, f"{PREFIX}/{below}", path, source)) is not None:
                yield found


def system_files(python: Interpreter) -> Iterator[HostFile]:
    """The dynamic linker, shared libraries, a shell, some programs, and certificates."""
    programs = dict(_programs())
    places = [os.path.join(directory, "lib-dynload") for directory in python.stdlib.values()]
    extensions = [
        os.path.join(place, name)
        for place in filter(os.path.isdir, places)
        for name in sorted(os.listdir(place))
        if name.endswith(".so") and not _LEFT_OUT.fullmatch(f"lib-dynload/{name}")
    ]
    yield from _libraries(python, [python.executable, *extensions, *programs.values()])
    seen: dict[str, str] = {}
    for name, program in programs.items():
        # Programs in one file (busybox and its like) go by the name that they are called by.
        if program in seen:
            yield HostFile(f"usr/bin/{name}", link=seen[program])
        else:
            seen[program] = name
            yield HostFile(f"usr/bin/{name}", program, executable=True)
    if (bundle := certificates()) is not None:
        yield HostFile("etc/ssl/certs/ca-certificates.crt", bundle)
        yield HostFile("etc/ssl/cert.pem", link="certs/ca-certificates.crt")


def certificates() -> str | None:
    """The file of the certificates that this machine trusts, if it has one."""
    return next((path for path in _CERTIFICATES if os.path.isfile(path)), None)


def _programs() -> Iterator[tuple[str, str]]:
    if not os.path.exists("/bin/sh"):
        raise UserError("/bin/sh is missing on this machine: a base image needs a shell")
    yield "sh", os.path.realpath("/bin/sh")
    for name in _PROGRAMS:
        for directory in ("/usr/bin", "/bin"):
            program = f"{directory}/{name}"
            if os.access(program, os.X_OK):
                if _is_elf(os.path.realpath(program)):
                    yield name, os.path.realpath(program)
                break


def _library_file(python: Interpreter, below: str, path: str, source: str) -> HostFile | None:
    """A file of the standard library, or None for one that stays behind."""
    if os.path.basename(os.path.dirname(path)) == "__pycache__":
        return _bytecode(below, path, source)
    if _CONFIGURATION.fullmatch(path):
        return HostFile(f"{below}/{path}", content=_without_host(python, source))
    executable = bool(os.stat(source).st_mode & stat.S_IXUSR)
    return HostFile(f"{below}/{path}", source, executable=executable)


def _bytecode(below: str, path: str, source: str) -> HostFile | None:
    """Bytecode of the module beside it, marked as valid whatever the module's time (PEP 552).

    It is taken as it is: to compile the library anew takes longer than all the rest.
    """
    directory, _, name = path.rpartition("__pycache__/")
    found = _PYC.fullmatch(name)
    if not found:
        return None
    module = os.path.join(os.path.dirname(os.path.dirname(source)), f"{found[1]}.py")
    module_path = f"{directory}{found[1]}.py"
    stays = _LEFT_OUT.fullmatch(module_path) or _CONFIGURATION.fullmatch(module_path)
    if stays or not os.path.isfile(module):
        return None
    with open(source, "rb") as file:
        data = file.read()
    status = os.stat(module)
    flags, time, size = struct.unpack_from("<III", data.ljust(16, b"\0"), 4)
    if flags or time != int(status.st_mtime) & 0xFFFFFFFF or size != status.st_size & 0xFFFFFFFF:
        return None
    return HostFile(f"{below}/{path}", content=data[:4] + struct.pack("<IQ", 1, 0) + data[16:])


def _without_host(python: Interpreter, source: str) -> bytes:
    """How the interpreter was built, with the image's prefix for the one on this machine."""
    with open(source, "rb") as file:
        data = file.read()
    if python.prefix != "/usr":
        data = data.replace(python.prefix.encode(), f"/{PREFIX}".encode())
    home = os.path.expanduser("~")
    return data.replace(f"{home}/".encode(), b"/nonexistent/") if len(home) > 1 else data


def _walk(top: str) -> Iterator[tuple[str, str]]:
    """Every regular file below `top`: its path there, and on this machine. Links are followed."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}")

    for directory, names, files in os.walk(top, onerror=fail):
        below = os.path.relpath(directory, top)
        below = "" if below == "." else f"{below}/"
        names[:] = sorted(n for n in names if not _LEFT_OUT.fullmatch(f"{below}{n}"))
        for path in (f"{below}{name}" for name in sorted(files)):
            source = os.path.join(top, path)
            if os.path.isfile(source) and not _LEFT_OUT.fullmatch(path):
                yield path, source


# --- shared libraries ----------------------------------------------------------------------------

_RESOLVED = re.compile(r"\s*(\S+) => (.+) \(0x[0-9a-f]+\)")
_MISSING = re.compile(r"\s*(\S+) => not found")


def _libraries(python: Interpreter, programs: Iterable[str]) -> Iterator[HostFile]:
    """The dynamic linker, and all that programs load, in a directory that it searches by itself.

    So an image needs neither a cache file (`ld.so.cache`) nor an environment variable.
    """
    found: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for listed in pool.map(lambda program: _needed(python.linker, program), programs):
            for name, source in listed:
                found.setdefault(name, source)
    if "libc.so.6" not in found:
        raise UserError(
            f"{python.executable} does not use the GNU C library, which a base image of this "
            "machine needs: use a base image of a registry"
        )
    home = os.path.dirname(found["libc.so.6"])
    for name in _LOADED_BY_NAME:
        for directory in [home, f"/usr{home}", *map(os.path.dirname, found.values())]:
            if name not in found and os.path.isfile(f"{directory}/{name}"):
                found[name] = f"{directory}/{name}"
    yield HostFile(_merged(python.linker), os.path.realpath(python.linker), executable=True)
    for name, source in sorted(found.items()):
        path = f"{_merged(home)}/{name}"
        if path != _merged(python.linker):
            yield HostFile(path, os.path.realpath(source), executable=True)


def _needed(linker: str, program: str) -> list[tuple[str, str]]:
    """The shared libraries of `program`, as the dynamic linker lists them (ld.so(8))."""
    listed = quietly([linker, "--list", program], _SECONDS, {"LC_ALL": "C"})
    if listed.returncode:
        if "statically linked" in listed.stdout + listed.stderr or "not a dynamic" in listed.stderr:
            return []
        reason = (listed.stderr.strip() or listed.stdout.strip()).splitlines()[-1:]
        raise UserError(f"{program}: its shared libraries cannot be listed: {''.join(reason):.300}")
    lines = listed.stdout.splitlines()
    missing = [found[1] for found in map(_MISSING.match, lines) if found]
    # An extension module whose library is missing works as little here as it will there.
    if missing and not program.endswith(".so"):
        raise UserError(f"{program} needs {', '.join(missing)}, which this machine does not have")
    return [(m[1].rpartition("/")[2], m[2]) for m in map(_RESOLVED.match, lines) if m]


def _merged(path: str) -> str:
    """`path` in an image where /bin, /lib and the like are links into /usr."""
    first = path.lstrip("/").partition("/")[0]
    return path.lstrip("/") if first == "usr" else f"usr{path}"


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


def _read_elf(program: str) -> tuple[Platform, str]:
    """The platform and the dynamic linker of a program."""
    try:
        with open(program, "rb") as file:
            elf = read_elf(file.read(1 << 16))
    except OSError as error:
        raise UserError(f"{program}: {error.strerror}") from None
    if elf is None:
        raise UserError(f"{program} is not a 64-bit program of Linux: a base image needs one")
    if elf.machine not in _MACHINES:
        raise UserError(f"{program} is for a processor that is not known here: ELF {elf.machine}")
    if elf.linker is None:
        raise UserError(f"{program} is linked statically: a base image needs another CPython")
    return Platform.parse(_MACHINES[elf.machine]), elf.linker
