"""The Python and platform that dependencies are chosen for, whichever machine does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.image.filesystem import MUSL

GLIBC = "2.28"
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# The versions of glibc that uv has wheels chosen for, newest first.
_GLIBCS = (*(f"2.{minor}" for minor in range(40, 30, -1)), "2.28", "2.17")


@dataclass(frozen=True)
class WheelTarget:
    """A CPython on Linux.

    python: `3.12`, which is taken for its first release, or `3.12.4`. platform: `linux/amd64` or
    `linux/arm64`, with or without a variant. libc: of the base image: a version of glibc, where
    wheels for it and for older ones are taken (PEP 600), or `musl`, for 1.2 and older (PEP 656).
    """

    python: str
    platform: str
    libc: str = GLIBC

    def __post_init__(self) -> None:
        """Raises `UserError`."""
        if not re.fullmatch(r"3\.[0-9]+(\.[0-9]+((a|b|rc)[0-9]+)?)?", self.python):
            raise UserError(f"{self.python!a:.40} is not a version of CPython, such as 3.12")
        if self._of_go not in _MACHINES:
            raise UserError(
                f"packages cannot be installed for the platform {self.platform!a:.60}; "
                f"the choices are {', '.join(_MACHINES)}"
            )
        if self.libc != MUSL and not self._glibc:
            raise UserError(
                f"the base's `glibc` is {self.libc!a:.40}: give a version from {_GLIBCS[-1]} on"
            )

    def __str__(self) -> str:
        musl = " with musl" if self.libc == MUSL else ""
        return f"{self.platform}{musl} and CPython {self.python}"

    @property
    def holder(self) -> str:
        """What gets the packages, in errors."""
        return "the image"

    @property
    def code(self) -> str:
        """What asks for them, in errors."""
        return "the image's code"

    @property
    def minor(self) -> str:
        """`3.12`"""
        return ".".join(self.python.split(".")[:2])

    @property
    def machine(self) -> str:
        """As `platform.machine()` has it."""
        return _MACHINES[self._of_go]

    @property
    def _of_go(self) -> str:
        return "/".join(self.platform.split("/")[:2])

    @property
    def _glibc(self) -> str | None:
        """The newest that is known and not newer than the base's."""
        found = re.fullmatch(r"2\.([0-9]{1,3})", self.libc)
        fitting = [v for v in _GLIBCS if found and int(v.split(".")[1]) <= int(found[1])]
        return fitting[0] if fitting else None

    @property
    def platform_tag(self) -> str:
        """Of the newest wheels that are taken."""
        libc = "musllinux_1_2" if self.libc == MUSL else f"manylinux_{self._glibc}"
        return f"{libc.replace('.', '_')}_{self.machine}"

    @property
    def uv_options(self) -> tuple[str, ...]:
        libc = "unknown-linux-musl" if self.libc == MUSL else f"manylinux_{self._glibc}"
        platform = f"{self.machine}-{libc.replace('.', '_')}"
        return ("--python-version", self.python, "--python-platform", platform)

    @property
    def marker_environment(self) -> Mapping[str, str]:
        """The values of environment markers (dependency specifiers, "Environment Markers")."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self._full_version,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self._full_version,
            "python_version": self.minor,
            "sys_platform": "linux",
        }

    def satisfies(self, specifier: str) -> bool:
        """Whether such versions of Python (version specifiers) may include the target's.

        If only `3.12` is known of that, any patch version will do.
        """
        # A pre-release counts as what it becomes, as for pip and uv.
        release = re.sub(r"(a|b|rc)[0-9]+$", "", self.python)
        versions = [release] if release.count(".") == 2 else [f"{release}.{n}" for n in (0, 99)]
        return any(SpecifierSet(specifier).contains(v, prereleases=True) for v in versions)

    @property
    def _full_version(self) -> str:
        return self.python if self.python.count(".") == 2 else f"{self.python}.0"


# Prints the values of environment markers (dependency specifiers, "Environment Markers").
_ASK = """
import json, os, platform, sys
v = sys.implementation.version
kind = "" if v.releaselevel == "final" else v.releaselevel[0] + str(v.serial)
print(json.dumps({
    "implementation_name": sys.implementation.name,
    "implementation_version": "%d.%d.%d" % v[:3] + kind,
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": platform.release(),
    "platform_system": platform.system(),
    "platform_version": platform.version(),
    "python_full_version": platform.python_version(),
    "python_version": "%d.%d" % sys.version_info[:2],
    "sys_platform": sys.platform,
}))
"""


@dataclass(frozen=True)
class InterpreterTarget(WheelTarget):
    """An interpreter of this machine, of whatever system. markers: the values that it has."""

    markers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pass

    @classmethod
    def asked(cls, interpreter: str) -> InterpreterTarget:
        """interpreter: its path. Raises `UserError` if it does not work."""
        try:
            done = children.run([interpreter, "-I", "-c", _ASK], text=True)
            markers = json.loads(done.stdout)
        except (OSError, ValueError) as error:
            raise UserError(f"{interpreter}, to choose packages for: {error}") from None
        place = f"{markers['sys_platform']}/{markers['platform_machine']}"
        return cls(markers["python_full_version"], place, markers=markers)

    def __str__(self) -> str:
        return f"this machine ({self.platform}) and CPython {self.python}"

    @property
    def holder(self) -> str:
        return "this machine"

    @property
    def code(self) -> str:
        return "the task's code"

    @property
    def machine(self) -> str:
        return self.markers["platform_machine"]

    @property
    def uv_options(self) -> tuple[str, ...]:
        """The platform is that of this machine by default."""
        return ("--python-version", self.python)

    @property
    def marker_environment(self) -> Mapping[str, str]:
        return self.markers
