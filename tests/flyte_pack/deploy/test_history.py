"""list, show and rollback need a store and nothing else, and believe nothing that they find there."""

from __future__ import annotations

import json
import shutil

import pytest

from flyte_pack.deploy.ledger import Ledger
from flyte_pack.json_fields import dump
from flyte_pack.store.file import FileStore
from flyte_shim.hashing import sha256_bytes
from tests.support.deploying import ADDRESS, BuildRoot, show_writes, snapshot


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """v1, v2-a and v2-b are deployed, in this order; and the packages are gone since."""
    root = BuildRoot(tmp_path_factory.mktemp("history") / "build")
    for version, body in (("v1", "v = 1\n"), ("v2-a", "v = 2\n"), ("v2-b", "v = 3\n")):
        root.package("train", body)
        root.deploy("--version", version).ok()
    shutil.rmtree(root.dist)
    shutil.copytree(root.store, root.root / "untouched")
    return root


@pytest.fixture
def root(deployed):
    """What was deployed, as it was then: records know where their store is, so it can not be a copy elsewhere."""
    for directory in (deployed.dist, deployed.root / "dist", deployed.root / "moved"):
        shutil.rmtree(directory, ignore_errors=True)
    deployed.dist.mkdir()
    deployed.links.clear()
    shutil.copytree(deployed.root / "untouched", deployed.store)
    return deployed


@pytest.fixture
def empty(tmp_path):
    return BuildRoot(tmp_path / "empty")


# --- list and show -------------------------------------------------------------------------------


def test_list_shows_the_current_one_first(root):
    root.deploy("rollback", "v1").ok()
    lines = root.deploy("list").ok().out.splitlines()[2:]
    assert [(line[0], line.split()[-1]) for line in lines] == [("*", "4"), (" ", "3"), (" ", "2")]
    assert [line[2:].split()[0] for line in lines] == ["v1", "v2-b", "v2-a"]
    found = root.deploy("list", "--output", "json").ok().json
    assert found["current"] == "v1"
    assert [(v["version"], v["history"], v["current"]) for v in found["versions"]] == [
        ("v1", [1, 4], True),
        ("v2-b", [3], False),
        ("v2-a", [2], False),
    ]
    assert [(e["number"], e["action"], e["version"]) for e in found["history"]] == [
        (1, "deploy", "v1"),
        (2, "deploy", "v2-a"),
        (3, "deploy", "v2-b"),
        (4, "rollback", "v1"),
    ]


def test_where_nothing_is_deployed_list_says_so_and_makes_nothing(empty):
    assert "Nothing is deployed yet" in empty.deploy("list").ok().out
    assert empty.deploy("list", "--output", "json").ok().json["versions"] == []
    empty.deploy("show").failed(1, ADDRESS, "nothing was deployed yet")
    empty.deploy("rollback", "v1").failed(1, "nothing was deployed there yet")
    assert not empty.store.exists()


def test_show_is_about_the_current_version_or_a_named_one(root):
    assert "version v2-b (current)" in root.deploy("show").ok().out
    shown = root.deploy("show", "v1").ok().out
    assert "version v1\n" in shown
    record = root.version("v1")
    bundle = record["tasks"][0]["bundle"]
    for value in (bundle["archive"], bundle["content_hash"], "registry.example/trainer:1", "a0 --"):
        assert value in shown
    found = root.deploy("show", "v1", "--output", "json").ok().json
    assert (found["current"], found["record"]) == (False, record)


@pytest.mark.parametrize(
    ("typed", "version"), [("v1", "v1"), ("v2-a", "v2-a"), ("v2-", None), ("v", None), ("x", None)]
)
def test_a_version_may_be_cut_short_where_one_alone_fits(root, typed, version):
    for name in ("show", "rollback"):
        done = root.deploy(name, typed, "--output", "json")
        if version is None:
            said = "there is no version x" if typed == "x" else f"{typed} could be "
            done.failed(1, said, "v2-a, v2-b")
        else:
            assert done.ok().json["version"] == version


def test_a_whole_name_wins_over_longer_ones(root):
    root.package("train", "v = 4\n")
    root.deploy("--version", "v2").ok()
    assert root.deploy("show", "v2", "--output", "json").ok().json["version"] == "v2"


