"""Starts an installed Pants: `python -I -S launch.py INSTALLED BUILD_ROOT ARG...`.

Runs in the interpreter that Pants was installed for, not in a virtual environment: Pants names
its own interpreter in the processes it caches, and a path inside somebody's home directory would
keep two people from sharing a remote cache.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # without `typing`, as it takes long to import
if TYPE_CHECKING:
    from typing import Callable

    import pip_settings

# The interpreter sees the standard library and what we put on sys.path, and nothing else:
# no user or system packages, no PYTHON* variables. Pants insists on UTF-8.
_ISOLATED = ("-I", "-S", "-X", "utf8")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def main() -> None:
    """Sets up sys.path, the environment and sys.argv, and hands over to Pants."""
    if not sys.flags.isolated:
        # Pants starts its daemon as `python launch.py ARG...` and its own sys.path in PYTHONPATH.
        os.execv(sys.executable, [sys.executable, *_ISOLATED, *sys.argv])
    if "PANTS_DAEMON_ENTRYPOINT" in os.environ:
        sys.path[:] = os.environ["PYTHONPATH"].split(os.pathsep)
        from pants.bin.pants_loader import main as daemon_main

        daemon_main()
        return
    installed, root, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path.insert(0, here)
    import native

    sys.path.remove(here)
    start = native.Start(installed, root, here, arguments)
    start.become_client()
    sys.path.append(start.packages)
    try:
        added = start.additions
        if added is None:
            sys.path.insert(0, here)
            start.watch()
            sys.path.remove(here)
            added = additions(dict(os.environ), installed, root, here)
        os.environ.update(added)
        from pants.bin.pants_loader import main as pants_main
    except (FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"pants: {installed} is damaged ({error}): remove that directory and start again.")
    os.environ.pop("PYTHONHOME", None)
    try:
        pants_main()
    finally:
        start.keep(added)


def additions(
    env: dict[str, str],
    installed: str,
    root: str,
    here: str,
    pex_tool: Callable[[], dict[str, str]] | None = None,
) -> dict[str, str]:
    """Environment variables that Pants needs beyond the user's `env`; never one that he set.

    pex_tool: those of the PEX tool, where it is not the one in `installed`.
    """
    sys.path.insert(0, here)
    import pex_cli
    import pip_settings

    sys.path.remove(here)

    settings = pip_settings.read(env, prefix=installed)
    configured = _Configured(root, env)
    # Pants' own switch for "started by something other than the official launcher".
    wanted: dict[str, str] = {"NO_SCIE_WARNING": "1"}

    if not configured.has("pex-cli", "version", "known_versions", "url_template"):
        if pex_tool is None:
            wanted.update(pex_cli.variables(os.path.join(installed, "pex-cli")))
        else:
            wanted.update(pex_tool())
    if not (
        configured.has("GLOBAL", "pants_bin_name") or configured.has_variable("PANTS_BIN_NAME")
    ):
        wanted["PANTS_BIN_NAME"] = "./pants"  # how messages call what a user is to type
    if not configured.has("GLOBAL", "named_caches_dir"):
        wanted.update(_named_caches(env))
    indexes = _indexes(settings)
    if indexes and not configured.has("python-repos", "indexes"):
        wanted["PANTS_PYTHON_REPOS_INDEXES"] = indexes
    if settings.find_links and not configured.has_variable("PANTS_PYTHON_REPOS_FIND_LINKS"):
        wanted["PANTS_PYTHON_REPOS_FIND_LINKS"] = "+" + repr(list(settings.find_links))
    if settings.cert and not configured.has("GLOBAL", "ca_certs_path"):
        wanted["PANTS_CA_CERTS_PATH"] = settings.cert
    proxies = _proxies(env, settings.proxy)
    if proxies and not configured.has_variable("PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS"):
        wanted["PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS"] = "+" + repr(proxies)
    return wanted


def _named_caches(env: dict[str, str]) -> dict[str, str]:
    """Another place for Pants' named caches, where the usual one has a space in its path.

    The virtual environments in there are started by `#!` lines, which can't hold a space.
    """
    cache = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME", ""), ".cache")
    if not any(c.isspace() for c in cache):
        return {}
    place = f"/var/tmp/pants-flyte-{os.getuid()}"  # outlives a restart, unlike /tmp
    os.makedirs(place, mode=0o700, exist_ok=True)
    if os.lstat(place).st_uid != os.getuid() or os.path.islink(place):
        return {}  # somebody else's: not to be trusted with code
    return {"PANTS_NAMED_CACHES_DIR": os.path.join(place, "named_caches")}


def _indexes(settings: pip_settings.PipSettings) -> str | None:
    """The value of `[python-repos].indexes`; `+` adds to the default, which is pip's own."""
    extra = list(settings.extra_index_urls)
    if settings.no_index:
        return "[]"
    if settings.index_url:
        return repr([settings.index_url, *extra])
    return "+" + repr(extra) if extra else None


def _proxies(env: dict[str, str], pip_proxy: str | None) -> list[str]:
    """Entries of `[subprocess-environment].env_vars`: names to pass on, or NAME=value."""
    names = [n for lower in _PROXIES for n in (lower, lower.upper()) if env.get(n)]
    if pip_proxy is None:
        return names
    url = pip_proxy if "://" in pip_proxy else f"http://{pip_proxy}"
    kept = [n for n in names if n.lower() == "no_proxy"]
    return [f"http_proxy={url}", f"https_proxy={url}", *kept]


class _Configured:
    """Which options the user has set, in the environment or in a configuration file."""

    def __init__(self, root: str, env: dict[str, str]) -> None:
        self._env = env
        self._texts: list[str] = []
        files = [os.path.join(root, "pants.toml"), "/etc/pantsrc", os.path.join(root, ".pants.rc")]
        files.append(os.path.expanduser("~/.pants.rc"))
        for path in files:
            try:
                with open(path, encoding="utf-8") as file:
                    self._texts.append(file.read())
            except (OSError, UnicodeDecodeError):
                continue

    def has_variable(self, name: str) -> bool:
        return name in self._env

    def has(self, section: str, *options: str) -> bool:
        prefix = "PANTS_" if section == "GLOBAL" else f"PANTS_{section.replace('-', '_').upper()}_"
        if any(prefix + option.upper() in self._env for option in options):
            return True
        for text in self._texts:
            named = section == "GLOBAL" or section in text
            if named and any(option in text for option in options):
                import toml  # only now: most configuration files say nothing of the kind

                try:
                    table = toml.loads(text).get(section, {})
                except toml.TomlDecodeError:
                    continue  # Pants itself says what is wrong with it
                if any(option in table for option in options):
                    return True
        return False


if __name__ == "__main__":
    main()
