"""How the files of a bundle appear in a working directory, and what gives way to them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_shim.cache import Cache, Entry
from flyte_shim.errors import ArchiveError, StorageError
from flyte_shim.fetch import fetch
from flyte_shim.files import remove_tree
from flyte_shim.workdir import place
from tests.support.archives import Archive, archive_of

FILES = {
    "data.csv": "1,2\n",
    "main.py": "value = 1\n",
    "pkg/__init__.py": "",
    "pkg/module.py": "value = 2\n",
    "pkg/deep/more.txt": "text\n",
    "run.sh": "#!/bin/sh\necho run\n",
}
BOTH = pytest.mark.parametrize("mode", ["link", "copy"])


class Place:
    """A cache and a working directory, and bundles put from the one into the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = Cache.open(str(root / "cache"), print)
        self.workdir = root / "work dir"
        self.workdir.mkdir()

    def entry(self, files) -> Entry:
        archive: Archive = archive_of(self.root / "store", files)

        def fill(directory: str) -> int:
            return fetch(str(archive.path), archive.sha256, directory, {})[2]

        return self.cache.entry(archive.sha256, fill)

    def put(self, files, mode: str = "link", markers: tuple[str, ...] = ()) -> Entry:
        entry = self.entry(files)
        place(entry.files, str(self.workdir), mode, list(markers))
        return entry

    def seen(self) -> dict[str, str]:
        """What a task sees, links followed; without what is the shim's."""
        found = {}
        for directory, names, files in os.walk(self.workdir, followlinks=True):
            names[:] = [name for name in names if name not in (".flyte-shim", "__pycache__")]
            for name in files:
                path = Path(directory, name)
                found[str(path.relative_to(self.workdir))] = path.read_text()
        return found


@pytest.fixture
def here(tmp_path) -> Place:
    return Place(tmp_path)


