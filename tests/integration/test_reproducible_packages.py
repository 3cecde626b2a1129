"""`./pants package` gives the same bytes, whoever packages, wherever, and however often.

Two people each have a copy of the example, and differ in all that must make no difference. Both
start with empty caches, and package again with full ones. (Hash seeds are random for every process
that Pants starts; the second person's Pants gets one that is set.)
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.build_root import BuildRoot, clone_checkout, umask
from tests.support.packed_images import read_image

# On top of the example: a bundle of everything below a directory, with an executable in it, and an
# image of all kinds of layers.
MORE = {
    "everything/BUILD": """\
        flyte_bundle(
            name="libs", dependencies=["libs/limits"], root_dir="libs", copy_style="all"
        )
        flyte_image(
            name="image",
            base="images:host",
            dependencies=["services/ml:train"],
            code=True,
            source_folders=[dict(src="//libs/limits", dst="copied")],
            bytecode=True,
        )
        """,
    "libs/limits/tool.sh": "#!/bin/sh\n",
}
EVERYTHING = {"everything/libs.tar.gz", "everything/libs.manifest.json", "everything/image"}
IMAGE = "services.ml/image"
SBOMS = {"services.ml/train.cdx.json", f"{IMAGE}.cdx.json"}
TASKS = {
    f"{task}.{ending}"
    for task in (
        *("services.board/app", "services.etl/pipeline"),
        *("services.ml/fit", "services.ml/train"),
    )
    for ending in ("json", "manifest.json", "tar.gz")
}

# Programs that other packers leave the work to.
TEMPTING = ("gzip", "pigz", "sha256sum", "tar", "zstd")


@dataclass(frozen=True)
class Person:
    """A copy of the repository, and caches of its own."""

    root: BuildRoot
    umask: int
    options: tuple[str, ...]
    env: Mapping[str, str]

    def package(self, *options: str) -> tuple[dict[str, bytes], str]:
        """What is in dist/ afterwards, which was empty before, and what Pants said."""
        dist = self.root.path / "dist"
        shutil.rmtree(dist, ignore_errors=True)
        with umask(self.umask):
            done = self.root.pants(*self.options, *options, "package", "::", env=self.env)
        files = {
            str(path.relative_to(dist)): path.read_bytes()
            for path in dist.rglob("*")
            if path.is_file()
        }
        return files, done.stderr


def plant(source: Path, target: Path, mtime: int, backwards: bool) -> None:
    """Copy a tree file by file, as the umask has it, in the order of the names or against it."""
    names = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    for name in reversed(names) if backwards else names:
        original, path = source / name, target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o777 if os.access(original, os.X_OK) else 0o666
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(original.read_bytes())
        os.utime(path, (mtime, mtime))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = clone_checkout(tmp_path_factory.mktemp("original"))
    BuildRoot(clone / "examples" / "monorepo").write(MORE)
    (clone / "examples" / "monorepo" / "libs" / "limits" / "tool.sh").chmod(0o755)
    return clone


@pytest.fixture(scope="module")
def plain(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    directory = tmp_path_factory.mktemp("plain")
    clone = directory / "clone"
    with umask(0o022):
        plant(original, clone, mtime=1_700_000_000, backwards=False)
    return Person(
        root=BuildRoot(clone / "examples" / "monorepo", pants=clone / "pants"),
        umask=0o022,
        options=("--no-pantsd",),
        env={**caches(directory), "LANG": "C.UTF-8", "TZ": "UTC"},
    )


@pytest.fixture(scope="module")
def varied(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    directory = tmp_path_factory.mktemp("varied")
    clone = directory / "ein Ordner für 世界" / "clone &c. $HOME"
    with umask(0o077):
        plant(original, clone, mtime=86_400, backwards=True)
    poisoned = directory / "poisoned"
    poisoned.mkdir()
    for name in TEMPTING:
        (poisoned / name).write_text(f"#!/bin/sh\necho {name} >>{directory}/fallen-for\nexit 1\n")
        (poisoned / name).chmod(0o755)
    person = Person(
        root=BuildRoot(clone / "examples" / "monorepo", pants=clone / "pants"),
        umask=0o077,
        options=("--subprocess-environment-env-vars=+['PYTHONHASHSEED=4242', 'TZ']",),
        env={
            **caches(directory),
            "PATH": f"{poisoned}:{os.environ['PATH']}",
            "LANG": "tr_TR.UTF-8",
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "Asia/Kathmandu",
            "PYTHONHASHSEED": "4242",
        },
    )
    yield person
    person.root.stop()
    assert not (directory / "fallen-for").exists()


def caches(directory: Path) -> dict[str, str]:
    return {
        "PANTS_LOCAL_STORE_DIR": str(directory / "store"),
        "PANTS_NAMED_CACHES_DIR": str(directory / "named"),
    }


@pytest.fixture(scope="module")
def bundles(plain: Person) -> dict[str, bytes]:
    """What the plain one packages first, without a daemon."""
    files, said = plain.package()
    assert_made(said)
    return files


@pytest.fixture(scope="module")
def varied_bundles(varied: Person) -> dict[str, bytes]:
    """What the varied one packages first, with a daemon."""
    files, said = varied.package()
    assert_made(said)
    return files


def assert_made(said: str) -> None:
    """That this run did the work, and no cache."""
    assert len(re.findall(r"Starting: Pack \d+ files", said)) == 5
    code = ("Pack the code of everything:image", "Compile the code of everything:image")
    for done in ("Pack the shim", *code, "Install the packages"):
        assert f"Starting: {done}" in said


def test_there_are_bundles_to_compare(bundles: dict[str, bytes]) -> None:
    assert set(map(output_of, bundles)) == TASKS | EVERYTHING | {IMAGE} | SBOMS


def test_there_are_layers_of_all_kinds(bundles: dict[str, bytes], tmp_path: Path) -> None:
    for name in (n for n in bundles if output_of(n) == "everything/image"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundles[name])
    members = {
        member.name: member.mode
        for layer in read_image(tmp_path / "everything" / "image").layers
        for member in layer.members()
    }
    assert members["home/flyte/task/copied/tool.sh"] == 0o755
    assert members["home/flyte/task/libs/limits/limits.json"] == 0o644
    for compiled in ("/site-packages/flyte/", "/site-packages/flyte_shim/", "home/flyte/task/"):
        assert any(name.endswith(".pyc") and compiled in name for name in members)
    assert "usr/bin/env" in members


def test_everything_varied_gives_the_same_bytes(
    bundles: dict[str, bytes], varied_bundles: dict[str, bytes]
) -> None:
    assert differing(bundles, varied_bundles) == set()


def test_a_full_cache_gives_the_same_bytes(bundles: dict[str, bytes], plain: Person) -> None:
    again, said = plain.package()
    assert not re.search("Starting: (Pack|Install|Find) ", said)
    assert differing(bundles, again) == set()


def test_another_daemon_and_a_full_cache_give_the_same_bytes(
    bundles: dict[str, bytes], varied_bundles: dict[str, bytes], varied: Person
) -> None:
    again, said = varied.package()
    assert not re.search("Starting: (Pack|Install|Find) ", said)
    assert differing(bundles, again) == set()


def test_touched_files_are_packed_no_second_time(
    bundles: dict[str, bytes], varied_bundles: dict[str, bytes], varied: Person
) -> None:
    for path in varied.root.path.rglob("*"):
        if path.is_file() and ".p" not in path.relative_to(varied.root.path).parts[0]:
            path.touch()
    again, said = varied.package()
    assert not re.search("Starting: (Pack|Install|Find) ", said)
    assert differing(bundles, again) == set()


@pytest.mark.parametrize("name", ["unrelated.txt", "unrelated.py"])
def test_an_added_file_changes_what_holds_all_of_its_folder_and_no_task(
    bundles: dict[str, bytes], varied_bundles: dict[str, bytes], varied: Person, name: str
) -> None:
    added = varied.root.path / "libs" / "limits" / name
    added.touch()
    try:
        again, _ = varied.package()
    finally:
        added.unlink()
    assert differing(bundles, again) == EVERYTHING


def differing(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> set[str]:
    """What was packaged in two ways."""
    names = one.keys() | other.keys()
    return {output_of(name) for name in names if one.get(name) != other.get(name)}


def output_of(name: str) -> str:
    """The file, or the layout that it is a part of."""
    return "/".join(name.split("/")[:2])
