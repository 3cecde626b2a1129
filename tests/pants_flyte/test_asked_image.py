"""What the code's own Image asks for is compared with the linked `flyte_image` when it is packaged."""

from __future__ import annotations

import pytest

from flyte_pack.image.apt_lock import AptLock, LockedPlatform
from flyte_pack.oci.model import Platform
from tests.support.bases import base_image
from tests.support.flyte_images import BASE, image_options
from tests.support.flyte_rules import RuleRoot

DEBIAN = "flyte.Image.from_debian_base(registry='r', name='n')"
PATH = "Path(__file__).parent"

SOURCE = """import os, flyte
from pathlib import Path
import app.shared as shared
from app.shared import NAMES, IMAGE as THEIRS
from app import shared as again
{before}
env = flyte.TaskEnvironment(name="e", image={image})
@env.task
def train(): ...
"""
SHARED = f"""import flyte
NAMES = ["pftest-c"]
MORE = ("libgomp1", "curl")
IMAGE = {DEBIAN}.with_apt_packages(*MORE)
if flyte.GPU:
    OTHER = {DEBIAN}.with_apt_packages("curl")
else:
    OTHER = {DEBIAN}.with_apt_packages("git")
"""

FILES: dict[str, str | bytes] = {
    **BASE,
    "app/shared.py": SHARED,
    "app/data/one/a.csv": "",
    "app/settings.json": "{}",
    "app/listed.txt": "# packages\npftest-b==1.0 \\\n    --hash=sha256:00\nPftest_C>=1  # c\nnowhere\n-r x\n",
    "app/loose.txt": "nowhere\n",
    "app/pyproject.toml": '[project]\nname = "p"\ndependencies = [\n  "pftest-a[x]>=1", # it is\n  \'gone ; x\',\n]\n[x]\n',
    "data/x": "",
}


def write(root: RuleRoot, image: str, fields: str = "", before: str = "", task: str = "") -> None:
    image_options(root, env={"B": "b"})
    root.write(
        {
            **FILES,
            "app/BUILD": f"""
                python_sources()
                file(name="project", source="pyproject.toml")
                python_requirements(
                    name="listed", source="listed.txt", module_mapping={{"pftest-b": ["b2"], "Pftest-C": ["c2"]}}
                )
                flyte_image(name="image", base="img:base", dependencies=["3rdparty:a"], {fields})
                flyte_task(
                    name="t", entry_point="w.py:train", image=":image", dependencies=[":project"], {task}
                )
                """,
            "app/w.py": SOURCE.format(image=image, before=before),
        }
    )


def said(root: RuleRoot, caplog, spec: str = "app:t") -> list[str]:
    root.package(spec)
    start = "app:t: environment app/w.py:env: "
    messages = [record.message for record in caplog.records if "its Image" in record.message]
    assert all(message.startswith(start) for message in messages)
    return [message[len(start) :] for message in dict.fromkeys(messages)]


LOCK = "to the requirements of its resolve and make the lock file anew"

