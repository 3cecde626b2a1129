"""What `entry_point` may say, what it means, and how mistakes in it are told."""

from __future__ import annotations

import pytest
from pants.engine.addresses import Address
from pants.engine.internals.scheduler import ExecutionError

from pants_flyte.entry_point import parse_entry_point
from pants_flyte.errors import FlyteTargetError
from tests.support.flyte_rules import RuleRoot, refusal

WORKFLOWS = """
    import flyte

    env = flyte.TaskEnvironment("e")
    bare = flyte.TaskEnvironment("bare")

    @env.task
    def train(): ...

    @env.task
    async def fit(): ...

    def helper(): ...
    """


@pytest.mark.parametrize(
    ("directory", "value", "parsed"),
    [
        ("app", "w.py:train", ("app/w.py", "train")),
        ("app", "./w.py:train", ("app/w.py", "train")),
        ("app", "sub/w.py:train", ("app/sub/w.py", "train")),
        ("app/x", "../w.py:train", ("app/w.py", "train")),
        ("", "w.py:train", ("w.py", "train")),
        ("app", "w.py", ("app/w.py", None)),
        ("app", "__init__.py:train", ("app/__init__.py", "train")),
        ("app", "a b.py:zug_größe", ("app/a b.py", "zug_größe")),
    ],
)
def test_an_entry_point_is_a_file_and_a_name(directory, value, parsed):
    assert parse_entry_point(Address(directory, target_name="t"), value) == parsed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is not a file and a name"),
        ("w", "is not a file and a name"),
        ("w:train", "is not a file and a name"),
        ("app.w:train", "is not a file and a name"),
        ("w.txt:train", "is not a file and a name"),
        ("w.ipynb:train", "is not a file and a name"),
        ("w.pyc:train", "is not a file and a name"),
        ("w.py:", "is not a file and a name"),
        ("w.py:a:b", "is not a file and a name"),
        ("w.py:a.b", "is not a file and a name"),
        ("w.py:2", "is not a file and a name"),
        ("w.py: train", "is not a file and a name"),
        ("w.py:train()", "is not a file and a name"),
        (":train", "is not a file and a name"),
        ("../../w.py:train", "leaves the build root"),
        ("sub/../../../w.py:train", "leaves the build root"),
        ("/w.py:train", "leaves the build root"),
    ],
)
def test_anything_else_is_refused_with_an_example(value, message):
    with pytest.raises(FlyteTargetError, match=message) as caught:
        parse_entry_point(Address("app", target_name="t"), value)
    assert str(caught.value).startswith(f"app:t: `entry_point={value!r}` ")


def task(entry_point: str, **fields: str) -> str:
    more = "".join(f", {name}={value!r}" for name, value in fields.items())
    return f"python_sources()\nflyte_task(name='t', entry_point={entry_point!r}{more})"


