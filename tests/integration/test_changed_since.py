"""`--changed-since` with a real git: files that fields name and rules read, and the goals that ask
for sources all the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.build_root import BuildRoot, build_root
from tests.support.current_pants import require_current_pants

BUILD = """
    flyte_base_image(name="locked", image="docker.io/library/python:3.12-slim")
    flyte_base_image(name="layout", source="layout")
    flyte_image(
        name="image",
        base=":locked",
        dependencies=[":task"],
        source_files=[{"src": "//shared/settings.json", "dst": "/etc/settings.json"}],
        source_folders=[{"src": "assets", "dst": "."}],
    )
    python_sources()
    flyte_task(name="task", entry_point="flow.py:main", image=":image")
    flyte_deployment(name="deploy", tasks=[":task"], config="live.yaml")
    flyte_deployment(name="bare", tasks=[":task"])
    """
FLOW = """
    import flyte

    env = flyte.TaskEnvironment(name="e")


    @env.task
    def main(n: int) -> int:
        return n
    """
OF_IMAGE = {"app:image", "app:task", "app:deploy", "app:bare"}

# What is selected where this file has changed, and what is not.
CASES = [
    ("app/locked.lock.json", {"app:locked", *OF_IMAGE}, {"app:layout"}),
    ("app/layout/blobs/sha256/0a", {"app:layout"}, {"app:locked", *OF_IMAGE}),
    ("app/assets/logo.txt", OF_IMAGE, {"app:locked"}),
    ("app/assets/.dockerignore", OF_IMAGE, {"app:locked"}),
    ("shared/settings.json", {"shared:settings", *OF_IMAGE}, {"app:locked"}),
    ("app/live.yaml", {"app:deploy"}, {"app:bare", "app:image"}),
    ("ops/all.yaml", {"app:bare"}, {"app:deploy", "app:image"}),
    ("3rdparty/python/default.lock", OF_IMAGE, {"app:locked"}),
    ("app/flow.py", {"app/flow.py", *OF_IMAGE}, {"app:locked"}),
]


@pytest.fixture(scope="module", params=["the pinned Pants", "a newer Pants"])
def root(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BuildRoot]:
    """A commit with all these files but the lock of the base, which nobody has made yet."""
    how: dict[str, Any] = {}
    if request.param == "a newer Pants":
        current = require_current_pants()
        how = {"pants": current.program, "env": current.environment}
    path = tmp_path_factory.mktemp("changed")
    more = '\n[flyte]\ndeploy_config = "ops/all.yaml"\n'
    with build_root(path, ["/"], more, **how) as root:
        named = [file for file, _, _ in CASES if file.startswith(("app/", "ops/", "shared/"))]
        root.write(dict.fromkeys(named, "first\n"))
        (path / "app" / "locked.lock.json").unlink()
        root.write(
            {
                "app/BUILD": BUILD,
                "app/flow.py": FLOW,
                "shared/BUILD": 'file(name="settings", source="settings.json")',
                ".gitignore": ".pants.d/\n.pids/\ndist/\n",
            }
        )
        author = ("-c", "user.name=n", "-c", "user.email=n@example.com")
        for command in (("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "first")):
            subprocess.run(["git", *command], cwd=path, check=True)
        yield root


@pytest.mark.parametrize(("file", "selected", "not_selected"), CASES, ids=[c[0] for c in CASES])
def test_an_edit_selects_whatever_the_file_has_a_part_in(
    root: BuildRoot, file, selected, not_selected
):
    path = root.path / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + b"# edited\n")
    try:
        done = root.pants("--changed-since=HEAD", "--changed-dependents=transitive", "list")
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    found = set(done.stdout.split())
    assert selected <= found
    assert not not_selected & found


def test_a_file_on_the_command_line_is_its_targets(root: BuildRoot):
    assert "app:deploy" in root.pants("list", "app/live.yaml").stdout.split()


def test_goals_that_ask_for_sources_find_none_and_miss_none(root: BuildRoot):
    strict = "--unmatched-build-file-globs=error"
    peeked = json.loads(root.pants(strict, "peek", "app:").stdout)
    ours = [target for target in peeked if target["target_type"].startswith("flyte_")]
    assert {target["address"] for target in ours} == {
        "app:locked",
        "app:layout",
        "app:image",
        "app:task",
        "app:deploy",
        "app:bare",
    }
    assert all(target["sources"] == [] for target in ours)
    files = root.pants(strict, "filedeps", "app:deploy", "app:layout").stdout.split()
    assert files == ["app/BUILD"]
    root.write({"app/assets/new.py": "", "app/layout/new.py": ""})
    try:
        tailored = root.pants("tailor", "--check", "app/assets:", "app/layout:", check=False)
    finally:
        for new in ("app/assets/new.py", "app/layout/new.py"):
            (root.path / new).unlink()
    assert tailored.stdout.count("Add python_sources target") == 2