# What the Image says, and fields of the linked image: then what is said, which is nothing if all is met.
CASES = {
    "packages: met, as the image installs them": (
        f"{DEBIAN}.with_pip_packages('pftest_a', 'pftest-b==1', index_url='https://x')",
        "",
        [],
    ),
    "packages: in the lock, and not in the image": (
        f"{DEBIAN}.with_pip_packages('pftest-c>=1')",
        "",
        [
            "its Image declares pip packages that the linked image is not made with: pftest-c. They are in the lock file: "
            'add "3rdparty:c" to `dependencies` of app:image, unless its base has them'
        ],
    ),
    "packages: not in the lock": (
        f"{DEBIAN}.with_pip_packages('pandas>=2', 'pftest-a', 'x @ git+https://me:planted@h.test/x.git@v1')",
        "",
        [
            "its Image declares pip packages that its resolve lacks: pandas>=2, x. "
            f"Add them {LOCK}, or drop them from the Image"
        ],
    ),
    "packages: a marker is about other platforms": (
        f"{DEBIAN}.with_pip_packages('pftest-c; sys_platform == \"win32\"')",
        "",
        [],
    ),
    "packages: not literal": (f"{DEBIAN}.with_pip_packages(os.environ['X'], f'{{NAMES}}')", "", []),
    "packages: some of them literal": (
        f"{DEBIAN}.with_pip_packages('gone', os.environ['X'])",
        "",
        ["its Image declares pip packages that its resolve lacks: gone. "],
    ),
    "requirements": (
        f"{DEBIAN}.with_requirements({PATH} / 'listed.txt')",
        'dependencies=["3rdparty:a", "3rdparty:c"]',
        [f"its Image declares app/listed.txt, and its resolve lacks nowhere. Add them {LOCK}"],
    ),
    "requirements: relative to where Flyte runs": (
        f"{DEBIAN}.with_requirements('app/listed.txt')",
        "",
        ["its Image declares app/listed.txt, and its resolve lacks nowhere. ", "pftest-c. They are in the lock"],
    ),
    "requirements: owned by nothing": (
        f"{DEBIAN}.with_requirements('app/loose.txt')",
        "",
        [
            "its Image declares app/loose.txt, which is not compared, as the task reaches no target that owns it: add its "
            'owner, such as file(name="requirements", source="loose.txt"), to `dependencies` of app:t'
        ],
    ),
    "requirements: not there": (f"{DEBIAN}.with_requirements('gone.txt')", "", []),
    "requirements: not literal": (f"{DEBIAN}.with_requirements(os.environ['X'])", "", []),
    "a uv project": (
        f"{DEBIAN}.with_uv_project(Path({PATH}, 'pyproject.toml'), pre=True)",
        "",
        ["its Image declares app/pyproject.toml, and its resolve lacks gone ; x. "],
    ),
    "variables: met": (f"{DEBIAN}.with_env_vars({{'A': '1', 'B': '2'}})", 'env={"A": "1", "B": "{env.B}"}', []),
    "variables: not set": (
        f"{DEBIAN}.with_env_vars({{'A': 'planted', 'B': os.environ['B'], 'C': '3'}})",
        'env={"C": "3"}',
        ['its Image declares environment variables A, B: set them in the linked image, env={"A": "...", "B": "..."}'],
    ),
    "variables: set to something else": (
        f"{DEBIAN}.with_env_vars({{'A': 'planted'}})",
        'env={"A": "other planted"}',
        ["variables that have other values in `env` of the linked image: A. The linked image's hold"],
    ),
    "variables: not literal": (f"{DEBIAN}.with_env_vars(dict(os.environ))", "", []),
    "a working directory: met": (f"{DEBIAN}.with_workdir('/work/')", 'workdir="/work"', []),
    "a working directory: another": (
        f"{DEBIAN}.with_workdir(workdir='/work')",
        "",
        ['the working directory /work: the linked image has its own. Set workdir="/work" there'],
    ),
    "a working directory: not literal": (f"{DEBIAN}.with_workdir(os.getcwd())", "", []),
    "apt packages": (
        f"{DEBIAN}.with_apt_packages('libgomp1', 'curl')",
        "",
        ["its Image declares apt packages libgomp1 curl: "],
    ),
    "apt packages: not literal": (f"{DEBIAN}.with_apt_packages(*os.environ['X'].split())", "", []),
    "commands": (
        f"{DEBIAN}.with_commands(['make all', 'x'])",
        "",
        [
            "its Image declares commands (make all; x): nothing runs them here, so what they make has to be in the base of "
            "the linked image"
        ],
    ),
    "commands: lines, and a secret": (
        f"{DEBIAN}.with_commands(['a\\nb', 'curl https://me:planted@h.test/x'])",
        "",
        ["its Image declares commands (a\\nb; curl https://"],
    ),
    "commands: not literal": (f"{DEBIAN}.with_commands(os.environ['X'].split())", "", []),
    "Python: met": ("flyte.Image.from_debian_base(python_version=(3, 12))", "", []),
    "Python: another": (
        "flyte.Image.from_debian_base(python_version=(3, 10))",
        "",
        ["its Image wants Python 3.10; the linked image has 3.12, as its resolve has"],
    ),
    "Python: not literal": ("flyte.Image.from_debian_base(python_version=os.sys.version_info[:2])", "", []),
    "a file: met": (
        f"{DEBIAN}.with_source_file({PATH} / 'settings.json')",
        'source_files=[{"src": "settings.json", "dst": "."}]',
        [],
    ),
    "a file: elsewhere in the image": (
        f"{DEBIAN}.with_source_file(Path('app/settings.json'), '/etc/')",
        'source_files=[{"src": "settings.json", "dst": "."}]',
        [
            'its Image copies app/settings.json to /etc/: add {"src": "settings.json", "dst": "/etc/"} to `source_files` of '
            "the linked image"
        ],
    ),
    "files": (
        f"{DEBIAN}.with_source_file([Path('data/x'), {PATH} / 'settings.json'], dst='in')",
        "",
        ['add {"src": "//data/x", "dst": "in"} to', 'add {"src": "settings.json", "dst": "in"} to'],
    ),
    "a file: not there": (f"{DEBIAN}.with_source_file(Path('gone'))", "", []),
    "a file: not literal": (f"{DEBIAN}.with_source_file(Path(os.getcwd()))", "", []),
    "a folder: met": (
        f"{DEBIAN}.with_source_folder({PATH} / 'data', '.')",
        'source_folders=[{"src": "data", "dst": "data"}]',
        [],
    ),
    "a folder: its contents instead": (
        f"{DEBIAN}.with_source_folder({PATH} / 'data', copy_contents_only=True)",
        'source_folders=[{"src": "data", "dst": "."}]',
        ['copies app/data to .: add {"src": "data", "dst": ".", "copy_contents_only": True} to `source_folders`'],
    ),
    "a folder: with the code, which comes in a bundle": (
        f"{DEBIAN}.with_source_folder({PATH}, copy_contents_only=True)",
        "",
        [],
    ),
    "a folder: not literal": (f"{DEBIAN}.with_source_folder(Path(os.getcwd()))", "", []),
    "names of other modules": (
        "THEIRS.with_pip_packages(*NAMES)",
        "",
        ["pftest-c. They are in the lock", "its Image declares apt packages libgomp1 curl: "],
    ),
    "modules by names": (
        "shared.IMAGE.with_pip_packages(*again.NAMES, *app.shared.NAMES)",
        "",
        ["pftest-c. They are in the lock", "its Image declares apt packages libgomp1 curl: "],
    ),
    "an Image that depends on a condition": ("shared.OTHER", "", []),
    "a clone": (f"{DEBIAN}.clone(name='x').with_workdir('/w')", "", ["the working directory /w"]),
    "a mapped name with layers": ("flyte.Image.from_ref_name('x').with_workdir('/w')", "", ["directory /w"]),
    "an Image from a function": ("make().with_workdir('/w')", "", []),
    "a reference": ("'ghcr.io/org/x:1'", "", []),
    "none": ("None", "", []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_the_linked_image_lacks_is_told_with_what_to_write(root: RuleRoot, caplog, case):
    image, fields, expected = case
    if fields.startswith("dependencies"):
        write(root, image)
        root.edit("app/BUILD", 'dependencies=["3rdparty:a"]', fields)
    else:
        write(root, image, fields)
    lines = said(root, caplog)
    assert len(lines) == len(expected), lines
    for text in expected:
        assert any(text in line for line in lines), lines
    assert "planted" not in caplog.text


APT = f"{DEBIAN}.with_apt_packages('curl')"


def test_an_image_says_it_of_the_tasks_that_name_it_and_once(root: RuleRoot, caplog):
    write(root, APT)
    lines = said(root, caplog, "app:image")
    assert len(lines) == 1
    said(root, caplog, "app:t")
    assert caplog.text.count("its Image declares apt packages curl") == 1


def test_an_app_is_compared_too(root: RuleRoot, caplog):
    write(root, APT)
    root.edit("app/w.py", 'flyte.TaskEnvironment(name="e"', 'flyte.app.AppEnvironment(name="e"')
    root.edit("app/w.py", "@env.task\n", "")
    root.edit("app/BUILD", "flyte_task(", "flyte_app(")
    root.edit("app/BUILD", "w.py:train", "w.py:env")
    assert len(said(root, caplog)) == 1


@pytest.mark.parametrize("image", ["ghcr.io/org/x:1", "trainer"])
def test_of_a_reference_or_a_name_nothing_is_known(root: RuleRoot, caplog, image):
    write(root, APT)
    root.edit("app/BUILD", 'image=":image"', f"image={image!r}")
    assert said(root, caplog) == []


def test_apt_packages_that_the_image_has_are_not_told(root: RuleRoot, caplog):
    write(root, f"{DEBIAN}.with_apt_packages('curl=8', 'git', 'make')", 'apt_packages=["curl"]')
    # The base has it already: no package is to be fetched.
    platforms = (LockedPlatform(Platform.parse("linux/amd64"), (), ()),)
    lock = AptLock(base_image().digest, ("curl",), (), platforms)
    root.write({"app/image.apt.lock.json": lock.to_json()})
    assert said(root, caplog) == [
        "its Image declares apt packages git make: add those that the base lacks to the linked "
        'image, apt_packages=["git", "make"]'
    ]


LISTS = {
    "with_requirements": "app/listed.txt",
    "with_uv_project": "other/pyproject.toml",
}


@pytest.mark.parametrize("owner", ["python_requirements", "files"])
@pytest.mark.parametrize(("method", "path"), LISTS.items())
def test_an_edit_of_a_list_that_is_read_selects_the_task(
    root: RuleRoot, caplog, method, path, owner
):
    """What `python_requirements` owns is no file to ship. Other owners have to be named."""
    directory, _, name = path.rpartition("/")
    write(root, f"{DEBIAN}.{method}({path!r})")
    root.edit(
        "app/BUILD", 'name="listed", source="listed.txt"', 'name="unused", source="loose.txt"'
    )
    build = root.path / directory / "BUILD"
    before = build.read_text() if build.exists() else ""
    target = (
        'python_requirements(name="list", source={!r})'
        if owner != "files"
        else 'files(name="list", sources=[{!r}])'
    )
    content = (
        "nowhere2\n"
        if name.endswith(".txt")
        else '[project]\nname = "x"\ndependencies = ["nowhere2"]\n'
    )
    root.write(
        {path: content, str(build.relative_to(root.path)): f"{before}\n{target.format(name)}\n"}
    )
    if owner == "files":
        assert "app:t" not in root.changed_by(path)
        assert (
            f"which is not compared, as the task reaches no target that owns it: add {path}:list"
            in str(said(root, caplog))
        )
        root.edit("app/BUILD", 'dependencies=[":project"]', f'dependencies=["{directory}:list"]')
    else:
        assert path not in root.bundle("app:t").paths
    assert "app:t" in root.changed_by(path)
    assert any(
        f"declares {path}, and its resolve lacks nowhere2" in line for line in said(root, caplog)
    )


def test_what_was_mended_is_not_said_again(root: RuleRoot, caplog):
    write(root, f"{DEBIAN}.with_workdir('/work')")
    assert len(said(root, caplog)) == 1
    caplog.clear()
    root.edit("app/w.py", "def train()", "def train2(): ...\n\n@env.task\ndef train()")
    root.edit(
        "app/BUILD", 'dependencies=["3rdparty:a"],', 'dependencies=["3rdparty:a"], workdir="/work",'
    )
    assert said(root, caplog) == []
