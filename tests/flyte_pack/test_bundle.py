"""Statements about packing a bundle: what comes out, what identifies it, and what is refused."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_pack import bundle as packing
from flyte_pack.bundle_plan import PlanFile
from flyte_pack.codec import CHUNK
from flyte_pack.errors import UserError
from flyte_pack.json_fields import InvalidData
from flyte_pack.manifest import EntryPoint, ManifestFile
from tests.support.codec_envs import codec_for
from tests.support.packing import Bundle, packer, plan_of, run_packer, write_tree
from tests.support.processes import PRINT_PEAK_MEMORY

FILES = {
    "src/svc/tasks.py": b"import lib\n",
    "src/svc/__init__.py": b"",
    "lib/lib.py": b"print('lib')\n",
    "lib/tool.sh": b"#!/bin/sh\n",
}
PLAN = plan_of(
    [],
    copy_style="auto",
    root_dir=None,
    entry_points=(EntryPoint("svc.tasks", "train", "svc/tasks.py", "src/svc:train"),),
    files=(
        PlanFile("src/svc/tasks.py", "svc/tasks.py", "src/svc:svc", "entry_point", None),
        PlanFile("src/svc/__init__.py", "svc/__init__.py", None, "package", None),
        PlanFile("lib/tool.sh", "tool.sh", "lib:tool", "declared", "src/svc:svc"),
        PlanFile("lib/lib.py", "lib.py", "lib:lib", "imported", "src/svc:svc"),
    ),
)


@pytest.fixture
def sources(tmp_path) -> Path:
    return write_tree(tmp_path / "sources", FILES, executable=["lib/tool.sh"])


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle(tmp_path / "out")


def pack(plan, sources, bundle):
    """Pack in this process."""
    return packing.pack(plan, str(sources), *bundle.options.values())


def identity_of(files: dict[str, bytes], top: Path, executable=()) -> str:
    """The content hash of a tree."""
    top.mkdir(exist_ok=True)
    sources = write_tree(top / f"{len(os.listdir(top))}", files, executable)
    return pack(plan_of(files), sources, Bundle(top / "out")).content_hash


# What comes out.


def test_the_archive_holds_exactly_the_plan_sorted_by_path(sources, bundle):
    pack(PLAN, sources, bundle)
    with tarfile.open(bundle.archive) as archive:
        found = [(m.name, m.mode, archive.extractfile(m).read()) for m in archive]
    assert found == [
        ("lib.py", 0o644, b"print('lib')\n"),
        ("svc/__init__.py", 0o644, b""),
        ("svc/tasks.py", 0o644, b"import lib\n"),
        ("tool.sh", 0o755, b"#!/bin/sh\n"),
    ]


def test_the_manifest_says_what_each_file_is_and_why_it_is_there(sources, bundle):
    pack(PLAN, sources, bundle)
    manifest = bundle.manifest
    assert (manifest.copy_style, manifest.root_dir) == ("auto", None)
    assert manifest.entry_points == PLAN.entry_points
    assert manifest.files[3] == ManifestFile(
        path="tool.sh",
        size=10,
        mode=0o755,
        sha256=hashlib.sha256(b"#!/bin/sh\n").hexdigest(),
        owner="lib:tool",
        reason="declared",
        by="src/svc:svc",
    )
    assert [(f.owner, f.reason, f.by) for f in manifest.files[:3]] == [
        ("lib:lib", "imported", "src/svc:svc"),
        (None, "package", None),
        ("src/svc:svc", "entry_point", None),
    ]


def test_the_summary_and_the_manifest_describe_the_files_that_were_written(sources, bundle):
    summary = pack(PLAN, sources, bundle)
    archive = bundle.archive.read_bytes()
    manifest = (bundle.directory / "manifest.json").read_bytes()
    assert bundle.summary == summary
    assert summary.archive_hash == hashlib.sha256(archive).hexdigest()
    assert summary.archive_size == len(archive)
    assert summary.manifest_hash == hashlib.sha256(manifest).hexdigest()
    assert summary.manifest_size == len(manifest)
    assert (summary.files, summary.bytes) == (4, sum(map(len, FILES.values())))
    assert bundle.manifest.archive_hash == summary.archive_hash
    assert bundle.manifest.archive_size == summary.archive_size
    assert bundle.manifest.content_hash == summary.content_hash


def test_the_content_hash_is_the_documented_listing(sources, bundle):
    listing = b"pants-flyte content hash 1\n"
    for path, mode, source in [
        (b"lib.py", 0o644, "lib/lib.py"),
        (b"svc/__init__.py", 0o644, "src/svc/__init__.py"),
        (b"svc/tasks.py", 0o644, "src/svc/tasks.py"),
        (b"tool.sh", 0o755, "lib/tool.sh"),
    ]:
        content = FILES[source]
        listing += struct.pack(">Q", len(path)) + path + struct.pack(">IQ", mode, len(content))
        listing += hashlib.sha256(content).digest()
    assert pack(PLAN, sources, bundle).content_hash == hashlib.sha256(listing).hexdigest()


def test_an_empty_bundle_is_a_bundle(tmp_path, bundle):
    summary = pack(plan_of([]), tmp_path, bundle)
    with tarfile.open(bundle.archive) as archive:
        assert archive.getmembers() == []
    assert (summary.files, summary.bytes) == (0, 0)


def test_any_executable_bit_of_the_source_makes_the_file_executable(tmp_path, bundle):
    modes = {0o600: 0o644, 0o666: 0o644, 0o700: 0o755, 0o610: 0o755, 0o601: 0o755, 0o777: 0o755}
    sources = write_tree(tmp_path / "sources", {f"{mode:o}": b"" for mode in modes})
    for mode in modes:
        (sources / f"{mode:o}").chmod(mode)
    pack(plan_of(f"{mode:o}" for mode in modes), sources, bundle)
    assert {int(f.path, 8): f.mode for f in bundle.manifest.files} == modes


# What identifies it.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a/bc.txt": b"x"}, {"ab/c.txt": b"x"}),
        ({"a": b"bc"}, {"ab": b"c"}),
        ({"a": b"", "b": b""}, {"ab": b""}),
        ({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}),
        ({"a": b"b" * 512}, {"a": b"", "b": b"b" * 511}),
        ({"e\u0301": b""}, {"é": b""}),
    ],
)
def test_trees_whose_parts_concatenate_alike_have_identities_of_their_own(one, other, tmp_path):
    assert identity_of(one, tmp_path / "t") != identity_of(other, tmp_path / "t")


def test_a_file_that_became_executable_makes_another_identity(tmp_path):
    files = {"run": b""}
    assert identity_of(files, tmp_path / "t") != identity_of(files, tmp_path / "t", ["run"])


def test_who_owns_a_file_and_why_it_is_there_is_no_part_of_the_identity(sources, bundle):
    one = pack(PLAN, sources, bundle)
    files = tuple(f._replace(owner="else:where", reason="all", by=None) for f in PLAN.files)
    other = pack(plan_of([], files=files), sources, bundle)
    assert (other.content_hash, other.archive_hash) == (one.content_hash, one.archive_hash)
    assert other.manifest_hash != one.manifest_hash


def _is_tree(files: dict[str, object]) -> bool:
    return not any(f"{path}/" == other[: len(path) + 1] for path in files for other in files)


small_trees = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "ab", "ü"]), min_size=1, max_size=3).map("/".join),
    st.tuples(st.sampled_from([b"", b"a", b"b", b"ab", b"a/b"]), st.booleans()),
    max_size=4,
).filter(_is_tree)


@given(trees=st.lists(small_trees, min_size=2, max_size=6))
@settings(max_examples=60)
def test_trees_have_one_identity_exactly_when_they_are_equal(trees, tmp_path_factory):
    top = tmp_path_factory.mktemp("identities")
    identities = [
        identity_of(
            {path: content for path, (content, _) in tree.items()},
            top,
            [path for path, (_, executable) in tree.items() if executable],
        )
        for tree in trees
    ]
    for tree, identity in zip(trees, identities):
        same = [other for other, its in zip(trees, identities) if its == identity]
        assert same == [other for other in trees if other == tree]


# What is refused.


def _link(target: str):
    return lambda place: place.symlink_to(target)


@pytest.mark.parametrize(
    ("source", "make", "message"),
    [
        ("lib/gone.py", None, "is not among the sources"),
        ("gone/lib.py", None, "is not among the sources"),
        ("lib/dir.py", Path.mkdir, "is a directory"),
        ("lib/pipe.py", os.mkfifo, "is a device or pipe"),
        ("lib/link.py", _link("lib.py"), "is a symbolic link"),
        ("lib/out.py", _link("/etc/hostname"), "is a symbolic link"),
        ("lib/broken.py", _link("nowhere"), "is a symbolic link"),
        ("lib/lib.py/x", None, "has a symbolic link or a file where a directory should be"),
        ("../sources/lib/lib.py", None, "leads out of the directory of sources"),
        ("lib/../../sources/lib/lib.py", None, "leads out of the directory of sources"),
        ("/etc/hostname", None, "is not among the sources"),
        ("lib/nul\0.py", None, "embedded null"),
        ("lib/\ud800.py", None, "surrogates not allowed"),
        ("n" * 300, None, "File name too long"),
    ],
)
def test_a_source_that_is_no_file_in_the_tree_is_refused(sources, bundle, source, make, message):
    if make:
        make(sources / source)
    plan = plan_of([], files=(*PLAN.files, PlanFile(source, "x.py", None, "all", None)))
    with pytest.raises(UserError, match=message) as error:
        pack(plan, sources, bundle)
    assert repr(source) in str(error.value)
    assert os.listdir(bundle.directory) == []


def test_a_directory_that_is_a_link_is_not_followed(sources, bundle):
    (sources / "lib/linked").symlink_to(".")
    plan = plan_of(["lib/linked/lib.py"])
    with pytest.raises(UserError, match=r"lib/linked/lib\.py.*symbolic link"):
        pack(plan, sources, bundle)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["x.py", "y.py", "x.py"], "'x.py' is there twice, from 'lib/lib.py' and 'lib/lib.py'"),
        (["x", "x-y", "x/y.py"], "'x' is both a file and a directory"),
        (["x/y", "x/y/z/a/b.py"], "'x/y' is both a file and a directory"),
        (["/x.py"], "an absolute path: '/x.py'"),
        (["a/../x.py"], r"a '\.\.' in the path: 'a/\.\./x.py'"),
        (["../x.py"], r"a '\.\.' in the path"),
        (["./x.py"], r"a '\.' component in the path"),
        (["a//x.py"], "an empty component in the path"),
        (["a/"], "an empty component in the path"),
        ([""], "an empty path"),
        (["a\0b"], "a NUL in the path"),
        (["\udcff.py"], "not valid UTF-8"),
        (["n" * 256], "longer than 255 bytes"),
    ],
)
def test_a_plan_that_gives_no_file_a_place_of_its_own_is_refused(sources, bundle, paths, message):
    files = tuple(PlanFile("lib/lib.py", path, None, "all", None) for path in paths)
    with pytest.raises(InvalidData, match=message):
        pack(plan_of([], files=files), sources, bundle)
    assert not bundle.directory.exists()


def test_an_entry_point_whose_file_is_not_in_the_bundle_is_refused(sources, bundle):
    with pytest.raises(InvalidData, match=r"entry point 'svc/tasks\.py' is not among the files"):
        pack(plan_of(["lib/lib.py"], entry_points=PLAN.entry_points), sources, bundle)


def test_a_file_whose_size_is_not_what_it_was_is_refused(bundle):
    # The size of a file in /proc is 0 until it is read.
    with pytest.raises(UserError, match="status: its size changed while it was being packed"):
        pack(plan_of(["status"]), Path("/proc/self"), bundle)


def test_a_directory_of_sources_that_is_not_there_is_named(tmp_path, bundle):
    with pytest.raises(UserError, match=r"directory of sources, .*nowhere: No such file"):
        pack(PLAN, tmp_path / "nowhere", bundle)


# The command.


def run(plan: bytes, sources: Path, bundle: Bundle, **options):
    """Run the packer as a process, as the rules do."""
    bundle.directory.mkdir(exist_ok=True)
    place = bundle.directory.parent / "plan.json"
    place.write_bytes(plan)
    return run_packer(packer(place, sources, bundle), codec_for(sys.executable), **options)


def test_the_command_says_nothing_when_all_is_well(sources, bundle):
    done = run(PLAN.to_json(), sources, bundle)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bundle.summary.files == 4


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"{}", "bundle plan: not a JSON object with a schema"),
        (plan_of(["lib/gone.py"]).to_json(), "'lib/gone.py': is not among the sources"),
        (plan_of(["/x"]).to_json(), "bundle plan: an absolute path: '/x'"),
    ],
)
def test_what_cannot_be_packed_is_said_in_a_line_and_leaves_the_outputs_alone(
    sources, bundle, plan, message
):
    assert run(PLAN.to_json(), sources, bundle).returncode == 0
    before = {path.name: path.read_bytes() for path in bundle.directory.iterdir()}
    done = run(plan, sources, bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"flyte_pack bundle: {message}\n"
    assert {path.name: path.read_bytes() for path in bundle.directory.iterdir()} == before


@pytest.mark.parametrize("size", [CHUNK // 2, 8 * CHUNK])
def test_an_archive_that_cannot_be_written_leaves_nothing(tmp_path, bundle, size):
    sources = write_tree(tmp_path / "sources", {"noise": os.urandom(size)})
    done = run(
        plan_of(["noise"]).to_json(),
        sources,
        bundle,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 1
    assert done.stderr == "flyte_pack bundle: File too large\n"
    assert os.listdir(bundle.directory) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command"),
        (["pack"], "unknown command 'pack'; one of: bundle, bundle-with-inventory, run"),
        (["bundle"], "missing --plan, --sources, --archive, --manifest, --summary"),
        (["bundle", "--plan", "p"], "missing --sources, --archive, --manifest, --summary"),
        (["bundle", "--plan"], "--plan needs a value"),
        (["bundle", "--plan", "a", "--plan", "b"], "unexpected argument '--plan'"),
        (["bundle", "x"], "unexpected argument 'x'"),
    ],
)
def test_wrong_use_is_answered_with_the_usage(arguments, message):
    command = [sys.executable, "-m", "flyte_pack", *arguments]
    done = run_packer(command, codec_for(sys.executable))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "python -m flyte_pack" in done.stderr


def test_help_is_printed():
    command = [sys.executable, "-m", "flyte_pack", "bundle", "--help"]
    done = run_packer(command, codec_for(sys.executable))
    assert (done.returncode, done.stderr) == (0, "")
    assert "--plan PLAN.json --sources DIR" in done.stdout


def test_a_file_larger_than_the_memory_allowed_is_packed(tmp_path, bundle):
    size = 128 << 20
    sources = write_tree(tmp_path / "sources", {"large": b""})
    os.truncate(sources / "large", size)
    script = tmp_path / "peak.py"
    script.write_text(
        "import sys\n"
        "from flyte_pack.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        f"{PRINT_PEAK_MEMORY}\n"
        "sys.exit(code)\n"
    )
    (tmp_path / "plan.json").write_bytes(plan_of(["large"]).to_json())
    command = packer(tmp_path / "plan.json", sources, bundle)
    command[1:3] = [str(script)]
    done = run_packer(command, codec_for(sys.executable))
    assert done.returncode == 0
    assert int(done.stdout) < size // 2
    assert bundle.summary.bytes == size
    with tarfile.open(bundle.archive) as archive:
        assert archive.next().size == size


def test_packing_does_not_import_what_other_commands_need(sources, bundle):
    (bundle.directory.parent / "plan.json").write_bytes(PLAN.to_json())
    command = packer(bundle.directory.parent / "plan.json", sources, bundle)
    done = run_packer([sys.executable, "-X", "importtime", *command[1:]], codec_for(sys.executable))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "flyte_pack.codec" in imported
    heavy = {"argparse", "asyncio", "logging", "socket", "ssl", "subprocess", "tempfile", "tarfile"}
    assert imported & heavy == set()
    assert not any(name.startswith(("flyte_pack.deploy", "flyte_pack.store")) for name in imported)
