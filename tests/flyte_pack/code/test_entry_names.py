"""What a name of a module stands for, as far as syntax trees say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import dedent
from typing import TypeVar

import pytest

from flyte_pack.code.entry_names import Code, Kind, Named, Wanted
from flyte_pack.code.module_scan import scan

T = TypeVar("T")
TASK, ENVIRONMENT, APP = Kind.TASK, Kind.ENVIRONMENT, Kind.APP
OTHER, UNKNOWN, MISSING = Kind.OTHER, Kind.UNKNOWN, Kind.MISSING


class Repository:
    """Modules by name; that of a package ends in `.__init__`."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = {name.replace(".__init__", ""): text for name, text in modules.items()}
        self.packages = {n.replace(".__init__", "") for n in modules if n.endswith(".__init__")}
        self.code = Code()

    def ask(self, question: Callable[[], T]) -> T:
        while True:
            try:
                return question()
            except Wanted as wanted:
                name = wanted.module
                assert name not in self.code.scans, "asked twice"
                text = self.modules.get(name)
                scanned = None if text is None else scan(dedent(text))
                self.code.add(name, scanned, name in self.packages)

    def named(self, name: str, module: str = "m") -> Named:
        return self.ask(lambda: self.code.named(module, name))

    def kind(self, name: str, module: str = "m") -> Kind:
        return self.named(name, module).kind

    def tasks(self, module: str = "m") -> list[tuple[str, str | None]]:
        """The tasks of a module, each with the name of its environment."""
        found = self.ask(lambda: self.code.tasks_in(module))
        return [(name, place[1] if place else None) for name, place in found]

    def tasks_of(self, name: str, module: str = "m", of: str = "m") -> list[str]:
        environment = self.named(name, of)
        return list(self.ask(lambda: self.code.tasks_of(module, environment)))


def module(source: str, **others: str) -> Repository:
    return Repository({"m": source, **others})


@pytest.mark.parametrize(
    ("source", "tasks"),
    [
        ("@env.task\ndef a(): ...", [("a", "env")]),
        ("@env.task\nasync def a(): ...", [("a", "env")]),
        ("@env.task(cache='auto', retries=3)\ndef a(): ...", [("a", "env")]),
        ("@envs.gpu.task\ndef a(): ...", [("a", "envs.gpu")]),
        ("@make().task\ndef a(): ...", [("a", None)]),
        ("@envs['gpu'].task\ndef a(): ...", [("a", None)]),
        ("@envs['gpu'].task(retries=1)\ndef a(): ...", [("a", None)]),
        ("@TaskEnvironment('e').task\ndef a(): ...", [("a", None)]),
        ("@env.clone_with('b').task\ndef a(): ...", [("a", None)]),
        ("@logged\n@env.task\ndef a(): ...", [("a", "env")]),
        ("@env.task\n@logged\ndef a(): ...", [("a", "env")]),
        ("def f(): ...\na = env.task(f)", [("a", "env")]),
        ("def f(): ...\na = env.task(retries=2)(f)", [("a", "env")]),
        ("def a(): ...\na = env.task(a)", [("a", "env")]),
        ("a: Task = env.task(f)", [("a", "env")]),
        ("a, b = env.task(f), 3", [("a", "env")]),
        ("task = env.task\n@task\ndef a(): ...", [("a", "env")]),
        ("task = env.task(retries=2)\n@task\ndef a(): ...", [("a", "env")]),
        ("a = env.task(f) if GPU else env.task(g)", [("a", "env")]),
        ("@env.task\ndef f(): ...\na = f.override(short_name='x')", [("f", "env"), ("a", "env")]),
        ("@env.sandbox.orchestrator\ndef a(): ...", [("a", "env")]),
        ("@env.sandbox.orchestrator(timeout_ms=9)\ndef a(): ...", [("a", "env")]),
        ("a = env.sandbox.orchestrator(f)", [("a", "env")]),
        ("a = flyte.sandbox.orchestrator_from_str('x', inputs={})", [("a", None)]),
        ("a = flyte.extras.ContainerTask(name='c', image='i')", [("a", None)]),
        ("from flyte.extras import ContainerTask as C\na = C('c')", [("a", None)]),
        ("from flyteplugins.bigquery import BigQueryTask\na = BigQueryTask('c')", [("a", None)]),
        ("from flyteplugins.snowflake import Snowflake\na = Snowflake('c')", [("a", None)]),
        ("class C(flyte.extend.TaskTemplate): ...\na = C('c')", [("a", None)]),
        ("def make(env):\n @env.task\n def f(): ...\n return f\na = make(e)", [("a", None)]),
        ("def own(f): return env.task(f)\n@own\ndef a(): ...", [("a", "env")]),
        ("@env.task\ndef b(): ...\n@env.task\ndef a(): ...", [("b", "env"), ("a", "env")]),
        ("if True:\n    @env.task\n    def a(): ...", [("a", "env")]),
        ("with env:\n    @env.task\n    def a(): ...", [("a", "env")]),
        ("try:\n    @env.task\n    def a(): ...\nexcept E:\n    pass", [("a", "env")]),
        ("for _ in x:\n    @env.task\n    def a(): ...\nelse:\n    b = env.task(f)", [("a", "env"), ("b", "env")]),
        # What is inside a function or a class is no name of the module.
        ("def f():\n    @env.task\n    def a(): ...", []),
        ("class C:\n    @env.task\n    def a(self): ...", []),
        ("if __name__ == '__main__':\n    a = env.task(f)", []),
        ("def task(f): return f\n@task\ndef a(): ...", []),
        ("@env.task\ndef a(): ...\ndel a", []),
        ("@env.task\ndef a(): ...\nb = a", [("a", "env")]),
        ("a = 1", []),
        ("", []),
    ],
)  # fmt: skip
def test_tasks_are_what_hangs_on_an_environment(source: str, tasks: list[tuple]):
    assert module(f"import flyte\nenv = flyte.TaskEnvironment('e')\n{source}").tasks() == tasks


