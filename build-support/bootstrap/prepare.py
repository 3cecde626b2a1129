"""Installs a Pants, once per version and interpreter: `prepare.py VERSION CACHE CHOICE ASKED`.

CACHE/<interpreter>/ is a virtual environment with Pants in it, and `pex-cli/`, the one tool that
Pants would otherwise download. It is built under another name in the same directory and renamed
when it is whole, so that whoever sees it sees all of it, whenever this program was killed. A lock
keeps two starts from doing the work twice; the rename alone keeps them from harming one another.
CHOICE is the file that tells `./pants` which interpreter and directory to use from now on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Iterator, NoReturn

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

import pex_cli  # noqa: E402
import pip_settings  # noqa: E402  (isolated mode leaves this directory out of sys.path)

# Parts of pip's output by what the user has to do about them, the more telling first.
_NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large", "[Errno 28]")
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "SSLError", "certificate verify failed")
_REFUSED = ("401 Error", "403 Error", "403 Client Error")
_NO_NETWORK = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionResetError",
    "RemoteDisconnected",
    "ProxyError",
    "Connection refused",
    "name resolution",
    "Network is unreachable",
)


class BootstrapError(Exception):
    """What went wrong and what to do about it, in one sentence."""


def say(text: str) -> None:
    """Tells the person at the terminal, who waits, what is going on."""
    print(f"pants: {text}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    version, cache, choice, asked = argv
    # The modes of files go into the PEX tool, and so into its digest.
    os.umask(0o022)
    # A virtual environment's interpreter goes away with it; its base stays.
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    try:
        installed = prepare(version, cache, python)
        _write(choice, f"{python}\n{installed}\n{asked}\n")
    except BootstrapError as error:
        say(str(error))
    except OSError as error:
        say(_about_os_error(error, cache))
    except KeyboardInterrupt:
        say("stopped; nothing half made is left, start again when you like.")
        return 130
    else:
        return 0
    return 1


def prepare(version: str, cache: str, python: str) -> str:
    """The directory that holds Pants `version` for the interpreter `python`; made if need be."""
    identity = f"{python}\n{sys.version}\n{platform.machine()}"
    key = f"cpython-3.9-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    installed = os.path.join(cache, key)
    os.makedirs(cache, exist_ok=True)
    if os.path.isdir(installed):
        return installed
    with _lock(os.path.join(cache, f".{key}.lock")) as lock:
        if os.path.isdir(installed):
            return installed
        # Ours is the lock, and processes that a killed start left running hold it too: so
        # whatever lies here is nobody's.
        for leftover in glob.glob(os.path.join(glob.escape(cache), f".{key}.making-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        making = tempfile.mkdtemp(prefix=f".{key}.making-", dir=cache)
        try:
            _Installation(version, python, making, installed, lock).make()
            # Where locks do not work, another start may have been quicker: its work is as good.
            with contextlib.suppress(FileExistsError):
                _rename(making, installed)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return installed


class _Installation:
    """The steps that make one installation in the directory `making`."""

    def __init__(
        self, version: str, python: str, making: str, final: str, lock: int | None
    ) -> None:
        self.version = version
        self.python = python
        self.making = making
        self.final = final
        self.lock = lock
        self.settings = pip_settings.read(os.environ, prefix=sys.prefix)
        self.scratch = os.path.join(making, "scratch")
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            # `pip wheel` does not read the section [install] of a pip.conf, but variables it does.
            **pip_settings.as_variables(self.settings),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            # What a person set for his own installations would send these elsewhere.
            "PIP_USER": "0",
            "PIP_REQUIRE_VIRTUALENV": "0",
            # One place to run out of room in, and nothing left elsewhere by a start that is killed.
            "TMPDIR": self.scratch,
        }
        for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_REQUIREMENT"):
            self.env.pop(name, None)

    def make(self) -> None:
        began = time.monotonic()
        release = f"CPython {platform.python_version()} ({self.python})"
        say(f"preparing Pants {self.version} for {release}; this happens once.")
        os.mkdir(self.scratch)
        say("1/4 making a virtual environment ...")
        python = os.path.join(self.making, "bin", "python")
        # In two steps, as `venv` keeps to itself what its own step with ensurepip complains of.
        purpose = "make a virtual environment"
        self._run([self.python, "-I", "-m", "venv", "--without-pip", self.making], purpose)
        self._run([python, "-I", "-m", "ensurepip", "--default-pip"], purpose)
        site = os.path.join(sys.prefix, "pip.conf")
        if os.path.isfile(site):
            shutil.copyfile(site, os.path.join(self.making, "pip.conf"))
        pip = [python, "-I", "-m", "pip"]

        say(f"2/4 fetching Pants and what it needs from {self._sources()} ...")
        wheels = os.path.join(self.making, "wheels")
        lock = os.path.join(HERE, f"pants-{self.version}.lock")
        wanted = (
            ["--require-hashes", "-r", lock]
            if os.path.exists(lock)
            else [f"pantsbuild.pants=={self.version}"]
        )
        # Without -vv, pip says only that it found nothing, not that it reached nobody.
        command = [*pip, "wheel", "-vv", "--wheel-dir", wheels, *wanted]
        self._run(command, "fetch Pants", network=True)
        pex_lock = os.path.join(HERE, f"pex-cli-{self.version}.lock")
        tools = os.path.join(self.making, "tools")
        if os.path.exists(pex_lock):
            command = [
                *pip,
                "wheel",
                "-vv",
                "--wheel-dir",
                tools,
                "--require-hashes",
                "-r",
                pex_lock,
            ]
            self._run(command, "fetch the PEX tool", network=True)

        say("3/4 installing it ...")
        files = [os.path.join(wheels, name) for name in sorted(os.listdir(wheels))]
        install = [*pip, "install", "--no-compile", "--no-index", "--no-deps", *files]
        self._run(install, "install Pants")
        # pip would write the name of this directory into the bytecode, and tracebacks show it.
        compiling = ["compileall", "-q", "-j0", "-s", self.making, "-p", self.final, self.making]
        self._run([python, "-I", "-m", *compiling], "compile Pants", check=False)

        say("4/4 making the PEX tool that Pants would download otherwise ...")
        self._make_pex_cli(tools if os.path.exists(tools) else wheels)
        for directory in (wheels, tools):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(self.scratch)
        took = time.monotonic() - began
        say(f"Pants {self.version} is ready after {took:.0f} s, in {self.final}")

    def _make_pex_cli(self, wheels: str) -> None:
        """Of the `pex` in `wheels`: that of pex-cli-<Pants version>.lock, or the one Pants asks
        for.
        """
        python = os.path.join(self.making, "bin", "python")
        found = next(name for name in os.listdir(wheels) if name.startswith("pex-"))
        version = found.split("-")[1]
        tool = os.path.join(self.making, "pex-cli")
        os.mkdir(tool)
        self._run(
            pex_cli.command(python, version, tool, "--no-index", "-f", wheels),
            "make the PEX tool",
            extra_env={"PEX_IGNORE_RCFILES": "1"},
        )
        pex_cli.record(version, tool)

    def _sources(self) -> str:
        places = map(_without_password, self.settings.places("PyPI"))
        return " and ".join(places) or "no index (pip is set to no-index)"

    def _run(
        self,
        command: list[str],
        purpose: str,
        *,
        network: bool = False,
        check: bool = True,
        extra_env: dict[str, str] | None = None,
    ) -> str:
        """The output of a command that must succeed. It holds the lock for as long as it lives."""
        done = subprocess.run(
            command,
            env={**self.env, **(extra_env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            pass_fds=() if self.lock is None else (self.lock,),
        )
        if check and done.returncode != 0:
            self._explain(done.stdout, purpose, network)
        return done.stdout

    def _explain(self, output: str, purpose: str, network: bool) -> NoReturn:
        def tells(marks: tuple[str, ...]) -> bool:
            return any(mark in output for mark in marks)

        if tells(_NO_SPACE):
            raise OSError(errno.ENOSPC, "no space", self.making)
        if network and tells(_CERTIFICATE):
            raise BootstrapError(
                f"the certificate of {self._sources()} is not trusted: set PIP_CERT (or cert in "
                "pip.conf) to the PEM file of your company's or proxy's authority and start again."
            )
        if network and tells(_NO_NETWORK):
            raise BootstrapError(
                f"cannot reach {self._sources()}: check the network, or set PIP_INDEX_URL to a "
                "mirror and PIP_PROXY to a proxy that you can reach (pip.conf does too), and start "
                "again."
            )
        if network and tells(_REFUSED):
            raise BootstrapError(
                f"{self._sources()} refuses the credentials: put the right ones into PIP_INDEX_URL "
                "or into pip.conf and start again."
            )
        if network and "DO NOT MATCH THE HASHES" in output:
            raise BootstrapError(
                f"{self._sources()} serves other files than the ones that "
                f"{os.path.join(HERE, f'pants-{self.version}.lock')} allows: use an index that "
                "passes PyPI's files on unchanged."
            )
        if network and "No matching distribution found" in output:
            missing = output.rsplit("No matching distribution found for ", 1)[-1].split()[0]
            raise BootstrapError(
                f"{self._sources()} has no {missing} for this CPython 3.9: pin a Pants version "
                "in pants.toml that it has (2.17.1 is the newest on PyPI), or start Pants with its "
                "official launcher."
            )
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise BootstrapError(f"could not {purpose}: {errors[-1] if errors else 'no reason given'}")


@contextlib.contextmanager
def _lock(path: str) -> Iterator[int | None]:
    """Holds the lock file `path`; None where the file system has no locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is preparing this Pants; waiting for it ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, "already made", target) from error
        raise


def _write(path: str, text: str) -> None:
    """Writes a small file so that others see the old one or the new one, whole."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)  # mkstemp's is 0600
    os.replace(temporary, path)


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url


def _about_os_error(error: OSError, cache: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"there is no room left to prepare Pants in {cache}: it needs about 400 MB; free some, "
            "or set XDG_CACHE_HOME to a directory on a disk that has it."
        )
    if error.errno in (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOENT,
    ):
        return (
            f"cannot write to {error.filename or cache}: make it writable for you, or set "
            "XDG_CACHE_HOME to a directory that is."
        )
    return f"cannot prepare Pants in {cache}: {error.strerror or error}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
