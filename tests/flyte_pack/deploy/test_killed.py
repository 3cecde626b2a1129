"""Whatever instant a deploy program is killed at, the store is true, and the next run completes it.

The program kills itself by SIGKILL in the middle of its work: before its first call that writes, before its second one,
and so on until it gets through.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal

import pytest

from flyte_shim.hashing import sha256_file
from tests.support.deploying import BuildRoot, contents, killed_at


def first_deployment(root):
    root.package("train")
    root.package("score")
    return ()


def second_deployment(root):
    root.package("train")
    root.deploy("--version", "v1").ok()
    root.package("train", "v = 2\n")
    return ("--version", "v2")


def back_to_a_former_one(root):
    root.package("train")
    root.deploy("--version", "v1").ok()
    root.package("train", "v = 2\n")
    root.deploy("--version", "v2").ok()
    root.package("train")
    return ("--version", "v1")


def rollback(root):
    back_to_a_former_one(root)
    return ("rollback", "v1")


def repair(root):
    root.package("train")
    root.deploy("--version", "v1").ok()
    for directory in ("archives", "manifests", "index"):
        [path] = (root.store / directory).iterdir()
        path.unlink()
        path.write_text("damaged")
    return ("--version", "v1", "--repair")


def no_links():
    def link(*_, **__):
        raise OSError(errno.EPERM, "no hard links on this file system")

    os.link = link


@pytest.mark.parametrize(
    ("scenario", "disk"),
    [
        (first_deployment, lambda: None),
        (second_deployment, lambda: None),
        (back_to_a_former_one, lambda: None),
        (rollback, lambda: None),
        (repair, lambda: None),
        (second_deployment, no_links),
    ],
)
def test_a_kill_between_any_two_steps_leaves_a_store_that_the_next_run_completes(
    tmp_path, scenario, disk
):
    root = BuildRoot(tmp_path / "build")
    typed = scenario(root)
    before = tmp_path / "before"
    if root.store.exists():
        shutil.copytree(root.store, before)
    root.deploy(*typed, first=disk).ok()
    undisturbed = contents(root.store)

    for step in range(1, 1000):
        if root.store.exists():
            shutil.rmtree(root.store)
        if before.exists():
            shutil.copytree(before, root.store)
        done = root.deploy(*typed, first=lambda step=step: (disk(), killed_at(step)()))
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL, f"step {step}:\n{done.err}"
        check_true(root, damaged=scenario is repair)
        assert "Traceback" not in root.deploy("list").ok().err
        root.deploy(*typed, first=disk).ok()
        assert contents(root.store) == undisturbed, f"killed at step {step}"
        check_true(root)
    assert done.code == 0
    assert contents(root.store) == undisturbed
    # It was killed everywhere: one entry alone takes this many steps.
    assert step > 7 * len(undisturbed.keys() - set(files_of(before)))


def files_of(store):
    return contents(store) if store.exists() else {}


def check_true(root, damaged=False):
    """Every object is whole under its name, and nothing that is written down is missing."""
    if not root.store.exists():
        return
    for kind, ending in (("archives", ".tar.gz"), ("manifests", ".json")):
        for path in list_files(root.store / kind):
            assert path.name.endswith(ending)
            if not damaged:
                assert sha256_file(str(path)) == path.name[: -len(ending)]
    for path in list_files(root.store / "index"):
        if not (damaged and path.read_bytes() == b"damaged"):
            check_bundle(root, json.loads(path.read_bytes()))
    for path in list_files(root.records() / "versions"):
        for task in json.loads(path.read_bytes())["tasks"]:
            check_bundle(root, task["bundle"])
    for path in list_files(root.records() / "history"):
        entry = json.loads(path.read_bytes())
        record = root.records() / "versions" / f"{entry['version']}.json"
        assert sha256_file(str(record)) == entry["record"]


def check_bundle(root, bundle):
    for name in ("archive", "manifest"):
        assert (root.store / bundle[name]).is_file()


def list_files(directory):
    return list(directory.iterdir()) if directory.exists() else []
