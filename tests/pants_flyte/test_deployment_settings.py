"""Where a deployment's settings come from, and what is brought along to register its tasks."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import Any

import pytest
from pants.core.goals.run import RunRequest
from pants.engine.fs import Digest, Snapshot
from pants.engine.internals.scheduler import ExecutionError

from flyte_pack.deploy.options import parse
from flyte_pack.deploy.plan import DeployPlan, resolve
from flyte_pack.errors import UserError
from flyte_shim.store_settings import VARIABLES as STORE_VARIABLES
from pants_flyte.environment import _PLAIN
from tests.support.flyte_goals import app, deploy_process, packaged, paths, plan, run_request
from tests.support.flyte_rules import RuleRoot, refusal

YAML = """
    endpoint: flyte.example.com
    org: acme
    project: bikes
    store: s3://flyte-bundles/bikes
    registry: registry.example.com/bikes
    images: {trainer: "r/trainer:1", other: "r/other:1"}
    domains:
      staging:
        endpoint: staging.example.com
        insecure: true
        images: {trainer: "r/trainer:2"}
    """
SETTINGS = ("endpoint", "insecure", "org", "project", "store", "registry", "images")
OF_FILE: dict[str, Any] = {
    "endpoint": "flyte.example.com",
    "insecure": None,
    "org": "acme",
    "project": "bikes",
    "store": "s3://flyte-bundles/bikes",
    "registry": "registry.example.com/bikes",
    "images": {"trainer": "r/trainer:1", "other": "r/other:1"},
}
STAGING = {
    **OF_FILE,
    "endpoint": "staging.example.com",
    "insecure": True,
    "images": {"trainer": "r/trainer:2", "other": "r/other:1"},
}
# So that no packages are brought along: that is for others to test.
NO_PACKAGES = "--no-register"
SESSIONS = itertools.count()


def settings_file(
    root: RuleRoot, fields: str = "config='d.yaml'", path: str = "app/d.yaml"
) -> None:
    root.write({**app(deployment=fields), path: YAML})


@pytest.mark.parametrize(
    ("fields", "path", "options", "typed", "expected"),
    [
        ("config='d.yaml'", "app/d.yaml", (), (), OF_FILE),
        ("config='../ops/d.yaml'", "ops/d.yaml", (), (), OF_FILE),
        ("", "ops/d.yaml", ("--flyte-deploy-config=ops/d.yaml",), (), OF_FILE),
        ("config='missing.yaml'", "d.yaml", (), ("--config=d.yaml",), OF_FILE),
        ("config='d.yaml', domain='staging'", "app/d.yaml", (), (), STAGING),
        ("config='d.yaml'", "app/d.yaml", (), ("--domain=staging",), STAGING),
        ("config='d.yaml'", "app/d.yaml", ("--flyte-domain=staging",), (), STAGING),
        # The target comes before the file, the file before options.
        (
            "config='d.yaml', endpoint='e', org='o', insecure=False, project='p', store='file:///s', registry='r.example', "
            "images={'trainer': 'r/trainer:3'}, domain='staging'",
            "app/d.yaml",
            (),
            (),
            {
                "endpoint": "e",
                "insecure": False,
                "org": "o",
                "project": "p",
                "store": "file:///s",
                "registry": "r.example",
                "images": {"trainer": "r/trainer:3", "other": "r/other:1"},
            },
        ),
        (
            "config='d.yaml'",
            "app/d.yaml",
            (
                "--flyte-endpoint=e",
                "--flyte-org=o",
                "--flyte-store=file:///s",
                "--flyte-images={'third': 'r/third:1'}",
            ),
            (),
            {**OF_FILE, "images": {**OF_FILE["images"], "third": "r/third:1"}},
        ),
    ],
)
def test_a_file_has_settings_between_the_targets_and_the_options(
    root: RuleRoot, fields, path, options, typed, expected
):
    settings_file(root, fields, path)
    digest = run_request(root, "app:deploy", NO_PACKAGES, *typed, options=options).digest
    made = plan(root, digest)["settings"]
    assert {name: made[name] for name in SETTINGS} == expected


def test_a_project_that_is_typed_takes_the_place_of_the_files(root: RuleRoot):
    settings_file(root)
    typed = (NO_PACKAGES, "--project=x")
    digest = run_request(root, "app:deploy", *typed).digest
    made = DeployPlan.from_json(root.contents(digest)["__deploy_plan.json"])
    assert made.settings.project == "bikes"
    assert resolve(made, parse([*typed, "--domain=d"])).project == "x"


def test_a_project_that_the_target_names_must_not_be_typed_otherwise(root: RuleRoot):
    settings_file(root, "config='d.yaml', project='p'")
    digest = run_request(root, "app:deploy", NO_PACKAGES).digest
    made = DeployPlan.from_json(root.contents(digest)["__deploy_plan.json"])
    assert made.fixed == ("project",)
    with pytest.raises(UserError, match="leave --project out"):
        resolve(made, parse(["--project=x", "--domain=d"]))


@pytest.mark.parametrize(
    ("fields", "typed", "message"),
    [
        ("config='no.yaml'", (), "app:deploy: `config` names the file 'app/no.yaml', and there is none"),
        ("", ("--config=no.yaml",), "app:deploy: --config names the file 'no.yaml'"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_told_with_who_names_it(root: RuleRoot, fields, typed, message):
    root.write(app(deployment=fields))
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:deploy", *typed)
    assert message in refusal(caught.value)


def test_a_mistake_in_the_file_is_told_with_its_line(root: RuleRoot):
    settings_file(root)
    root.edit("app/d.yaml", "org: acme", "ogr: acme")
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:deploy")
    told = refusal(caught.value)
    assert told.startswith("app:deploy: app/d.yaml:2: ")
    assert "'ogr'" in told
    assert "org" in told


def test_commands_that_package_nothing_heed_the_file(root: RuleRoot):
    settings_file(root)
    request = run_request(root, "app:deploy", "list")
    assert plan(root, request.digest)["settings"]["store"] == OF_FILE["store"]
    assert packaged(root, request.digest) == set()


# --- the packages of the tasks --------------------------------------------------------------------


def environments(root: RuleRoot, digest: Any) -> Any:
    return plan(root, digest)["environments"]


@pytest.mark.parametrize(
    ("fields", "options", "typed", "env"),
    [
        ("endpoint='flyte.example.com'", (), (), {}),
        ("", ("--flyte-endpoint=flyte.example.com",), (), {}),
        ("", (), ("--endpoint", "flyte.example.com"), {}),
        ("", (), ("--flyte-config", "f.yaml"), {}),
        ("", (), (), {"FLYTE_ADMIN_ENDPOINT": "flyte.example.com"}),
        ("", (), (), {"FLYTE_API_KEY": "a-key"}),
    ],
)
def test_where_a_control_plane_is_named_the_packages_of_the_tasks_come_along(
    root: RuleRoot, fields, options, typed, env
):
    root.write(app(deployment=fields))
    digest = run_request(root, "app:deploy", *typed, options=options, env=env).digest
    [environment] = environments(root, digest)
    assert environment["tasks"] == ["app:t", "app:u"]
    found = root.runner.request(Snapshot, [digest]).files
    assert environment["python"] in found
    assert environment["identity"]


@pytest.mark.parametrize(
    ("fields", "typed"),
    [
        ("", ()),
        ("endpoint='flyte.example.com'", ("--no-register",)),
        ("endpoint='flyte.example.com'", ("list",)),
        ("endpoint='flyte.example.com'", ("--no-such-option",)),
    ],
)
def test_where_nothing_is_registered_no_packages_come_along(root: RuleRoot, fields, typed):
    root.write(app(deployment=fields))
    assert environments(root, run_request(root, "app:deploy", *typed).digest) == []


def deployed(root: RuleRoot, home: str) -> Digest:
    process = deploy_process(root, "app:deploy", env={"HOME": home})
    return process.process.input_digest


def run(root: RuleRoot, home: str) -> Digest:
    return run_request(root, "app:deploy", env={"HOME": home}).digest


@pytest.mark.parametrize("command", [deployed, run])
def test_flytes_own_settings_file_counts_as_long_as_it_is_there(root: RuleRoot, command):
    root.write(app())
    home = root.path / "home"
    file = home / ".flyte" / "config.yaml"
    file.parent.mkdir(parents=True)

    def found() -> int:
        # A session of its own, as each command of a user's is.
        root.runner.new_session(str(next(SESSIONS)))
        return len(environments(root, command(root, str(home))))

    assert found() == 0
    file.write_text("admin:\n  endpoint: flyte.example.com\n")
    assert found() == 1
    file.write_text("task:\n  project: bikes\n")  # Flyte's, and names no control plane
    assert found() == 0
    file.write_text("admin:\n  endpoint: flyte.example.com\n")
    assert found() == 1
    file.unlink()
    assert found() == 0


def test_a_run_by_flyte_finds_its_own_settings_file_as_long_as_it_is_there(root: RuleRoot):
    root.write(app())
    file = root.path / "home" / ".flyte" / "config.yaml"
    file.parent.mkdir(parents=True)

    def asked() -> RunRequest:
        root.runner.new_session(str(next(SESSIONS)))
        return run_request(root, "app:t", "--remote", env={"HOME": str(root.path / "home")})

    for _ in range(2):
        with pytest.raises(ExecutionError, match="no control plane is known"):
            asked()
        file.write_text("admin:\n  endpoint: flyte.example.com\n")
        assert len(environments(root, asked().digest)) == 1
        file.unlink()


def test_a_rollback_that_registers_brings_packages_and_no_bundles(root: RuleRoot):
    root.write(app(deployment="endpoint='flyte.example.com'"))
    request = run_request(root, "app:deploy", "rollback", "v1")
    assert len(environments(root, request.digest)) == 1
    assert packaged(root, request.digest) == set()


# --- experimental-deploy --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ((), ()),
        (("--flyte-dry-run",), ("--dry-run",)),
        (("experimental-deploy", "app:deploy", "--", "--dry-run"), ("--dry-run",)),
        (
            ("experimental-deploy", "app:deploy", "--", "--domain", "staging", "--no-register"),
            ("--domain", "staging", "--no-register"),
        ),
        (("--flyte-experimental-deploy-args=--version v1",), ("--version", "v1")),
    ],
)
def test_experimental_deploy_passes_what_was_typed(root: RuleRoot, options, typed):
    root.write(app())
    argv = deploy_process(root, "app:deploy", options=options).process.argv
    assert argv[argv.index("--") + 1 :] == typed


def test_what_was_typed_counts_for_what_is_packaged_too(root: RuleRoot):
    root.write(app())
    typed = ("experimental-deploy", "app:deploy", "--", "--copy-style", "none", "--version", "v1")
    process = deploy_process(root, "app:deploy", options=typed).process
    assert not any(p.endswith(".tar.gz") for p in packaged(root, process.input_digest))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--dryrun",), "app:deploy: What follows `--` cannot be used: unknown option '--dryrun'"),
        (("list",), "`experimental-deploy` only deploys. For `list` write: ./pants run app:deploy"),
        (("--help",), "For `help` write: ./pants run app:deploy -- --help"),
        (("prune", "--yes"), "./pants run app:deploy -- prune --yes"),
    ],
)
def test_experimental_deploy_refuses_what_is_not_for_deploying(root: RuleRoot, typed, message):
    root.write(app())
    with pytest.raises(ExecutionError, match=re.escape(message)):
        deploy_process(
            root, "app:deploy", options=("experimental-deploy", "app:deploy", "--", *typed)
        )


def test_experimental_deploy_passes_what_stores_and_flyte_are_configured_by(root: RuleRoot):
    root.write(app())
    # Pants itself tells PEX of SSL_CERT_FILE.
    given = {name: f"planted-{name}" for name in STORE_VARIABLES if name != "SSL_CERT_FILE"}
    given |= {"FLYTE_ADMIN_AUTHTYPE": "ClientSecret", "HTTPS_PROXY": "http://u:planted-p@proxy"}
    process = deploy_process(root, "app:deploy", env={**given, "OTHER": "o"})
    env = process.process.env
    assert {name: env[name] for name in given} == given
    assert "OTHER" not in env
    # Pants logs the process as a whole.
    assert "planted" not in f"{process} {process!r} {process.process.env} {env.values()}"


def test_a_sandboxed_program_gets_nothing_that_gives_a_credential():
    assert set(_PLAIN) & set(STORE_VARIABLES) == {"SSL_CERT_FILE"}
    assert not [name for name in _PLAIN if re.search("KEY|SECRET|TOKEN|PASSWORD$", name)]


# --- run path:task -- --remote ---------------------------------------------------------------------

HERE = "--endpoint=flyte.example.com"


def test_what_was_deployed_is_run_by_the_deployments_plan_and_the_tasks_packages_only(
    root: RuleRoot,
):
    root.write(app(deployment="endpoint='flyte.example.com', domain='staging'"))
    request = run_request(root, "app:t", "--remote", "--deployed", "v1", "--n", "3")
    assert list(request.args[1:]) == [
        *("run-remote", "--plan", "{chroot}/__deploy_plan.json", "--dir", "{chroot}"),
        *("--task", "app:t", "--"),
    ]
    made = plan(root, request.digest)
    domain = made["settings"]["domain"]
    assert (made["address"], domain, made["tasks"]) == ("app:deploy", "staging", [])
    assert [one["tasks"] for one in made["environments"]] == [["app:t"]]
    assert packaged(root, request.digest) == set()
    assert not any(os.path.basename(path) == "w.py" for path in paths(root, request.digest))


def test_the_code_as_it_is_is_packaged_with_the_settings_of_the_only_deployment(root: RuleRoot):
    fields = "endpoint='flyte.example.com', domain='staging', version='v1', images={'a': 'r/a:1'}"
    root.write(app(deployment=fields))
    request = run_request(root, "app:t", "--remote", "--n", "3")
    made = DeployPlan.from_json(root.contents(request.digest)["__deploy_plan.json"])
    assert (made.address, made.tasks, made.fixed) == ("app:t", ("app/t.json",), ())
    settings = made.settings
    assert (settings.domain, settings.endpoint) == ("staging", "flyte.example.com")
    assert (settings.version, settings.images) == (None, (("a", "r/a:1"),))
    assert [one.tasks for one in made.environments] == [("app:t",)]
    assert packaged(root, request.digest) == {
        *("app/t.json", "app/t.manifest.json", "app/t.tar.gz"),
    }


def test_what_is_allowed_to_be_registered_is_so_in_a_run_too(root: RuleRoot):
    root.write(app())
    options = ("--flyte-secrets=warn", "--flyte-allow-secrets=['env:A_KEY', 'x.pem']")
    request = run_request(root, "app:t", "--remote", HERE, options=options)
    made = DeployPlan.from_json(root.contents(request.digest)["__deploy_plan.json"])
    assert (made.secrets, made.allowed_variables) == ("warn", ("A_KEY",))


@pytest.mark.parametrize(
    ("options", "typed", "env"),
    [
        ((), (HERE,), {}),
        (("--flyte-endpoint=flyte.example.com",), (), {}),
        ((), ("--flyte-config", "f.yaml"), {}),
        ((), (), {"FLYTE_ADMIN_ENDPOINT": "flyte.example.com"}),
        ((), (), {"FLYTE_API_KEY": "a-key"}),
        ((), ("--config=ops/d.yaml",), {}),
        (("--flyte-deploy-config=ops/d.yaml",), (), {}),
    ],
)
def test_no_deployment_is_needed(root: RuleRoot, options, typed, env):
    root.write({**app(), "ops/d.yaml": YAML})
    root.edit("app/BUILD", '[":t", "app:u"]', '[":u"]')
    request = run_request(root, "app:t", "--remote", *typed, options=options, env=env)
    made = DeployPlan.from_json(root.contents(request.digest)["__deploy_plan.json"])
    assert made.address == "app:t"
    in_file = "ops/d.yaml" in str((options, typed))
    assert made.settings.project == ("bikes" if in_file else "flytesnacks")
    assert made.settings.domain == "development"


def test_of_several_deployments_none_is_taken_unless_one_is_named(root: RuleRoot):
    root.write(app(deployment="domain=parametrize('staging', 'production')"))
    named = ("--deployment", "app:deploy@domain=staging")
    domains = []
    for typed in ((), named):
        request = run_request(root, "app:t", "--remote", HERE, *typed)
        domains.append(plan(root, request.digest)["settings"]["domain"])
    assert domains == ["development", "staging"]


@pytest.mark.parametrize(
    ("fields", "typed", "style"),
    [
        ("", (), "auto"),
        ("", ("--copy-style=all",), "all"),
        ("copy_style='all'", (), "all"),
        ("copy_style='all'", ("--copy-style", "auto"), "auto"),
    ],
)
def test_the_copy_style_that_is_typed_comes_first(root: RuleRoot, fields, typed, style):
    root.write(app(deployment=fields))
    digest = run_request(root, "app:t", "--remote", HERE, *typed).digest
    assert json.loads(root.contents(digest)["app/t.json"])["copy_style"] == style
    assert plan(root, digest)["settings"]["copy_style"] is None


def test_help_is_about_the_packaged_task_and_needs_no_control_plane(root: RuleRoot):
    root.write(app())
    for typed in (("--help",), ("--remote", "--help")):
        request = run_request(root, "app:t", *typed)
        assert request.args[1] == "run"


@pytest.mark.parametrize(
    ("fields", "typed", "message"),
    [
        ("", ("--deployed",), "app:t: no `flyte_deployment` has it in its `tasks`, so it was not"),
        (
            "domain=parametrize('staging', 'production')",
            ("--deployed",),
            "app:t: several deployments have it: say which by --deployment, of: app:deploy@domain=production, "
            "app:deploy@domain=staging.",
        ),
        (
            "domain='staging'",
            ("--deployment", "app:other"),
            "app:t: no `flyte_deployment` app:other has it in its `tasks`; there are: app:deploy.",
        ),
        ("domain='staging'", ("--in-image",), "--in-image runs it on this machine"),
        ("domain='staging'", (), "app:t: no control plane is known: type --endpoint HOST"),
        (
            "domain=parametrize('staging', 'production')",
            (),
            "or type --deployment ADDRESS, of: app:deploy@domain=production",
        ),
    ],
)
def test_what_is_not_clear_is_told(root: RuleRoot, fields, typed, message):
    root.write(app(deployment=fields))
    if not fields:
        root.edit("app/BUILD", '[":t", "app:u"]', '[":u"]')
    with pytest.raises(ExecutionError) as caught:
        run_request(root, "app:t", "--remote", *typed)
    assert message in refusal(caught.value)
