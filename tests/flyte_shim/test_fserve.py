"""The real fserve of Flyte serves an app out of a bundle that the shim has put in place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flyte_shim.fserve import ORIGINAL
from tests.support.archives import archive_of
from tests.support.flyte_env import flyte_python
from tests.support.shim import PYTHON_PATH

FILES = {
    "services/app.py": """\
import flyte.app
from libs.words import WORD

app = flyte.app.AppEnvironment(name="pages")


@app.server
def serve():
    with open("data/page.txt") as file:
        print("SERVED", WORD, file.read(), flush=True)
""",
    "libs/words.py": "WORD = 'one'\n",
    "data/page.txt": "page",
}
RESOLVER = "flyte._internal.resolvers.app_env.AppEnvResolver"
OURS = "import sys\nfrom flyte_shim.fserve import main\nsys.exit(main())\n"


class Container:
    """Programs as in an image, and an empty working directory; no tar works."""

    def __init__(self, root: Path) -> None:
        self.root, self.workdir, self.bin = root, root / "work", root / "bin"
        self.bundle = archive_of(root / "store", FILES)
        for one in (self.workdir, self.bin, root / "home"):
            one.mkdir()
        python = flyte_python()
        self.program("fserve", f"#!{python}\n{OURS}")
        self.program(ORIGINAL, f'#!/bin/sh\nexec {python.parent}/fserve "$@"\n')
        self.program("tar", "#!/bin/sh\nexit 1\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(
        self, *after: str, resolver: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        found = ("--resolver", RESOLVER, "--resolver-args", "services.app:app") if resolver else ()
        (self.root / "config.yaml").write_text("task:\n  project: bikes\n  domain: development\n")
        return subprocess.run(
            [
                *("fserve", "--version", "v1", "--project", "bikes", "--domain", "development"),
                *("--tgz", str(self.bundle.path), "--dest", ".", "--raw-data-path", "/tmp/raw"),
                *(*found, "--", *after),
            ],
            cwd=self.workdir,
            env={
                "PATH": f"{self.bin}:{os.defpath}",
                "HOME": str(self.root / "home"),
                "PYTHONPATH": PYTHON_PATH,
                "UCTL_CONFIG": str(self.root / "config.yaml"),
                "DO_NOT_TRACK": "1",
                **env,
            },
            capture_output=True,
            text=True,
        )


@pytest.fixture
def container(tmp_path) -> Container:
    return Container(tmp_path)


def test_an_app_is_served_out_of_the_cache(container):
    done = container.run()
    assert (done.returncode, "SERVED one page" in done.stdout) == (0, True), done
    assert os.path.islink(container.workdir / "services")


def test_args_are_started_where_the_bundle_is(container):
    done = container.run("cat", "data/page.txt", "&&", "exit", "7", resolver=False)
    assert (done.returncode, "page" in done.stdout) == (7, True), done


def test_what_was_tampered_with_is_not_run(container):
    other = archive_of(container.root / "other", {**FILES, "libs/words.py": "WORD = 'evil'\n"})
    other.path.replace(container.bundle.path)
    done = container.run()
    assert done.returncode == 65
    assert "flyte-shim: error: " in done.stderr
    assert "SERVED" not in done.stdout


def test_without_flyte_it_says_what_is_missing(container):
    (container.bin / ORIGINAL).unlink()
    done = container.run()
    assert done.returncode == 127
    assert f"there is no command {str(container.bin / ORIGINAL)!r}" in done.stderr
