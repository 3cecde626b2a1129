"""Wheels whose bytes do not depend on who builds them: modes of files are part of a wheel.

Sources come into the sandbox with the modes that the umask of the day leaves them. Everything else
about the wheels is in their pyproject.toml.
"""

import os

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class BdistWheelOfKnownModes(bdist_wheel):
    """Mode 0644 for every file."""

    def write_wheelfile(self, *args: str, **kwargs: str) -> None:
        """The last step before the files are put together."""
        super().write_wheelfile(*args, **kwargs)
        for directory, _, names in os.walk(self.bdist_dir):
            for name in names:
                os.chmod(os.path.join(directory, name), 0o644)


setup(cmdclass={"bdist_wheel": BdistWheelOfKnownModes})
