"""The git checkout that a directory is in: its commit, whether files differ, where others find it.

A checkout may hold anything: settings that name programs (filters, a file system monitor, hooks,
a way to fetch), or a directory that looks like a repository with settings of its own. It may belong
to another user, and the caller may be a hook with variables that mean another repository. So:

* A checkout is what has `.git` in the directory or above it. `GIT_*` variables do not count.
* Only `git` is started, found by the absolute directories of PATH.
* Files are compared in a repository directory of our own, which has the index and the objects of
  the checkout, and of its settings the few in `_INERT`. So git knows of no program to start.

What that leaves open is `Unknown`, never a guess.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flyte_pack import children
from flyte_pack.errors import UserError

_TIMEOUT = 60  # seconds, for one command

# Settings that say how files are compared, and name no program. git-config(1).
_INERT = (
    *("core.autocrlf", "core.eol", "core.excludesfile", "core.filemode", "core.ignorecase"),
    *("core.precomposeunicode", "core.symlinks"),
)
_GITLINK = "160000"
# git-clone(1), "GIT URLS": a URL, or HOST:PATH for SSH.
_URL = re.compile(r"(?P<scheme>https?|ssh)://(?:[^/@]*@)?(?P<host>[^/@\s]+)/(?P<path>[^?#@\s]+)")
_SCP = re.compile(r"(?:[^/@:]*@)?(?P<host>[^/@:\s]+):(?P<path>[^?#@:\s]+)")


class Unknown(UserError):
    """Git cannot say it. The message says why, and has no name of a path, person or machine."""


class NoCheckout(Unknown):
    """There is no checkout around the directory."""


@dataclass(frozen=True)
class Checkout:
    """Absolute paths. top: the directory with `.git`. git_dir: with HEAD and the index.

    common_dir: with objects, references and settings. It differs from `git_dir` for a worktree.
    """

    top: str
    git_dir: str
    common_dir: str

    @classmethod
    def around(cls, directory: str) -> Checkout | None:
        """The innermost checkout that `directory` is in, on the same file system, as for git."""
        top = os.path.realpath(directory)
        device = os.stat(top).st_dev
        while True:
            found = cls.at(top)
            above = os.path.dirname(top)
            if found or above == top or os.stat(above).st_dev != device:
                return found
            top = above

    @classmethod
    def at(cls, top: str) -> Checkout | None:
        """The checkout with `.git` in `top`, a directory or a file that names one.

        gitrepository-layout(5).
        """
        git_dir = os.path.join(top, ".git")
        if os.path.isfile(git_dir):
            text = _line(git_dir)
            if not text.startswith("gitdir: "):
                raise Unknown("`.git` is a file that names no repository")
            git_dir = os.path.join(top, text[len("gitdir: ") :])
            if not os.path.isfile(os.path.join(git_dir, "HEAD")):
                raise Unknown("the repository that the file `.git` names is not there")
        if not os.path.lexists(os.path.join(git_dir, "HEAD")):
            return None
        common = _line(os.path.join(git_dir, "commondir")) or "."
        return cls(top, os.path.normpath(git_dir), os.path.normpath(os.path.join(git_dir, common)))

    @property
    def exclude_file(self) -> str:
        """Patterns of files that this clone ignores. gitignore(5)."""
        return os.path.join(self.common_dir, "info", "exclude")


@dataclass(frozen=True)
class Web:
    """Pages with a checkout's files. url: of the repository. top: the checkout, a real path."""

    url: str
    top: str


def web_of(directory: str) -> Web | None:
    """Where the checkout of `directory` is pushed to, as a page; None where that is no page.

    It is that of `origin`, else of the first remote by name. Nobody's name and no secret of its URL
    is kept. Raises `Unknown`.
    """
    checkout = _checkout(directory)
    # The user's own settings may have other names for URLs: git-config(1), `url.<base>.insteadOf`.
    env = {**_of_user(), "GIT_DIR": checkout.git_dir, "GIT_WORK_TREE": checkout.top}
    found = _git(["remote", "get-url", "--push", "origin"], checkout.top, _environment(env))
    if found.returncode:
        names = _output(["remote"], checkout.top, _environment(env)).split()
        if not names:
            return None
        first = os.fsdecode(min(names))
        found = _git(["remote", "get-url", "--push", first], checkout.top, _environment(env))
    url = _page(os.fsdecode(found.stdout).strip()) if found.returncode == 0 else None
    return None if url is None else Web(url, checkout.top)


