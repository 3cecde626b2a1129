"""The Python and platform that dependencies are chosen for, whichever machine does it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from flyte_pack.errors import UserError

GLIBC = "2.28"
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


@dataclass(frozen=True)
class WheelTarget:
    """A CPython on Linux with glibc.

    python: `3.12` or `3.12.4`. platform: `linux/amd64` or `linux/arm64`. glibc: of the base image;
    wheels for it and for older versions are taken (PEP 600).
    """

    python: str
    platform: str
    glibc: str = GLIBC

    def __post_init__(self) -> None:
        """Raises `UserError`."""
        if not re.fullmatch(r"3\.[0-9]+(\.[0-9]+)?", self.python):
            raise UserError(f"{self.python!a:.40} is not a version of CPython, such as 3.12")
        if self.platform not in _MACHINES:
            raise UserError(
                f"packages cannot be installed for the platform {self.platform!a:.60}; "
                f"the choices are {', '.join(_MACHINES)}"
            )
        if not re.fullmatch(r"2\.(17|28|3[1-9]|40)", self.glibc):  # what uv knows
            raise UserError(
                f"the base's `glibc` is {self.glibc!a:.40}; the choices are 2.17, 2.28, "
                "and 2.31 to 2.40"
            )

    def __str__(self) -> str:
        return f"{self.platform} and CPython {self.minor}"

    @property
    def minor(self) -> str:
        """`3.12`"""
        return ".".join(self.python.split(".")[:2])

    @property
    def machine(self) -> str:
        """As `platform.machine()` has it."""
        return _MACHINES[self.platform]

    @property
    def _manylinux(self) -> str:
        return f"manylinux_{self.glibc.replace('.', '_')}"

    @property
    def platform_tag(self) -> str:
        return f"{self._manylinux}_{self.machine}"

    @property
    def uv_options(self) -> tuple[str, ...]:
        platform = f"{self.machine}-{self._manylinux}"
        return ("--python-version", self.python, "--python-platform", platform)

    @property
    def marker_environment(self) -> dict[str, str]:
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
        versions = (
            [self.python]
            if self.python.count(".") == 2
            else [f"{self.python}.{n}" for n in (0, 99)]
        )
        return any(SpecifierSet(specifier).contains(v, prereleases=True) for v in versions)

    @property
    def _full_version(self) -> str:
        return self.python if self.python.count(".") == 2 else f"{self.python}.0"
