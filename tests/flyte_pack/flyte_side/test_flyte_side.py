"""The one place that knows what is private to Flyte, and the hash that says whether a task has changed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from flyte_pack.deploy.flyte_processes import RegistrationError
from flyte_pack.flyte_side import MAIN
from flyte_pack.flyte_side.private import RESOLVER
from tests.support.control_plane import IMAGE, code, control_plane, entry, registrar, unpacked
from tests.support.flyte_versions import MATRIX, NEWEST, OLDEST, python_with_flyte

SIDE = Path(MAIN).parent
SOURCES = SIDE.parent.parent
LOAD = f"""
import importlib, runpy
private = runpy.run_path({MAIN!r})["_load"]("private")
"""


def in_flyte(line, program):
    return subprocess.run(
        [str(python_with_flyte(line)), "-I", "-c", LOAD + dedent(program)],
        env={"PATH": os.defpath, "DO_NOT_TRACK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# What is looked at of the public classes, and is not public.
FIELDS = {
    "flyte.Image": ("_layers", "_ref_name", "base_image", "dockerfile", "python_version"),
    "flyte.TaskEnvironment": ("_declaring_file", "depends_on", "include", "tasks"),
    "flyte.extend.TaskTemplate": ("parent_env", "parent_env_name", "triggers"),
    "flyte.cli._common.CLIConfig": ("init",),
    "flyte.cli._common.ObjectsPerFileGroup": ("objs", "_filter_objects"),
    "flyte.cli._run.RunRemoteTaskCommand": ("_execute_and_render",),
}


@pytest.mark.parametrize("line", MATRIX)
def test_every_private_name_is_where_it_is_looked_for_and_since_when(line):
    done = in_flyte(
        line,
        f"""
        import dataclasses, flyte
        def number(text):
            return tuple(int(part) for part in text.split("."))
        here = number(flyte.version())
        for purpose in dict.fromkeys(row[0] for row in private.PRIVATE):
            try:
                found = private.private(purpose)
            except private.Refused as error:
                print(error)
                continue
            places = [row for row in private.PRIVATE if row[0] == purpose]
            for _, module, name, versions in places:
                since, _, until = versions.partition("-")
                known = number(since) <= here and (not until or here[: len(number(until))] <= number(until))
                if known:
                    break
            else:
                print(purpose, "is in none of its places, by their versions")
            if getattr(importlib.import_module(module), name) is not found:
                print(purpose, "is not the one of", module)
        for path, names in {FIELDS!r}.items():
            module, _, name = path.rpartition(".")
            thing = getattr(importlib.import_module(module), name)
            fields = [field.name for field in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
            for one in names:
                if one not in fields and not hasattr(thing, one):
                    print("flyte", flyte.version(), "moved", path, one)
        """,
    )
    assert done.stdout == ""


def test_a_name_that_moves_is_named():
    done = in_flyte(
        NEWEST,
        """
        private.PRIVATE = (("plan_deploy", "flyte._gone", "plan_deploy", "2.5-"),)
        try:
            private.private("plan_deploy")
        except private.Refused as error:
            print(error)
        """,
    )
    assert " moved flyte._gone.plan_deploy: this pants-flyte does not know it" in done.stdout


PRIVATE_NAME = re.compile(r"\bflyte(\.\w+)*\._")


def private_names(file):
    """The private names of Flyte that a source file imports or has in a string."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        else:
            continue
        yield from (name for name in names if PRIVATE_NAME.search(name))


def test_no_other_file_knows_private_names():
    found = {file: list(private_names(file)) for file in SOURCES.rglob("*.py")}
    assert [file for file, names in found.items() if names] == [SIDE / "private.py"]


def test_the_build_rules_find_the_resolver_without_flyte():
    assert RESOLVER == "flyte._internal.resolvers.default.DefaultTaskResolver"


# --- the hash ------------------------------------------------------------------------------------

TASKS = """
    import enum, dataclasses, datetime, typing
    import flyte

    class Size(enum.Enum):
        SMALL = "s"
        LARGE = "l"

    @dataclasses.dataclass
    class Config:
        rate: float = 0.1
        names: typing.List[str] = dataclasses.field(default_factory=list)

    env = flyte.TaskEnvironment(
        name="etl",
        description="What it is for",
        resources=flyte.Resources(cpu=1, memory="1Gi"),
        env_vars={"A": "1", "SEEN": "".join({"x", "y", "z", "w", "v"})},
        secrets=[flyte.Secret(key="token", as_env_var="TOKEN")],
        cache="auto",
    )

    @env.task(
        retries=2,
        timeout=datetime.timedelta(minutes=5),
        triggers=(flyte.Trigger(name="daily", automation=flyte.Cron("0 1 * * *"), inputs={"n": 3}),),
    )
    async def work(n: int, size: Size = Size.SMALL, config: typing.Optional[Config] = None, tags: typing.Dict[str, str] = {"b": "1", "a": "2"}) -> typing.Tuple[int, typing.List[str]]:
        '''Does the work.

        Args:
            n: how much
        '''
        return n, []
"""


def described(root, line=NEWEST, uri="s3://bundles/a.tar.gz", image=IMAGE, **fields):
    with registrar(line=line, **fields) as process:
        (task,) = process.describe(
            [code(root, entry("services/tasks.py:env", image=image), uri=uri)]
        ).tasks
    return task


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """By the line of Flyte."""
    root = unpacked(tmp_path_factory.mktemp("code"), {"services/tasks.py": TASKS})
    return {line: described(root, line) for line in MATRIX}


@pytest.mark.parametrize("line", MATRIX)
def test_the_same_code_has_the_same_hash_wherever_and_whenever(tmp_path, usual, line):
    """Another directory, in a Git repository, another umask, time zone, language, caller, and process."""
    root = unpacked(tmp_path / "a" / "longer directory", {"services/tasks.py": TASKS})
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "x"],
        ["remote", "add", "origin", "https://github.com/org/repository"],
    ):
        subprocess.run([*git, *command], cwd=tmp_path / "a", check=True)
    before = os.umask(0o077)
    try:
        environ = {
            "PATH": os.environ["PATH"],
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
            "PYTHONHASHSEED": "7",
        }
        again = described(root, line, environ=environ, import_environ=environ)
    finally:
        os.umask(before)
    assert again == usual[line]


