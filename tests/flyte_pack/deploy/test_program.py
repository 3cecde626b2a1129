"""Deploying writes what is missing and says what it did; doing it again writes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from flyte_pack.deploy.records import VersionRecord, task_spec, version_of
from flyte_pack.progress import megabytes
from flyte_pack.task_link import LinkedTask
from flyte_shim.hashing import sha256_bytes, sha256_file
from tests.support.deploying import (
    ADDRESS,
    BuildRoot,
    command,
    contents,
    no_room,
    show_writes,
    snapshot,
)
from tests.support.git import git


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    return root


# --- what is written -----------------------------------------------------------------------------


def test_a_deployment_leaves_archive_manifest_index_version_and_history(root):
    link = root.package("score")
    done = root.deploy().ok()
    assert "Deployed version" in done.out
    files = {str(p.relative_to(root.store)) for p in root.store.rglob("*") if p.is_file()}
    [(action, version)] = root.history()
    expected = {
        f"{root.records().relative_to(root.store)}/versions/{version}.json",
        f"{root.records().relative_to(root.store)}/history/1.json",
    }
    for bundle in (link.bundle, root.links["train"].bundle):
        expected |= {
            f"archives/{bundle.archive_hash}.tar.gz",
            f"manifests/{bundle.manifest_hash}.json",
            f"index/{bundle.content_hash}.json",
        }
    assert files == expected
    assert action == "deploy"
    archive = root.store / f"archives/{link.bundle.archive_hash}.tar.gz"
    assert sha256_file(str(archive)) == link.bundle.archive_hash


def test_the_record_says_all_that_was_deployed(root):
    bundle = root.package("train", image="trainer", root_dir="src").bundle
    root.deploy("--image", "trainer=registry.example/t:3", "--version", "v1").ok()
    record = root.version("v1")
    time = record["provenance"].pop("time")
    assert record == {
        "schema": 1,
        "address": ADDRESS,
        "project": "flytesnacks",
        "domain": "development",
        "version": "v1",
        "copy_style": "auto",
        "provenance": {"commit": None, "dirty": None},
        "tasks": [
            {
                "address": "services/ml:train",
                "entry_point": "services/ml/train.py:train",
                "kind": "task",
                "module": "services.ml.train",
                "root_dir": "src",
                "image": "registry.example/t:3",
                "image_ref_name": "trainer",
                "code_uri": None,
                "inputs": None,
                "bundle": {
                    "content_hash": bundle.content_hash,
                    "archive": f"archives/{bundle.archive_hash}.tar.gz",
                    "archive_hash": bundle.archive_hash,
                    "archive_size": bundle.archive_size,
                    "manifest": f"manifests/{bundle.manifest_hash}.json",
                    "manifest_hash": bundle.manifest_hash,
                    "manifest_size": bundle.manifest_size,
                },
                "tasks": [
                    {
                        "name": "train",
                        "command": [
                            *("a0", "--inputs", "{{.input}}", "--version", "v1", "--tgz"),
                            f"file://{root.store}/archives/{bundle.archive_hash}.tar.gz",
                            *("--dest", ".", "instance", "train"),
                        ],
                        "version": "v1",
                        "flyte_name": None,
                        "spec": None,
                        "triggers": [],
                    }
                ],
            }
        ],
        "inputs": None,
        "flyte": None,
    }
    entry = json.loads((root.records() / "history" / "1.json").read_bytes())
    record_file = root.records() / "versions" / "v1.json"
    assert entry == {
        "schema": 1,
        "number": 1,
        "action": "deploy",
        "version": "v1",
        "record": sha256_bytes(record_file.read_bytes()),
        "registered": None,
        "provenance": {"time": time, "commit": None, "dirty": None},
    }


def test_code_in_the_images_needs_a_version_and_writes_no_bundle(root):
    root.package("train", copy_style="none")
    root.deploy("--copy-style", "none", "--version", "v1").ok()
    assert sorted(path.name for path in root.store.iterdir()) == [".tmp", "deployments"]
    [task] = root.version("v1")["tasks"]
    assert task["bundle"] is None
    assert "--tgz" not in task["tasks"][0]["command"]


def test_two_tasks_with_one_content_share_a_bundle(root):
    same = root.links["train"].bundle
    root.package("score", bundle=same)
    root.deploy().ok()
    assert len(list((root.store / "archives").iterdir())) == 1


def test_a_store_elsewhere_is_used_where_the_plan_or_the_user_names_one(root, tmp_path):
    root.deploy(plan={"store": f"file://{tmp_path}/planned"}).ok()
    root.deploy("--store", f"file://{tmp_path}/typed", plan={"store": "s3://bucket/x"}).ok()
    for store in ("planned", "typed"):
        assert (tmp_path / store / "archives").is_dir()
    assert not root.store.exists()


# --- git -----------------------------------------------------------------------------------------


def test_the_commit_is_recorded_and_whether_files_differ_from_it(root):
    git(root.root, "init", "-q")
    (root.root / ".gitignore").write_text("packaged\n")
    git(root.root, "add", ".")
    git(root.root, "commit", "-qm", "one")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root.root, text=True).strip()
    # The store lies in the checkout, and is not ignored there: that alone makes nothing dirty.
    root.deploy("--version", "clean").ok()
    root.deploy("--version", "again").ok()
    (root.root / "new.py").write_text("")
    root.deploy("--version", "dirty").ok()
    found = [root.version(version)["provenance"] for version in ("clean", "again", "dirty")]
    assert [origin["commit"] for origin in found] == [head] * 3
    assert [origin["dirty"] for origin in found] == [False, False, True]
    assert f"{head[:12]} (dirty)" in root.deploy("list").ok().out


def broken_git(root):
    (root.root / ".git").write_text("gitdir: nowhere\n")
    return {}


def empty_git(root):
    git(root.root, "init", "-q")
    return {}


def no_git(root):
    return {"PATH": str(root.dist)}


def no_git_with_a_checkout(root):
    empty_git(root)
    return no_git(root)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (broken_git, "the repository that the file `.git` names is not there"),
        (empty_git, "git finds no commit that is checked out"),
        (no_git, None),
        (no_git_with_a_checkout, "there is no program `git`"),
    ],
)
def test_without_a_usable_git_the_commit_is_unknown_and_deploying_works(root, trouble, why):
    env = trouble(root)
    done = root.deploy("--version", "v1", env=env).ok()
    assert f"the commit is unknown: {why}" in done.err or why is None
    found = root.version("v1")["provenance"]
    assert (found["commit"], found["dirty"], found.get("unknown")) == (None, None, why)
    if why:
        assert f"from commit unknown: {why}" in root.deploy("show", "v1").ok().out


def test_what_a_hook_says_of_another_repository_is_not_recorded(root, tmp_path):
    (root.root / ".gitignore").write_text("packaged\n")
    git(root.root, "init", "-q")
    git(root.root, "add", ".")
    git(root.root, "commit", "-qm", "one")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root.root, text=True).strip()
    subprocess.run(["git", "init", "-q", tmp_path / "other"], check=True)
    root.deploy("--version", "v1", env={"GIT_DIR": str(tmp_path / "other" / ".git")}).ok()
    assert root.version("v1")["provenance"]["commit"] == head


# --- again ---------------------------------------------------------------------------------------


def test_doing_it_again_does_nothing_and_says_so(root):
    root.package("score")
    root.deploy().ok()
    before = snapshot(root.store)
    done = root.deploy().ok()
    assert "Nothing to do" in done.out
    assert done.err == ""
    assert snapshot(root.store) == before
    assert root.deploy("--output", "json").ok().json["writes"] == []
    assert snapshot(root.store) == before


def test_doing_it_again_makes_no_call_that_writes_and_starts_no_program(root):
    git(root.root, "init", "-q")
    first = root.deploy(first=show_writes).ok()
    assert "WRITE os.link" in first.err
    assert "WRITE subprocess.Popen" in first.err
    assert root.deploy(first=show_writes).ok().err == ""


def test_a_b_a_makes_three_histories_of_two_versions(root):
    versions = []
    for body in ("v = 1\n", "v = 2\n", "v = 1\n"):
        root.package("train", body)
        versions.append(root.deploy("--output", "json").ok().json["version"])
    a, b, again = versions
    assert a == again != b
    assert root.history() == [("deploy", a), ("deploy", b), ("deploy", a)]
    assert sorted(os.listdir(root.records() / "versions")) == sorted([f"{a}.json", f"{b}.json"])


def test_what_somebody_removed_is_put_back(root):
    root.deploy().ok()
    complete = contents(root.store)
    for directory in ("archives", "manifests", "index"):
        shutil.rmtree(root.store / directory)
        done = root.deploy("--output", "json").ok().json
        assert not done["deployed"]
        assert [key.partition("/")[0] for key in done["writes"]] == [directory]
        assert contents(root.store) == complete


def test_another_archive_of_the_same_content_is_used_where_it_came_first(root):
    first = root.links["train"].bundle
    version = root.deploy("--output", "json").ok().json["version"]
    second = root.recompress("train").bundle
    assert second.content_hash == first.content_hash
    assert second.archive_hash != first.archive_hash
    before = snapshot(root.store)
    done = root.deploy("--output", "json").ok().json
    assert (done["version"], done["writes"]) == (version, [])
    assert done["bundles"][0]["archive_hash"] == first.archive_hash
    root.deploy("--domain", "staging", plan={"domain": None}).ok()
    assert [path.name for path in (root.store / "archives").iterdir()] == [
        f"{first.archive_hash}.tar.gz"
    ]
    assert snapshot(root.store / "archives") == {
        path: stat for path, stat in before.items() if path.startswith(f"{root.store}/archives")
    }


# --- versions ------------------------------------------------------------------------------------


def computed(root, **plan):
    return root.deploy("--dry-run", "--output", "json", plan=plan).ok().json["version"]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.package("train", "v = 2\n"),
        lambda root: root.package("train", image="registry.example/trainer:2"),
        lambda root: root.package("train", image=None),
        lambda root: root.package("train", root_dir="src"),
        lambda root: root.package("train", module="ml.train"),
        lambda root: root.package("train", kind="environment"),
        lambda root: root.package(
            "train", tasks=(LinkedTask("train", (*command("train"), "more")),)
        ),
        lambda root: root.package("score"),
        lambda root: {"project": "other"},
        lambda root: {"domain": "staging"},
        lambda root: {"store": "file://dist/other"},
    ],
)
def test_whatever_changes_what_runs_changes_the_version(root, change):
    before = computed(root)
    plan = change(root)
    after = computed(root, **(plan if isinstance(plan, dict) else {}))
    assert after != before


def renamed(root):
    root.links.clear()
    root.package("train", address="services/ml:renamed")


def by_ref_name(root):
    root.package("train", image="trainer")
    return {"images": {"trainer": "registry.example/trainer:1", "other": "registry.example/o:1"}}


@pytest.mark.parametrize(
    "change",
    [
        lambda root: None,
        lambda root: {"address": "services:renamed"},
        renamed,
        by_ref_name,
        lambda root: git(root.root, "init", "-q"),
    ],
)
def test_what_does_not_change_what_runs_leaves_the_version_alone(root, change):
    before = computed(root)
    plan = change(root)
    assert computed(root, **(plan or {})) == before


def test_the_record_shows_how_its_version_was_computed(root):
    version = root.deploy("--output", "json").ok().json["version"]
    data = (root.records() / "versions" / f"{version}.json").read_bytes()
    [task] = json.loads(data)["tasks"]
    [one] = task["tasks"]
    in_command = data.replace(f'"{one["version"]}",\n'.encode(), b'"${VERSION}",\n')
    assert in_command.count(b"${VERSION}") == 1
    record = VersionRecord.from_json(in_command, "record")
    assert version_of(record.spec()) == version
    spec = task_spec(record.project, record.domain, record.tasks[0], record.tasks[0].tasks[0])
    assert version_of(spec) == one["version"]


def test_only_the_tasks_that_changed_get_another_version(root):
    def versions():
        document = root.deploy("--output", "json").ok().json
        record = root.version(document["version"])
        return {
            task["address"]: one["version"] for task in record["tasks"] for one in task["tasks"]
        }

    root.package("score")
    before = versions()
    root.package("score", "v = 2\n")
    after = versions()
    assert after["services/ml:train"] == before["services/ml:train"]
    assert after["services/ml:score"] != before["services/ml:score"]


def test_a_version_that_the_user_names_wins_over_the_plans(root):
    root.deploy("--version", "typed", plan={"version": "planned"}).ok()
    root.deploy(plan={"version": "planned"}).ok()
    assert root.history() == [("deploy", "typed"), ("deploy", "planned")]


def test_a_named_version_with_the_same_content_is_no_error(root):
    root.deploy("--version", "v1").ok()
    assert "Nothing to do" in root.deploy("--version", "v1").ok().out


# --- dry runs and output -------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_happen_and_writes_nothing(root, tmp_path):
    before = snapshot(tmp_path)
    dry = root.deploy("--dry-run", "--output", "json").ok().json
    plan_file = str(root.dist / "__deploy_plan.json")
    after = snapshot(tmp_path)
    assert {path for path in after if before.get(path) != after[path]} <= {
        plan_file,
        str(root.dist),
    }
    done = root.deploy("--output", "json").ok().json
    assert (dry.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert dry == done
    assert [
        (s["status"], s["archive_size"]) for s in done["bundles"]
    ] == [("new", root.links["train"].bundle.archive_size)]  # fmt: skip
    before = snapshot(root.store)
    assert "dry run" in root.deploy("--dry-run").ok().out
    assert snapshot(root.store) == before


def test_the_plan_says_of_each_task_and_bundle_what_changes(root):
    root.package("score")
    root.package("gone")
    root.deploy("--version", "v1").ok()
    del root.links["gone"]
    root.package("train", "v = 2\n", image="registry.example/trainer:2")
    root.package("new")
    done = root.deploy("--dry-run", "--version", "v2", "--output", "json").ok().json
    assert {task["address"]: (task["status"], task["changes"]) for task in done["tasks"]} == {
        "services/ml:gone": ("removed", []),
        "services/ml:new": ("new", []),
        "services/ml:score": ("unchanged", []),
        "services/ml:train": ("changed", ["code", "image"]),
    }
    assert sorted(bundle["status"] for bundle in done["bundles"]) == ["new", "new", "unchanged"]
    text = root.deploy("--dry-run", "--version", "v2").ok().out
    assert "task services/ml:train  changed: code, image" in text
    assert "Would deploy version v2 (history 2, before: v1)" in text


def test_json_is_one_document_on_standard_output_for_every_command(root):
    root.deploy("--version", "v1").ok()
    commands = ("", "--dry-run", "list", "show", "rollback v1", "verify --no-image-check", "prune")
    for typed in (*commands, "show nope", "export packaged", "import nowhere"):
        done = root.deploy(*typed.split(), "--output", "json")
        assert done.json["schema"] == 1
        assert ("error" in done.json) == (done.code == 1) == (typed not in commands)


def test_the_first_deployment_prints_a_summary_on_output_and_progress_on_error(root):
    done = root.deploy("--version", "v1").ok()
    size = root.links["train"].bundle.archive_size
    content = root.links["train"].bundle.content_hash
    uploaded = sum((root.store / key).stat().st_size for key in stored(root))
    assert done.out == (
        f"services:deploy in flytesnacks/development of file://{root.store}\n"
        f"  bundle {content[:12]}  {size} B  new\n"
        "  task services/ml:train  new\n"
        f"Uploaded: {megabytes(uploaded)} (bundles {megabytes(uploaded)}, images 0 B).\n"
        "Deployed version v1 (history 1).\n"
    )
    assert [line.split()[0] for line in done.err.splitlines()] == ["writing"] * 4


def test_what_is_to_be_uploaded_is_told_in_bytes(root):
    planned = root.deploy("--dry-run", "--output", "json").ok().json["upload"]
    assert "To upload: " in root.deploy("--dry-run").ok().out
    assert root.deploy("--output", "json").ok().json["upload"] == planned
    size = sum((root.store / key).stat().st_size for key in stored(root))
    assert planned == {"bundles": size, "images": 0}
    again = root.deploy().ok().out
    assert "Uploaded: " not in again


def stored(root):
    """The keys of what makes up the bundles in the store."""
    paths = [
        path
        for place in ("archives", "manifests", "index")
        for path in (root.store / place).iterdir()
    ]
    return [str(path.relative_to(root.store)) for path in paths]


def test_help_needs_no_plan(root):
    done = root.run("deploy", "--plan", "nowhere.json", "--", "--help").ok()
    assert "  rollback [VERSION|-N]" in done.out


def test_a_reader_that_stops_reading_is_no_error(root):
    root.deploy().ok()
    process = root.start(*root.arguments("show"))
    process.stdout.close()
    process.wait()
    assert (process.returncode, process.stderr.read()) == (0, "")


def test_the_python_settings_of_the_caller_do_not_reach_git(root, tmp_path):
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nenv > "{tmp_path}/env"\nexit 1\n')
    fake.chmod(0o755)
    git(root.root, "init", "-q")
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "PEX_PATH": "x", "PYTHONHASHSEED": "1"}
    root.deploy(env=env).ok()
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "PATH" in names
    assert not [name for name in names if name.startswith("PEX_") or name == "PYTHONPATH"]


# --- damage --------------------------------------------------------------------------------------


def damage(path, content=b"damaged"):
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["archives", "manifests"])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_damaged_object_is_reported_and_repaired_on_request(root, kind, same_size):
    root.deploy().ok()
    complete = contents(root.store)
    [path] = (root.store / kind).iterdir()
    damage(path, b"x" * path.stat().st_size if same_size else b"x")
    before = snapshot(root.store)
    root.deploy().failed(1, ADDRESS, str(path), "damaged", "--repair")
    root.deploy("--dry-run").failed(1, "damaged", "--repair")
    assert snapshot(root.store) == before
    done = root.deploy("--repair", "--output", "json").ok().json
    assert done["bundles"][0]["status"] == "repair"
    assert contents(root.store) == complete
    assert "Nothing to do" in root.deploy("--repair").ok().out


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"schema": 2}', b"\xff", b"[" * 100000], ids=range(5)
)
def test_a_broken_index_entry_is_reported_and_repaired_on_request(root, content):
    root.deploy().ok()
    complete = contents(root.store)
    [path] = (root.store / "index").iterdir()
    damage(path, content)
    root.deploy().failed(1, str(path), "--repair")
    root.deploy("--repair").ok()
    assert contents(root.store) == complete


def test_an_index_entry_about_another_content_is_not_followed(root):
    root.package("score")
    root.deploy().ok()
    one, other = (root.store / "index").iterdir()
    damage(one, other.read_bytes())
    root.deploy().failed(1, str(one), "another content")


def test_a_lost_archive_that_this_build_can_not_make_is_replaced_by_its_own_on_request(root):
    first = root.links["train"].bundle
    root.deploy("--version", "v1").ok()
    second = root.recompress("train").bundle
    (root.store / f"archives/{first.archive_hash}.tar.gz").unlink()
    before = snapshot(root.store)
    root.deploy("--version", "v2").failed(1, first.archive_hash, "missing", "--repair")
    assert snapshot(root.store) == before
    root.deploy("--version", "v2", "--repair").ok()
    assert root.version("v2")["tasks"][0]["bundle"]["archive_hash"] == second.archive_hash
    root.deploy("rollback", "v1").failed(1, first.archive_hash, "missing")


def test_a_changed_record_is_reported_and_a_computed_version_is_repaired_on_request(root):
    version = root.deploy("--output", "json").ok().json["version"]
    path = root.records() / "versions" / f"{version}.json"
    damage(path, path.read_bytes().replace(b"registry.example", b"registry.elsewhere"))
    root.deploy().failed(1, str(path), "was changed", "--repair")
    # From another commit, so that the record that replaces it has other bytes: the history must tell which ones count.
    git(root.root, "init", "-q")
    git(root.root, "commit", "-qm", "one", "--allow-empty")
    root.deploy("--repair").ok()
    assert root.history() == [("deploy", version)] * 2
    assert root.version(version)["tasks"][0]["image"] == "registry.example/trainer:1"
    assert "Nothing to do" in root.deploy().ok().out
    root.deploy("list").ok()


def test_a_changed_record_of_a_named_version_is_not_written_anew(root):
    root.deploy("--version", "v1").ok()
    path = root.records() / "versions" / "v1.json"
    damage(path, b"{}")
    root.deploy("--version", "v1", "--repair").failed(1, str(path), "another version")
    # The broken one is in nobody's way.
    assert "warning" in root.deploy("--version", "v2").ok().err


def test_a_full_disk_leaves_nothing_half_written_and_the_next_run_completes(root):
    root.package("train", "\n".join(sha256_bytes(b"%d" % i) for i in range(200)))
    limit = root.links["train"].bundle.archive_size - 100
    done = root.deploy(first=no_room(limit))
    done.failed(1, ADDRESS, "archives/", "File too large")
    assert [path for path in root.store.rglob("*") if path.is_file()] == []
    root.deploy().ok()
    assert [action for action, _ in root.history()] == ["deploy"]