FLYTE = (
    "import flyte, os\nfrom flyte import TaskEnvironment\nfrom flyte.app import AppEnvironment\n"
)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("a = flyte.TaskEnvironment(name='e')", ENVIRONMENT),
        ("a = TaskEnvironment('e')", ENVIRONMENT),
        ("a: object = TaskEnvironment('e')", ENVIRONMENT),
        ("a = TaskEnvironment.from_task('e', t)", ENVIRONMENT),
        ("b = TaskEnvironment('e')\na = b.clone_with('a')", ENVIRONMENT),
        ("a = TaskEnvironment('e')\na = a.clone_with('a')", ENVIRONMENT),
        ("a = b = TaskEnvironment('e')", ENVIRONMENT),
        ("b = TaskEnvironment('e')\na = b", ENVIRONMENT),
        ("b, a = 1, TaskEnvironment('e')", ENVIRONMENT),
        ("a = TaskEnvironment('e') if GPU else None", ENVIRONMENT),
        ("a = other() or TaskEnvironment('e')", ENVIRONMENT),
        ("from flyte import TaskEnvironment as T\na = T('e')", ENVIRONMENT),
        ("import flyte as fl\na = fl.TaskEnvironment('e')", ENVIRONMENT),
        ("T = TaskEnvironment\na = T('e')", ENVIRONMENT),
        ("from flyte import *\na = TaskEnvironment('e')", ENVIRONMENT),
        ("from flyte.clustered import ClusteredTaskEnvironment\na = ClusteredTaskEnvironment()", ENVIRONMENT),
        ("class T(TaskEnvironment): ...\na = T('e')", ENVIRONMENT),
        ("class T(Mixin, TaskEnvironment): ...\nclass U(T): ...\na = U('e')", ENVIRONMENT),
        ("class T(TaskEnvironment): ...\na = T.from_task('e', t)", ENVIRONMENT),
        ("def make(): return TaskEnvironment('e')\na = make()", ENVIRONMENT),
        ("def make():\n if x: return TaskEnvironment('d')\n return TaskEnvironment('p')\na = make()", ENVIRONMENT),
        ("def make():\n e = TaskEnvironment('e')\n return e\na = make()", ENVIRONMENT),
        ("def make():\n e = TaskEnvironment('e')\n f = e.clone_with('f')\n return f\na = make()", ENVIRONMENT),
        ("def make(n) -> flyte.TaskEnvironment: return ENVS[n]\na = make(1)", ENVIRONMENT),
        ("def make(n) -> 'TaskEnvironment': return ENVS[n]\na = make(1)", ENVIRONMENT),
        ("@functools.cache\ndef make(): return TaskEnvironment('e')\na = make()", ENVIRONMENT),
        ("make = lambda: TaskEnvironment('e')\na = make()", UNKNOWN),
        ("try:\n    a = TaskEnvironment('e')\nexcept NameError:\n    a = None", ENVIRONMENT),
        ("from elsewhere import a\n@a.task\ndef f(): ...", ENVIRONMENT),
        ("a = elsewhere.make()\n@a.task\ndef f(): ...", ENVIRONMENT),
        ("from company import CompanyTaskEnvironment as T\na = T('e')", ENVIRONMENT),
        ("a = flyte.app.AppEnvironment(name='a')", APP),
        ("a = AppEnvironment('a')", APP),
        ("a = flyte.app.ConnectorEnvironment(name='a')", APP),
        ("from flyte.app import AppEnvironment as Served\na: object = Served('a')", APP),
        ("from flyte.app.extras import FastAPIAppEnvironment\na = FastAPIAppEnvironment('a')", APP),
        ("from flyteplugins.vllm import VLLMAppEnvironment as V\na = V('a')", APP),
        ("class Mine(AppEnvironment): ...\na = Mine('a')", APP),
        ("b = AppEnvironment('a')\na = b.clone_with('b')", APP),
        ("b = AppEnvironment('a')\nc = b\na = c", APP),
        ("def make(): return AppEnvironment('a')\na = make()", APP),
        ("a = AppEnvironment('a')\na = TaskEnvironment('a')", ENVIRONMENT),
        ("a = TaskEnvironment('a')\na = AppEnvironment('a')", APP),
        ("a = AppEnvironmentFactory('a')", UNKNOWN),
        ("T = elsewhere\na = T('e')", UNKNOWN),
        ("a = ENVS['gpu']", UNKNOWN),
        ("a = decorate(3)", UNKNOWN),
        ("from elsewhere import a", UNKNOWN),
        ("from elsewhere import *", UNKNOWN),
        ("def __getattr__(name): ...", UNKNOWN),
        ("globals()['a'] = 1", UNKNOWN),
        ("@decorated\ndef a(): ...", UNKNOWN),
        ("with thing() as a: ...", UNKNOWN),
        ("for a in things: ...", UNKNOWN),
        ("if (a := thing()): ...", UNKNOWN),
        ("b = 3", MISSING),
        ("if __name__ == '__main__':\n    a = 3", MISSING),
        ("a = 3\ndel a", MISSING),
        ("a: TaskEnvironment", MISSING),
    ],
)  # fmt: skip
def test_a_name_stands_for_what_it_is_bound_to(source: str, kind: Kind):
    assert module(FLYTE + source).kind("a") is kind


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("a = 'text'", "a string"),
        ("a = f'{x}'", "a string"),
        ("a = b'1'", "a bytes literal"),
        ("a = 3", "a number"),
        ("a = -1.5", "a number"),
        ("a = True", "a boolean"),
        ("a = None", "None"),
        ("a = [env]", "a list"),
        ("a = [e for e in x]", "a list"),
        ("a = 1, 2", "a tuple"),
        ("a = {'e': env}", "a dictionary"),
        ("a = {1}", "a set"),
        ("a = x == y", "a comparison"),
        ("a = x + 'b'", "the result of an operator"),
        ("a = ', '.join(x)", "what a method of a literal gives"),
        ("a = lambda: env", "a function"),
        ("def a(): ...", "a function without `@ENV.task` above it"),
        ("async def a(): ...", "a function without `@ENV.task` above it"),
        ("@flyte.trace\nasync def a(): ...", "a function without `@ENV.task` above it"),
        ("@functools.lru_cache(maxsize=1)\ndef a(): ...", "a function without `@ENV.task` above it"),
        ("def log(f):\n @wraps(f)\n def g(): ...\n return g\n@log\ndef a(): ...", "a function without `@ENV.task` above it"),
        ("class a: ...", "a class"),
        ("@dataclass\nclass a: ...", "a class"),
        ("class a(TaskEnvironment): ...", "a class"),
        ("class C: ...\na = C()", "an object of a class"),
        ("import os as a", "a module"),
        ("import a.b", "a module"),
        ("from os import path as a", "`os.path` itself"),
        ("from flyte import TaskEnvironment as a", "`flyte.TaskEnvironment` itself"),
        ("a = os.environ.get('A')", "what `os.environ.get` gives"),
        ("a = int(3)", "what `int` gives"),
        ("a = pathlib.Path(__file__).parent.parent", "what `pathlib.Path` gives"),
        ("a = flyte.Image.from_debian_base().with_pip_packages('x')", "made by `flyte.Image`"),
        ("a = flyte.Image.from_base('x')\nif x:\n    a = a.with_env_vars({})", "made by `flyte.Image`"),
        ("a = flyte.Resources(cpu=1)", "made by `flyte.Resources`"),
        ("a = flyte.remote.Task.get('x')", "what `flyte.remote.Task.get` finds at a control plane"),
        ("from flyte.extras import shell\na = shell.create(name='s')", "a shell command, which a task calls"),
        ("import flytekit\n@flytekit.task\ndef a(): ...", "made by Flyte 1 (`flytekit`), and this is for Flyte 2 (`flyte`)"),
        ("def make(): return 3\na = make()", "a number"),
        ("async def make(): return TaskEnvironment('e')\na = make()", "a coroutine"),
        ("def make(): ...\na = make()", "the result of a function that returns nothing"),
        ("e = TaskEnvironment('e')\na = e.task", "the method `task`"),
        ("e = TaskEnvironment('e')\n@e.task\ndef t(): ...\na = t(3)", "the result of a call of a task"),
        ("s = AppEnvironment('s')\n@s.server\ndef a(): ...", "a function of an app environment"),
        ("s = AppEnvironment('s')\n@s.task\ndef a(): ...", "a function under `.task` of an app environment"),
        ("s = 'text'\n@s.task\ndef a(): ...", "a function under `.task` of a string"),
        ("def s(): ...\n@s.task\ndef a(): ...", "a function under `.task` of a function without `@ENV.task` above it"),
        ("if x:\n    a = 'text'\nelse:\n    a = 3", "a string"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_told_in_words(source: str, what: str):
    imports = f"{FLYTE}import functools, pathlib\n"
    assert module(imports + source).named("a") == Named(
        OTHER, what, module(imports + source).named("a").at
    )


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("@e.task\ndef a(): ...\ndef a(): ...", OTHER),
        ("def a(): ...\n@e.task\ndef a(): ...", TASK),
        ("@e.task\ndef a(): ...\na = None", OTHER),
        ("@e.task\ndef a(): ...\na: object", TASK),
        ("@e.task\ndef a(): ...\nimport a", OTHER),
        ("@e.task\ndef a(): ...\na = logged(a)", TASK),
        ("def a(): ...\na = logged(a)", UNKNOWN),
        # One branch of several: which of them runs can't be seen, so a task in any of them counts.
        ("if T:\n    def a(): ...\nelse:\n    @e.task\n    def a(): ...", TASK),
        ("if T:\n    @e.task\n    def a(): ...\nelse:\n    def a(): ...", TASK),
        ("try:\n    a = e.task(f)\nexcept E:\n    a = None", TASK),
        ("if T:\n    @e.task\n    def a(): ...\ndef a(): ...", OTHER),
        ("try:\n    from x import a\nexcept ImportError:\n    a = None", UNKNOWN),
        ("try:\n    from x import a\nexcept ImportError:\n    def a(): ...", UNKNOWN),
    ],
)
def test_a_later_binding_replaces_an_earlier_one_unless_it_may_not_run(source: str, kind: Kind):
    assert module(f"e = TaskEnvironment('e')\n{source}").kind("a") is kind


