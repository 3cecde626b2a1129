"""Debian packages of a `flyte_image`: from the lock file, by hash, into its lowest layer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pants.core.goals.run import RunRequest

from flyte_pack.image.apt_lock import AptLock, LockedPlatform
from flyte_pack.oci.model import Platform
from pants_flyte.goals.run_image import RunImageFieldSet
from tests.support.bases import base_image
from tests.support.debs import REPOSITORY, deb, locked
from tests.support.flyte_images import app, image, image_options
from tests.support.flyte_rules import RuleRoot

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
DEB = deb(("./lib/", None), ("./lib/pf.so", b"library"))
ENTRY = locked(DEB, links=(("usr/bin/pf", "/etc/alternatives/pf"),))
LOCK = AptLock(
    base_image().digest,
    ("pftest",),
    (),
    (LockedPlatform(AMD64, (ENTRY,), (("lib", "usr/lib"),)),),
)
FIELDS = 'apt_packages=["pftest"]'
PATH = "app/image.apt.lock.json"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """What serves the package, and is named as the mirror of its repository."""
    (tmp_path / "pool").mkdir()
    (tmp_path / ENTRY.path).write_bytes(DEB)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def root(root: RuleRoot, mirror: str) -> RuleRoot:
    image_options(root, f"--flyte-apt-mirrors={{'{REPOSITORY}': '{mirror}'}}")
    return root


def test_the_locked_packages_are_the_lowest_layer(root: RuleRoot):
    root.write({**app(image=FIELDS), PATH: LOCK.to_json()})
    layers = root.image("app:image").layers()
    assert [layer.what for layer in layers][:3] == ["base image", "base image", "pftest 1.0"]
    assert "pftest" in layers[3].what or "distributions" in layers[3].what
    members = layers[2].members or {}
    assert set(members) == {
        *("usr/lib/pf.so", "usr/bin/pf", "var/lib/dpkg/status.d/pftest"),
    }
    assert members["usr/lib/pf.so"].content == "library"
    assert members["usr/bin/pf"].content == "/etc/alternatives/pf"


def test_what_the_base_has_already_makes_no_layer(root: RuleRoot):
    has_all = replace(LOCK, platforms=(LockedPlatform(AMD64, (), ()),))
    root.write({**image(FIELDS), PATH: has_all.to_json()})
    assert [layer.what for layer in root.image("app:image").layers()] == [
        *("base image", "base image", "flyte-shim", "working directory")
    ]


@pytest.mark.parametrize(
    ("fields", "lock", "message"),
    [
        (FIELDS, None, "its `apt_packages` are not locked: there is no file app/image.apt.lock.json"),
        (FIELDS, b"{}", "app/image.apt.lock.json: not a JSON object with a schema"),
        (FIELDS, replace(LOCK, base="sha256:" + "0" * 64).to_json(), "is for another base than img:base is now"),
        (FIELDS, replace(LOCK, packages=("x",)).to_json(), "is for other `apt_packages`"),
        (FIELDS, replace(LOCK, skipped_scripts=("x",)).to_json(), "is for other `apt_skip_scripts`"),
        (FIELDS, replace(LOCK, platforms=(LockedPlatform(ARM64, (), ()),)).to_json(), "does not lock linux/amd64"),
    ],
)  # fmt: skip
def test_a_lock_file_that_does_not_fit_is_refused_with_the_command(root, fields, lock, message):
    root.write({**image(fields), **({} if lock is None else {PATH: lock})})
    said = root.refusal("app:image")
    assert said.startswith("app:image: ")
    assert message in said
    assert "run app:image -- lock-apt`" in said


def test_a_package_that_cannot_be_fetched_is_said_with_what_to_do(root: RuleRoot):
    gone = replace(ENTRY, path="pool/gone_1.0_amd64.deb", sha256="0" * 64)
    lock = replace(LOCK, platforms=(LockedPlatform(AMD64, (gone,), ()),))
    root.write({**image(FIELDS), PATH: lock.to_json()})
    said = root.refusal("app:image")
    assert "a Debian package cannot be fetched" in said
    assert "404" in said
    assert "run app:image -- lock-apt`" in said


def test_a_package_with_other_content_is_not_taken(root: RuleRoot):
    other = replace(ENTRY, sha256="1" * 64)
    lock = replace(LOCK, platforms=(LockedPlatform(AMD64, (other,), ()),))
    root.write({**image(FIELDS), PATH: lock.to_json()})
    assert "a Debian package cannot be fetched" in root.refusal("app:image")


@pytest.mark.parametrize("name", ["git-", "../x", "-x", "Git", "a b", "git=1;2"])
def test_a_name_that_apt_would_take_for_something_else_is_refused(root: RuleRoot, name):
    root.write(image(f"apt_packages=[{name!r}]"))
    with pytest.raises(Exception, match="cannot be the name of a Debian package"):
        root.package("app:image")


def test_a_mirror_has_no_password_that_a_log_would_show(root: RuleRoot):
    image_options(root, f"--flyte-apt-mirrors={{'{REPOSITORY}': 'http://u:secret@h'}}")
    root.write({**image(FIELDS), PATH: LOCK.to_json()})
    said = root.refusal("app:image")
    assert "`[flyte].apt_mirrors` cannot have http://h: it has a user, a password" in said
    assert "secret" not in said


# --- lock-apt -------------------------------------------------------------------------------------


def request(root: RuleRoot) -> RunRequest:
    return root.runner.request(RunRequest, [RunImageFieldSet.create(root.target("app:image"))])


def test_locking_needs_no_lock_file_and_is_told_all_that_the_target_says(root, mirror):
    options = f"--flyte-apt-mirrors={{'{REPOSITORY}': '{mirror}'}}"
    image_options(root, options, "--run-args=['lock-apt']")
    fields = 'apt_packages=["git", "curl=1"], apt_skip_scripts=["xy"], apt_lockfile="../l.json"'
    root.write(image(fields))
    assert list(request(root).args)[1:] == [
        *("apt-lock", "--address", "app:image"),
        *("--base", "{chroot}/base.json", "--layers", "{chroot}", "--lockfile", "l.json"),
        *("--platform", "linux/amd64", "--package", "curl=1", "--package", "git"),
        *("--skip-scripts", "xy", "--mirror", REPOSITORY, mirror, "--"),
    ]


def test_there_is_nothing_to_lock_without_packages(root: RuleRoot):
    image_options(root, "--run-args=['lock-apt']")
    root.write(image())
    with pytest.raises(Exception, match="`lock-apt` locks its `apt_packages`, and it has none"):
        request(root)
