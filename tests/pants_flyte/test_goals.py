"""What `run` and `experimental-deploy` start: arguments, environment, and what is packaged for it."""

from __future__ import annotations

import json
import os

import pytest
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import mock_console

from flyte_pack.deploy.options import parse
from flyte_pack.deploy.plan import DeployPlan, resolve
from flyte_pack.errors import UserError
from flyte_pack.json_fields import as_json
from flyte_pack.task_link import TaskLink
from tests.support.flyte_goals import (
    TASK,
    app,
    deploy_process,
    packaged,
    paths,
    plan,
    run_request,
)
from tests.support.flyte_rules import RuleRoot, refusal

LINKS = ("app/t.json", "other/u.json")
BROKEN = app(source="def train(:")


# --- run path:task --------------------------------------------------------------------------------


def test_a_task_runs_out_of_its_own_bundle(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:t", "--n", "5")
    program, *arguments = request.args
    assert program.startswith("{chroot}/")
    # Pants itself adds what the user typed.
    assert arguments == [
        *("run", "--task", "{chroot}/app/t.json", "--dir", "{chroot}"),
        *("--store", "file://dist/flyte", "--known", "{chroot}/__known_modules.json"),
        *("--standby", "--"),
    ]
    assert os.path.relpath(program, "{chroot}") in paths(root, request.digest)
    assert packaged(root, request.digest) == {
        *("app/t.json", "app/t.tar.gz", "app/t.manifest.json")
    }


def test_a_run_knows_which_modules_there_are_for_its_messages(root: RuleRoot):
    root.write(
        {
            **app(),
            "BUILD": """
                python_requirement(
                    name="reqs", requirements=["PyYAML", "flyteplugins-ray"], modules=["yaml", "x"]
                )
                python_requirement(name="ray", requirements=["flyteplugins-ray>=2"])
                """,
            "lib/BUILD": "python_sources()",
            "lib/c.py": "",
        }
    )
    request = run_request(root, "app:t")
    known = json.loads(root.contents(request.digest)["__known_modules.json"])
    assert known["requirements"] == {
        "yaml": ["//:reqs", "pyyaml"],
        "x": ["//:reqs", "pyyaml"],
        "flyteplugins.ray": ["//:ray", "flyteplugins-ray"],
    }
    # `run_request` is without resolves.
    assert (known["resolve"], known["lock"], known["locked"]) == (None, None, None)
    assert known["first_party"]["lib.c"] == "lib/c.py"
    assert known["distributions"]["flyteplugins.dask"] == "flyteplugins-dask"


def test_the_program_comes_beside_the_tasks_requirements_not_into_them(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:t")
    assert request.extra_env["PEX_EXTRA_SYS_PATH"] == "{chroot}/__flyte_pack"
    assert request.immutable_input_digests is not None
    program = paths(root, request.immutable_input_digests["__flyte_pack"])
    assert {"flyte_pack/__main__.py", "flyte_shim/__main__.py"} <= program
    found = paths(root, request.digest)
    assert not any(path.endswith("w.py") or "flyte_pack/" in path for path in found)


@pytest.mark.parametrize(
    ("options", "store"),
    [
        ((), "file://dist/flyte"),
        (("--pants-distdir=out",), "file://out/flyte"),
        (("--flyte-store=file:///srv/flyte",), "file:///srv/flyte"),
    ],
)
def test_the_store_is_below_the_distdir_unless_an_option_names_one(root: RuleRoot, options, store):
    root.write(app())
    request = run_request(root, "app:t", options=options)
    assert request.args[request.args.index("--store") + 1] == store


@pytest.mark.parametrize(
    ("typed", "copy_style", "root_dir", "module"),
    [
        ((), "auto", None, "app.w"),
        (("--n", "1"), "auto", None, "app.w"),
        (("--copy-style", "all"), "all", None, "app.w"),
        (("--copy-style=none", "--n", "1"), "none", None, "app.w"),
        (("--root-dir", "app"), "auto", "app", "w"),
        (("--root-dir=.", "--copy-style=all"), "all", ".", "app.w"),
        (("--n", "1", "--copy-style", "all"), "auto", None, "app.w"),
        (("--", "--root-dir", "app"), "auto", None, "app.w"),
    ],
)
def test_options_in_front_are_taken_as_the_targets_fields(
    root: RuleRoot, typed, copy_style, root_dir, module
):
    root.write(app())
    digest = run_request(root, "app:t", *typed).digest
    link = TaskLink.from_json(root.contents(digest)["app/t.json"])
    assert (link.copy_style, link.root_dir, link.module) == (copy_style, root_dir, module)
    assert ("app/t.tar.gz" in packaged(root, digest)) == (copy_style != "none")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--root-dir",), "--root-dir needs a value"),
        (("--copy-style=some",), "--copy-style is one of auto, all, none, not 'some'"),
        (("--root-dir=..",), "`root_dir` is '..', which is not below the build root"),
        (("--root-dir=elsewhere",), "the entry point is app/w.py"),
    ],
)
def test_a_mistyped_option_is_told_with_the_target(root: RuleRoot, typed, message):
    root.write(app())
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:t", *typed)
    assert refusal(caught.value).startswith("app:t: ")
    assert message in refusal(caught.value)


