"""Real apt chooses packages for a real Debian, from the mirror that this machine's apt reaches."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from flyte_pack.__main__ import main
from flyte_pack.errors import UserError
from flyte_pack.image.apt_lock import AptLock
from flyte_pack.image.apt_sources import choose, keep, sources_of
from flyte_pack.image.layer_tree import LayerTree
from flyte_pack.image.unpack import unpack
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.model import blob_path
from flyte_pack.oci.tar_stream import TarStream
from tests.support.containers import debian_base, need
from tests.support.images import layout_of, tar_of

DEBIAN = "http://deb.debian.org/debian"
KEY = "usr/share/keyrings/debian-archive-keyring.gpg"
STATUS = ("var/lib/dpkg/status", b"")


def tree_of(*members) -> LayerTree:
    tree = LayerTree(keep)
    tree.apply(TarStream(iter([tar_of(*members)]), "layer"), "layer")
    return tree


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the rules make of a Debian at hand: `base.json` and `blobs/`."""
    out = tmp_path_factory.mktemp("base") / "out"
    options = ("--platform", "linux/amd64", "--python", "/usr/bin/python3.11")
    layout = str(debian_base())
    argv = ["image-local-base", "--source", layout, *options, "--out", str(out)]
    assert main([*argv, "--address", "img:base"]) == 0
    return out


def lock(base: Path, lockfile: Path, *packages: str, skip: tuple[str, ...] = ()) -> int:
    return main(
        [
            *("apt-lock", "--address", "img:image", "--base", f"{base}/base.json"),
            *("--layers", str(base), "--lockfile", str(lockfile), "--platform", "linux/amd64"),
            *(word for package in packages for word in ("--package", package)),
            *(word for package in skip for word in ("--skip-scripts", package)),
            *("--", "lock-apt"),
        ]
    )


