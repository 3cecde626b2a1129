"""The packer's process is the same wherever the repository lies, so that one machine packs for all."""

from __future__ import annotations

import errno
import shlex
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"


class Clone:
    """A build root of its own, whose sandboxes are kept."""

    def __init__(self, sandboxes: Path) -> None:
        sandboxes.mkdir()
        self.sandboxes = sandboxes
        self.root = RuleRoot("--keep-sandboxes=always", f"--local-execution-root-dir={sandboxes}")

    def package(self, files: dict[str, str]) -> bytes:
        self.root.clear()
        self.root.write(files)
        return self.root.bundle("app:t").archive

    def packings(self) -> list[Path]:
        """The sandboxes in which the packer ran."""
        scripts = self.sandboxes.glob("*/__run.sh")
        return [script.parent for script in scripts if " bundle --plan " in script.read_text()]


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Clone]:
    directory = tmp_path_factory.mktemp("clones")
    return Clone(directory / "one"), Clone(directory / "two")


@pytest.fixture
def files() -> dict[str, str]:
    """A repository that nobody has packaged before."""
    return {
        "app/BUILD": f"""
            python_sources(dependencies=["data"])
            flyte_task(name="t", entry_point="w.py:train", description="{uuid4()}")
            """,
        "app/w.py": f"{TASK}# {uuid4()}",
        "app/__init__.py": "",
        "data/BUILD": "files(sources=['*.csv'])",
        "data/x.csv": "",
    }


def test_another_clone_finds_what_the_first_one_packed(clones, files):
    one, two = clones
    assert one.root.path != two.root.path
    before = len(one.packings()), len(two.packings())
    archive = one.package(files)
    assert two.package(files) == archive
    assert (len(one.packings()), len(two.packings())) == (before[0] + 1, before[1])


def command_of(sandbox: Path) -> tuple[dict[str, str], list[str]]:
    """The variables and the words of what ran in a sandbox that was kept."""
    script = (sandbox / "__run.sh").read_text()
    words = shlex.split(script[script.index("env -i") :])[2:]
    start = next(i for i, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:start]), words[start:]


def test_the_packers_process_holds_no_path_of_the_checkout(clones, files):
    one, _ = clones
    before = set(one.packings())
    one.package(files)
    (sandbox,) = set(one.packings()) - before
    assert str(one.root.path) not in (sandbox / "__run.sh").read_text()
    variables, (bash, shim, *arguments) = command_of(sandbox)
    assert (Path(bash).name, shim) == ("bash", "./flyte_pack.pex_pex_shim.sh")
    # What Pants itself sets for every Python tool.
    assert set(variables) <= {"PATH", "PEX_ROOT", "PEX_PYTHON", "PEX_PYTHON_PATH", "PEX_IGNORE_RCFILES", "CPPFLAGS", "LDFLAGS", "LANG", "LC_CTYPE", "LC_ALL"}  # fmt: skip
    assert arguments == [
        *("bundle", "--plan", "plan.json", "--sources", "sources"),
        *("--archive", "app/t.tar.gz", "--manifest", "app/t.manifest.json"),
        *("--summary", "summary.json", "--seen", "seen.json", "--memory", ".cache/flyte_guards"),
    ]
    plan = (sandbox / "plan.json").read_text()
    assert str(one.root.path) not in plan
    assert str(Path.home()) not in plan


def test_the_packer_starts_while_another_process_has_its_shim_open(clones, files):
    """As a child has it that Pants forked while it wrote the shim, until that child's own start."""
    one, _ = clones
    before = set(one.packings())
    one.package(files)
    (sandbox,) = set(one.packings()) - before
    variables, words = command_of(sandbox)
    with (sandbox / "flyte_pack.pex_pex_shim.sh").open("a"):
        with pytest.raises(OSError) as executed:
            subprocess.run(words[1:], cwd=sandbox, env=variables, check=False)
        assert executed.value.errno == errno.ETXTBSY
        subprocess.run(words, cwd=sandbox, env=variables, check=True, timeout=60)


def test_what_the_packer_does_not_see_does_not_make_it_run_again(clones, files):
    one, _ = clones
    archive = one.package(files)
    before = len(one.packings())
    unrelated = {"app/unrelated.py": "x = 1", "README.md": "", "lib/BUILD": "python_sources()"}
    described = files["app/BUILD"].replace("description=", "tags=['new'], description=")
    assert one.package({**files, **unrelated, "app/BUILD": described}) == archive
    assert len(one.packings()) == before
    assert one.package({**files, "data/x.csv": "changed"}) != archive
    assert len(one.packings()) == before + 1


def test_no_process_of_an_image_holds_a_path_of_the_checkout_or_its_targets_name(clones):
    one, _ = clones
    one.root.clear()
    image_options(
        one.root, "--keep-sandboxes=always", f"--local-execution-root-dir={one.sandboxes}"
    )
    one.root.write(app("code=True", source=f"import app.lib, pftest_a  # {uuid4()}\n"))
    before = set(one.sandboxes.glob("*/__run.sh"))
    one.root.image("app:image")
    ran = [script.read_text() for script in set(one.sandboxes.glob("*/__run.sh")) - before]
    steps = [script for script in ran if " image-" in script]
    assert steps
    for script in steps:
        assert str(one.root.path) not in script
        assert (
            "app:image" not in script
        )  # images of the same packages share their layers' processes


def test_an_edit_has_one_group_of_files_written_into_a_sandbox_anew(clones, files):
    one, _ = clones
    for directory in "abcdefgh":
        files[f"{directory}/BUILD"] = "python_sources()"
        files.update({f"{directory}/m{n}.py": f"# {directory}{n}" for n in range(20)})
    imports = "".join(f"import {d}.m{n}\n" for d in "abcdefgh" for n in range(20))
    files["app/w.py"] = f"import flyte\n{imports}{files['app/w.py']}"

    def links() -> dict[str, str]:
        before = set(one.packings())
        one.package(files)
        (sandbox,) = set(one.packings()) - before
        groups = (sandbox / "sources").iterdir()
        return {group.name: str(group.readlink()) for group in groups if group.is_symlink()}

    first = links()
    assert len(first) > 2
    files["c/m7.py"] += " edited"
    second = links()
    assert first.keys() == second.keys()
    assert sum(first[name] != second[name] for name in first) == 1
