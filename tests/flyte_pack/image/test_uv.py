"""Where packages are is read from a file: a URL with a password is in no list of processes and no log."""

from __future__ import annotations

import os

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.uv import explain, take_indexes
from flyte_pack.image.wheel_target import WheelTarget


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.setenv(name, "before")


def test_indexes_of_a_file_are_the_installers(tmp_path):
    (tmp_path / "indexes.json").write_text('{"UV_DEFAULT_INDEX": "https://u:p@host/simple"}')
    take_indexes(str(tmp_path / "indexes.json"))
    assert os.environ["UV_DEFAULT_INDEX"] == "https://u:p@host/simple"
    assert os.environ["UV_INDEX"] == "before"
    take_indexes(None)


@pytest.mark.parametrize(
    "text", ['{"PATH": "/x"}', '{"UV_INDEX": 1}', "[]", '{"UV_INDEX": "a\\u0000"}']
)
def test_other_settings_are_refused(text, tmp_path):
    (tmp_path / "indexes.json").write_text(text)
    with pytest.raises(UserError):
        take_indexes(str(tmp_path / "indexes.json"))
    assert os.environ["UV_INDEX"] == "before"


def test_a_complaint_of_the_installer_is_told_without_a_password():
    for url in (
        "https://me:planted@host/simple",
        "https://host/simple?token=planted",
        "https://me:pla/nted@host/x",
    ):
        said = explain(
            f"error: Failed to fetch: `{url}`\n  cause: error sending request",
            WheelTarget("3.12", "linux/amd64"),
        )
        assert "planted" not in said
        assert "pla/nted" not in said
        assert "host" in said or "..." in said
