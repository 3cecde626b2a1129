"""The same inputs give the same bytes, wherever, whenever and by whomever they are packed.

Every case packs one small tree in another way and compares with hashes that are written down here:
so an accidental change of the format is noticed, too. A change that is meant gets new values, and a
line in CHANGELOG.md: versions of deployed tasks rest on the content hash.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyte_pack.bundle_plan import PlanFile
from flyte_pack.manifest import EntryPoint
from tests.support.codec_envs import codec_for, find_cpython
from tests.support.packing import Bundle, noise, packer, plan_of, run_packer, write_tree

CONTENT_HASH = "0a470e68a83fbb71428108cdc85d1829be82c42f8e207fee8dbab7464964a48f"
# On x86-64, whose ISA-L is not promised to write the same bytes as that of other processors.
ARCHIVE_HASH = "8b5f42917188d9a7942d05d86d2d1e019350614271910494a166f040835aeeb7"
MANIFEST_HASH = "4a102c3be7f324d3da0afca3e3feeac2c0af4dccc7f0e6a5827f89170545b978"

FILES = {
    "src/svc/__init__.py": b"",
    "src/svc/tasks.py": b"import json\n\nLIMIT = 3\n",
    "src/svc/weights.bin": noise(700_000),
    "bin/run.sh": b"#!/bin/sh\nexec true\n",
    "data/größe und 𠀀.csv": "ä,b\n1,2\n".encode(),
    "data/" + "d" * 120 + "/" + "f" * 120: b"long\n",
}
EXECUTABLE = ["bin/run.sh"]
ROWS = [
    PlanFile(source, source[4:] if source.startswith("src/") else source, "//:x", "imported", None)
    for source in FILES
]
ENTRY_POINT = EntryPoint("svc.tasks", "train", "svc/tasks.py", "src/svc:train")


@dataclass(frozen=True)
class Way:
    """One way of packing the tree; each default is what is usual."""

    directory: str = "checkout"
    umask: int = 0o022
    mtime: int = 1_700_000_000
    reverse: bool = False
    poison: bool = False
    env: dict[str, str] = field(default_factory=dict)


WAYS = {
    "as usual": Way(),
    "another directory": Way(directory="some where/else, ärger/deep/down"),
    "a strict umask": Way(umask=0o077),
    "a lax umask": Way(umask=0o000),
    "old files": Way(mtime=1),
    "files from the future": Way(mtime=4_000_000_000),
    "created and planned in another order": Way(reverse=True),
    "the C locale": Way(env={"LC_ALL": "C"}),
    "an ASCII locale": Way(env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "a Turkish locale": Way(env={"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}),
    "another time zone": Way(env={"TZ": "Asia/Kathmandu"}),
    "no hash randomisation": Way(env={"PYTHONHASHSEED": "0"}),
    "a hash seed": Way(env={"PYTHONHASHSEED": "4242"}),
    "another home and user name": Way(env={"HOME": "/nowhere", "USER": "somebody"}),
    "a build time": Way(env={"SOURCE_DATE_EPOCH": "1234567890"}),
    "other compressors on PATH": Way(poison=True),
}


def check_out(way: Way, top: Path) -> tuple[Path, Path]:
    """Write the tree and its plan that way; gives the plan and the directory of sources."""
    names = sorted(FILES, reverse=way.reverse)
    rows = sorted(ROWS, reverse=way.reverse)
    plan = plan_of([], copy_style="auto", entry_points=(ENTRY_POINT,), files=tuple(rows))
    before = os.umask(way.umask)
    try:
        sources = write_tree(top / way.directory, {n: FILES[n] for n in names}, EXECUTABLE)
        (top / "plan.json").write_bytes(plan.to_json())
        (top / "out").mkdir()
    finally:
        os.umask(before)
    for name in FILES:
        os.utime(sources / name, (way.mtime, way.mtime))
    return top / "plan.json", sources


def assert_golden(bundle: Bundle) -> None:
    summary = bundle.summary
    found = (summary.content_hash, summary.archive_hash, summary.manifest_hash)
    assert found == (CONTENT_HASH, ARCHIVE_HASH, MANIFEST_HASH)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_same_bytes_come_out(way, tmp_path):
    plan, sources = check_out(way, tmp_path)
    bundle = Bundle(tmp_path / "out")
    env = dict(way.env)
    if way.poison:
        poison = tmp_path / "poison"
        commands = ("pigz", "gzip", "igzip", "tar", "python")
        script = f"#!/bin/sh\necho $0 >>'{tmp_path}/used'\nexit 1\n".encode()
        write_tree(poison, dict.fromkeys(commands, script), executable=commands)
        env["PATH"] = os.pathsep.join((str(poison), os.defpath))
    done = run_packer(
        packer(plan, sources, bundle), codec_for(sys.executable), env, umask=way.umask
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_golden(bundle)
    assert not (tmp_path / "used").exists()


VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_cpython_packs_the_same_bytes(version, tmp_path):
    python = find_cpython(version)
    if python is None:
        # Wheels of the codec for 3.14 are there; interpreters are not yet, on many machines.
        assert version == "3.14" or not os.environ.get("CI"), f"CI needs a CPython {version}"
        pytest.skip(f"this machine has no CPython {version}")
    plan, sources = check_out(Way(), tmp_path)
    bundle = Bundle(tmp_path / "out")
    done = run_packer(packer(plan, sources, bundle, python), codec_for(python))
    assert (done.returncode, done.stderr) == (0, "")
    assert_golden(bundle)


def test_more_than_one_cpython_was_there_to_compare():
    found = [version for version in VERSIONS if find_cpython(version)]
    assert len(found) > 1, f"found {found or 'none'} of {VERSIONS}: install another one"


AS_NOBODY = """
import os, sys
import flyte_pack.bundle, isal.isal_zlib  # while they can be read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(flyte_pack.bundle.main(sys.argv[1:]))
"""


@pytest.mark.skipif(
    os.getuid() != 0, reason="whoever runs this is another user than wrote the hashes"
)
def test_another_user_packs_the_same_bytes(tmp_path):
    plan, sources = check_out(Way(umask=0o077), tmp_path)
    for place in (tmp_path, *tmp_path.rglob("*")):
        os.chown(place, 65534, 65534)
    # Relative to the working directory, as this user may not pass through what is above it.
    relative = Bundle(Path("out"))
    command = packer(plan.relative_to(tmp_path), sources.relative_to(tmp_path), relative)
    command[1:4] = ["-c", AS_NOBODY]
    done = run_packer(command, codec_for(sys.executable), cwd=tmp_path, umask=0o077)
    assert (done.returncode, done.stderr) == (0, "")
    assert_golden(Bundle(tmp_path / "out"))
    assert (tmp_path / "out/bundle.tar.gz").stat().st_uid == 65534


@pytest.mark.skipif(os.getuid() != 0, reason="needs a file that the one who packs may not read")
def test_a_source_that_may_not_be_read_is_named(tmp_path):
    plan, sources = check_out(Way(), tmp_path)
    for place in (tmp_path, *tmp_path.rglob("*")):
        os.chown(place, 65534, 65534)
    os.chown(sources / "bin/run.sh", 0, 0)
    (sources / "bin/run.sh").chmod(0o700)
    command = packer(plan.relative_to(tmp_path), sources.relative_to(tmp_path), Bundle(Path("out")))
    command[1:4] = ["-c", AS_NOBODY]
    done = run_packer(command, codec_for(sys.executable), cwd=tmp_path)
    assert done.stderr == "flyte_pack bundle: 'bin/run.sh': Permission denied\n"
    assert (done.returncode, os.listdir(tmp_path / "out")) == (1, [])
