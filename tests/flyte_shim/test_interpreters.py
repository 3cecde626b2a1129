"""Every CPython from 3.9 on that this machine has runs the shim alike."""

from __future__ import annotations

import gzip

import pytest

from tests.support.archives import END, archive_of, member, pax_header, store
from tests.support.shim import interpreters, run_shim


@pytest.mark.parametrize("python", [pytest.param(p, id=v) for v, p in interpreters().items()])
def test_it_starts_cold_and_warm_and_refuses_alike(tmp_path, python):
    bundle = archive_of(tmp_path / "store", {"pkg/ü.py": "x = 1\n", "big": bytes(3 << 20)})
    script = "import pkg.ü; print(pkg.ü.x)"
    (tmp_path / "work").mkdir()

    def run(archive, mode):
        command = ["--archive", archive, "--mode", mode, "--", python, "-X", "utf8", "-c", script]
        # An image without a locale, where Python takes names of files for ASCII.
        variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        return run_shim(
            *command, home=tmp_path, cwd=tmp_path / "work", python=python, variables=variables
        )

    for mode in ("link", "link", "copy", "copy"):
        done = run(bundle.path, mode)
        assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    hostile = pax_header((b"path", b"../up")) + member(b"x")
    refused = run(store(tmp_path, gzip.compress(hostile + END)).path, "link")
    assert refused.returncode == 65
    assert refused.stderr == "flyte-shim: error: the archive holds a '..' in the path: '../up'\n"
