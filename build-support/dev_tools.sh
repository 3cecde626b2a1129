#!/usr/bin/env bash
# Prints the directory of the tools that build-support/locks/dev-tools.lock pins, and makes it if
# it is missing. It is keyed by the lock, so a changed lock makes a new one.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=build-support/locks/dev-tools.lock
key=$(sha256sum "$lock" | cut -c1-16)
home=${XDG_CACHE_HOME:-$HOME/.cache}/pants-flyte/dev-tools-$key
if [ ! -e "$home/complete" ]; then
    python=
    for candidate in "${PANTS_PYTHON:-python3.9}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.9.*/bin/python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || { echo "dev_tools: no CPython 3.9 found; set PANTS_PYTHON to one" >&2; exit 1; }
    rm -rf "$home"
    "$python" -m venv "$home" >&2
    "$home/bin/pip" install --quiet --require-hashes --requirement "$lock" >&2
    touch "$home/complete"
fi
echo "$home/bin"