@pytest.mark.parametrize("line", MATRIX)
def test_a_users_own_settings_of_flyte_change_nothing(tmp_path, line):
    """Such as the registry that its own images are looked for in."""
    seen = TASKS.replace('"A": "1"', '"A": str(flyte.Image.from_debian_base(name="n").registry)')
    root = unpacked(tmp_path / "code", {"services/tasks.py": seen})
    (tmp_path / "home" / ".flyte").mkdir(parents=True)
    (tmp_path / "home" / ".flyte" / "config.yaml").write_text("image: {registry: other.example}\n")
    one, other = (
        described(root, line, import_environ={"PATH": os.defpath, "HOME": home})
        for home in (str(tmp_path / "home"), "/nonexistent")
    )
    assert one == other


def test_packages_keep_their_bytecode_and_what_ships_gets_none(tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "beside.py").write_text("A = 1\n")
    tasks = f"""
        import sys
        import flyte
        import services.others
        sys.path.append({str(tmp_path / "packages")!r})
        import beside
        env = flyte.TaskEnvironment("ml", image={IMAGE!r})
    """
    files = {"services/tasks.py": tasks, "services/others.py": "B = 2"}
    root = unpacked(tmp_path / "code", files)
    with registrar() as process:
        process.describe([code(root, entry("services/tasks.py:env"))])
    assert [one.name.split(".")[0] for one in tmp_path.rglob("*.pyc")] == ["beside"]