def test_each_domain_and_address_has_a_history_of_its_own(root):
    for plan in ({"domain": "production"}, {"project": "other"}, {"address": "services:other"}):
        assert "Nothing is deployed yet" in root.deploy("list", plan=plan).ok().out


def test_reading_commands_make_no_call_that_writes(root):
    for typed in (("list",), ("show",), ("rollback", "v1", "--dry-run"), ("rollback", "v2-b")):
        root.deploy(*typed).ok()  # what it checks is remembered, but not in the store
        assert root.deploy(*typed, first=show_writes).ok().err == ""


# --- rollback ------------------------------------------------------------------------------------


def test_rollback_makes_an_earlier_version_current_and_adds_one_entry(root):
    before = snapshot(root.store)
    done = root.deploy("rollback", "v1").ok()
    assert "Rolled back to version v1 (history 4, before: v2-b)" in done.out
    assert root.history()[3:] == [("rollback", "v1")]
    new = {path for path, stat in snapshot(root.store).items() if before.get(path) != stat}
    history = root.records() / "history"
    assert new <= {str(history), str(history / "4.json"), str(root.store / ".tmp")}


def test_rollback_to_the_current_version_writes_nothing(root):
    before = snapshot(root.store)
    assert "already current" in root.deploy("rollback", "v2-b").ok().out
    assert snapshot(root.store) == before


def test_a_dry_rollback_writes_nothing(root):
    before = snapshot(root.store)
    assert "Would roll back to version v1" in root.deploy("rollback", "v1", "--dry-run").ok().out
    assert snapshot(root.store) == before


def lose(path):
    path.unlink()


def change(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"x")


@pytest.mark.parametrize("harm", [lose, change])
@pytest.mark.parametrize("kind", ["archive", "manifest"])
def test_rollback_to_what_is_not_whole_is_refused(root, kind, harm):
    path = root.store / root.version("v1")["tasks"][0]["bundle"][kind]
    harm(path)
    before = snapshot(root.store)
    root.deploy("rollback", "v1").failed(1, ADDRESS, str(path), "--repair")
    assert snapshot(root.store) == before


def test_a_store_that_was_moved_can_be_read_but_its_versions_fetch_their_code_elsewhere(root):
    moved = root.store.rename(root.root / "moved")
    store = ("--store", "file://moved")
    before = snapshot(moved)
    assert root.deploy(*store, "list", "--output", "json").ok().json["current"] == "v2-b"
    root.deploy(*store, "show", "v1").ok()
    root.deploy(*store, "rollback", "v1").failed(1, "v1", str(moved), "deploy that commit again")
    assert snapshot(moved) == before


# --- a store that others have been at ------------------------------------------------------------


def rewrite(**changes):
    def harm(path, outside):
        data = dump({**json.loads(path.read_bytes()), **changes})
        path.unlink()
        path.write_bytes(data)

    return harm


def replace(content):
    def harm(path, outside):
        path.unlink()
        path.write_bytes(content)

    return harm


def link_outside(path, outside):
    path.rename(outside / "moved")
    path.symlink_to(outside / "moved")


def directory(path, outside):
    path.unlink()
    path.mkdir()


def huge(path, outside):
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(1 << 40)


HARMS = {
    "empty": replace(b""),
    "broken JSON": replace(b'{"schema": 1'),
    "not UTF-8": replace(b"\xff\xfe"),
    "deep": replace(b"[" * 1_000_000),
    "another type": replace(b"[]"),
    "another schema": rewrite(schema=7),
    "no schema": replace(b"{}"),
    "more fields": rewrite(surprise=1),
    "a path as version": rewrite(version="../../../x"),
    "a terminal's control": rewrite(version="\x1b[2Jv1"),
    "a symbolic link": link_outside,
    "a directory": directory,
    "huge": huge,
}