@pytest.mark.parametrize(
    ("entry_point", "kind", "tasks"),
    [
        ("workflows.py:train", "task", ["train"]),
        ("workflows.py:fit", "task", ["fit"]),
        ("workflows.py:env", "environment", ["train", "fit"]),
    ],
)
def test_a_link_names_the_tasks_of_its_entry_point(root: RuleRoot, entry_point, kind, tasks):
    root.write({"app/BUILD": task(entry_point), "app/workflows.py": WORKFLOWS})
    link = root.package("app:t").link
    assert (link.kind, [t.name for t in link.tasks]) == (kind, tasks)
    assert link.entry_point == f"app/{entry_point}"
    assert link.module == "app.workflows"
    for name, command in ((t.name, t.command) for t in link.tasks):
        assert command[-5:] == (
            "flyte._internal.resolvers.default.DefaultTaskResolver",
            *("mod", "app.workflows", "instance", name),
        )


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        (
            "workflow.py:train",
            "there is no file app/workflow.py, or it is ignored. "
            "Python files in app: app/main.py, app/other.py, app/workflows.py.",
        ),
        (
            "empty/workflows.py:train",
            "there is no file app/empty/workflows.py, or it is ignored. Python files in app/empty: none.",
        ),
        (
            "../nothing.py:train",
            "there is no file nothing.py, or it is ignored. Python files in the build root: top.py.",
        ),
        (
            "workflows.py:tarin",
            "app/workflows.py has no `tarin`. "
            "Tasks and environments in app/workflows.py: bare, env, fit, train.",
        ),
        (
            "workflows.py:helper",
            "app/workflows.py:helper is no task. It is a function without `@ENV.task` above it. "
            "Tasks and environments in app/workflows.py: bare, env, fit, train.",
        ),
        (
            "workflows.py:bare",
            "app/workflows.py:bare is an environment without a task, in that file and in all "
            "modules that import it. "
            "Tasks and environments in app/workflows.py: bare, env, fit, train.",
        ),
        (
            "workflows.py",
            "`entry_point` names the file app/workflows.py, but no task in it. "
            "Tasks and environments in app/workflows.py: bare, env, fit, train.",
        ),
        (
            "other.py:train",
            "app/other.py has no `train`. "
            "app/other.py has no task (`@env.task`) and no `flyte.TaskEnvironment`. But other "
            "modules have some: app/workflows.py (train, fit). "
            'Write `entry_point="workflows.py:train"`.',
        ),
        (
            "main.py",
            "`entry_point` names the file app/main.py, but no task in it. "
            "app/main.py has no task (`@env.task`) and no `flyte.TaskEnvironment`. But modules "
            "that it imports have some: app/workflows.py (train, fit). "
            'Write `entry_point="workflows.py:train"`.',
        ),
        (
            "other.py:x",
            "app/other.py:x is no task. It is a number. app/other.py has no task",
        ),
        (
            "other.py:served",
            "app/other.py:served is an app environment, and has no tasks: write a `flyte_app` instead of the `flyte_task`, or name a task or a `flyte.TaskEnvironment`.",
        ),
    ],
)
def test_a_mistaken_entry_point_is_told_with_what_there_is(root: RuleRoot, entry_point, message):
    root.write(
        {
            "app/BUILD": task(entry_point),
            "app/workflows.py": WORKFLOWS,
            "app/other.py": "x = 1\nserved = flyte.app.AppEnvironment('a')",
            "app/main.py": "from app import workflows\nif __name__ == '__main__': run(workflows.fit)",
            "app/notes.txt": "",
            "top.py": "",
        }
    )
    assert message in root.refusal("app:t")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from elsewhere import *", "train"),
        ("def __getattr__(name): ...", "train"),
        ("from elsewhere import train", "train"),
        ("import flyte\n\ntrain = decorate(3)", "train"),
    ],
)
def test_a_name_that_may_be_a_task_is_taken_for_one(root: RuleRoot, source, name):
    root.write({"app/BUILD": task(f"w.py:{name}"), "app/w.py": source})
    link = root.package("app:t").link
    assert (link.kind, [t.name for t in link.tasks]) == ("task", [name])


def test_the_first_task_of_a_repository_is_told_how_to_write(root: RuleRoot):
    root.write({"app/BUILD": task("w.py"), "app/w.py": "x = 1"})
    assert (
        "app/w.py has no task (`@env.task`) and no `flyte.TaskEnvironment`. "
        "Write `env = flyte.TaskEnvironment(...)` there, and `@env.task` above a function."
    ) in root.refusal("app:t")


# --- the tasks of an environment in other modules -------------------------------------------------

ENVS = """
    import flyte

    env = flyte.TaskEnvironment("e")
    other = flyte.TaskEnvironment("other")
    served = flyte.app.AppEnvironment("s")
    text = "text"
    """


def decorated(how: str, *tasks: str, environment: str = "env") -> str:
    return f"{how}\n" + "".join(f"@{environment}.task\ndef {t}(): ...\n" for t in tasks)


LAYOUT = {
    "p/__init__.py": "from p.envs import env as shared\n",
    "p/envs.py": ENVS,
    "p/load.py": decorated("from p.envs import env", "load"),
    "p/steps/fit.py": decorated("from p import shared, lib", "fit", "score", environment="shared"),
    "p/steps/lib.py": "",
    "p/steps/BUILD": "python_sources()",
    "p/lib.py": "",
    "p/notes.py": decorated("from p.envs import other", "notes", environment="other"),
    "p/test_envs.py": decorated("from p.envs import env", "faked"),
    "p/main.py": "from p.envs import env, text\nfrom p import load\n",
    "p/again.py": "from p.envs import env\nfrom p.load import load\n",
}  # fmt: skip


