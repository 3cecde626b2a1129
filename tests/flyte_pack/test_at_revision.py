"""`explain-at` writes a revision out and starts the launcher that is in it; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyte_pack.at_revision import main
from tests.support.git import git

# What a launcher is told, and what it sees: in the place of the document that a real one writes.
LAUNCHER = """\
#!/bin/sh
for word in "$@"; do case "$word" in --output-file=*) out="${word#*=}";; esac; done
{ echo "$@" | sed "s#$out#OUT#"; cat code.py; } > "$out"
test ! -e fails
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build root below the top of a repository, whose code is 1, then 2, then 3 and no commit."""
    top = tmp_path / "top"
    build_root = top / "build root"
    build_root.mkdir(parents=True)
    git(top, "init", "--quiet")
    launcher = build_root / "pants"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    for code in ("1", "2"):
        (build_root / "code.py").write_text(f"{code}\n")
        git(top, "add", "--all")
        git(top, "commit", "--quiet", "--message", code)
        git(top, "tag", f"v{code}")
    (build_root / "code.py").write_text("3\n")
    monkeypatch.chdir(build_root)
    return build_root


def explained_at(root: Path, revision: str, pants: str = "./pants") -> tuple[int, str]:
    out = root.parents[1] / "told"
    code = main(
        [f"--revision={revision}", "--pants", pants, "--output", str(out), "--", "a:t", "b:t"]
    )
    return code, out.read_text() if out.exists() else ""


@pytest.mark.parametrize(("revision", "code"), [("v1", "1"), ("HEAD", "2"), ("v2~1", "1")])
def test_the_code_of_then_is_explained(root: Path, revision: str, code: str):
    status = git(root, "status", "--porcelain")
    told = f"--no-pantsd flyte-explain --format=json --output-file=OUT a:t b:t\n{code}\n"
    assert explained_at(root, revision) == (0, told)
    assert git(root, "status", "--porcelain") == status
    assert (root / "code.py").read_text() == "3\n"


def test_a_launcher_that_pants_calls_by_its_name_is_found(root: Path):
    assert explained_at(root, "v1", "pants")[0] == 0


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("nowhere", "nowhere is no revision of git here"),
        ("--all", "--all is no revision of git here"),
        ("", " is no revision of git here"),
    ],
)
def test_what_is_no_revision_is_an_error(root: Path, capfd, revision: str, said: str):
    assert explained_at(root, revision) == (1, "")
    assert said in capfd.readouterr().err


def test_a_failure_of_then_is_an_error_now(root: Path, capfd):
    (root / "fails").touch()
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "It fails")
    assert explained_at(root, "HEAD") == (1, "")
    assert "at HEAD, a:t, b:t cannot be explained" in capfd.readouterr().err
