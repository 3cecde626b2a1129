"""Two people share a remote cache: what one of them packaged, the other's Pants takes from there.

Each has a clone and empty caches of his own, and an environment that differs where people's do
(HOME, PATH, locale, time zone). The server is a real BuildGrid.

By itself Pants starts a process at the same time as it asks the cache, and stops it when the cache
answers first: who wins depends on the load of the machine. Here it waits for the answer, so that
what the logs call executed was needed.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.build_root import BuildRoot, clean_environment, clone_checkout
from tests.support.remote_cache import Account, account, remote_cache

# A backend without rules; loading it changes how long Pants waits for the remote cache before it
# starts a process. The time is no part of a process's cache key.
WAITING = """\
from pants.engine.process import Process

_init = Process.__init__


def _init_and_wait(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    object.__setattr__(self, "remote_cache_speculation_delay_millis", 600_000)


Process.__init__ = _init_and_wait


def rules():
    return ()
"""

# What docs/remote-cache.md tells a team to write: without it, the PATH and locale of whoever
# packages are part of the cache keys.
TEAM = """
[pex]
executable_search_paths = ["/usr/bin", "/bin"]

[subprocess-environment]
env_vars = ["LANG=C.UTF-8", "SSL_CERT_FILE", "SSL_CERT_DIR"]
"""

# What Pants never shares, as it is about this machine.
LOCAL = (
    *("Find interpreter for constraints", "Searching for `", "Test binary ", "Look for a CPython "),
    "Put together a base image from this machine's ",
)

# Everything else that packaging the example takes, by what the descriptions begin with.
SHARED = (
    *("Prepare the packer", "Pack ", "List what is in "),
    *("Prepare what builds images", "Find the packages that ", "Install the packages of "),
)


@dataclass(frozen=True)
class Person:
    """A clone of the repository, somewhere, with caches that nobody else uses."""

    root: BuildRoot
    caches: Path
    env: Mapping[str, str]

    def package(self, *options: str, store: str = "store") -> Account:
        done = self.root.pants(
            "--no-pantsd",
            "-ldebug",
            "--stats-log",
            *options,
            "package",
            "::",
            env={
                "PANTS_LOCAL_STORE_DIR": str(self.caches / store),
                "PANTS_NAMED_CACHES_DIR": str(self.caches / "named"),
                **self.env,
            },
        )
        return account(done.stderr)

    def take_dist(self) -> dict[str, bytes]:
        """What is in dist/, which is emptied."""
        dist = self.root.path / "dist"
        files = {
            str(path.relative_to(dist)): path.read_bytes()
            for path in dist.rglob("*")
            if path.is_file()
        }
        shutil.rmtree(dist)
        return files


@dataclass(frozen=True)
class Shared:
    """What happened when the first packaged, then the second, then the second without the cache."""

    first: Account
    second: Account
    alone: Account
    dists: tuple[dict[str, bytes], ...]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    directory = tmp_path_factory.mktemp("shared")
    ours = clone_checkout(directory / "first" / "clone")
    toml = ours / "examples" / "monorepo" / "pants.toml"
    interpreters = '[python-bootstrap]\nsearch_path = ["<PYENV>", "<PATH>"]\n'
    text = toml.read_text()
    assert interpreters in text
    pinned = f"[python-bootstrap]\nsearch_path = {search_path()!r}\n"
    toml.write_text(text.replace(interpreters, pinned) + TEAM)
    theirs = directory / "second" / "somewhere else" / "their clone"
    shutil.copytree(ours, theirs)
    plugin = directory / "plugin" / "ask_the_cache_first" / "register.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(WAITING)

    first = person(ours, directory / "first" / "caches", TZ="UTC")
    second = person(
        theirs,
        directory / "second" / "caches",
        HOME=str(another_home(directory / "home")),
        PATH=f"{directory / 'bin'}:{os.environ['PATH']}",
        LANG="de_DE.UTF-8",
        LC_ALL="C",
        TZ="Asia/Tokyo",
        USER="somebody",
    )
    with remote_cache(directory / "server") as address:
        options = (
            f"--pythonpath=+['{plugin.parents[1]}']",
            "--backend-packages=+['ask_the_cache_first']",
            "--remote-cache-read",
            "--remote-cache-write",
            f"--remote-store-address={address}",
            # However busy the machine is: no answer is too late, and no entry is left behind.
            "--remote-cache-rpc-timeout-millis=120000",
            "--remote-store-rpc-timeout-millis=120000",
            "--session-end-tasks-timeout=120",
        )
        accounts = [first.package(*options)]
        dists = [first.take_dist()]
        accounts.append(second.package(*options))
        dists.append(second.take_dist())
    accounts.append(second.package(store="another store"))
    dists.append(second.take_dist())
    return Shared(*accounts, dists=tuple(dists))


def search_path() -> list[str]:
    """Where this machine's interpreters lie: the same text for both."""
    pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    return [
        *sorted(glob.glob(f"{pyenv}/versions/*/bin")),
        *os.environ["PATH"].split(os.pathsep),
    ]


def person(clone: Path, caches: Path, **env: str) -> Person:
    monorepo = clone / "examples" / "monorepo"
    # Pants itself is installed already, once for all people on this machine.
    cache = clean_environment().get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Person(
        root=BuildRoot(monorepo, pants=monorepo / "pants"),
        caches=caches,
        env={"XDG_CACHE_HOME": cache, **env},
    )


def another_home(home: Path) -> Path:
    """A home directory with the same pip settings: which index is used is part of the keys."""
    home.mkdir()
    for name in (".config", ".pip"):
        (home / name).symlink_to(Path.home() / name)
    return home


def test_the_first_one_executes_everything_and_leaves_it_in_the_cache(shared: Shared) -> None:
    counters = shared.first.counters
    executed = shared.first.cacheable
    for beginning in SHARED:
        assert any(description.startswith(beginning) for description in executed), beginning
    assert [found for found in executed if not found.startswith(SHARED)] == []
    assert shared.first.hits == frozenset()
    assert counters["remote_cache_write_successes"] == len(executed), counters


def test_the_second_one_executes_nothing_that_a_cache_can_hold(shared: Shared) -> None:
    assert shared.second.cacheable == {}
    for process in shared.second.executed:
        assert process.description.startswith(LOCAL)
    assert shared.second.counters["local_execution_requests"] == len(shared.second.executed)


def test_the_second_one_finds_every_result_of_the_first_in_the_cache(shared: Shared) -> None:
    counters = shared.second.counters
    assert shared.second.hits == frozenset(shared.first.cacheable)
    assert counters["remote_cache_requests"] == len(shared.second.hits)
    assert counters["remote_cache_requests_cached"] == len(shared.second.hits)
    assert counters["remote_cache_requests_uncached"] == 0


def test_without_the_remote_cache_the_second_one_executes_it_all_with_the_same_inputs(
    shared: Shared,
) -> None:
    """Down to the packer's own PEX, which each of them made for himself."""
    assert shared.alone.hits == frozenset()
    assert shared.alone.cacheable == shared.first.cacheable


def test_all_have_the_same_bundles_and_images(shared: Shared) -> None:
    first, second, alone = shared.dists
    plain = {name for name in first if not name.startswith("services.ml/image/")}
    assert {name.split(".", 2)[-1] for name in plain} == {
        *("json", "manifest.json", "tar.gz", "cdx.json")
    }
    assert "services.ml/image/index.json" in first
    assert first == second
    assert first == alone