def layout(entry_point: str, **fields: str) -> dict[str, str]:
    return {"p/BUILD": task(entry_point, **fields) + "\npython_tests(name='tests')", **LAYOUT}


def test_an_environment_has_the_tasks_of_the_modules_that_import_it(root: RuleRoot):
    """The layout of Flyte's guides: `envs.py` has the environments, other modules the tasks."""
    root.write(layout("envs.py:env"))
    packaged = root.package("p:t")
    link = packaged.link
    assert (link.kind, link.module, link.entry_point) == ("environment", "p.envs", "p/envs.py:env")
    assert [t.command[-4:] for t in link.tasks] == [
        ("mod", "p.load", "instance", "load"),
        ("mod", "p.steps.fit", "instance", "fit"),
        ("mod", "p.steps.fit", "instance", "score"),
    ]
    assert packaged.bundle.paths == {
        *("p/__init__.py", "p/envs.py", "p/lib.py", "p/load.py", "p/steps/fit.py"),
    }
    assert root.dependencies("p:t") == ["p/envs.py", "p/load.py", "p/steps/fit.py"]


@pytest.mark.parametrize(
    ("entry_point", "tasks"),
    [
        ("main.py:env", ["load", "fit", "score"]),
        ("__init__.py:shared", ["load", "fit", "score"]),
        ("load.py:env", ["load"]),  # with tasks in its own file, it is these
        ("envs.py:other", ["notes"]),
        ("again.py:load", ["load"]),
    ],
)
def test_an_environment_or_a_task_may_be_named_where_it_is_imported(
    root: RuleRoot, entry_point, tasks
):
    root.write(layout(entry_point))
    assert [t.name for t in root.package("p:t").link.tasks] == tasks


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("envs.py:served", "p/envs.py:served is an app environment"),
        ("main.py:text", "p/main.py:text is no task. It is a string. "),
        ("main.py:nothing", "p/main.py has no `nothing`. "),
        ("main.py:load", "p/main.py:load is no task. It is a module. "),
    ],
)
def test_what_is_no_task_is_refused_wherever_it_comes_from(root: RuleRoot, entry_point, message):
    root.write(layout(entry_point))
    refused = root.refusal("p:t")
    assert message in refused
    assert "Tasks and environments in p/envs.py" in refused or "p/load.py (load)" in refused


def test_tasks_in_tests_alone_are_no_tasks_of_an_environment(root: RuleRoot):
    root.write(layout("lonely.py:env"))
    root.write(
        {
            "p/lonely.py": "env = flyte.TaskEnvironment('l')",
            "p/test_lonely.py": decorated("from p.lonely import env", "faked"),
        }
    )
    assert (
        "p/lonely.py:env is an environment with tasks in tests only: "
        "p/test_lonely.py (faked)." in root.refusal("p:t")
    )


def test_two_modules_that_have_a_task_of_one_name_in_an_environment(root: RuleRoot):
    root.write(layout("envs.py:env"))
    root.write({"p/steps/more.py": decorated("from p.envs import env", "load")})
    assert (
        "p/envs.py:env is an environment with two tasks `load`, in p/load.py and in "
        "p/steps/more.py, and Flyte would keep one of them." in root.refusal("p:t")
    )


def test_a_shared_bundle_has_to_hold_the_modules_of_all_tasks(root: RuleRoot):
    build = "\nflyte_bundle(name='b', dependencies=['./envs.py'])"
    root.write({**layout("envs.py:env", bundle=":b")})
    root.write({"p/BUILD": task("envs.py:env", bundle=":b") + build})
    assert (
        "the bundle p:b does not hold p/load.py. Add p/load.py to its `dependencies`"
        in root.refusal("p:t")
    )


def test_a_module_of_another_resolve_has_no_task_of_the_environment(root: RuleRoot):
    root.write(layout("envs.py:env"))
    root.write({"p/steps/BUILD": "python_sources(resolve='other')"})
    assert [t.name for t in root.package("p:t").link.tasks] == ["load"]