def _page(remote: str) -> str | None:
    match = _URL.fullmatch(remote) or _SCP.fullmatch(remote)
    if match is None or "." not in match["host"]:  # a name for SSH alone, or a drive
        return None
    said = match.groupdict().get("scheme", "ssh")
    host = match["host"] if said != "ssh" else match["host"].partition(":")[0]
    path = match["path"].strip("/")
    path = path[: -len(".git")] if path.endswith(".git") else path
    return f"{'http' if said == 'http' else 'https'}://{host}/{path}"


def _checkout(directory: str) -> Checkout:
    try:
        found = Checkout.around(directory)
    except OSError:
        raise Unknown("the checkout cannot be read") from None
    if found is None:
        raise NoCheckout("this is no git checkout with a commit")
    return found


def commit_of(directory: str) -> str:
    """The full name of the commit that is checked out in `directory`. Raises `Unknown`."""
    checkout = _checkout(directory)
    # With an explicit GIT_DIR, git asks neither who owns the checkout nor for bare repositories
    # (git-config(1), `safe.directory`). To resolve HEAD it reads no object and starts no program.
    env = _environment({"GIT_DIR": checkout.git_dir, "GIT_WORK_TREE": checkout.top})
    done = _git(["rev-parse", "--verify", "--quiet", "HEAD"], checkout.top, env)
    if done.returncode:
        raise Unknown("git finds no commit that is checked out")
    return done.stdout.decode(errors="replace").strip()


def is_dirty(directory: str, commit: str, without: Sequence[str] = ()) -> bool:
    """Whether a file below `directory` differs from the commit. Raises `Unknown`.

    Untracked files count, ignored ones do not. without: absolute paths below which none counts.

    A file with a filter (gitattributes(5), as of Git LFS) is compared by the file's times and size
    alone. If these are not those of the index, nobody knows.
    """
    directory = os.path.realpath(directory)
    checkout = _checkout(directory)
    paths = ["."]
    for path in without:
        inside = os.path.relpath(os.path.realpath(path), directory)
        if inside.split(os.sep)[0] != os.pardir:
            paths.append(f":(exclude,literal){inside}")
    try:
        with tempfile.TemporaryDirectory(prefix="flyte-pack-git-") as place:
            return _differs(checkout, directory, paths, _own_repository(checkout, commit, place))
    except OSError:
        raise Unknown("the checkout cannot be read") from None


def _differs(
    checkout: Checkout, directory: str, paths: Sequence[str], env: Mapping[str, str]
) -> bool:
    listed = _output(
        [
            *("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal"),
            # A submodule's own settings would hold for its own files.
            *("--ignore-submodules=dirty", "--", *paths),
        ],
        directory,
        env,
    )
    changed = listed.split(b"\0")[:-1]
    # " M": the same in the commit and in the index, another in the directory.
    if any(not one.startswith(b" M ") for one in changed):
        return True
    if changed:
        names = b"".join(one[3:] + b"\0" for one in changed)
        found = _output(["check-attr", "-z", "--stdin", "filter"], checkout.top, env, names)
        values = found.split(b"\0")[2::3]
        if len(values) < len(changed) or any(v in (b"unspecified", b"unset") for v in values):
            return True
        raise Unknown("files of a filter, such as Git LFS, were touched, and no filter is run")
    for path in _submodules(directory, paths, env):
        inner = None if os.path.islink(path) else Checkout.at(path)
        if inner and is_dirty(path, commit_of(path)):
            return True
    return False


