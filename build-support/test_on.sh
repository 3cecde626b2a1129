#!/usr/bin/env bash
# Tries this checkout on another Pants: `test_on.sh /path/to/bin/pants`, one of 2.30 or later, as
# the official launcher installs it in ~/.cache/nce/*/bindings/venvs/<version>/bin/pants.
# Runs the example on both, and compares the names that the backend imports with that Pants' sources.
set -euo pipefail
[ $# -ge 1 ] && [ -x "$1" ] || { echo "usage: test_on.sh /path/to/bin/pants [more arguments of ./pants test]" >&2; exit 1; }
PANTS_FLYTE_TEST_PANTS=$(realpath -s "$1")
export PANTS_FLYTE_TEST_PANTS
shift
cd "$(dirname "$0")/.."

# `--force`: that Pants is no input of the tests.
./pants test --force "$@" tests/integration/test_current_pants.py tests/integration/test_changed_since.py \
  tests/pants_flyte/test_pants_symbols.py
