"""Runs the commands that turn dependencies into layers, each in a process of its own with what
flyte-image.lock pins.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import flyte_pack
from flyte_pack.image.compiler import Compiler, release_of
from tests.support.codec_envs import locked_packages

LOCK = Path(flyte_pack.__file__).with_name("flyte-image.lock")
SOURCES = Path(flyte_pack.__file__).parent.parent

_RUN = "import sys; from flyte_pack.image.{module} import main; sys.exit(main(sys.argv[1:]))"


def tools_for(python: str) -> str:
    """The directory to put on the PYTHONPATH of `python`; made if it is not there."""
    return locked_packages(LOCK, python)


@dataclass(frozen=True)
class Done:
    """What a command did; out: the file or directory that it was to make."""

    code: int
    stderr: str
    out: Path

    @property
    def layers(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.stderr
        found: list[dict[str, Any]] = json.loads((self.out / "layers.json").read_bytes())["layers"]
        return found

    def layer(self, what: str) -> Path:
        (found,) = [layer for layer in self.layers if layer["what"] == what]
        return self.out / "blobs" / found["digest"].replace(":", "/")

    def unpack(self, directory: Path) -> Path:
        for layer in self.layers:
            with tarfile.open(self.out / "blobs" / layer["digest"].replace(":", "/")) as tar:
                tar.extractall(directory)
        return directory

    def versions(self) -> dict[str, str]:
        """Of the distributions, by normalized name."""
        infos = (re.search(r"/([^/]+)-([^/]+)\.dist-info/RECORD$", path) for path in self.paths())
        return {re.sub(r"[-_.]+", "-", i[1]).lower(): i[2] for i in infos if i}

    def paths(self) -> set[str]:
        """Of all files in all layers, below opt/venv/."""
        found = set()
        for layer in self.layers:
            with tarfile.open(self.out / "blobs" / layer["digest"].replace(":", "/")) as tar:
                found |= {member.name for member in tar if member.isfile()}
        assert all(name.startswith("opt/venv/") for name in found)
        return {name[len("opt/venv/") :] for name in found}


@dataclass(frozen=True)
class Tools:
    """Runs the commands in `directory`, where packages come from `index`, with a cache of its own
    unless said.
    """

    directory: Path
    index: str | None = None
    python: str = sys.executable
    cache: Path | None = None

    def run(self, module: str, *arguments: str, out: Path, umask: int = 0o022, **env: str) -> Done:
        paths = os.pathsep.join([str(SOURCES), tools_for(self.python)])
        before = os.umask(umask)
        try:
            done = subprocess.run(
                [self.python, "-c", _RUN.format(module=module), *arguments, "--out", str(out)],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(self.directory),
                    "PYTHONPATH": paths,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "UV_CACHE_DIR": str(self.cache or self.directory / "uv-cache"),
                    **({"UV_DEFAULT_INDEX": self.index} if self.index else {}),
                    "UV_HTTP_RETRIES": "0",
                    **env,
                },
                capture_output=True,
                encoding="utf-8",
            )
        finally:
            os.umask(before)
        return Done(done.returncode, done.stderr, out)

    def resolve(
        self,
        lock: str,
        roots: str,
        *options: str,
        python: str = "3.12",
        platform: str = "linux/amd64",
        **env: str,
    ) -> Done:
        """`image-resolve` of a lock file and requirements with that content."""
        self.directory.mkdir(parents=True, exist_ok=True)
        files = {"a.lock": lock, "roots.txt": roots}
        for name, content in files.items():
            (self.directory / name).write_text(content)
        return self.run(
            "resolve",
            *(
                "--lock",
                str(self.directory / "a.lock"),
                "--roots",
                str(self.directory / "roots.txt"),
            ),
            *("--python", python, "--platform", platform, "--resolve", "ml", *options),
            out=self.directory / "needed.txt",
            **env,
        )

    def install(
        self, requirements: str, *options: str, python: str = "3.12", platform: str = "linux/amd64",
        out: str = "out", umask: int = 0o022, **env: str,
    ) -> Done:  # fmt: skip
        """`image-install` of requirements with that content, into `directory`/`out`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "requirements.txt"
        path.write_text(requirements)
        return self.run(
            "install",
            *("--requirements", str(path), "--python", python, "--platform", platform, *options),
            out=self.directory / out,
            umask=umask,
            **env,
        )


def compiler(python: str) -> str:
    """`python` as `image-install` takes what compiles."""
    release = release_of(python)
    assert release is not None, python
    return str(Compiler(release, python))


def real_index() -> Mapping[str, str]:
    """The settings by which the package index is reached on this machine, as pip would reach it."""
    names = (
        "SSL_CERT_FILE",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
        "UV_DEFAULT_INDEX",
    )
    found = {name: os.environ[name] for name in names if name in os.environ}
    # Options for uv in place of pip's: an index, a certificate, or the authorities that this
    # machine trusts.
    for ours, pips in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if pips in os.environ:
            found.setdefault(ours, os.environ[pips])
    return {"UV_SYSTEM_CERTS": "true", **found}