def test_what_was_compiled_once_is_kept_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tasks = f"""
        import flyte
        import services.others
        env = flyte.TaskEnvironment("ml", image={IMAGE!r})
        raise RuntimeError(f"{{services.others.where()}}, {{services.others.B}}")
    """
    others = "B = {}\ndef where():\n    return where.__code__.co_filename\n"

    def seen(name, b):
        files = {"services/tasks.py": tasks, "services/others.py": others.format(b)}
        root = unpacked(tmp_path / name, files)
        with registrar() as process, pytest.raises(RegistrationError) as refused:
            process.describe([code(root, entry("services/tasks.py:env"))])
        return str(refused.value)

    kept = tmp_path / "cache" / "pants-flyte" / "bytecode"
    assert "RuntimeError: services/others.py, 2" in seen("one", 2)
    (before,) = [set(kept.iterdir())]
    assert len(before) == 2
    # The same source elsewhere is not compiled again, and knows where it is.
    assert "RuntimeError: services/others.py, 2" in seen("two", 2)
    assert set(kept.iterdir()) == before
    # Of one size and one time, as files of an archive are: the content tells them apart.
    assert "RuntimeError: services/others.py, 3" in seen("three", 3)
    added = set(kept.iterdir()) - before
    assert len(added) == 1
    # Code without assertions is other code.
    assert in_other_ways(tmp_path, kept) == ["True", "False", "True"]
    # What cannot be read costs the time to compile it, and no more.
    for one in kept.iterdir():
        one.write_bytes(one.read_bytes()[:20])
    assert "RuntimeError: services/others.py, 3" in seen("four", 3)


def in_other_ways(tmp_path, kept):
    """Whether `__debug__` holds in a module, run as usual, without assertions, and as usual."""
    root = unpacked(tmp_path / "ways", {"own.py": "D = __debug__\n"})
    program = f"""
        import sys
        bytecode = runpy.run_path({str(SIDE / "bytecode.py")!r})
        sys.path.insert(0, {root!r})
        sys.path_hooks.insert(0, bytecode["finder_of"]({root!r}, {str(kept)!r}))
        import own
        print(own.D)
        """
    python = str(python_with_flyte(NEWEST))
    seen = []
    for options in ((), ("-O",), ()):
        command = [python, *options, "-I", "-c", LOAD + dedent(program)]
        seen.append(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        )
    return seen


def test_nothing_is_counted_for_those_who_make_flyte(tmp_path):
    tasks = f"""
        import sys
        import importlib.util
        import flyte, flyte._sentry
        assert importlib.util.find_spec("sentry_sdk")
        flyte._sentry.count("uses")
        assert "sentry_sdk" not in sys.modules
        env = flyte.TaskEnvironment("ml", image={IMAGE!r})
    """
    root = unpacked(tmp_path, {"services/tasks.py": tasks})
    with registrar() as process:
        process.describe([code(root, entry("services/tasks.py:env"))])