def test_the_files_owner_is_what_the_task_depends_on(root: RuleRoot):
    root.write({"app/BUILD": task("workflows.py:train"), "app/workflows.py": WORKFLOWS})
    assert root.dependencies("app:t") == ["app/workflows.py"]


def test_an_entry_point_in_another_directory_is_inferred_as_well(root: RuleRoot):
    root.write(
        {
            "app/BUILD": "python_sources()",
            "app/workflows.py": WORKFLOWS,
            "deploy/BUILD": "flyte_task(name='t', entry_point='../app/workflows.py:train')",
        }
    )
    assert root.dependencies("deploy:t") == ["app/workflows.py"]
    assert root.bundle("deploy:t").paths == {"app/workflows.py"}


def test_what_an_environment_includes_is_pulled_in_where_it_is_owned(root: RuleRoot):
    source = """
        import flyte

        env = flyte.TaskEnvironment("e", include=("weights.bin", "./conf/*.yaml", "none/*.txt", "../../out"))

        @env.task
        def train(): ...
        """
    root.write(
        {
            "app/BUILD": task("w.py:train") + "\nresources(name='r', sources=['*.bin', 'conf/*'])",
            "app/w.py": source,
            "app/weights.bin": "w",
            "app/other.bin": "o",
            "app/conf/a.yaml": "a",
            "app/conf/b.txt": "b",
        }
    )
    assert root.bundle("app:t").paths == {"app/w.py", "app/weights.bin", "app/conf/a.yaml"}


def test_a_file_without_an_owner_is_an_error_that_says_what_to_write(root: RuleRoot):
    root.write(
        {
            "app/BUILD": "flyte_task(name='t', entry_point='w.py:train')",
            "app/w.py": WORKFLOWS,
        }
    )
    assert (
        "no target owns app/w.py. Put `python_sources()` into app/BUILD (or run `pants tailor app:`)"
        in root.refusal("app:t")
    )


def test_a_file_that_is_only_a_resource_has_no_python_owner(root: RuleRoot):
    root.write(
        {
            "app/BUILD": "resources(name='r', sources=['*.py'])\nflyte_task(name='t', entry_point='w.py:train')",
            "app/w.py": WORKFLOWS,
        }
    )
    assert "no target owns app/w.py" in root.refusal("app:t")


def test_two_owners_are_ambiguous(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources(name="one")
                python_sources(name="two")
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": WORKFLOWS,
        }
    )
    assert (
        "`entry_point='w.py:train'` is ambiguous: several targets own app/w.py. Leave one of them. "
        "Owners: app/w.py:one, app/w.py:two." in root.refusal("app:t")
    )


def test_an_owner_in_another_resolve_is_no_owner(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources(name="src", resolve="other")
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": WORKFLOWS,
        }
    )
    assert (
        "no target owns app/w.py in the resolve `python-default`. "
        "Set `resolve` to that of its owners: app/w.py:src." in root.refusal("app:t")
    )


@pytest.mark.parametrize("resolve", ["python-default", "other"])
def test_the_owner_is_looked_for_in_the_tasks_resolve(root: RuleRoot, resolve):
    root.write(
        {
            "app/BUILD": f"""
                python_sources(name="src", resolve=parametrize("python-default", "other"))
                flyte_task(name="t", entry_point="w.py:train", resolve={resolve!r})
                """,
            "app/w.py": WORKFLOWS,
        }
    )
    assert root.dependencies("app:t") == [f"app/w.py:src@resolve={resolve}"]
    assert root.bundle("app:t").owners == {"app/w.py": f"app/w.py:src@resolve={resolve}"}


