"""Which lock files Pants reads itself, and which it would take for requirements and fail at."""

from __future__ import annotations

import pytest

from flyte_pack.lock_kinds import pants_reads

OWN = {
    "requirements": b"numpy==2.0 \\\n    --hash=sha256:00\n",
    "requirements with comments and options": b"# version = 1\n--index-url https://x\nnumpy==2.0\n",
    "an empty file": b"",
    "PEX's": b'{"locked_resolves": []}',
    "PEX's below the comments of Pants": b'// {\n//   "version": 3\n// }\n{"locked_resolves": []}',
    "no text": b"\xff\xfe",
}
NOT = {
    "uv.lock": b'version = 1\nrevision = 2\nrequires-python = ">=3.11"\n',
    "an older uv.lock": b'[[package]]\nname = "a"\n',
    "pylock.toml": b'lock-version = "1.0"\ncreated-by = "uv"\n',
    "poetry.lock": b'# made by Poetry\n\n[[package]]\nname = "a"\n[metadata]\nlock-version = "2.1"\n',
    "pdm.lock": b'[metadata]\nlock_version = "4.5"\n',
    "Pipfile.lock": b'{\n    "_meta": {},\n    "default": {}\n}\n',
    "conda-lock.yml": b"version: 1\nmetadata:\n",
    "an explicit one of conda": b"# platform: linux-64\n@EXPLICIT\nhttps://x\n",
    "pyproject.toml": b'[project]\nname = "a"\n',
}


@pytest.mark.parametrize("data", OWN.values(), ids=OWN)
def test_pants_reads_its_own_two_kinds(data):
    assert pants_reads(data)


@pytest.mark.parametrize("data", NOT.values(), ids=NOT)
def test_the_others_are_for_us(data):
    assert not pants_reads(data)