def test_locked_packages_work_in_an_image(base: Path, tmp_path: Path, capfd):
    need("bubblewrap")
    lockfile = tmp_path / "image.apt.lock.json"
    # libopenblas0 is found by links that its script would make, the others as the linker looks.
    asked = ("curl", "git", "libgomp1", "libopenblas0")
    assert lock(base, lockfile, *asked) == 0
    assert f"{lockfile}: written" in capfd.readouterr().out
    assert lock(base, lockfile, *asked) == 0
    assert f"{lockfile}: unchanged" in capfd.readouterr().out
    locked = AptLock.from_json(lockfile.read_bytes())
    assert locked.base == json.loads((base / "base.json").read_bytes())["digest"]
    (platform,) = locked.platforms
    assert {*asked} < {deb.name for deb in platform.debs}
    # The base's are not among them.
    assert not {"libc6", "zlib1g"} & {deb.name for deb in platform.debs}

    debs, out = tmp_path / "debs", tmp_path / "out"
    debs.mkdir()
    for deb in platform.debs:
        target = debs / os.path.basename(deb.path)
        urllib.request.urlretrieve(f"{deb.repository}/{deb.path}", target)
        assert target.stat().st_size == deb.size
    argv = ["image-apt", "--lock", str(lockfile), "--platform", "linux/amd64"]
    assert main([*argv, "--debs", str(debs), "--out", str(out)]) == 0
    (layer,) = json.loads((out / "layers.json").read_bytes())["layers"]
    root = tmp_path / "root"
    root.mkdir()
    own = subprocess.run(["gzip", "-dc", str(out / blob_path(layer["digest"]))], capture_output=True, check=True)  # fmt: skip
    upper = open_layout(str(layout_of(tmp_path / "upper", [own.stdout])))
    lower = open_layout(str(debian_base()))
    unpack(lower, lower.image(None).manifest.layers, str(root))
    unpack(upper, upper.image(None).manifest.layers, str(root))
    assert (root / "lib").is_symlink()
    assert "Version: " in (root / "var/lib/dpkg/status.d/curl").read_text()

    def run(*command: str) -> str:
        sandbox = ["--unshare-all", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev"]
        env = ["--tmpfs", "/tmp", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
        done = subprocess.run(["bwrap", *sandbox, *env, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("curl", "--version").startswith("curl ")
    assert "Initialized" in run("git", "init", "/tmp/x")
    load = "import ctypes; [ctypes.CDLL(n) for n in ('libgomp.so.1', 'libblas.so.3')]"
    run("python3", "-c", load)


def test_a_script_that_would_have_to_run_is_refused_unless_it_is_left_out(base, tmp_path, capfd):
    lockfile = tmp_path / "lock.json"
    assert lock(base, lockfile, "vim") == 1
    said = capfd.readouterr().err
    assert "vim-runtime: its postinst would have to run in the image: basedir=" in said
    assert "Take a base that has vim-runtime, or set `apt_skip_scripts`" in said
    assert not lockfile.exists()
    assert lock(base, lockfile, "vim", skip=("vim-runtime",)) == 0
    document = AptLock.from_json(lockfile.read_bytes())
    assert document.skipped_scripts == ("vim-runtime",)
    # What update-alternatives would have made.
    links = {path: target for deb in document.platforms[0].debs for path, target in deb.links}
    assert links["usr/bin/vi"] == "/etc/alternatives/vi"
    assert links["etc/alternatives/vi"] == "/usr/bin/vim.basic"
    assert lock(base, lockfile, "libgomp1", skip=("vim-runtime",)) == 1
    assert "which is not among the packages: leave it out" in capfd.readouterr().err


def test_a_package_that_is_unknown_or_in_the_base_is_no_surprise(base, tmp_path, capfd):
    lockfile = tmp_path / "lock.json"
    assert lock(base, lockfile, "pftest-is-no-package") == 1
    said = capfd.readouterr().err
    assert "apt-get install: E: Unable to locate package pftest-is-no-package" in said
    assert lock(base, lockfile, "libc6") == 0
    assert AptLock.from_json(lockfile.read_bytes()).platforms[0].debs == ()


# --- sources --------------------------------------------------------------------------------------


def signed(line: str, *more) -> LayerTree:
    key = Path(f"/{KEY}").read_bytes()
    return tree_of(STATUS, ("etc/apt/sources.list", line.encode()), (f"./{KEY}", key), *more)


def test_packages_of_another_platform_come_from_a_mirror(tmp_path):
    tree = signed(f"deb [signed-by=/{KEY}] http://deb.example.com/debian bookworm main\n")
    found = choose(
        tree, "linux/arm64", ["libgcc-s1"], {"http://deb.example.com/": "http://deb.debian.org/"},
        str(tmp_path),
    )  # fmt: skip
    names = {os.path.basename(one.path).partition("_")[0] for one in found}
    assert {"libgcc-s1", "gcc-12-base", "libc6"} <= names
    assert {one.repository for one in found} == {"http://deb.example.com/debian"}
    assert all(one.path.endswith(("_arm64.deb", "_all.deb")) for one in found)


@pytest.mark.parametrize("options", ["", "[trusted=yes]", "[trusted=yes signed-by=/etc/apt/k.asc]"])
def test_no_package_is_taken_whose_signature_is_not_verified(tmp_path, options):
    key = ("etc/apt/keyrings/none", b"")
    tree = tree_of(STATUS, ("etc/apt/sources.list", f"deb {options} {DEBIAN} bookworm main".encode()), key)  # fmt: skip
    with pytest.raises(UserError, match=r"not signed|NO_PUBKEY|the key of a source"):
        choose(tree, "linux/amd64", ["libgomp1"], {}, str(tmp_path))


def test_sources_are_read_in_both_forms():
    tree = tree_of(
        ("etc/apt/sources.list", b"# no\ndeb-src http://a/x s main\ndeb [ arch=amd64 signed-by=/k ] http://a/x s main c # y\n"),
        ("etc/apt/sources.list.d/b.sources", b"# no\nTypes: deb deb-src\nURIs: http://b/x\n http://c/x\nSuites: s t\nComponents: main\nSigned-By:\n -----BEGIN\n .\n x\n\nTypes: deb\nEnabled: no\nURIs: http://d/\n"),
        ("etc/apt/sources.list.d/c.save", b"deb http://e/x s main\n"),
    )  # fmt: skip
    first, second = sources_of(tree)
    assert first == {"Uris": "http://a/x", "Suites": "s", "Components": "main c", "Signed-By": "/k"}
    assert second["Uris"].split() == ["http://b/x", "http://c/x"]
    assert second["Signed-By"].startswith("-----BEGIN")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "needs a base of Debian or Ubuntu"),
        ((STATUS,), "names no sources"),
        ((STATUS, ("etc/apt/sources.list", b"deb http://u:secret@h/x s main")), "has a user"),
        ((STATUS, ("etc/apt/sources.list", b"deb cdrom:[x]/ s main")), "cannot be locked"),
        ((STATUS, ("etc/apt/sources.list", b"deb nonsense")), "cannot be understood"),
    ],
)
def test_a_base_that_cannot_be_asked_is_refused(tmp_path, members, message):
    with pytest.raises(UserError, match=message) as refused:
        choose(tree_of(*members), "linux/amd64", ["x"], {}, str(tmp_path))
    assert "secret" not in str(refused.value)


def test_without_apt_the_message_says_where_to_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="this machine has no apt-get"):
        choose(tree_of(STATUS), "linux/amd64", ["x"], {}, str(tmp_path))