def test_a_task_in_every_resolve_of_its_module(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources(name="src", resolve=parametrize("python-default", "other"))
                flyte_task(
                    name="t", entry_point="w.py:train", resolve=parametrize("python-default", "other")
                )
                """,
            "app/w.py": WORKFLOWS,
        }
    )
    for resolve in ("python-default", "other"):
        packaged = root.package(f"app:t@resolve={resolve}")
        assert f"app/t@resolve={resolve}.json" in packaged.artifacts
        assert packaged.link.address == f"app:t@resolve={resolve}"


def test_a_mistaken_entry_point_is_also_told_where_dependencies_are_asked_for(root: RuleRoot):
    root.write({"app/BUILD": task("w.py:train"), "app/workflows.py": WORKFLOWS})
    with pytest.raises(ExecutionError) as caught:
        root.dependencies("app:t")
    assert "there is no file app/w.py" in refusal(caught.value)


@pytest.mark.parametrize("name", ["[x].py", "w].py", "!w.py", "-w.py", "a b.py", "größe.py"])
def test_an_odd_file_name_is_taken_literally(root: RuleRoot, name):
    root.write(
        {
            "BUILD": f"python_source(name='s', source={'./' + name!r})\nflyte_task(name='t', entry_point={name + ':train'!r})",
            name: WORKFLOWS,
            "x.py": "",
            "w1.py": "",
            "aab.py": "",
        }
    )
    assert root.dependencies("//:t") == ["//:s"]


# --- syntax ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["\u00e9t\u00e9", "e\u0301te\u0301"])
@pytest.mark.parametrize("on_disk", ["\u00e9t\u00e9", "e\u0301te\u0301"])
def test_both_spellings_of_a_letter_with_an_accent_are_one(root: RuleRoot, typed, on_disk):
    """As names of files come from macOS, and from editors."""
    source = f"from {typed}.{typed} import {typed}\nenv = flyte.TaskEnvironment('e')\n@env.task\ndef {typed}_(): ...\n"
    root.write(
        {
            "BUILD": f'flyte_task(name="t", entry_point="{typed}.py:{typed}_")\npython_sources()',
            f"{on_disk}.py": source.replace(f"from {typed}.{typed}", f"from lib_{typed}.{typed}"),
            f"lib_{on_disk}/BUILD": "python_sources()",
            f"lib_{on_disk}/{on_disk}.py": f"{typed} = 1\n",
        }
    )
    packaged = root.package(":t")
    name = "\u00e9t\u00e9"
    assert packaged.link.entry_point == f"{name}.py:{name}_"
    assert packaged.link.tasks[0].name == f"{name}_"
    assert packaged.bundle.paths == {f"{name}.py", f"lib_{name}/{name}.py"}


def test_a_syntax_error_is_told_with_its_line_and_the_python_that_was_asked(root: RuleRoot):
    root.write({"app/BUILD": task("w.py:train"), "app/w.py": "x = 1\ndef train(:\n"})
    message = root.refusal("app:t")
    assert "app:t: app/w.py cannot be parsed by /" in message
    assert message.endswith("(CPython<3.14,>=3.9): invalid syntax (w.py, line 2)")


# Pants runs on 3.9, and tasks on 3.11 or newer, so every machine that runs these tests has both.
NEWER = """
    python_sources(interpreter_constraints=["CPython==3.11.*"])
    flyte_task(name="t", entry_point="w.py:train", interpreter_constraints=["CPython==3.11.*"])
    flyte_task(name="typo", entry_point="w.py:tarin", interpreter_constraints=["CPython==3.11.*"])
    """


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param("match 3:\n    case 3: from app import other", id="match, 3.10"),
        pytest.param("try: from app import other\nexcept* E: pass", id="except*, 3.11"),
    ],
)
def test_syntax_newer_than_the_python_of_pants_is_read_by_the_modules_own_python(
    root: RuleRoot, newer
):
    module = f"env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n{newer}\n"
    root.write({"app/BUILD": NEWER, "app/w.py": module, "app/other.py": ""})
    packaged = root.package("app:t")
    assert packaged.link.kind == "task"
    assert packaged.bundle.paths == {"app/w.py", "app/other.py"}
    assert (
        "app/w.py has no `tarin`. Tasks and environments in app/w.py: env, train."
        in root.refusal("app:typo")
    )


def test_syntax_newer_than_the_modules_own_python_is_an_error(root: RuleRoot):
    root.write({"app/BUILD": NEWER, "app/w.py": "type Number = int\n"})
    message = root.refusal("app:t")
    assert message.endswith("(CPython==3.11.*): invalid syntax (w.py, line 1)")