def python(here: Place, code: str) -> str:
    """What Python, started in the working directory, says; it writes bytecode whoever runs us."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here.workdir,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@BOTH
def test_the_files_are_there_and_run(here, mode):
    here.put(FILES, mode)
    assert here.seen() == FILES
    assert python(here, "import main, pkg.module as m; print(main.value + m.value)") == "3"
    done = subprocess.run(["./run.sh"], cwd=here.workdir, capture_output=True, text=True)
    assert done.stdout == "run\n"


@BOTH
def test_a_task_reads_by_relative_path_and_writes_in_its_directory(here, mode):
    here.put(FILES, mode)
    python(here, "open('out', 'w').write(open('data.csv').read())")
    assert (here.workdir / "out").read_text() == FILES["data.csv"]


def test_links_lead_from_the_top_level_names_to_the_cache(here):
    entry = here.put(FILES)
    links = {p.name: os.readlink(p) for p in here.workdir.iterdir() if p.is_symlink()}
    assert links == {
        name: f"{entry.files}/{name}" for name in ("data.csv", "main.py", "pkg", "run.sh")
    }


def test_copies_are_the_tasks_own(here):
    entry = here.put(FILES, "copy")
    for name in FILES:
        copy, original = here.workdir / name, Path(entry.files, name)
        assert stat.S_ISREG(copy.lstat().st_mode)
        assert copy.stat().st_nlink == original.stat().st_nlink == 1
        copy.write_text("changed")
        assert original.read_text() == FILES[name]


def test_no_file_of_an_entry_and_no_directory_can_be_written(here):
    entry = here.put(FILES)
    for directory, _, files in os.walk(entry.files):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o500
        for name in files:
            assert not stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) & 0o222


@BOTH
def test_putting_a_bundle_where_it_is_changes_nothing(here, mode):
    here.put(FILES, mode, ("marker",))
    before = {path: path.lstat().st_mtime_ns for path in here.workdir.rglob("*")}
    here.put(FILES, mode, ("marker",))
    assert {path: path.lstat().st_mtime_ns for path in here.workdir.rglob("*")} == before


def test_what_a_task_changed_in_its_copies_stays_changed(here):
    here.put(FILES, "copy")
    (here.workdir / "data.csv").write_text("changed")
    here.put(FILES, "copy")
    assert (here.workdir / "data.csv").read_text() == "changed"


@pytest.mark.parametrize("damage", ["removed", "turned elsewhere", "made a file"])
def test_a_link_that_was_tampered_with_is_made_again(here, damage):
    here.put(FILES)
    path = here.workdir / "pkg"
    path.unlink()
    if damage == "turned elsewhere":
        path.symlink_to("main.py")
    elif damage == "made a file":
        path.write_text("x")
    here.put(FILES)
    assert here.seen() == FILES


@BOTH
def test_a_start_that_adds_a_marker_touches_nothing_else(here, mode):
    """A task may be at work there with the same bundle."""
    here.put(FILES, mode, ("a",))
    (here.workdir / "run.sh").unlink()
    before = {p: p.lstat().st_ctime_ns for p in here.workdir.rglob("*") if p.name in FILES}
    here.put(FILES, mode, ("b",))
    assert {p: p.lstat().st_ctime_ns for p in before} == before
    mended = {"run.sh": FILES["run.sh"]} if mode == "link" else {}
    rest = {name: text for name, text in FILES.items() if name != "run.sh"}
    assert here.seen() == {**rest, **mended, "a": "", "b": ""}


OTHER = {"main.py": "value = 7\n", "pkg/module.py": "value = 8\n", "new/x.py": ""}
MODES = pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in ("link", "copy") for b in ("link", "copy")]
)


@MODES
def test_nothing_is_left_of_an_earlier_bundle(here, first, second):
    here.put(FILES, first, (".a.extracted", "a"))
    (here.workdir / "own").write_text("own")
    here.put(OTHER, second, (".b.extracted", "b"))
    assert here.seen() == {**OTHER, "own": "own", ".b.extracted": "", "b": ""}
    assert not (here.workdir / "pkg/deep").exists()


@MODES
def test_what_was_a_directory_of_one_bundle_may_be_a_file_of_the_next(here, first, second):
    here.put({"a/b/c": "1", "d/e": "2", "f": "3"}, first)
    other = {"a/b": "4", "d": "5", "f/g": "6"}
    here.put(other, second)
    assert here.seen() == other


@MODES
def test_nothing_is_left_after_a_change_of_mode_either(here, first, second):
    here.put(FILES, first)
    here.put(FILES, second)
    assert here.seen() == FILES
    here.put({"a.py": "a"}, first)
    assert here.seen() == {"a.py": "a"}
    assert sorted(os.listdir(here.workdir)) == [".flyte-shim", "a.py"]


def test_directories_stay_that_are_not_ours_or_not_empty(here):
    (here.workdir / "pkg").mkdir()
    here.put(FILES, "copy")
    here.put(OTHER, "copy")
    (here.workdir / "new/own").write_text("own")
    here.put({"a.py": "a"}, "copy")
    assert here.seen() == {"a.py": "a", "new/own": "own"}
    assert sorted(p.name for p in here.workdir.iterdir() if p.is_dir()) == [
        ".flyte-shim",
        "new",
        "pkg",
    ]


@MODES
def test_bytecode_of_an_earlier_bundle_is_not_taken_for_the_new_ones(here, first, second):
    """Two sources of one size within a second: Python would not see that they differ."""
    here.put({"main.py": "value = 1\n", "real/m.py": "value = 1\n"}, first)
    code = "import main, real.m; print(main.value, real.m.value)"
    assert python(here, code) == "1 1"
    here.put({"main.py": "value = 2\n", "real/m.py": "value = 2\n"}, second)
    assert python(here, code) == "2 2"


def test_bytecode_goes_beside_the_entry_and_is_used_again(here):
    entry = here.put(FILES)
    assert python(here, "import pkg.module") == ""
    (bytecode,) = Path(entry.files).parent.glob("bytecode/pkg/module.*.pyc")
    loaded = python(here, "import pkg.module as m; print(m.__cached__)")
    assert os.path.samefile(loaded, bytecode)
    assert os.path.islink(f"{entry.files}/pkg/__pycache__")


def test_a_bundles_own_pycache_is_left_alone(here):
    files = {"pkg/__pycache__/x.txt": "x", "pkg/m.py": ""}
    entry = here.put(files)
    assert Path(entry.files, "pkg/__pycache__/x.txt").read_text() == "x"


@BOTH
def test_files_and_links_give_way_and_other_things_stay(here, mode):
    (here.workdir / "pkg/deep").mkdir(parents=True)
    (here.workdir / "pkg/own.py").write_text("own")
    (here.workdir / "pkg/module.py").write_text("old")
    (here.workdir / "main.py").write_text("old")
    (here.workdir / "target").write_text("target")
    (here.workdir / "data.csv").symlink_to("target")
    (here.workdir / "run.sh").symlink_to("nowhere")
    here.put(FILES, mode)
    assert here.seen() == {**FILES, "pkg/own.py": "own", "target": "target"}


@BOTH
def test_a_file_gives_way_to_a_directory(here, mode):
    (here.workdir / "pkg").write_text("old")
    here.put(FILES, mode)
    assert here.seen() == FILES


@BOTH
def test_a_directory_does_not_give_way_to_a_file(here, mode):
    (here.workdir / "main.py").mkdir()
    with pytest.raises(StorageError, match=r"main\.py is a directory, and the bundle has a file"):
        here.put(FILES, mode)
    assert sorted(os.listdir(here.workdir)) == [".flyte-shim", "main.py"]


@BOTH
def test_a_link_to_a_directory_elsewhere_is_neither_followed_nor_removed(here, tmp_path, mode):
    (tmp_path / "elsewhere").mkdir()
    (here.workdir / "pkg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="pkg is a symbolic link to a directory"):
        here.put(FILES, mode)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert sorted(os.listdir(here.workdir)) == [".flyte-shim", "pkg"]


@BOTH
def test_a_bundle_has_nothing_in_the_shims_own_directory(here, mode):
    with pytest.raises(ArchiveError, match=r"'\.flyte-shim'"):
        here.put({".flyte-shim/record": "x"}, mode)


def test_stale_things_are_not_removed_through_a_link(here, tmp_path):
    here.put({"real/a.py": "a"}, "copy")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.py").write_text("precious")
    remove_tree(str(here.workdir / "real"))
    (here.workdir / "real").symlink_to(tmp_path / "elsewhere")
    here.put({"b.py": "b"}, "copy")
    assert (tmp_path / "elsewhere/a.py").read_text() == "precious"


def test_what_a_user_put_in_place_of_ours_is_not_removed(here):
    here.put(FILES, markers=("marker",))
    (here.workdir / "pkg").unlink()
    (here.workdir / "pkg").mkdir()
    (here.workdir / "data.csv").unlink()
    (here.workdir / "data.csv").write_text("own")
    (here.workdir / "marker").write_text("own")
    here.put({"b.py": "b"})
    assert here.seen() == {"b.py": "b", "data.csv": "own", "marker": "own"}


def test_a_marker_never_replaces_a_file(here):
    """The archive itself may lie in the working directory, under the name of a marker."""
    (here.workdir / "a.tar.gz").write_text("archive")
    here.put(FILES, markers=("a.tar.gz", ".a.tar.gz.extracted"))
    assert (here.workdir / "a.tar.gz").read_text() == "archive"
    assert (here.workdir / ".a.tar.gz.extracted").read_text() == ""
    here.put(OTHER)
    assert (here.workdir / "a.tar.gz").read_text() == "archive"
    assert not (here.workdir / ".a.tar.gz.extracted").exists()


@BOTH
@pytest.mark.parametrize("record", [b"", b"x", b"flyte-shim 2\0link /x\0Lmain.py\0", b"\0\0\0"])
def test_an_unreadable_record_is_none(here, mode, record):
    (here.workdir / ".flyte-shim").mkdir()
    (here.workdir / ".flyte-shim/record").write_bytes(record)
    here.put(FILES, mode)
    assert here.seen() == FILES


@BOTH
def test_the_working_directory_is_made_or_may_be_a_link(here, tmp_path, mode):
    entry = here.entry(FILES)
    place(entry.files, str(tmp_path / "not/yet/there"), mode, [])
    assert (tmp_path / "not/yet/there/main.py").read_text() == FILES["main.py"]
    (tmp_path / "link").symlink_to(here.workdir)
    place(entry.files, str(tmp_path / "link"), mode, [])
    assert here.seen() == FILES


@BOTH
def test_names_of_every_kind_appear(here, mode):
    odd = {"ü/\n x.py": "1", "-rf": "2", "a\\b": "3", "...": "4"}
    here.put(odd, mode)
    assert here.seen() == odd
    here.put({"b": "b"}, mode)
    assert here.seen() == {"b": "b"}


@BOTH
def test_a_directory_that_is_a_file_system_of_its_own_takes_files_too(here, mode):
    """Where renaming from one directory to another is refused; only root can mount one for real."""
    (here.workdir / "pkg").mkdir()
    (here.workdir / "pkg/module.py").write_text("old")
    real_replace = os.replace

    def replace(source: str, target: str) -> None:
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(18, "Invalid cross-device link")
        real_replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        here.put(FILES, mode)
    assert here.seen() == FILES
    assert sorted(os.listdir(here.workdir / ".flyte-shim")) == ["lock", "record"]
