"""`pants-flyte baseline` writes what the rules then take for known."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flyte_pack import adopt
from flyte_pack.guards import Guard
from tests.support.fake_secrets import FAKES

AWS = FAKES["aws-access-key"][0]
TOKEN = FAKES["github-token"][0]


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    for path, text in {
        "app/w.py": f"# one\n{AWS}\n",
        "lib/x.py": f"{TOKEN}\nx = 1\n",
        "lib/gone.txt": AWS,
        ".gitignore": "gone.txt\n",
        "plain.py": "x = 1\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def results(top: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((top / ".secrets.baseline").read_text())[
        "results"
    ]
    return found


def test_it_has_the_hash_of_each_secret_that_git_does_not_ignore(top: Path, capsys):
    assert adopt.main(["baseline"]) == 0
    assert ".secrets.baseline: 2 in 2 files" in capsys.readouterr().out
    guard = Guard()
    guard.look("app/w.py", (top / "app/w.py").read_bytes())
    ((_, line, rule, hashes),) = guard.sighting().secrets
    (row,) = results(top)["app/w.py"]
    assert (row["type"], row["line_number"]) == (rule, line) == ("aws-access-key", 2)
    assert row["hashed_secret"] in hashes
    assert set(results(top)) == {"app/w.py", "lib/x.py"}
    assert TOKEN[8:20] not in (top / ".secrets.baseline").read_text()


def test_what_was_said_of_an_entry_stays_and_what_is_gone_goes(top: Path):
    assert adopt.main(["baseline", "app", "lib"]) == 0
    known = json.loads((top / ".secrets.baseline").read_text())
    known["results"]["lib/x.py"][0]["is_secret"] = True
    (top / ".secrets.baseline").write_text(json.dumps(known))
    (top / "app/w.py").write_text("x = 1\n")
    assert adopt.main(["baseline"]) == 0
    assert set(results(top)) == {"lib/x.py"}
    assert results(top)["lib/x.py"][0]["is_secret"] is True


def test_what_is_no_baseline_is_not_overwritten(top: Path, capsys):
    (top / "notes").write_text("mine")
    assert adopt.main(["baseline", "--file", "notes"]) == 1
    assert "notes is there, and is no baseline" in capsys.readouterr().err
    assert (top / "notes").read_text() == "mine"


def test_outside_of_git_it_says_so(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert adopt.main(["baseline"]) == 1
    assert "git cannot list the files" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
