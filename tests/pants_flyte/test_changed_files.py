"""Every file that a field names or a rule reads selects its target under `--changed-since`.

All that the rules read of the build root, by where they ask for it:

| module | reads | seen by |
|---|---|---|
| base_image | `lockfile`, `source` of a base | fields |
| image_code | `source_files`, `source_folders` with their `.dockerignore` | fields |
| image_apt | `apt_lockfile` of an image | fields |
| artifact, image_packages, known_modules | the lock file of the resolve | option |
| pushing | for provenance, the lock file of the resolve and `apt_lockfile` | option, fields |
| deployment | `config`, `[flyte].deploy_config` | field, option |
| bundle, never_ships | for `all` and copied folders, what lies beside the code | fields |
| code_scans, completeness, named_in_code, resolve_modules | sources; for errors, lock files, and whether data that code reads is there | targets that own them |
| named_in_data | settings files, for the modules that they name | the target that owns the file |
| registered | `pyproject.toml` and `setup.cfg`, for modules that they register as entry points | not seen |
| guards | `[flyte].secrets_baseline`, which changes no artifact | - |
| ignored | for `all` and a warning, ignore files | fields; those above the BUILD file: their owners, if they have any |
| closure, entry_point, lost_imports | sources, `__init__.py` files, what an environment includes | targets that own them |
| tool | lock files of `[flyte-pack]`, where they are the user's own | options |
| why_missing | whether a file that somebody asks for is there | - |
| unowned | names of files beside modules, for a warning | - |
| asked_image | files of requirements that the code's own Image names | what owns them, which the task reaches; others are not read |
| task | whether there is a BUILD file, for an error | - |
| environments | for `tailor`, sources without a target; for `flyte_tasks`, sources | targets that own them |
| unowned_reads | for `tailor`, sources and the data that they read | - |
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pants.engine.target import SourcesField
from pants.version import PANTS_SEMVER

import pants_flyte
from pants_flyte.named_files import NamesFiles
from pants_flyte.register import target_types
from tests.support.bases import base_image
from tests.support.flyte_images import image_options
from tests.support.flyte_rules import RuleRoot

if PANTS_SEMVER.release < (2, 29):
    from pants.option.global_options import UnmatchedBuildFileGlobs
else:
    from pants.option.bootstrap_options import UnmatchedBuildFileGlobs

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
REFERENCE = 'image="docker.io/library/python:3.12-slim"'


def test_the_table_above_lists_each_module_that_reads_of_the_build_root():
    package = Path(pants_flyte.__file__).parent
    reads = re.compile(
        r"(?:contents_matching|files_matching|snapshot|hydrated_sources)\(|Lockfile\("
    )
    reading = {path.stem for path in package.rglob("*.py") if reads.search(path.read_text())}
    listed = {
        name
        for row in re.findall(r"^\| ([a-z_, ]+) \|", __doc__ or "", re.MULTILINE)
        for name in row.split(", ")
    }
    # The port defines the functions; `changed` looks for owners.
    assert reading - {"by_get", "by_name", "changed"} == listed - {"module"}


# --- fields ---------------------------------------------------------------------------------------

BASE = f'flyte_base_image(name="x", {REFERENCE}, {{}})'
SOURCE = 'flyte_base_image(name="x", source={})'
IMAGE = 'flyte_image(name="x", base="//base:base", {})'
DEPLOYMENT = 'flyte_deployment(name="x", tasks=["//code:t"], {})'
TASK_OF = 'flyte_task(name="x", entry_point="w.py:train", {})'
BUNDLE = 'flyte_bundle(name="x", dependencies=["//code:lib"], {})'

# BUILD file, what the target says, the file that changes.
BELOW = [
    ("img", BASE.format(""), "img/x.lock.json"),
    ("", BASE.format(""), "x.lock.json"),
    ("img", BASE.format('lockfile="py.json"'), "img/py.json"),
    ("img", BASE.format('lockfile="./locks/../locks/py.json"'), "img/locks/py.json"),
    ("img", BASE.format('lockfile="//img/locks/py.json"'), "img/locks/py.json"),
    ("img", BASE.format('lockfile="we[ir]d*.json"'), "img/we[ir]d*.json"),
    ("img", SOURCE.format('"layout"'), "img/layout/index.json"),
    ("img", SOURCE.format('"layout"'), "img/layout/blobs/sha256/0a"),
    ("img", SOURCE.format('"layout/"'), "img/layout/blobs/sha256/0a"),
    ("img", SOURCE.format('"."'), "img/blobs/sha256/0a"),
    ("img", SOURCE.format('"python.tar"'), "img/python.tar"),
    ("img", IMAGE.format('apt_packages=["git"]'), "img/x.apt.lock.json"),
    ("img", IMAGE.format('apt_lockfile="apt.json"'), "img/apt.json"),
    ("img", IMAGE.format('source_files=[{"src": "a.json", "dst": "."}]'), "img/a.json"),
    ("img", IMAGE.format('source_files=[{"src": "../img/a.json", "dst": "."}]'), "img/a.json"),
    ("img", IMAGE.format('source_files=[{"src": "//img/a.json", "dst": "."}]'), "img/a.json"),
    ("img", IMAGE.format('source_folders=[{"src": "assets", "dst": "."}]'), "img/assets/sub/a"),
    ("img", IMAGE.format('source_folders=[{"src": "assets", "dst": "."}]'), "img/assets/.dockerignore"),
    ("img", IMAGE.format('source_folders=[{"src": ".", "dst": "."}]'), "img/.dockerignore"),
    ("", IMAGE.format('source_folders=[{"src": "//", "dst": "."}]'), "deep/down/a.txt"),
    ("ops", DEPLOYMENT.format('config="live.yaml"'), "ops/live.yaml"),
    ("", DEPLOYMENT.format('config="ops/live.yaml"'), "ops/live.yaml"),
    ("ops", DEPLOYMENT.format('config="//ops/live.yaml"'), "ops/live.yaml"),
    ("code", TASK_OF.format('copy_style="all"'), "code/data/x.csv"),
    ("code", TASK_OF.format('copy_style="all", root_dir="code/data"'), "code/data/x.csv"),
    ("", BUNDLE.format('copy_style="all", root_dir="code"'), "code/data/x.csv"),
    ("", BUNDLE.format('copy_style="all", root_dir="."'), "other/x.csv"),
]  # fmt: skip

NOT = [
    ("img", BASE.format(""), "img/y.lock.json"),
    ("img", BASE.format('lockfile="we[ir]d*.json"'), "img/weirdo.json"),
    ("img", SOURCE.format('"host"'), "img/host"),
    ("img", SOURCE.format('"layout"'), "img/layout2/index.json"),
    ("img", IMAGE.format('source_folders=[{"src": "assets", "dst": "."}]'), "img/other/a"),
    ("ops", DEPLOYMENT.format('config="live.yaml"'), "ops/other.yaml"),
    ("ops", DEPLOYMENT.format(""), "ops/live.yaml"),
    ("code", TASK_OF.format(""), "code/data/x.csv"),
    ("", BUNDLE.format('copy_style="all", root_dir="code"'), "other/x.csv"),
]


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    root.write(
        {
            "base/BUILD": 'flyte_base_image(name="base", source="host")',
            "code/BUILD": 'python_sources(name="lib")\nflyte_task(name="t", entry_point="w.py:train")\n',
            "code/w.py": TASK,
        }
    )
    return root


def declare(root: RuleRoot, directory: str, text: str, **more: str) -> str:
    """Write a target `x` there. Returns its address."""
    before = root.path / directory / "BUILD"
    text = f"{before.read_text() if before.exists() else ''}{text}\n"
    root.write({str(Path(directory, "BUILD")): text, **more})
    return f"{directory or '//'}:x"


@pytest.mark.parametrize(("directory", "text", "path"), BELOW)
@pytest.mark.parametrize("exists", [True, False], ids=["changed", "deleted"])
def test_a_file_that_a_field_names_selects_the_target_by_itself(root: RuleRoot, directory, text, path, exists):  # fmt: skip
    address = declare(root, directory, text)
    if exists:
        root.write({path: "1"})
    assert address in root.changed_by(path, dependents=False)
    assert address in root.changed_by(path)


@pytest.mark.parametrize(("directory", "text", "path"), NOT)
def test_another_file_does_not(root: RuleRoot, directory, text, path):
    address = declare(root, directory, text)
    root.write({path: "1"})
    assert address not in root.changed_by(path)


def test_each_field_that_names_files_is_in_the_table():
    fields = {field for target in target_types() for field in target.core_fields}
    aliases = {field.alias for field in fields if issubclass(field, NamesFiles)}
    assert aliases == {
        "lockfile",
        "source",
        "source_files",
        "source_folders",
        "config",
        "apt_lockfile",
    }
    assert all(any(alias in text for _, text, _ in BELOW) for alias in aliases)


def test_each_parametrization_has_the_file_that_it_names(root: RuleRoot):
    declare(root, "ops", DEPLOYMENT.format('config=parametrize(a="a.yaml", b="b.yaml")'))
    declare(root, "img", f'flyte_base_image(name="x", {REFERENCE}, lockfile=parametrize(a="a.json", b="b.json"))')  # fmt: skip
    root.write(dict.fromkeys(("ops/a.yaml", "ops/b.yaml", "img/a.json", "img/b.json"), ""))
    assert root.changed_by("ops/a.yaml") == {"ops:x@config=a"}
    assert root.changed_by("img/b.json") == {"img:x@lockfile=b"}


def test_an_edit_of_the_build_file_is_seen(root: RuleRoot):
    root.write({"ops/BUILD": DEPLOYMENT.format('config="a.yaml"'), "ops/b.yaml": ""})
    assert root.changed_by("ops/b.yaml") == set()
    root.edit("ops/BUILD", "a.yaml", "b.yaml")
    assert root.changed_by("ops/b.yaml") == {"ops:x"}


def test_what_is_built_of_a_base_is_selected_with_it(root: RuleRoot):
    declare(root, "img", BASE.format(""), **{"img/x.lock.json": "{}"})
    root.write(
        {
            "app/BUILD": """
                flyte_image(name="i", base="img:x")
                flyte_task(name="t", entry_point="//code/w.py:train", image=":i")
                flyte_deployment(name="d", tasks=[":t"])
                """.replace("//code/w.py", "w.py") + "python_sources()\n",
            "app/w.py": TASK,
        }
    )  # fmt: skip
    assert {"img:x", "app:i", "app:t", "app:d"} <= root.changed_by("img/x.lock.json")


# --- files elsewhere ------------------------------------------------------------------------------

ELSEWHERE = [
    (BASE.format('lockfile="../shared/a.json"'), "shared/a.json"),
    (BASE.format('lockfile="//shared/a.json"'), "shared/a.json"),
    (SOURCE.format('"//shared/layout"'), "shared/layout/index.json"),
    (IMAGE.format('source_files=[{"src": "//shared/a.json", "dst": "."}]'), "shared/a.json"),
    (IMAGE.format('source_folders=[{"src": "../shared", "dst": "."}]'), "shared/deep/a.json"),
    (DEPLOYMENT.format('config="../shared/live.yaml"'), "shared/live.yaml"),
]


@pytest.mark.parametrize(("text", "path"), ELSEWHERE)
def test_a_file_elsewhere_selects_by_way_of_its_owner(root: RuleRoot, caplog, text, path):
    address = declare(root, "x", text)
    root.write({path: "1", "shared/BUILD": 'files(name="f", sources=["**"])'})
    assert address in root.changed_by(path)
    assert address not in root.changed_by("shared/BUILD", dependents=False)
    assert "--changed-since" not in caplog.text


@pytest.mark.parametrize(("text", "path"), ELSEWHERE)
def test_one_that_nobody_owns_is_told_with_what_to_write(root: RuleRoot, caplog, text, path):
    address = declare(root, "x", text)
    root.write({path: "1"})
    assert address not in root.changed_by(path)
    # The engine may run a rule more than once.
    (said,) = {record.message for record in caplog.records if "--changed-since" in record.message}
    assert said.startswith(f"{address}: ")
    directory, _, name = path.rpartition("/")
    advice = re.findall(r"`(files\(.*?\))` in (\S+)\.$", said)
    assert advice == [(f'files(name="named", sources=["{name}"])', f"{directory}/BUILD")]
    root.write({advice[0][1]: advice[0][0]})
    assert address in root.changed_by(path)


@pytest.mark.parametrize(("text", "path"), ELSEWHERE)
def test_one_that_is_not_there_yet_is_no_error(root: RuleRoot, caplog, text, path):
    address = declare(root, "x", text)
    assert not any("shared" in dependency for dependency in root.dependencies(address))
    assert "--changed-since" not in caplog.text


@pytest.mark.parametrize("name", [".gitignore", ".flyteignore"])
@pytest.mark.parametrize("directory", ["", "code"])
@pytest.mark.parametrize("text", [TASK_OF, BUNDLE])
def test_an_ignore_file_above_selects_by_way_of_its_owner(root: RuleRoot, caplog, text, name, directory):  # fmt: skip
    """Without an owner it does not, and nobody is told: nearly every repository has one."""
    sub = {
        "code/sub/BUILD": f"python_sources()\n{text.format('copy_style=ALL')}",
        "code/sub/w.py": TASK,
    }
    sub = {path: content.replace("ALL", '"all"') for path, content in sub.items()}
    path = str(Path(directory, name))
    root.write({**sub, path: "*.log\n"})
    assert "code/sub:x" not in root.changed_by(path)
    assert "--changed-since" not in caplog.text
    build = root.path / directory / "BUILD"
    before = build.read_text() if build.exists() else ""
    owner = f'file(name="ignored", source="{name}")'
    root.write({str(Path(directory, "BUILD")): f"{before}{owner}\n"})
    assert "code/sub:x" in root.changed_by(path)
    assert "//:ignored" not in root.dependents("code/sub:x")
    root.edit("code/sub/BUILD", ', copy_style="all"', "")
    assert "code/sub:x" not in root.changed_by(path)


def test_an_ignore_file_with_an_owner_is_not_shipped(root: RuleRoot):
    root.write(
        {
            ".flyteignore": "*.log\n",
            "BUILD": 'file(name="ignored", source=".flyteignore")',
            "app/BUILD": 'python_sources()\nflyte_task(name="t", entry_point="w.py:train", copy_style="all")',
            "app/w.py": TASK,
            "app/x.log": "",
        }
    )
    assert ".flyteignore:ignored" in root.dependencies(
        "app:t"
    ) or "//:ignored" in root.dependencies("app:t")
    assert "app/x.log" not in root.bundle("app:t").paths
    assert root.bundle("app:t").owners.get(".flyteignore") is None


# --- files that options name ----------------------------------------------------------------------


def test_the_repositorys_settings_file_selects_the_deployments_that_name_none(root: RuleRoot):
    declare(root, "ops", DEPLOYMENT.format(""))
    declare(root, "own", DEPLOYMENT.format('config="own.yaml"'))
    root.write({"shared/live.yaml": "", "own/own.yaml": ""})
    image_options(root, "--flyte-deploy-config=shared/live.yaml")
    found = root.changed_by("shared/live.yaml")
    assert "ops:x" in found
    assert "own:x" not in found


@pytest.mark.parametrize(
    "options", [(), ("--no-python-enable-lockfile-targets",), ("--python-resolves-generate-lockfiles",)]
)  # fmt: skip
@pytest.mark.parametrize("requirements", ["python_requirement(name='r', requirements=['pftest-a'])", "python_requirements(name='r')"])  # fmt: skip
def test_the_lock_of_a_resolve_selects_what_is_made_of_it(root: RuleRoot, options, requirements):
    image_options(root, *options)
    root.write(
        {
            "locks/default.txt": "pftest-a==1",
            "locks/other.txt": "pftest-a==2",
            "3rdparty/BUILD": requirements,
            "3rdparty/requirements.txt": "pftest-a",
            "app/BUILD": """
                python_sources()
                flyte_image(name="i", base="//base:base", dependencies=[":t"])
                flyte_image(name="empty", base="//base:base")
                flyte_task(name="t", entry_point="w.py:train")
                flyte_deployment(name="d", tasks=[":t"])
                """,
            "app/w.py": f"import pftest_a\n{TASK}",
            "other/BUILD": 'flyte_image(name="i", base="//base:base", resolve="other")',
        }
    )
    found = root.changed_by("locks/default.txt")
    assert {"app:i", "app:empty", "app:t", "app:d"} <= found
    assert "other:i" not in found
    assert "other:i" in root.changed_by("locks/other.txt")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("lockfile", TASK_OF.format("")),
        ("lockfile", BUNDLE.format("")),
        ("image-lockfile", BASE.format("")),
        ("image-lockfile", IMAGE.format("")),
        ("deploy-lockfile", DEPLOYMENT.format("")),
    ],
)
def test_a_lock_of_ones_own_for_the_program_selects_what_it_makes(root: RuleRoot, option, text):
    image_options(root, f"--flyte-pack-{option}=tools/flyte.lock")
    address = declare(root, "code", text)
    root.write({"tools/flyte.lock": ""})
    assert address in root.changed_by("tools/flyte.lock")


@pytest.mark.parametrize(
    "settings",
    [
        "flyte_config: shared/flyte.yaml  # where Flyte is\n",
        "project: bikes\ndomains:\n  staging:\n    flyte_config: 'shared/flyte.yaml'\n",
        "domains: {staging: {flyte_config: shared/flyte.yaml, insecure: true}}\n",
        'domains: {staging: {"flyte_config": "./shared/flyte.yaml"}}\n',
    ],
)
@pytest.mark.parametrize("fields", ["", 'config="own.yaml"'])
def test_a_settings_file_names_files_too(root: RuleRoot, caplog, settings, fields):
    image_options(root, "--flyte-deploy-config=ops/all.yaml")
    address = declare(root, "ops", DEPLOYMENT.format(fields))
    path = "ops/own.yaml" if fields else "ops/all.yaml"
    root.write({path: settings, "shared/flyte.yaml": ""})
    assert address not in root.changed_by("shared/flyte.yaml")
    assert f"{address}: `--changed-since` does not see" in caplog.text
    root.write({"shared/BUILD": 'file(name="f", source="flyte.yaml")'})
    assert address in root.changed_by("shared/flyte.yaml")


def test_options_that_name_nothing_of_the_build_root_make_no_targets(root: RuleRoot):
    image_options(root, "--flyte-deploy-config=/etc/live.yaml", "--flyte-pack-lockfile=../x.lock")
    assert root.dependencies(declare(root, "ops", DEPLOYMENT.format(""))) == []


# --- what naming a file does not do ---------------------------------------------------------------


@pytest.mark.parametrize(("directory", "text", "path"), BELOW)
def test_a_named_file_is_no_source_of_anyone(root: RuleRoot, directory, text, path):
    """`peek`, `count-loc`, linters and `tailor` take what these globs match, and globs may have to match something."""
    target = root.target(declare(root, directory, text))
    assert target[SourcesField].path_globs(UnmatchedBuildFileGlobs.error()).globs == ()


def test_a_file_elsewhere_is_not_taken_for_the_code_of_an_image(root: RuleRoot):
    root.write(
        {
            "base/BUILD": f'flyte_base_image(name="base", {REFERENCE})',
            "base/base.lock.json": base_image().to_json(),
            "app/BUILD": """
                python_sources()
                flyte_image(
                    name="x",
                    base="//base:base",
                    dependencies=["./lib.py", "shared/declared.txt:named"],
                    code=True,
                    source_files=[
                        {"src": "//shared/settings.json", "dst": "/etc/settings.json"},
                        {"src": "//shared/declared.txt", "dst": "/etc/declared.txt"},
                        {"src": "//tools/tool.py", "dst": "/opt/tool.py"},
                    ],
                )
                """,
            "app/lib.py": "",
            "shared/BUILD": 'files(name="named", sources=["*.json", "*.txt"])',
            "shared/settings.json": "{}",
            "shared/declared.txt": "",
            # It imports what is in no lock file.
            "tools/BUILD": 'python_sources()\npython_requirement(name="r", requirements=["nowhere"])',
            "tools/tool.py": "import nowhere\n",
        }
    )  # fmt: skip
    assert {"shared/settings.json:named", "tools/tool.py"} <= set(root.dependencies("app:x"))
    code = root.built_image("app:x").code
    assert dict(code) == {
        "etc/settings.json": "shared/settings.json",
        "etc/declared.txt": "shared/declared.txt",
        "opt/tool.py": "tools/tool.py",
        "home/flyte/task/app/lib.py": "app/lib.py",
        "home/flyte/task/shared/declared.txt": "shared/declared.txt",
    }


def test_an_environment_that_includes_a_named_file_does_not_depend_on_who_names_it(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources()
                files(name="f", sources=["*.yaml"])
                flyte_task(name="t", entry_point="w.py:train", copy_style="all")
                flyte_deployment(name="d", tasks=[":t"], config="live.yaml")
                """,
            "app/w.py": TASK.replace("'e'", "'e', include=['live.yaml']"),
            "app/live.yaml": "",
        }
    )
    found = root.dependencies("app:t")
    assert "app/live.yaml:f" in found
    assert not {"app:d", "app:t"} & set(found)