def _submodules(directory: str, paths: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    listed = _output(["ls-files", "--stage", "-z", "--", *paths], directory, env)
    for entry in listed.split(b"\0")[:-1]:
        about, _, path = entry.partition(b"\t")
        if about.startswith(_GITLINK.encode()):
            yield os.path.join(directory, os.fsdecode(path))


def _own_repository(checkout: Checkout, commit: str, place: str) -> dict[str, str]:
    """Make a repository directory at `place`; gives the environment in which git uses it."""
    bare = _environment({"GIT_DIR": place})
    for name in ("refs", "objects", "info"):
        os.mkdir(os.path.join(place, name))
    _write(os.path.join(place, "HEAD"), commit + "\n")
    # gitrepository-layout(5), `extensions.objectFormat`: the length of a name tells the format.
    sha256 = len(commit) == 64
    settings = {
        "core.repositoryformatversion": str(int(sha256)),
        "core.bare": "false",
        "core.excludesfile": _excludes_of_user(place),
        **_inert_settings(os.path.join(checkout.common_dir, "config"), place, bare),
        **({"extensions.objectformat": "sha256"} if sha256 else {}),
    }
    _write(os.path.join(place, "config"), "".join(map(_setting, settings.items())))
    for name in ("exclude", "attributes"):
        os.symlink(
            os.path.join(checkout.common_dir, "info", name), os.path.join(place, "info", name)
        )
    for name in os.listdir(checkout.git_dir):
        if name.startswith("sharedindex."):  # what a split index refers to
            os.symlink(os.path.join(checkout.git_dir, name), os.path.join(place, name))
    return {
        **bare,
        "GIT_WORK_TREE": checkout.top,
        "GIT_INDEX_FILE": os.path.join(checkout.git_dir, "index"),
        "GIT_OBJECT_DIRECTORY": os.path.join(checkout.common_dir, "objects"),
    }


def _setting(item: tuple[str, str]) -> str:
    """A setting as a configuration file has it. git-config(1), "Syntax"."""
    section, _, name = item[0].partition(".")
    value = item[1].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'[{section}]\n\t{name} = "{value}"\n'


def _inert_settings(config: str, place: str, env: Mapping[str, str]) -> dict[str, str]:
    if not os.path.exists(config):
        return {}
    listed = _output(["config", "--file", config, "--no-includes", "-z", "--list"], place, env)
    pairs = (line.partition("\n") for line in os.fsdecode(listed).split("\0")[:-1])
    return {key: value if line else "true" for key, line, value in pairs if key in _INERT}


def _excludes_of_user(place: str) -> str:
    """The file of patterns that the user ignores everywhere. gitignore(5)."""
    home = _of_user()
    env = _environment({"GIT_DIR": place, **home})
    found = _git(["config", "--path", "--get", "core.excludesFile"], place, env)
    if found.returncode == 0:
        return os.fsdecode(found.stdout).rstrip("\n")
    config = home["XDG_CONFIG_HOME"] or os.path.join(home["HOME"], ".config")
    return os.path.join(config, "git", "ignore")


def _of_user() -> dict[str, str]:
    """The variables by which git finds the settings of the user and the machine."""
    home = {name: os.environ.get(name, "") for name in ("HOME", "XDG_CONFIG_HOME")}
    return {**home, "GIT_CONFIG_NOSYSTEM": "0"}


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The caller's, without what means another repository or the settings of a user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    nowhere = os.devnull
    return {
        **kept,
        "PATH": os.pathsep.join(_absolute_path()),
        "LC_ALL": "C",
        "HOME": nowhere,
        "XDG_CONFIG_HOME": nowhere,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **more,
    }


def _absolute_path() -> list[str]:
    """PATH without what is relative, which would be looked for in the checkout."""
    return [d for d in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(d)]


def _output(
    arguments: Sequence[str], directory: str, env: Mapping[str, str], stdin: bytes = b""
) -> bytes:
    done = _git(arguments, directory, env, stdin)
    if done.returncode:
        raise Unknown(f"`git {arguments[0]}` cannot read this checkout")
    return done.stdout


def _git(
    arguments: Sequence[str], directory: str, env: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    git = shutil.which("git", path=env["PATH"])
    if git is None:
        raise Unknown("there is no program `git`")
    try:
        return children.run(
            [git, *arguments],
            cwd=directory,
            env=dict(env),
            input=stdin,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise Unknown(f"`git {arguments[0]}` took longer than {_TIMEOUT} seconds") from None
    except OSError:
        raise Unknown("the program `git` cannot be started") from None


def _line(path: str) -> str:
    """The first line of a small file; "" where there is none."""
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return os.fsdecode(file.readline(4096)).rstrip("\r\n")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