ENVS = """
    import flyte
    class Mine(flyte.TaskEnvironment): ...
    gpu = Mine("gpu")
    served = flyte.app.AppEnvironment("s")
    text = "t"
    def make(): return Mine("m")
    @gpu.task
    def train(): ...
    def plain(): ...
    hidden = flyte.new_thing()
    """


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("from p.envs import gpu as a", ENVIRONMENT),
        ("from p.envs import gpu\na = gpu", ENVIRONMENT),
        ("from p.envs import train as a", TASK),
        ("from p.envs import served as a", APP),
        ("from p.envs import text as a", OTHER),
        ("from p.envs import plain as a", OTHER),
        ("from p.envs import hidden as a", UNKNOWN),
        ("from p.envs import no as a", MISSING),
        ("from p import envs as a", OTHER),
        ("from p import gpu as a", ENVIRONMENT),
        ("from p import renamed as a", ENVIRONMENT),
        ("import p.envs\na = p.envs.gpu", ENVIRONMENT),
        ("import p.envs as e\na = e.gpu", ENVIRONMENT),
        ("from p import envs\na = envs.gpu", ENVIRONMENT),
        ("from p.envs import Mine\na = Mine('a')", ENVIRONMENT),
        ("from p import envs\na = envs.Mine('a')", ENVIRONMENT),
        ("from p.envs import make\na = make()", ENVIRONMENT),
        ("from p.envs import gpu\na = gpu.clone_with('a')", ENVIRONMENT),
        ("from p.envs import gpu\n@gpu.task\ndef a(): ...", TASK),
        ("from p.envs import gpu\n@gpu.sandbox.orchestrator\ndef a(): ...", TASK),
        ("from p.envs import served\n@served.task\ndef a(): ...", OTHER),
        ("from p.envs import *\na = gpu", ENVIRONMENT),
        ("from p.star import a", ENVIRONMENT),
        ("from n.s.envs import a", ENVIRONMENT),  # namespace packages
        ("import n.s.envs\na = n.s.envs.a", ENVIRONMENT),
        ("from round import a", UNKNOWN),
    ],
)
def test_names_are_followed_across_modules(source: str, kind: Kind):
    found = Repository(
        {
            "m": source,
            "p.__init__": "from .envs import gpu\nfrom . import envs\nrenamed = envs.gpu\n",
            "p.envs": ENVS,
            "p.star": "from .envs import *\na = gpu\n",
            "n.s.envs": "from ...p.envs import gpu as a",
            "round": "from m import a",
        }
    )
    assert found.kind("a") is kind