# --- run path:deploy ------------------------------------------------------------------------------


def test_a_deployment_starts_the_deploy_program_with_a_plan_and_all_that_it_names(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:deploy")
    program, *arguments = request.args
    assert program.startswith("{chroot}/")
    assert arguments == [
        *("deploy", "--plan", "{chroot}/__deploy_plan.json", "--dir", "{chroot}", "--")
    ]
    assert plan(root, request.digest) == {
        "schema": 1,
        "address": "app:deploy",
        "settings": {
            "project": "flytesnacks",
            "domain": "development",
            "version": None,
            "store": "file://dist/flyte",
            "images": {},
            "copy_style": None,
            "root_dir": None,
            "endpoint": None,
            "insecure": None,
            "org": None,
            "flyte_config": None,
            "registry": None,
        },
        "fixed": [],
        "tasks": ["app/t.json", "other/u.json"],
        "pushes": [],
        "insecure_registries": [],
        "environments": [],
        "import_env": [],
        "standby": True,
        "secrets": "error",
        "allowed_variables": [],
    }
    assert packaged(root, request.digest) == {
        *("app/t.json", "app/t.tar.gz", "app/t.manifest.json"),
        *("other/u.json", "other/u.tar.gz", "other/u.manifest.json"),
    }


@pytest.mark.parametrize(
    "typed",
    [
        *(("list",), ("show",), ("show", "v1"), ("rollback", "v1"), ("list", "--output=json")),
        *(("--help",), ("-h",), ("--domain=staging", "list")),
        # A usage error: the program tells it.
        *(("--no-such-option",), ("rollback",), ("lsit",), ("--copy-style=some",), ("list", "--repair")),
    ],
)  # fmt: skip
def test_what_deploys_nothing_packages_nothing_and_works_in_a_broken_checkout(
    root: RuleRoot, typed
):
    root.write(BROKEN)
    request = run_request(root, "app:deploy", *typed)
    assert packaged(root, request.digest) == set()
    assert plan(root, request.digest)["tasks"] == []


@pytest.mark.parametrize("typed", [(), ("--dry-run",), ("--version=v1",), ("--output", "json")])
def test_what_deploys_tells_what_is_broken(root: RuleRoot, typed):
    root.write(BROKEN)
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:deploy", *typed)
    assert ": app/w.py cannot be parsed by " in refusal(caught.value)


@pytest.mark.parametrize(
    ("field", "typed", "copy_styles"),
    [
        ("", (), ("auto", "all")),
        ("copy_style='auto'", (), ("auto", "auto")),
        ("copy_style='none', version='v1'", (), ("none", "none")),
        ("", ("--copy-style", "all"), ("all", "all")),
        ("copy_style='none', version='v1'", ("--copy-style=auto",), ("auto", "auto")),
    ],
)
def test_the_copy_style_of_a_deployment_overrides_that_of_its_tasks(
    root: RuleRoot, field, typed, copy_styles
):
    root.write(app(deployment=field))
    root.edit("app/BUILD", "output_path", "copy_style='all', output_path")
    digest = run_request(root, "app:deploy", *typed).digest
    contents = root.contents(digest)
    links = [TaskLink.from_json(contents[name]) for name in LINKS]
    assert tuple(link.copy_style for link in links) == copy_styles


def test_a_root_dir_that_is_typed_holds_for_all_tasks(root: RuleRoot):
    root.write(app(task="root_dir='.'"))
    contents = root.contents(run_request(root, "app:deploy", "--root-dir", "app").digest)
    for name in LINKS:
        link = TaskLink.from_json(contents[name])
        assert (link.root_dir, link.module) == ("app", "w")


def test_a_task_that_shares_a_bundle_gives_way_to_the_deployments_copy_style(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources()
                flyte_bundle(name="code", dependencies=["./w.py"])
                flyte_task(name="t", entry_point="w.py:train", bundle=":code", copy_style="none")
                flyte_deployment(name="deploy", tasks=[":t"], version="v1")
                """,
            "app/w.py": TASK,
        }
    )
    assert packaged(root, run_request(root, "app:deploy").digest) == {"app/t.json"}
    assert packaged(root, run_request(root, "app:deploy", "--copy-style=auto").digest) == {
        *("app/t.json", "app/code.tar.gz", "app/code.manifest.json")
    }


@pytest.mark.parametrize(
    ("fields", "options", "typed", "expected"),
    [
        ("", (), (), {"project": "flytesnacks", "domain": "development"}),
        ("", ("--flyte-project=p", "--flyte-domain=d"), (), {"project": "p", "domain": "d"}),
        (
            "project='a', domain='b'",
            ("--flyte-project=p", "--flyte-domain=d"),
            (),
            {"project": "a", "domain": "b"},
        ),
        # The option gives way to what is typed.
        ("", (), ("--project=x", "--domain=y"), {"project": "x", "domain": "y"}),
        ("version='v1'", (), (), {"version": "v1"}),
        ("store='file:///a'", ("--flyte-store=file:///b",), (), {"store": "file:///a"}),
        ("", ("--flyte-store=file:///b",), (), {"store": "file:///b"}),
        ("copy_style='all'", (), (), {"copy_style": "all"}),
        ("images={'a': 'r/a:1'}", (), (), {"images": {"a": "r/a:1"}}),
        ("", ("--flyte-images={'a': 'r/a:2'}",), (), {"images": {"a": "r/a:2"}}),
        (
            "images={'a': 'r/a:1'}",
            ("--flyte-images={'a': 'r/a:2', 'b': 'r/b:2'}",),
            (),
            {"images": {"a": "r/a:1", "b": "r/b:2"}},
        ),
    ],
)
def test_the_plan_has_the_fields_and_else_the_options(
    root: RuleRoot, fields, options, typed, expected
):
    root.write(app(deployment=fields))
    digest = run_request(root, "app:deploy", *typed, options=options).digest
    made = DeployPlan.from_json(root.contents(digest)["__deploy_plan.json"])
    settings = as_json(resolve(made, parse(typed)).settings)
    assert {key: settings[key] for key in expected} == expected


def test_a_field_does_not_give_way_to_what_is_typed_and_the_program_says_so(root: RuleRoot):
    root.write(app(deployment="domain='b'"))
    typed = ("--domain=y",)
    digest = run_request(root, "app:deploy", *typed).digest
    made = DeployPlan.from_json(root.contents(digest)["__deploy_plan.json"])
    assert (made.settings.domain, made.fixed) == ("b", ("domain",))
    with pytest.raises(UserError, match="the target says domain='b', --domain says 'y'"):
        resolve(made, parse(typed))


def test_a_deployment_for_each_domain(root: RuleRoot):
    root.write(app(deployment="domain=parametrize('staging', 'production')"))
    for domain in ("staging", "production"):
        made = plan(root, run_request(root, f"app:deploy@domain={domain}").digest)
        assert (made["address"], made["settings"]["domain"]) == (
            f"app:deploy@domain={domain}",
            domain,
        )


def test_a_task_that_is_named_twice_is_deployed_once(root: RuleRoot):
    root.write(app())
    root.edit("app/BUILD", '"app:u"', '"app:t", ":u"')
    assert plan(root, run_request(root, "app:deploy").digest)["tasks"] == list(LINKS)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("['./w.py']", "app/w.py: this is a `python_source`, where a `flyte_task` is needed."),
        (
            "[':deploy']",
            "app:deploy: this is a `flyte_deployment`, where a `flyte_task` is needed.",
        ),
    ],
)
def test_only_tasks_are_deployed(root: RuleRoot, tasks, message):
    root.write(app())
    root.edit("app/BUILD", '[":t", "app:u"]', tasks)
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:deploy")
    assert refusal(caught.value) == message


# --- experimental-deploy --------------------------------------------------------------------------


def test_experimental_deploy_starts_the_same_program_with_nothing_typed(root: RuleRoot):
    root.write(app())
    request = run_request(root, "app:deploy")
    process = deploy_process(root, "app:deploy")
    assert process.process.argv == request.args
    assert process.process.input_digest == request.digest
    assert process.run_in_workspace


def test_what_is_typed_for_run_is_not_for_experimental_deploy(root: RuleRoot):
    root.write(app())
    process = deploy_process(root, "app:deploy", options=("--run-args=--domain=staging",))
    assert process.process.argv[-1] == "--"
    assert plan(root, process.process.input_digest)["settings"]["domain"] == "development"


def test_experimental_deploy_passes_the_variables_that_are_named(root: RuleRoot):
    root.write(app())
    process = deploy_process(
        root,
        "app:deploy",
        options=("--flyte-deploy-env-vars=['FLYTE_ENDPOINT', 'MODE=ci', 'NOT_SET']",),
        env={
            "FLYTE_ENDPOINT": "dns:///flyte",
            "SECRET": "s",
            "HTTPS_PROXY": "http://proxy",
            "HOME": "/home/me",
        },
    )
    env = process.process.env
    assert env["FLYTE_ENDPOINT"] == "dns:///flyte"
    assert env["MODE"] == "ci"
    assert env["HTTPS_PROXY"] == "http://proxy"
    assert env["HOME"] == "/home/me"
    assert not {"SECRET", "NOT_SET", "PYTHONPATH"} & set(env)


def test_the_deploy_program_starts_in_the_build_root_and_deploys(root: RuleRoot):
    root.write(app(task="image='reg.example/t:1'"))
    root.edit("app/BUILD", "output_path", "image='reg.example/u:1', output_path")
    process = deploy_process(root, "app:deploy")
    with mock_console(root.runner.options_bootstrapper) as (_, output):
        assert root.runner.run_interactive_process(process).exit_code == 0, output.get_stderr()
    store = root.path / "dist" / "flyte"
    archives = {path.name for path in (store / "archives").iterdir()}
    links = [
        TaskLink.from_json(root.contents(process.process.input_digest)[name]) for name in LINKS
    ]
    assert archives == {f"{link.bundle.archive_hash}.tar.gz" for link in links if link.bundle}
    assert list(store.glob("deployments/flytesnacks/development/*/history/*.json"))
