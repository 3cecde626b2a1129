"""`source_files` and `source_folders`: what of the repository they bring into an image, and where to."""

from __future__ import annotations

import pytest

from tests.support.flyte_images import image, image_options
from tests.support.flyte_rules import RuleRoot

WORK = "home/flyte/task"
TREE = {
    "app/settings.json": "settings",
    "app/assets/a.txt": "a",
    "app/assets/deep/b.txt": "b",
    "shared/c.txt": "c",
    "top.txt": "top",
}


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def copied(root: RuleRoot, fields: str, **files: str) -> dict[str, str]:
    """Path in the image -> path in the repository; each file holds what it should."""
    root.write({**TREE, **image(fields), **{k.replace("__", "/"): v for k, v in files.items()}})
    code = dict(root.built_image("app:image").code)
    tree = root.image("app:image").tree
    for path, source in code.items():
        assert tree[path].content == (root.path / source).read_text()
        assert tree[path].owner == (1000, 1000)
    return code


@pytest.mark.parametrize(
    ("row", "place", "source"),
    [
        ("'src': 'settings.json'", f"{WORK}/settings.json", "app/settings.json"),
        ("'src': 'settings.json', 'dst': '.'", f"{WORK}/settings.json", "app/settings.json"),
        (
            "'src': 'settings.json', 'dst': 'conf/'",
            f"{WORK}/conf/settings.json",
            "app/settings.json",
        ),
        ("'src': 'settings.json', 'dst': 's.json'", f"{WORK}/s.json", "app/settings.json"),
        (
            "'src': './settings.json', 'dst': '/etc/app/'",
            "etc/app/settings.json",
            "app/settings.json",
        ),
        ("'src': '../shared/c.txt'", f"{WORK}/c.txt", "shared/c.txt"),
        ("'src': '//shared/c.txt'", f"{WORK}/c.txt", "shared/c.txt"),
        ("'src': '//top.txt'", f"{WORK}/top.txt", "top.txt"),
        ("'src': 'assets/deep/b.txt'", f"{WORK}/b.txt", "app/assets/deep/b.txt"),
    ],
)
def test_a_file_is_copied_as_flyte_copies_it(root: RuleRoot, row, place, source):
    assert copied(root, f"source_files=[{{{row}}}]") == {place: source}


A, B = "app/assets/a.txt", "app/assets/deep/b.txt"


@pytest.mark.parametrize(
    ("row", "top"),
    [
        ("'src': 'assets'", f"{WORK}/assets"),
        ("'src': 'assets/'", f"{WORK}/assets"),
        ("'src': '//app/assets'", f"{WORK}/assets"),
        ("'src': 'assets', 'copy_contents_only': True", WORK),
        ("'src': 'assets', 'dst': 'data'", f"{WORK}/data"),
        ("'src': 'assets', 'dst': 'data', 'copy_contents_only': True", f"{WORK}/data"),
        ("'src': 'assets', 'dst': '/srv/data/'", "srv/data"),
    ],
)
def test_a_folder_is_copied_as_flyte_copies_it(root: RuleRoot, row, top):
    assert copied(root, f"source_folders=[{{{row}}}]") == {
        f"{top}/a.txt": A,
        f"{top}/deep/b.txt": B,
    }


def test_the_build_roots_own_folder_may_be_copied(root: RuleRoot):
    fields = "source_folders=[{'src': '//', 'dst': 'all'}]"
    found = copied(root, fields, **{".dockerignore": "img\nlocks\n3rdparty"})
    assert {f"{WORK}/all/{path}": path for path in TREE} == found


def test_a_target_in_the_build_root_names_paths_from_there(root: RuleRoot):
    build = image("source_folders=[{'src': 'shared'}], source_files=[{'src': 'top.txt'}]")[
        "app/BUILD"
    ]
    root.write({**TREE, **image(), "BUILD": build})
    assert dict(root.built_image("//:image").code) == {
        f"{WORK}/shared/c.txt": "shared/c.txt",
        f"{WORK}/top.txt": "top.txt",
    }


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        ("", {A, B}),
        ("deep", {A}),
        ("*.txt", {B}),
        ("**/*.txt\n!a.txt", {A}),
        ("*\n!deep/b.txt\n# a.txt", {B}),
        ("/a.txt", {B}),
        ("assets/a.txt", {A, B}),  # patterns start in the folder
    ],
)
def test_a_dockerignore_beside_a_folders_files_holds_for_it(root: RuleRoot, ignore, kept):
    found = copied(
        root, "source_folders=[{'src': 'assets'}]", **{"app/assets/.dockerignore": ignore}
    )
    assert set(found.values()) == kept


def test_a_dockerignore_holds_for_no_other_folder(root: RuleRoot):
    files = {"app/.dockerignore": "*", ".dockerignore": "*", "app/assets/deep/.dockerignore": "*"}
    found = copied(root, "source_folders=[{'src': 'assets'}]", **files)
    assert set(found.values()) == {A, B}


def test_a_file_that_is_named_is_copied_whatever_is_ignored_for_folders(root: RuleRoot):
    image_options(root, "--flyte-all-excludes=['**/*.txt', '**/*.json']")
    found = copied(root, "source_files=[{'src': 'settings.json'}]", **{"app/.dockerignore": "*"})
    assert set(found.values()) == {"app/settings.json"}


def test_executable_files_stay_so(root: RuleRoot):
    root.write({**TREE, **image("source_folders=[{'src': 'assets'}]")})
    root.make_executable("app/assets/a.txt")
    tree = root.image("app:image").tree
    assert tree[f"{WORK}/assets/a.txt"].mode == 0o755
    assert tree[f"{WORK}/assets/deep/b.txt"].mode == 0o644


@pytest.mark.parametrize(
    "name", ["a b.txt", "größe.txt", "[x]*.txt", "{a,b}.txt", "!x", "#x", "n" * 200]
)
def test_files_and_folders_of_any_name_are_copied(root: RuleRoot, name):
    fields = f"source_files=[{{'src': {name!r}}}], source_folders=[{{'src': {'d' + name!r}}}]"
    found = copied(root, fields, **{f"app/{name}": "1", f"app/d{name}/{name}": "2", "app/dx": "3"})
    assert found == {
        f"{WORK}/{name}": f"app/{name}",
        f"{WORK}/d{name}/{name}": f"app/d{name}/{name}",
    }


def test_an_edit_of_a_copied_file_changes_the_image_and_of_another_one_does_not(root: RuleRoot):
    root.write(
        {**TREE, **image("source_folders=[{'src': 'assets'}]"), "app/assets/.dockerignore": "deep"}
    )
    before = root.image("app:image").digest
    root.write(
        {"app/assets/deep/b.txt": "new", "app/settings.json": "new", "app/assets/deep/n": ""}
    )
    assert root.image("app:image").digest == before
    root.write({"app/assets/a.txt": "new"})
    assert root.image("app:image").digest != before