def test_an_environment_is_one_wherever_it_is_imported_from():
    found = Repository(
        {
            "p.__init__": "from .envs import gpu\n",
            "p.envs": ENVS,
            "m": "from p import gpu as g\n@g.task\ndef x(): ...\n@other.task\ndef y(): ...\n",
            "k": "from p.envs import gpu\nh = gpu\n@h.task\ndef z(): ...\n",
        }
    )
    assert found.tasks_of("gpu", of="p.envs", module="m") == ["x"]
    assert found.tasks_of("gpu", of="p.envs", module="k") == ["z"]
    assert found.tasks_of("gpu", of="p.envs", module="p.envs") == ["train"]
    assert found.tasks_of("gpu", of="p", module="k") == ["z"]


def test_an_environment_from_tasks_has_those():
    found = module(
        """
        import flyte
        from elsewhere import there
        from flyte.extras import ContainerTask

        one = ContainerTask(name="one")
        two = ContainerTask(name="two")
        env = flyte.TaskEnvironment.from_task("e", one, two, there)

        @env.task
        def three(): ...
        """
    )
    assert found.tasks_of("env") == ["three", "one", "two", "there"]


def test_an_environment_has_its_own_tasks_in_source_order():
    found = module(
        """
        one = flyte.TaskEnvironment("one")
        two = flyte.TaskEnvironment("two")

        @two.task
        def z(): ...

        @one.task
        def x(): ...

        @two.sandbox.orchestrator
        def y(): ...
        """
    )
    assert found.tasks_of("one") == ["x"]
    assert found.tasks_of("two") == ["z", "y"]


def test_a_module_has_environments_that_it_makes_or_gives_tasks():
    found = module(
        """
        from elsewhere import gpu, unused
        from flyte.app import AppEnvironment

        one = flyte.TaskEnvironment("one")
        served = AppEnvironment("a")
        made = elsewhere.make()

        @gpu.task
        def x(): ...

        @made.task
        def y(): ...
        """
    )
    assert found.ask(lambda: found.code.environments_in("m")) == ("gpu", "one", "made")
    assert found.ask(lambda: found.code.apps_in("m")) == ("served",)


@pytest.mark.parametrize(
    "source",
    [
        "a = a",
        "a = b\nb = a",
        "def a(): return a()\nb = a()",
        "def a(): return b()\ndef b(): return a()\nc = a()",
        "class a(a): ...\nb = a()",
        "class a(b): ...\nclass b(a): ...\nc = a()",
        "from m import a",
        "from m import *",
        "a = a.task(a)",
    ],
)
def test_what_goes_round_in_a_circle_ends(source: str):
    found = module(source)
    for name in "abc":
        assert found.kind(name) in (UNKNOWN, OTHER, MISSING)
