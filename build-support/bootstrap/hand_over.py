"""Starts a Pants that the official launcher installed: `python -I hand_over.py INSTALLED BUILD_ROOT
CACHE VERSION ARG...`.

Runs in the installation's own Python, tells Pants what the user told pip, and becomes Pants. The
PEX tool is left to Pants, which downloads it from GitHub; where GitHub can't be reached, it is made
from the package index. Which of both it is gets decided once: it is part of Pants' cache keys.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from glob import escape, glob

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

import launch  # noqa: E402
import pex_cli  # noqa: E402
import pip_settings  # noqa: E402

_DOWNLOAD = "https://github.com/pex-tool/pex/releases/download/v{version}/pex"
_PATIENCE_SECONDS = 5
_NATIVE_CLIENT = os.path.join("pants", "bin", "native_client")


def main(argv: list[str]) -> None:
    installed, root, cache, version, *arguments = argv
    env = dict(os.environ)
    env.update(
        launch.additions(env, installed, root, HERE, lambda: pex_tool(installed, cache, version))
    )
    program = os.path.join(installed, "bin", "pants")
    client = os.path.join(escape(installed), "lib", "python3*", "site-packages", _NATIVE_CLIENT)
    for found in glob(client):
        if os.access(found, os.X_OK):
            # As the launcher does: it asks the daemon, and starts `program` where none answers.
            os.execve(found, [found, *arguments], {**env, "_PANTS_SERVER_EXE": program})
    os.execve(program, [program, *arguments], env)


def pex_tool(installed: str, cache: str, version: str) -> dict[str, str]:
    """The variables that tell Pants of the PEX tool made here; none where it downloads its own."""
    decision = os.path.join(cache, f"pants-{version}", "pex-cli-made")
    try:
        with open(decision, encoding="utf-8") as file:
            decided = file.read()
        return pex_cli.variables(decided) if decided else {}
    except OSError:
        pass  # the first start, or the cache was cleared
    for found in glob(os.path.join(escape(installed), "lib", "python3*", "site-packages")):
        wanted = pex_cli.wanted_version(found)
        if wanted:
            break
    else:
        return {}
    made = "" if _downloadable(wanted) else _made(wanted, cache)
    if made is None:
        return {}
    os.makedirs(os.path.dirname(decision), exist_ok=True)
    writing = f"{decision}.{os.getpid()}"
    with open(writing, "w", encoding="utf-8") as file:
        file.write(made)
    os.replace(writing, decision)
    return pex_cli.variables(made) if made else {}


def _downloadable(version: str) -> bool:
    request = urllib.request.Request(_DOWNLOAD.format(version=version), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _made(version: str, cache: str) -> str | None:
    """The directory of the PEX tool; None if it can't be made: Pants then says what it misses."""
    print(
        f"pants: GitHub can't be reached: making the PEX tool {version} from the package index ...",
        file=sys.stderr,
        flush=True,
    )
    settings = pip_settings.read(os.environ, prefix=sys.prefix)
    env = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    env.update(pip_settings.as_variables(settings))
    try:
        return pex_cli.make(version, cache, env)
    except subprocess.CalledProcessError as error:
        last = error.output.decode(errors="replace").strip().splitlines()[-1:]
        print(f"pants: could not make it: {''.join(last)}", file=sys.stderr)
    except OSError as error:
        print(f"pants: could not make it: {error}", file=sys.stderr)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
