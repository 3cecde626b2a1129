"""Mistakes in a `flyte_image`: each is told with the target, what is wrong and what mends it."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.bases import base_image, base_platform
from tests.support.flyte_images import BASE, WHEELS, app, image, image_options
from tests.support.flyte_rules import RuleRoot
from tests.support.wheels import lock_of


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *((f"user={user!r}", f"`user` is {user!r}; give numbers of user and group, such as `1000:1000`")
          for user in ("", "root", "1000:", ":1000", "-1", "1000:users", "1:2:3", "1" * 11)),
        ("user='4294967295'", "owner[0]: not a user or group"),
        *((f"workdir={path!r}", f"`workdir` is {path!r}; give an absolute path below `/`")
          for path in ("", "/", "work", "/a/../b", "/a/", "//a", "~/work")),
        ("platforms=['linux']", "`platforms`: 'linux' is not a platform, such as linux/amd64"),
        ("platforms=[]", "`platforms` is empty"),
        ("platforms=['linux/arm64']", "asks for linux/arm64, and the base img:base has linux/amd64. Add it to the base's "
         "`platforms` and lock it, or leave it out here"),
        ("platforms=['linux/amd64', 'linux/s390x']", "asks for linux/s390x"),
        ("env={'A=B': '1'}", "`env`: 'A=B' cannot be the name of a variable"),
        ("env={'A': '{env.PF_UNSET}'}", "`env`: `{env.PF_UNSET}` has no value: the variable PF_UNSET is not set"),
        ("ref_name='-x y'", "`ref_name`: the name of an image has letters, digits, '.', '_' and '-', and '-x y' does not."),
        ("ref_name='u:S3CR3T@x'", "`ref_name`: the name of an image has letters, digits, '.', '_' and '-', and (not repeated here)"),
        ("workdir='/a/.wh.b'", "`workdir` is '/a/.wh.b'; give an absolute path below `/`"),
        ("output_path='-x'", "`output_path` is a path that begins with `-`, as an option does"),
        ("output_path='../x'", "`output_path` is a '..' in the path; give one below `--distdir`"),
        ("source_files=[{'src': 'BUILD', 'dst': '/etc/.wh..wh..opq'}]", "`source_files`: `dst='/etc/.wh..wh..opq'` makes a "
         "name that begins with .wh., by which a layer removes files: 'etc/.wh..wh..opq'"),
        ("labels={'a': '{env.PF_UNSET}'}", "`labels`: `{env.PF_UNSET}` has no value: the variable PF_UNSET is not set"),
        ("labels={'a': '{git_comit}'}", "`labels`: `{git_comit}` has no value: known are {git_commit}, {version}"),
        ("labels={'a': '{git_commit}'}", "{git_commit} has no value: this is no git checkout with a commit"),
        ("code=True", "no dependency leads to code that could go into the image"),
        ("source_files=[{'src': 'nowhere.json'}]", "`source_files`: there is nothing to copy at app/nowhere.json"),
        ("source_files=[{'src': '.'}]", "`source_files`: there is nothing to copy at app"),
        ("source_folders=[{'src': 'nowhere'}]", "`source_folders`: there is nothing to copy at app/nowhere"),
        ("source_folders=[{'src': '../..'}]", "`source_folders`: '../..' leaves the build root"),
        ("source_files=[{'src': '../../etc/passwd'}]", "leaves the build root"),
        ("source_files=[{'src': '/etc/passwd'}]", "leaves the build root"),
    ],
)  # fmt: skip
def test_a_value_that_cant_be_meant_is_refused(root: RuleRoot, fields, message):
    root.write(image(fields))
    assert message in root.refusal("app:image")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("source_files='a'", "a list of dictionaries with 'src', 'dst'"),
        ("source_files=['a']", "a list of dictionaries with 'src', 'dst'"),
        ("source_files=[{'dst': '.'}]", "a list of dictionaries with 'src', 'dst'"),
        ("source_files=[{'src': 'a', 'copy_contents_only': True}]", "a list of dictionaries"),
        ("source_folders=[{'src': 'a', 'copy_content_only': True}]", "'copy_contents_only'"),
        ("source_folders=[{'src': 'a', 'copy_contents_only': 'yes'}]", "'copy_contents_only'"),
        ("source_folders=[{'src': 3}]", "a list of dictionaries"),
        ("source_folders={'src': 'a'}", "a list of dictionaries"),
        ("env={'A': 'b\\0'}", "`env` field in target app:image holds a NUL"),
        ("labels={'a\\x1b': 'b'}", "`labels` field in target app:image holds a control character"),
        ("source_files=[{'src': 'a\\0'}]", "`source_files` field in target app:image holds a NUL"),
        ("user='0\\n'", "`user` field in target app:image holds a control character"),
        ("env={'A': 1}", "'env' field in target app:image must be a dictionary"),
        ("code='yes'", "'code' field in target app:image must be a boolean or None"),
        ("base=[':a', ':b']", "The `base` field in target app:image takes one, such as"),
    ],
)
def test_a_value_of_another_type_is_refused(root: RuleRoot, fields, expected):
    root.write(
        {
            **BASE,
            "app/BUILD": f"flyte_image(name='image', **{{'base': 'img:base', **dict({fields})}})",
        }
    )
    with pytest.raises(ExecutionError, match="app:image") as caught:
        root.target("app:image")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("3rdparty:a", "3rdparty:a: this is a `python_requirement`, where a `flyte_base_image` is needed"),
        (":image", "app:image: this is a `flyte_image`, where a `flyte_base_image` is needed"),
    ],
)  # fmt: skip
def test_a_base_of_another_kind_is_refused(root: RuleRoot, base, message):
    root.write({**BASE, "app/BUILD": f"flyte_image(name='image', base={base!r})"})
    assert message in root.refusal("app:image")


def test_a_base_that_is_not_there_is_named(root: RuleRoot):
    root.write({**BASE, "app/BUILD": "flyte_image(name='image', base='img:bsae')"})
    with pytest.raises(ExecutionError, match="img:bsae from the `base` from the target app:image"):
        root.package("app:image")


# --- files ----------------------------------------------------------------------------------------


def test_two_files_on_one_path_are_refused_with_both(root: RuleRoot):
    root.write(
        {
            **image("source_files=[{'src': 'a.json', 'dst': 'x'}, {'src': 'b.json', 'dst': 'x'}]"),
            "app/a.json": "",
            "app/b.json": "",
        }
    )
    assert (
        "two files would be at /home/flyte/task/x in the image: app/a.json and app/b.json. Change `dst` in `source_files`"
        in root.refusal("app:image")
    )


def test_a_copied_file_on_the_path_of_code_is_refused(root: RuleRoot):
    root.write(
        {
            **app("code=True, source_folders=[{'src': 'alt', 'dst': 'app'}]", source=""),
            "app/alt/w.py": "",
        }
    )
    message = root.refusal("app:image")
    assert (
        "two files would be at /home/flyte/task/app/w.py in the image: app/w.py and app/alt/w.py"
        in message
    )


@pytest.mark.parametrize(
    "rows",
    [
        "{'src': 'a.json', 'dst': 'x'}, {'src': 'a.json', 'dst': 'x/'}",
        "{'src': 'a.json', 'dst': '/home/flyte'}",
        "{'src': 'a.json', 'dst': '/home'}",
    ],
)
def test_a_file_where_a_directory_must_be_is_refused(root: RuleRoot, rows):
    root.write({**image(f"source_files=[{rows}]"), "app/a.json": ""})
    assert "home" in root.refusal("app:image")


def test_one_file_may_be_copied_and_be_code_at_once(root: RuleRoot):
    root.write(app("code=True, source_folders=[{'src': '.', 'dst': 'app'}]", source=""))
    found = root.image("app:image").below("home/flyte/task")
    assert {"app/w.py", "app/lib.py"} == set(found)


@pytest.mark.parametrize("ignore", ["*", "data.csv", "**/*.csv"])
def test_a_folder_of_which_all_is_ignored_is_refused(root: RuleRoot, ignore):
    root.write(
        {
            **image("source_folders=[{'src': 'assets'}]"),
            "app/assets/data.csv": "",
            "app/assets/.dockerignore": ignore,
        }
    )
    message = root.refusal("app:image")
    assert "nothing to copy at app/assets, or all of it is ignored (`.dockerignore`" in message


@pytest.mark.parametrize("dst", ["a/.wh.b", "n" * 256, "a/" * 600])
def test_a_destination_that_no_image_can_hold_is_refused(root: RuleRoot, dst):
    root.write({**image(f"source_files=[{{'src': 'a.json', 'dst': {dst!r}}}]"), "app/a.json": ""})
    assert "`source_files`: `dst=" in root.refusal("app:image")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("source_files=[{'src': 'd/.wh..wh..opq', 'dst': '/etc/'}]", "makes a name that begins with .wh., by which a layer removes files: "
         "'etc/.wh..wh..opq'"),
        ("code=True, dependencies=[':r']", "app/d/.wh..wh..opq (owner: app/d/.wh..wh..opq:../r) cannot be in an image: it has a name that begins "
         "with .wh., by which a layer removes files."),
    ],
)  # fmt: skip
def test_a_file_that_would_remove_the_bases_is_refused(root: RuleRoot, fields, message):
    files = image(fields)
    files["app/BUILD"] += "\nresources(name='r', sources=['d/.wh*'])\n"
    root.write({**files, "app/d/.wh..wh..opq": ""})
    assert message in root.refusal("app:image")


# --- third-party packages -------------------------------------------------------------------------


def test_a_requirement_of_another_resolve_is_named(root: RuleRoot):
    root.write(
        {
            **image("dependencies=['//other:r']"),
            "other/BUILD": "python_requirement(name='r', requirements=['pftest-a'], resolve='other')",
        }
    )
    message = root.refusal("app:image")
    assert (
        "it depends on other:r, which belongs to the resolve `other`, while the image's is `python-default`"
        in message
    )
    root.edit("app/BUILD", 'name="image"', 'name="image", resolve="other"')
    message = root.refusal("app:image")
    assert (
        "the lock file of the resolve `other`, locks/other.txt, is not there. "
        "`./pants generate-lockfiles --resolve=other` makes it"
        in message.replace("`pants ", "`./pants ")
    )


def test_without_resolves_there_is_no_lock_file_to_take_packages_from(root: RuleRoot):
    image_options(root, "--no-python-enable-resolves")
    root.write(image("dependencies=['3rdparty:a']"))
    message = root.refusal("app:image")
    assert "come from a lock file: set `[python].enable_resolves = true`" in message
    root.write(image())
    assert root.package("app:image").artifacts


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("pftest-b==1.0 --hash=sha256:" + "0" * 64, "pftest-a"),
        ("pftest-a==1.0\npftest-b==1.0", "hash"),
        ("<<<<<<< HEAD", "resolve.lock"),
        ("", "pftest-a"),
    ],
)
def test_a_lock_file_that_does_not_do_is_refused_with_the_image(root: RuleRoot, lock, message):
    root.write({**image("dependencies=['3rdparty:a']"), "locks/default.txt": lock})
    assert message in root.refusal("app:image")


def test_a_wheel_that_is_missing_for_the_platform_is_named(root: RuleRoot):
    amd64_only = [wheel for wheel in WHEELS if not wheel.tag.endswith("aarch64")]
    root.write(
        {
            **image("dependencies=['3rdparty:d'], platforms=['linux/arm64']"),
            "locks/default.txt": lock_of(amd64_only),
            "img/base.lock.json": base_image(base_platform("linux/arm64")).to_json(),
        }
    )
    root.edit("img/BUILD", "linux/amd64", "linux/arm64")
    message = root.refusal("app:image")
    assert "pftest-d" in message
    assert "linux/arm64" in message