def test_a_registered_task_says_nothing_of_the_repository_around_the_directory(tmp_path):
    root = unpacked(tmp_path / "repository", {"services/tasks.py": TASKS})
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "x"],
        ["remote", "add", "origin", "https://github.com/org/repository"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    with control_plane(tmp_path / "plane") as plane:
        with registrar(plane) as process:
            process.describe([code(root, entry("services/tasks.py:env"))])
            list(process.register({"etl.work": "v1"}))
        (task,) = plane.state()["tasks"]
    assert task["request"]["spec"]["documentation"] == {"shortDescription": "Does the work."}
    assert root not in str(task)


CHANGES = [
    ("cpu=1", "cpu=2"),
    ('memory="1Gi"', 'memory="2Gi"'),
    ('{"A": "1"', '{"A": "2"'),
    ('{"A": "1"', '{"B": "1"'),
    ("retries=2", "retries=3"),
    ("minutes=5", "minutes=6"),
    ('key="token"', 'key="other"'),
    ("0 1 * * *", "0 2 * * *"),
    ('inputs={"n": 3}', 'inputs={"n": 4}'),
    ('name="daily"', 'name="nightly"'),
    ("Size = Size.SMALL", "Size = Size.LARGE"),
    ("Does the work.", "Does other work."),
    ("n: how much", "n: how many"),
    ("What it is for", "What it was for"),
    ("rate: float", "rates: float"),
    ('cache="auto"', 'cache="disable"'),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_another_declaration_has_another_hash(tmp_path, usual, old, new):
    assert TASKS.count(old) == 1
    root = unpacked(tmp_path, {"services/tasks.py": TASKS.replace(old, new)})
    changed = described(root)
    assert changed.name == usual[NEWEST].name
    assert changed.spec != usual[NEWEST].spec


@pytest.mark.parametrize(
    "fields",
    [
        {"uri": "s3://bundles/b.tar.gz"},
        {"uri": None},
        {"image": IMAGE.replace("0", "1")},
        {"project": "cars"},
        {"domain": "production"},
    ],
)
def test_another_place_has_another_hash(tmp_path, usual, fields):
    root = unpacked(tmp_path, {"services/tasks.py": TASKS})
    assert described(root, **fields).spec != usual[NEWEST].spec


def test_what_flyte_itself_says_of_it_counts_too(usual):
    """A newer Flyte in the requirements makes another spec, as it makes another container."""
    assert usual[OLDEST].spec != usual[NEWEST].spec


def test_a_default_that_would_have_to_be_uploaded(tmp_path):
    tasks = """
        import flyte
        env = flyte.TaskEnvironment(name="etl")
        @env.task
        async def work(data: bytes = b"x" * 100000) -> int:
            return 1
    """
    root = unpacked(tmp_path, {"services/tasks.py": tasks})
    with pytest.raises(RegistrationError) as caught:
        described(root)
    assert "services/ml:train: Flyte cannot describe task etl.work: the default of an input" in str(
        caught.value
    )


def test_the_package_imports_nothing_else_of_ours():
    """It runs on another Python than ours: syntax of 3.10, the standard library and Flyte alone."""
    for file in sorted(SIDE.glob("*.py")):
        program = f"import ast; ast.parse(open({str(file)!r}).read(), feature_version=(3, 10))"
        subprocess.run([sys.executable, "-c", program], check=True)
        imported = [
            name for name in _imported(ast.parse(file.read_bytes())) if "flyte_pack" in name
        ]
        assert imported == [], file.name


def _imported(tree: ast.AST) -> Iterator[str]:
    """What runs as an import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from _imported(ast.Module([other], []))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield ast.unparse(node)
        else:
            yield from _imported(node)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("", []),
        ("s.task_template.container.env[0].value = 'x'", ["task_template.container.env[0].value"]),
        (
            "pod['containers'][0]['image'] = 'x'",
            ["task_template.k8s_pod.pod_spec.containers[0].image"],
        ),
        (
            "s.task_template.metadata.retries.retries = 9",
            ["task_template.metadata.retries.retries"],
        ),
        ("s.task_template.container.args[3] = cache('b')", ["task_template.container.args[3]"]),
        # What does not decide what runs.
        ("s.task_template.container.args[3] = cache('a', 1)", []),
        ("s.task_template.id.org = 'acme'", []),
        ("s.documentation.source_code.link = 'https://x.example'", []),
        ("s.environment.description = 'd' * 255", []),
        ("s.documentation.short_description = 'd' * 256", ["documentation.short_description"]),
    ],
)
def test_specifications_are_compared_as_a_whole(change, differs):
    done = in_flyte(
        NEWEST,
        f"""
        import base64, gzip, json
        from flyteidl2.task.task_definition_pb2 import TaskSpec
        compared = runpy.run_path({MAIN!r})["_load"]("compared")

        def cache(text, level=9):
            return base64.b64encode(gzip.compress(text.encode(), level)).decode()

        def spec(change=""):
            # A task has a container or a pod.
            s = TaskSpec()
            s.environment.description = "d" * 300
            s.task_template.container.env.add(key="A", value="1")
            s.task_template.container.args.extend(["a0", "--x", "--image-cache", cache("a")])
            pod = {{"containers": [{{"name": "primary", "image": "i", "env": []}}]}}
            exec(change)
            if {"pod[" in change}:
                s.task_template.k8s_pod.pod_spec.update(pod)
            return s

        print(json.dumps(compared.difference(spec({change!r}), spec())))
        """,
    )
    assert done.stdout.strip() == str(differs).replace("'", '"'), done.stdout
