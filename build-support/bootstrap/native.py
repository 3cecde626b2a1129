"""The short way to a daemon that runs: Pants' native client, in place of a second Python with Pants
in it.

A record says what a start came to: the variables that `launch.py` adds, and the fingerprint of the
daemon that Pants' own Python client asked for. It holds for as long as everything that both follow
from has the same bytes: the configuration files, the variables, the launcher itself. The native
client is started only if the daemon with that fingerprint runs. So all that it could refuse, before
it connects, is known beforehand, and what it gives up later must not be run again.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # the module `typing` takes longer to import than all the rest here
if TYPE_CHECKING:
    from typing import Any, Optional

try:
    from _sha256 import sha256  # type: ignore[import-not-found]  # no OpenSSL to load
except ImportError:
    from hashlib import sha256

_CODE = ("launch.py", "native.py", "pip_settings.py", "pex_cli.py")
_PREFIXES = ("PANTS_", "PIP_", "XDG_")
_VARIABLES = ("HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# What chooses another daemon, none, or other files of configuration; the second kind ends a daemon.
_FLAGS = (
    "pants", "concurrent", "level", "log", "show-log", "ignore-warnings", "dynamic-ui", "global",
)  # fmt: skip
_GOALS = ("kill-pantsd", "clean-all")
# Bootstrap options that both clients need to read alike.
_PLAIN = (
    "pants_subprocessdir", "pants_config_files", "pantsrc", "pantsrc_files",
    "pantsd_timeout_when_multiple_invocations",
)  # fmt: skip
_MOST_RECORDS = 64


class Start:
    """A start of Pants, and what is known of earlier ones like it."""

    def __init__(self, installed: str, root: str, here: str, arguments: list[str]) -> None:
        self._installed = installed
        self._here = here
        self._arguments = arguments
        self._root = root
        library = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.packages = os.path.join(installed, "lib", library, "site-packages")
        self._client = os.path.join(self.packages, "pants", "bin", "native_client")
        self._usual = usual(arguments)
        relevant = sorted(
            item
            for item in os.environ.items()
            if item[0].startswith(_PREFIXES) or item[0] in _VARIABLES or item[0].lower() in _PROXIES
        )
        facts = (installed, root, here, os.getcwd(), tuple(os.uname()), relevant)
        self._facts = repr(facts).encode("utf-8", "surrogateescape")
        name = sha256(self._facts).hexdigest()[:32]
        self._record = os.path.join(os.path.dirname(installed), "starts", name)
        self._kept = self._read()

    @property
    def additions(self) -> Optional[dict[str, str]]:
        """The variables to add, if they were kept."""
        return None if self._kept is None else self._kept["additions"]

    def become_client(self) -> None:
        """Replaces this process by the native client; returns if that can't serve."""
        kept = self._kept
        if kept is None or not kept["daemon"] or not self._usual:
            return
        if os.environ.get("PANTS_NO_NATIVE_CLIENT") or not _runs(*kept["daemon"]):
            return
        env = {**os.environ, **kept["additions"], **kept["variables"]}
        env["_PANTS_SERVER_EXE"] = os.path.join(self._here, "gave_up.sh")
        for name in ("PYTHONPATH", "PYTHONHOME"):
            env.pop(name, None)
        try:
            # It can't read other than UTF-8.
            "".join([*env, *env.values(), *sys.argv]).encode()
            os.execve(self._client, [sys.argv[0], *self._arguments], env)
        except (OSError, UnicodeEncodeError):
            return

    def watch(self) -> None:
        """Notes what the additions, which are now to be made anew, will follow from."""
        import pip_settings

        files = [os.path.join(self._here, name) for name in _CODE]
        files += [os.path.join(self._installed, "pex-cli", "known_versions")]
        files += [os.path.join(self._root, name) for name in ("pants.toml", ".pants.rc")]
        files += [".pants.rc", "/etc/pantsrc", os.path.expanduser("~/.pants.rc")]
        read, self._probed = pip_settings.followed(os.environ, prefix=self._installed)
        self._files = [*files, *read]
        self._seen = self._digest(self._files, self._probed)

    def keep(self, additions: dict[str, str]) -> None:
        """Writes the record, for the next start. To be called when Pants has done its work."""
        if self._kept is not None or not self._usual:
            return
        directory = os.path.dirname(self._record)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if not os.access(directory, os.W_OK):
                return
            daemon = self._daemon()
            if self._digest(self._files, self._probed) != self._seen:
                return  # changed in the meantime
            tool = additions.get("PANTS_PEX_CLI_URL_TEMPLATE", "").partition("file://")[2]
            caches = os.path.dirname(additions.get("PANTS_NAMED_CACHES_DIR", ""))
            probed = [*self._probed, *filter(None, (tool, caches))]
            kept = {
                "files": self._files,
                "probed": probed,
                "digest": self._digest(self._files, probed),
                "additions": additions,
                "daemon": daemon,
                "variables": {n: os.environ[n] for n in ("__PANTS_BIN_NAME",) if n in os.environ},
            }
            _make_room(directory)
            writing = f"{self._record}.{os.getpid()}"
            # For its owner alone: an index's address may hold a password.
            with open(os.open(writing, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(marshal.dumps(kept))
            os.replace(writing, self._record)
        except (OSError, KeyboardInterrupt):
            return

    def _read(self) -> Optional[dict[str, Any]]:
        try:
            with open(self._record, "rb") as file:
                kept = marshal.load(file)
            return kept if self._digest(kept["files"], kept["probed"]) == kept["digest"] else None
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            return None

    def _digest(self, files: list[str], probed: list[str]) -> bytes:
        digest = sha256(self._facts)
        for path in files:
            try:
                with open(path, "rb") as file:
                    text = file.read()
            except OSError as error:
                digest.update(b"-%d" % (error.errno or 0))
            else:
                digest.update(b"+" + sha256(text).digest())
        for path in probed:
            try:
                status = os.lstat(path)
                inside = bool(os.listdir(path)) if os.path.isdir(path) else os.path.isfile(path)
                digest.update(repr((status.st_mode, status.st_uid, inside)).encode())
            except OSError as error:
                digest.update(b"-%d" % (error.errno or 0))
        return bytes(digest.digest())

    def _daemon(self) -> Optional[tuple[str, str]]:
        """Where the daemon is recorded that starts like this one use, and its fingerprint."""
        if not os.access(self._client, os.X_OK):
            if os.stat(self._installed).st_mode & 0o022:
                return None  # others may write there
            os.chmod(self._client, 0o755)  # the wheel has it without
        import warnings

        from pants.option.options_bootstrapper import OptionsBootstrapper
        from pants.pantsd.pants_daemon_client import PantsDaemonClient

        try:
            with warnings.catch_warnings(record=True):
                read = OptionsBootstrapper.create(
                    env=os.environ, args=["pants"], allow_pantsrc=True
                )
                options = read.bootstrap_options
            values = options.for_global_scope()
            if not all(values.is_default(name) for name in _PLAIN):
                return None
            # No bootstrap option, so only the native client heeds it: for the terminal's name.
            if read.config.get("GLOBAL", "dynamic_ui") or any(
                "DYNAMIC_UI" in n for n in os.environ
            ):
                return None
            if not values.pantsd or values.concurrent:
                return None
            if not all(usual(list(line)) for line in read.alias.definitions.values()):
                return None
            client = PantsDaemonClient(options)
            pid = client.metadata_file_path("pantsd", "pid", values.pants_subprocessdir)
            return os.path.dirname(pid), client.options_fingerprint
        except Exception:  # of whatever a configuration can hold: Pants has told it
            return None


def usual(arguments: list[str]) -> bool:
    """Whether these arguments leave open which daemon is used, if any."""
    for argument in arguments:
        name = argument[2:] if argument.startswith("--") else ""
        name = name[3:] if name.startswith("no-") else name
        if argument in _GOALS or argument.startswith("-l") or name.startswith(_FLAGS):
            return False
    return True


def _runs(place: str, fingerprint: str) -> bool:
    """Whether the daemon that is recorded in `place` has this fingerprint and lives."""
    try:
        if _text(place, "fingerprint") != fingerprint or not _text(place, "socket"):
            return False
        pid, name = int(_text(place, "pid")), _text(place, "process_name")
        if not os.path.isdir("/proc/self"):
            os.kill(pid, 0)
            return True
        title = _text(f"/proc/{pid}", "cmdline")
        return bool(name) and title.startswith(name)
    except (OSError, ValueError):
        return False


def _text(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="utf-8") as file:
        return file.read()


def _make_room(directory: str) -> None:
    """Removes the oldest records where there are many."""
    paths = [os.path.join(directory, name) for name in os.listdir(directory)]
    if len(paths) >= _MOST_RECORDS:
        paths.sort(key=os.path.getmtime)
        for path in paths[: _MOST_RECORDS // 2]:
            os.unlink(path)
