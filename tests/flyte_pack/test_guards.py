"""Files are looked at while they are packed, once for each content."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from flyte_pack.bundle import main
from flyte_pack.bundle_plan import BundlePlan, PlanFile
from flyte_pack.guards import LARGE, Guard, SeenFile, Sighting
from flyte_pack.image.layer import main as layer_main
from flyte_pack.image.layer_plan import LayerPlan
from tests.support.fake_secrets import FAKES

ASSIGNED = FAKES["assigned-secret"][0].encode()
TOKEN = FAKES["hugging-face-token"][0].encode()


def seen(data: bytes, place: Path, guard: Guard | None = None) -> list[tuple[int, str]]:
    """Line and rule of each secret in a file with this content, read from its descriptor."""
    guard = guard or Guard()
    file = place / "file"
    file.write_bytes(data)
    fd = os.open(file, os.O_RDONLY)
    try:
        guard.look_at("file", fd, len(data))
    finally:
        os.close(fd)
    return [(one.line, one.rule) for one in guard.sighting().secrets]


@pytest.mark.parametrize("lines", [0, 1, 50_000, 104_855, 104_856, 104_857, 104_858, 300_000])
def test_a_secret_is_found_wherever_it_is_in_a_large_file(tmp_path: Path, lines: int):
    filler = b"123456789\n"
    data = filler * lines + TOKEN + b"\n" + filler * 250_000
    assert len(data) > 2 << 20
    assert seen(data, tmp_path) == [(lines + 1, "hugging-face-token")]


def test_a_large_file_of_one_line_is_looked_at_to_its_end(tmp_path: Path):
    for before in ((1 << 20) - 20, (3 << 20) + 5):
        data = b" " * before + TOKEN + b" " * 100
        assert seen(data, tmp_path) == [(1, "hugging-face-token")]


def test_a_binary_file_is_looked_at_if_it_is_small(tmp_path: Path):
    assert seen(b"\0" + TOKEN, tmp_path) == [(0, "hugging-face-token")]
    assert seen(b"\0" + ASSIGNED, tmp_path) == []  # names are for texts
    assert seen(b"\0" + bytes(2 << 20) + TOKEN, tmp_path) == []
    assert seen(b" " * 9_000 + b"\0" + TOKEN, tmp_path) == [(1, "hugging-face-token")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-8-sig"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_text_is_one_in_any_encoding(tmp_path: Path, encoding: str, lines: int):
    text = "line ü\n" * lines + TOKEN.decode() + "\n"
    assert seen(text.encode(encoding), tmp_path) == [(lines + 1, "hugging-face-token")]


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as to:
        for name, data in members.items():
            to.writestr(name, data)
    return file.getvalue()


def test_what_archives_hold_is_looked_at(tmp_path: Path):
    wheel = archive(**{"a/x.py": TOKEN, "a/.env": b"", "b.py": b"x = 1", "c": b"\0" + TOKEN})
    expected = [
        (0, "a .env file in its member a/.env"),
        (0, "hugging-face-token in its member a/x.py"),
        (0, "hugging-face-token in its member c"),
    ]
    assert seen(wheel, tmp_path) == expected
    large = archive(**{"big": os.urandom(2 << 20), "a/x.py": TOKEN})
    assert seen(large, tmp_path) == expected[1:2]
    for packed in (gzip.compress(TOKEN), gzip.compress(b"x\n" * (3 << 20) + TOKEN)):
        assert seen(packed, tmp_path) == [(0, "hugging-face-token")]
    assert seen(archive(), tmp_path) == []


def test_a_secret_in_the_name_of_a_member_is_not_repeated(tmp_path: Path):
    assert seen(archive(**{TOKEN.decode(): TOKEN}), tmp_path) == [
        (0, "hugging-face-token in one of its members")
    ]


@pytest.mark.parametrize("start", [archive(a=TOKEN), gzip.compress(TOKEN * 9)])
def test_a_damaged_archive_is_no_failure(tmp_path: Path, start: bytes):
    for end in range(2, len(start)):
        seen(start[:end], tmp_path)
        seen(start[:end] + bytes([start[end] ^ 0xFF]) + start[end + 1 :], tmp_path)


def test_an_archive_that_holds_more_and_more_costs_little(tmp_path: Path):
    bomb = gzip.compress(bytes(200 << 20), 9)
    many = archive(**dict.fromkeys(map(str, range(200)), bytes(2 << 20)))
    tracemalloc.start()
    assert seen(bomb, tmp_path) == []
    assert seen(many, tmp_path) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_large_files_are_listed(tmp_path: Path):
    guard = Guard()
    guard.look("a", b"x" * LARGE)
    guard.look("b", b"x" * (LARGE + 1))
    seen(b"x" * (LARGE * 2), tmp_path, guard)
    assert guard.sighting().large == (SeenFile("b", LARGE + 1), SeenFile("file", LARGE * 2))


def test_what_is_remembered_is_never_a_file_with_a_secret(tmp_path: Path):
    memory = str(tmp_path / "deep" / "memory")
    for _ in range(3):
        guard = Guard(memory)
        guard.look("clean", b"nothing")
        guard.look("other", TOKEN)
        assert [one.source for one in guard.sighting().secrets] == ["other"]
    (file,) = Path(memory).iterdir()
    assert len(file.read_bytes()) == 32


@pytest.mark.parametrize("damage", [b"x", b"x" * 31, b"x" * 64])
def test_a_damaged_memory_hides_no_secret(tmp_path: Path, damage: bytes):
    memory = str(tmp_path)
    for number in range(2):
        guard = Guard(memory)
        guard.look("a", b"%d" % number)
        guard.sighting()
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes() + damage)
    guard = Guard(memory)
    guard.look("a", TOKEN)
    assert len(guard.sighting().secrets) == 1


def test_no_memory_is_no_failure(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    guard = Guard(str(tmp_path / "file"))
    guard.look("a", b"")
    assert guard.sighting() == Sighting((), ())


def test_packers_write_what_they_saw(tmp_path: Path):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "a.py").write_bytes(b"\n" + TOKEN)
    plan = BundlePlan("auto", None, (), (PlanFile("a.py", "a.py", None, "imported", None),))
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    out = {name: str(tmp_path / name) for name in ("archive", "manifest", "summary", "seen")}
    words = ["--plan", f"{tmp_path}/plan.json", "--sources", str(sources)]
    assert (
        main([*words, *(word for name, path in out.items() for word in (f"--{name}", path))]) == 0
    )
    bundle = Sighting.from_json(Path(out["seen"]).read_bytes())
    layer = LayerPlan("code", (0, 0), (("x", 0o755),), (("x/a.py", "a.py"),))
    (tmp_path / "plan.json").write_bytes(layer.to_json())
    assert layer_main([*words, "--out", f"{tmp_path}/o", "--seen", out["seen"]]) == 0
    image = Sighting.from_json(Path(out["seen"]).read_bytes())
    assert bundle == image
    assert [(one.source, one.line) for one in bundle.secrets] == [("a.py", 2)]
    assert TOKEN[9:20].decode() not in Path(out["seen"]).read_text()
