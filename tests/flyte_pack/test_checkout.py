"""What the git checkout around a directory says, whatever its settings and the caller's variables say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flyte_pack.checkout import Checkout, Unknown, commit_of, is_dirty, web_of
from tests.support.git import git


def repository(where: Path, *options: str) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    git(where, "init", "-q", *options)
    (where / "file.py").write_text("one\n")
    (where / "sub").mkdir(exist_ok=True)
    (where / "sub" / "inner.py").write_text("two\n")
    git(where, "add", ".")
    git(where, "commit", "-qm", str(where))
    return where


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return repository(tmp_path / "own")


def differs(directory: Path, *without: str) -> bool:
    return is_dirty(str(directory), commit_of(str(directory)), without)


# --- the commit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable",
    [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_COMMON_DIR",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_NAMESPACE",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_PREFIX",
    ],
)
def test_variables_of_a_hook_mean_another_repository(checkout, tmp_path, monkeypatch, variable):
    other = repository(tmp_path / "other")
    want = git(checkout, "rev-parse", "HEAD")
    values = {
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / ".git" / "objects"),
        "GIT_CEILING_DIRECTORIES": str(checkout),
        "GIT_CONFIG_PARAMETERS": f"'core.worktree={other}'",
        "GIT_NAMESPACE": "other",
        "GIT_PREFIX": "sub/",
    }
    monkeypatch.setenv(variable, values.get(variable, str(other / ".git")))
    assert commit_of(str(checkout / "sub")) == want
    assert not differs(checkout)
    (checkout / "file.py").write_text("other\n")
    assert differs(checkout)
    assert not differs(checkout / "sub")


def in_a_worktree(checkout: Path) -> Path:
    git(checkout, "worktree", "add", "-q", "--detach", "../tree")
    return checkout.parent / "tree"


def with_packed_references(checkout: Path) -> Path:
    git(checkout, "pack-refs", "--all")
    git(checkout, "gc", "-q")
    return checkout


def through_a_link(checkout: Path) -> Path:
    link = checkout.parent / "link"
    link.symlink_to(checkout)
    return link / "sub"


def with_a_linked_git_directory(checkout: Path) -> Path:
    (checkout / ".git").rename(checkout.parent / "elsewhere")
    (checkout / ".git").symlink_to(checkout.parent / "elsewhere")
    return checkout


def with_a_git_file(checkout: Path) -> Path:
    (checkout / ".git").rename(checkout.parent / "elsewhere")
    (checkout / ".git").write_text("gitdir: ../elsewhere\n")
    return checkout


def of_somebody_else(checkout: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 12345, 12345)
    return checkout


def with_a_split_index(checkout: Path) -> Path:
    git(checkout, "update-index", "--split-index")
    return checkout


def shallow(checkout: Path) -> Path:
    git(checkout.parent, "clone", "-q", "--depth=1", f"file://{checkout}", "shallow")
    return checkout.parent / "shallow"


def borrowing_objects(checkout: Path) -> Path:
    git(checkout.parent, "clone", "-q", "--shared", "own", "borrower")
    return checkout.parent / "borrower"


def with_settings_of_a_worktree(checkout: Path) -> Path:
    git(checkout, "config", "extensions.worktreeConfig", "true")
    git(checkout, "config", "--worktree", "core.bare", "false")
    return checkout


def at_a_tag(checkout: Path) -> Path:
    git(checkout, "tag", "-am", "x", "v1")
    git(checkout, "checkout", "-q", "v1")
    return checkout


def with_a_sparse_index(checkout: Path) -> Path:
    git(checkout, "sparse-checkout", "set", "--cone", "--sparse-index", "sub")
    return checkout


def below_what_looks_like_a_repository(checkout: Path) -> Path:
    for name in ("objects", "refs"):
        (checkout / "sub" / name).mkdir()
        (checkout / "sub" / name / "keep").write_text("")
    (checkout / "sub" / "HEAD").write_text("ref: refs/heads/main\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    return checkout / "sub"


SHAPES = [
    *(in_a_worktree, with_packed_references, through_a_link, with_a_linked_git_directory),
    *(with_a_git_file, of_somebody_else, with_a_split_index, shallow, borrowing_objects),
    *(with_settings_of_a_worktree, at_a_tag, with_a_sparse_index),
    below_what_looks_like_a_repository,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_of_a_checkout_is_read(checkout, shape):
    place = shape(checkout)
    want = git(checkout, "rev-parse", "HEAD^{commit}", GIT_DIR=str(checkout / ".git"))
    assert commit_of(str(place)) == want
    assert not differs(place)
    (place / "new.py").write_text("")
    assert differs(place)


def test_a_repository_with_long_names_is_read(tmp_path):
    checkout = repository(tmp_path / "long", "--object-format=sha256")
    assert len(commit_of(str(checkout))) == 64
    assert not differs(checkout)


def nothing(place: Path) -> None:
    pass


def empty_git(place: Path) -> None:
    git(place, "init", "-q")


def git_file_to_nowhere(place: Path) -> None:
    (place / ".git").write_text("gitdir: nowhere\n")


def git_file_with_other_text(place: Path) -> None:
    (place / ".git").write_text("hello\n")


def only_a_git_directory(place: Path) -> None:
    (place / ".git").mkdir()


def broken_head(place: Path) -> None:
    repository(place)
    (place / ".git" / "HEAD").write_text("ref: ../../x\n")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (nothing, "this is no git checkout with a commit"),
        (only_a_git_directory, "this is no git checkout with a commit"),
        (empty_git, "git finds no commit that is checked out"),
        (broken_head, "git finds no commit that is checked out"),
        (git_file_to_nowhere, "the repository that the file `.git` names is not there"),
        (git_file_with_other_text, "`.git` is a file that names no repository"),
    ],
)
def test_what_is_no_checkout_says_why(tmp_path, make, why):
    make(tmp_path)
    with pytest.raises(Unknown) as caught:
        commit_of(str(tmp_path))
    assert str(caught.value) == why


@pytest.mark.parametrize("path", ["", "relative", ".", "/nowhere"])
def test_git_is_not_looked_for_in_the_checkout(checkout, monkeypatch, path):
    for place in (checkout / "git", checkout / "relative" / "git"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("#!/bin/sh\ntouch pwned\n")
        place.chmod(0o755)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", path)
    with pytest.raises(Unknown, match="there is no program `git`"):
        commit_of(str(checkout))
    assert not (checkout / "pwned").exists()


# --- whether files differ ------------------------------------------------------------------------


def touch(place: Path) -> None:
    os.utime(place, (0, 0))


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        (lambda c: None, False),
        (lambda c: touch(c / "file.py"), False),
        (lambda c: (c / "file.py").write_text("three\n"), True),
        (lambda c: (c / "file.py").unlink(), True),
        (lambda c: (c / "file.py").chmod(0o755), True),
        (lambda c: git(c, "rm", "-q", "--cached", "file.py"), True),
        (lambda c: git(c, "mv", "file.py", "moved.py"), True),
        (lambda c: (c / "new.py").write_text(""), True),
        (lambda c: (c / "new.ignored").write_text(""), False),
        (lambda c: (c / "new.mine").write_text(""), False),
        (lambda c: (c / "store").mkdir() or (c / "store" / "x").write_text(""), False),
    ],
)  # fmt: skip
def test_each_change_is_seen_and_ignored_files_are_not(checkout, change, dirty):
    (checkout / ".gitignore").write_text("*.ignored\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    (checkout / ".git" / "info" / "exclude").write_text("*.mine\n")
    change(checkout)
    assert differs(checkout, str(checkout / "store")) is dirty
    assert not differs(checkout / "sub")


def test_what_the_user_ignores_everywhere_does_not_count(checkout, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("*.swp\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (checkout / "a.swp").write_text("")
    assert not differs(checkout)
    (home / ".gitconfig").write_text("[core]\n excludesFile = ~/mine\n")
    assert differs(checkout)
    (home / "mine").write_text("a.*\n")
    assert not differs(checkout)
    git(checkout, "config", "core.excludesFile", os.devnull)
    assert differs(checkout)


def test_settings_about_comparing_files_hold(checkout):
    git(checkout, "config", "core.fileMode", "false")
    (checkout / "file.py").chmod(0o755)
    assert not differs(checkout)
    git(checkout, "config", "core.autocrlf", "true")
    (checkout / "file.py").unlink()
    git(checkout, "checkout", "file.py")
    assert (checkout / "file.py").read_bytes() == b"one\r\n"
    touch(checkout / "file.py")
    assert not differs(checkout)


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        (lambda s: None, False),
        (lambda s: (s / "file.py").write_text("three\n"), True),
        (lambda s: (s / "new.py").write_text(""), True),
        (lambda s: git(s, "commit", "-q", "--allow-empty", "-m", "more"), True),
    ],
)
def test_submodules_count(checkout, tmp_path, change, dirty):
    repository(tmp_path / "lib")
    git(checkout, "submodule", "--quiet", "add", f"file://{tmp_path}/lib", "sub/lib")
    git(checkout, "commit", "-qm", "two")
    change(checkout / "sub" / "lib")
    assert differs(checkout) is dirty
    # A build root in the submodule is in that checkout.
    assert commit_of(str(checkout / "sub" / "lib")) != commit_of(str(checkout))


# --- programs ------------------------------------------------------------------------------------

PROGRAMS = [
    *("filter.evil.clean", "filter.evil.process", "filter.evil.smudge", "core.fsmonitor"),
    *("core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy"),
    *("diff.external", "diff.evil.textconv", "diff.evil.command", "credential.helper"),
    *("alias.status", "alias.rev-parse", "gpg.program", "interactive.diffFilter", "pager.status"),
    *(
        "core.alternateRefsCommand",
        "uploadpack.packObjectsHook",
        "merge.evil.driver",
        "trace2.eventTarget",
    ),
]


def hostile(place: Path, program: Path, config: Path) -> None:
    for name in PROGRAMS:
        value = f"{program}" if name != "filter.evil.clean" else f"{program}; cat"
        git(place, "config", "--file", str(config), name, value)
    git(place, "config", "--file", str(config), "filter.evil.required", "true")


@pytest.mark.parametrize(
    "where", ["settings", "included", "worktree settings", "submodule", "the user's"]
)
def test_no_program_that_settings_name_is_started(checkout, tmp_path, monkeypatch, where):
    (tmp_path / "ran").mkdir()
    program = tmp_path / "evil"
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran/$$"\n')
    program.chmod(0o755)
    target = checkout
    if where == "submodule":
        repository(tmp_path / "lib")
        git(checkout, "submodule", "--quiet", "add", f"file://{tmp_path}/lib", "lib")
        git(checkout, "commit", "-qm", "two")
        target = checkout / "lib"
    own = Checkout.at(str(target))
    config = Path(own.common_dir, "config")
    if where == "included":
        git(target, "config", "include.path", str(tmp_path / "more"))
        config = tmp_path / "more"
    elif where == "worktree settings":
        git(target, "config", "extensions.worktreeConfig", "true")
        config = Path(own.git_dir, "config.worktree")
    elif where == "the user's":
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        config = tmp_path / "home" / ".gitconfig"
    hooks = Path(own.common_dir, "hooks")
    hooks.mkdir(exist_ok=True)
    for hook in (
        "post-index-change",
        "fsmonitor-watchman",
        "query-watchman",
        "reference-transaction",
    ):
        shutil.copy(program, hooks / hook)
    (target / ".gitattributes").write_text("*.py filter=evil diff=evil merge=evil\n")
    hostile(checkout, program, config)
    touch(target / "file.py")
    assert differs(checkout)
    (target / ".gitattributes").unlink()
    Path(own.common_dir, "info", "attributes").write_text("*.py filter=evil\n")
    touch(target / "sub" / "inner.py")
    assert not differs(checkout)
    assert list((tmp_path / "ran").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["core.worktree", "core.bare", "extensions.partialClone", "extensions.objectFormat"]
)
def test_settings_that_lead_elsewhere_are_not_heeded(checkout, tmp_path, name):
    other = repository(tmp_path / "other")
    values = {"core.worktree": str(other), "core.bare": "true", "extensions.partialClone": "origin"}
    git(checkout, "config", name, values.get(name, "nonsense"))
    (checkout / "sub" / "inner.py").write_text("changed\n")
    try:
        commit = commit_of(str(checkout))
    except Unknown:
        assert name == "extensions.objectFormat"  # git itself refuses to read it
        return
    assert is_dirty(str(checkout), commit)


def test_a_touched_file_of_a_filter_is_unknown_rather_than_dirty(checkout):
    """As a file of Git LFS is: the repository has a pointer in its place."""
    (checkout / ".gitattributes").write_text("*.bin filter=lfs\n")
    (checkout / "big.bin").write_text("whole\n")
    os.utime(checkout / "big.bin", (1, 1))  # in the second of the index, git compares content
    git(checkout, "config", "filter.lfs.clean", "sed s/whole/pointer/")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    assert git(checkout, "show", "HEAD:big.bin") == "pointer"
    assert not differs(checkout)
    touch(checkout / "big.bin")
    with pytest.raises(Unknown, match="files of a filter, such as Git LFS, were touched"):
        differs(checkout)
    assert not differs(checkout / "sub")
    (checkout / "file.py").write_text("changed\n")
    assert differs(checkout)


def test_objects_that_are_missing_are_not_fetched(checkout, tmp_path):
    git(checkout, "config", "uploadpack.allowFilter", "true")
    git(
        tmp_path, "clone", "-q", "--filter=tree:0", "--no-checkout", f"file://{checkout}", "partial"
    )
    partial = tmp_path / "partial"
    git(partial, "config", "remote.origin.url", f"ext::sh -c touch% {tmp_path}/fetched")
    git(partial, "config", "protocol.ext.allow", "always")
    assert commit_of(str(partial)) == git(checkout, "rev-parse", "HEAD")
    with pytest.raises(Unknown, match="`git status` cannot read this checkout"):
        differs(partial)
    assert not (tmp_path / "fetched").exists()


def test_the_index_is_left_as_it_is(checkout):
    touch(checkout / "file.py")
    index = checkout / ".git" / "index"
    before, names = index.read_bytes(), sorted(checkout.rglob("*"))
    assert not differs(checkout)
    assert (index.read_bytes(), sorted(checkout.rglob("*"))) == (before, names)


# --- where others find it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://github.com/team/models.git", "https://github.com/team/models"),
        ("https://github.com/team/models/", "https://github.com/team/models"),
        ("http://git.example:8080/team/models", "http://git.example:8080/team/models"),
        ("https://name:token@github.com/team/models", "https://github.com/team/models"),
        ("https://token@github.com/team/models", "https://github.com/team/models"),
        ("https://a:b@c@github.com/team/models", None),
        ("https://github.com/team/models?token=x", None),
        ("git@github.com:team/models.git", "https://github.com/team/models"),
        ("org-7@github.com:team/models.git", "https://github.com/team/models"),
        ("ssh://git@github.com:22/team/models.git", "https://github.com/team/models"),
        ("user:pass@github.com:team/models", None),
        ("alias:team/models", None),
        ("../models.git", None),
        ("/srv/models.git", None),
        ("file:///srv/models.git", None),
        ("ext::sh -c true", None),
    ],
)
def test_the_page_of_a_checkout_is_that_of_its_remote(checkout, remote, page):
    git(checkout, "remote", "add", "origin", "https://example.com/read/only")
    git(checkout, "remote", "set-url", "--push", "origin", remote)
    found = web_of(str(checkout / "sub"))
    assert (found and found.url) == page
    assert found is None or found.top == str(checkout.resolve())


def test_another_remote_is_the_first_by_name_and_none_is_none(checkout):
    assert web_of(str(checkout)) is None
    for name in ("two", "one"):
        git(checkout, "remote", "add", name, f"https://example.com/{name}")
    assert web_of(str(checkout)).url == "https://example.com/one"


def test_names_for_urls_that_the_user_has_are_resolved(checkout, tmp_path, monkeypatch):
    git(checkout, "remote", "add", "origin", "gh:team/models")
    settings = '[url "https://secret@github.com/"]\n\tinsteadOf = "gh:"\n'
    (tmp_path / ".gitconfig").write_text(settings)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert web_of(str(checkout)).url == "https://github.com/team/models"