@pytest.mark.parametrize("which", ["versions/v2-b.json", "history/3.json"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_hostile_records_are_reported_by_name_and_followed_nowhere(root, tmp_path, which, harm):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = root.records() / which
    harm(path, outside)
    before = snapshot(root.store), snapshot(outside)
    for typed in (("list",), ("show",), ("show", "v2-b"), ("rollback", "v2-b")):
        done = root.deploy(*typed)
        assert done.code == 1
        assert "Traceback" not in done.err
        assert str(path) in done.out + done.err
        assert "\x1b" not in done.out + done.err
    assert (snapshot(root.store), snapshot(outside)) == before


def test_a_broken_record_does_not_hide_the_others(root):
    (root.records() / "versions" / "v2-a.json").unlink()
    (root.records() / "versions" / "v2-a.json").write_text("{")
    done = root.deploy("list")
    assert done.code == 1
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["*", "v2-a", "v1"]
    assert "not a JSON document" in done.out
    root.deploy("rollback", "v1").ok()


def forge(root, name, **changes):
    """A record that is consistent with the history, but wrong in itself."""
    path = root.records() / "versions" / f"{name}.json"
    rewrite(**changes)(path, None)
    for entry in (root.records() / "history").iterdir():
        if json.loads(entry.read_bytes())["version"] == name:
            rewrite(record=sha256_bytes(path.read_bytes()))(entry, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v1"},
        {"project": "other"},
        {"domain": "production"},
        {"address": "other:deploy"},
    ],
)
def test_a_record_of_something_else_is_not_believed(root, changes):
    forge(root, "v2-a", **changes)
    for typed in (("show", "v2-a"), ("rollback", "v2-a")):
        root.deploy(*typed).failed(1, "another deployment or version")


@pytest.mark.parametrize(
    "changes",
    [
        {"archive": "../../../etc/passwd"},
        {"archive": "archives/" + "0" * 64 + ".tar.gz"},
        {"manifest": "/etc/passwd"},
        {"archive_hash": "../../x"},
        {"manifest_size": -1},
        {"manifest_size": True},
    ],
)
def test_a_record_that_names_other_objects_is_not_followed(root, changes):
    tasks = root.version("v2-a")["tasks"]
    tasks[0]["bundle"].update(changes)
    forge(root, "v2-a", tasks=tasks)
    root.deploy("rollback", "v2-a").failed(1, "bundle", next(iter(changes)))


def test_a_record_changed_after_it_was_deployed_is_not_used(root):
    path = root.records() / "versions" / "v1.json"
    rewrite(copy_style="all")(path, None)
    root.deploy("rollback", "v1").failed(1, str(path), "was changed after history entry 1")


def test_a_history_entry_under_another_number_is_not_believed(root):
    history = root.records() / "history"
    (history / "4.json").write_bytes((history / "1.json").read_bytes())
    root.deploy("list").failed(1, "4.json", "says that it is number 1")


def test_files_of_other_names_are_nobodys_business(root):
    for name in (".DS_Store", "4.json~", "04.json", "x.json", "4.txt", "٤.json"):
        (root.records() / "history" / name).write_text("")
        (root.records() / "versions" / f"a b{name}").write_text("")
    found = root.deploy("list", "--output", "json").ok().json
    assert [v["version"] for v in found["versions"]] == ["v2-b", "v2-a", "v1"]
    assert len(found["history"]) == 3


def test_the_root_of_a_store_may_be_a_symbolic_link_of_the_users(root, tmp_path):
    (tmp_path / "link").symlink_to(root.store)
    found = root.deploy("--store", f"file://{tmp_path}/link", "list", "--output", "json").ok().json
    assert found["current"] == "v2-b"


def test_an_entry_is_appended_after_what_came_since_the_history_was_looked_at(empty):
    empty.package("train")
    empty.deploy("--version", "v1").ok()
    ledger = Ledger(FileStore(str(empty.store)), "flytesnacks", "development", ADDRESS)
    seen, recorded = ledger.current(), ledger.recorded("v1")
    empty.package("train", "v = 2\n")
    empty.deploy("--version", "v2").ok()
    # Whoever saw v1 as the current one: it is not any more.
    entry, appended = ledger.append("deploy", recorded, seen.provenance, after=seen)
    assert (entry.number, entry.version, appended) == (3, "v1", True)
    # And whoever saw v1 and makes v2 current: that has the next number already.
    entry, appended = ledger.append("deploy", ledger.recorded("v2"), seen.provenance, after=seen)
    assert (entry.number, entry.version, appended) == (4, "v2", True)
    entry, appended = ledger.append("deploy", ledger.recorded("v2"), seen.provenance, after=entry)
    assert (entry.number, appended) == (4, False)
