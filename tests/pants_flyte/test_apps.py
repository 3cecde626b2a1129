"""`flyte_app`: what it packages, what of it starts, and how mistakes are told."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_goals import paths, plan, run_request
from tests.support.flyte_rules import RuleRoot, refusal

DASHBOARD = """
    import flyte
    import flyte.app
    from app.lib import WORD

    env = flyte.TaskEnvironment("e")
    dashboard = flyte.app.AppEnvironment("dashboard", include=["page.html"])
    other = dashboard.clone_with("other")

    @dashboard.server
    def serve(): ...

    @env.task
    def train(): ...

    def helper(): ...
    """


def app(
    entry_point: str = "dashboard.py:dashboard", more: str = "", **files: str
) -> dict[str, str]:
    return {
        "app/BUILD": f"""
            python_sources()
            resources(name="pages", sources=["*.html"])
            flyte_app(name="a", entry_point={entry_point!r}, {more})
            flyte_task(name="t", entry_point="dashboard.py:train")
            flyte_deployment(name="deploy", tasks=[":a", ":t"])
            """,
        "app/dashboard.py": DASHBOARD,
        "app/lib.py": "WORD = 1\n",
        "app/page.html": "<p>",
        **files,
    }


@pytest.mark.parametrize("name", ["dashboard", "other"])
def test_it_packages_a_bundle_and_the_command_that_serves_it(root: RuleRoot, name):
    root.write(app(f"dashboard.py:{name}"))
    built = root.package("app:a")
    link = built.link
    assert (link.kind, link.entry_point) == ("app", f"app/dashboard.py:{name}")
    [one] = link.tasks
    assert (one.name, one.command) == (
        name,
        (
            *("fserve", "--version", "${VERSION}", "--tgz", "${BUNDLE_URI}", "--dest", "."),
            *("--raw-data-path", "{{.rawOutputDataPrefix}}"),
            *("--resolver", "flyte._internal.resolvers.app_env.AppEnvResolver"),
            *("--resolver-args", f"app.dashboard:{name}", "--"),
        ),
    )
    assert built.bundle.paths == {"app/dashboard.py", "app/lib.py", "app/page.html"}


def test_code_in_an_image_has_no_bundle_in_its_command(root: RuleRoot):
    root.write(app(more="copy_style='none', image='example.com/x:1'"))
    link = root.package("app:a").link
    assert link.bundle is None
    assert "--tgz" not in link.tasks[0].command


FACTORY = "from app.make import make\nmade = make()\n"
MAKE = "import flyte.app\ndef make():\n    return flyte.app.AppEnvironment('made')\n"


@pytest.mark.parametrize(
    ("entry_point", "files"),
    [
        ("f.py:made", {"app/f.py": FACTORY, "app/make.py": MAKE}),
        ("f.py:dashboard", {"app/f.py": "from app.dashboard import dashboard\n"}),
        ("f.py:dashboard", {"app/f.py": "from app.dashboard import *\n"}),
        (
            "f.py:x",
            {"app/f.py": "from flyte.app.extras import FastAPIAppEnvironment as F\nx = F()\n"},
        ),
    ],
)
def test_an_app_may_be_made_or_imported_in_other_ways(root: RuleRoot, entry_point, files):
    root.write(app(entry_point, **files))
    assert root.package("app:a").link.kind == "app"


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("dashboard.py", "no app in it. Apps in app/dashboard.py: dashboard, other."),
        ("dashboard.py:train", "is a task, and no app: write a `flyte_task`"),
        ("dashboard.py:env", "is an environment for tasks, and no app: write a `flyte_task`"),
        ("dashboard.py:helper", "is no app. It is "),
        ("dashboard.py:gone", "has no `gone`. Apps in app/dashboard.py: dashboard, other."),
        ("lib.py:gone", "app/lib.py has no `flyte.app.AppEnvironment` at its top level."),
    ],
)
def test_what_is_no_app_is_told_with_those_that_are(root: RuleRoot, entry_point, message):
    root.write(app(entry_point))
    told = root.refusal("app:a")
    assert told.startswith("app:a: ")
    assert message in told


def test_a_task_that_is_an_app_is_told_what_to_write(root: RuleRoot):
    root.write(
        {**app(), "app/x/BUILD": "flyte_task(name='t', entry_point='../dashboard.py:other')"}
    )
    told = root.refusal("app/x:t")
    assert "write a `flyte_app`" in told


def test_it_is_served_here_out_of_its_bundle(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:a", "--port", "9000")
    assert {"app/a.json", "app/a.tar.gz"} <= paths(root, request.digest)
    assert request.args[1:4] == ("run", "--task", "{chroot}/app/a.json")


@pytest.mark.parametrize("typed", ["--remote", "--in-image"])
def test_what_is_for_tasks_alone_is_told(root: RuleRoot, typed):
    root.write(app())
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:a", typed)
    assert f"app:a: {typed} is for tasks, and this is an app: " in refusal(caught.value)


def test_a_deployment_takes_apps_and_tasks(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:deploy")
    assert set(plan(root, request.digest)["tasks"]) == {"app/a.json", "app/t.json"}
