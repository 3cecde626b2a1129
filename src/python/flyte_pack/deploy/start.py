"""How a process of `flyte_side` is started: its arguments and its environment."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Tuple

from flyte_pack.flyte_side import MAIN

# What makes specifications, besides Flyte: their content is part of the identity of one.
SIDE_FILES = tuple(str(path) for path in sorted(Path(MAIN).parent.glob("*.py")))


def command(python: Sequence[str]) -> list[str]:
    """The arguments that start `flyte_side`, without its own."""
    # Isolated from PYTHONPATH, the working directory and the user's own packages.
    return [*python, "-I", "-u", "-X", "utf8", MAIN]


@dataclass(frozen=True)
class Start:
    """How a process is started: interpreter, module of `flyte_side`, environment."""

    python: Tuple[str, ...]
    role: str
    environ: Mapping[str, str]

    @classmethod
    def of(cls, python: Sequence[str], role: str, environ: Mapping[str, str]) -> Start:
        environ = dict(environ)
        if role == "describe":
            # As isolated, with a fixed hash seed: task modules iterate over sets in one order.
            environ = {n: value for n, value in environ.items() if not n.startswith("PYTHON")}
            environ["PYTHONHASHSEED"] = "0"
        return cls(tuple(python), role, environ)

    def process(self) -> subprocess.Popen[bytes]:
        """Start it. Raises `OSError`."""
        arguments = command(self.python)
        if self.role == "describe":
            arguments = [*self.python, "-s", "-u", "-X", "utf8", MAIN]
        return subprocess.Popen(
            [*arguments, self.role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environ,
            # A new group, so that what user code starts can be ended with it.
            start_new_session=self.role == "describe",
        )
