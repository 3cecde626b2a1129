"""What `run` and `experimental-deploy` start, asked of the rules without starting it; and an app to
ask it for.
"""

from __future__ import annotations

import json
from typing import Any, Mapping

from pants.core.goals.deploy import DeployProcess
from pants.core.goals.run import RunRequest
from pants.engine.fs import Digest, Snapshot
from pants.engine.process import InteractiveProcess

from pants_flyte.goals.deploy import DeployDeploymentFieldSet, RunDeploymentFieldSet
from pants_flyte.goals.run import RunTaskFieldSet
from pants_flyte.target_types import FlyteTask
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"


def app(deployment: str = "", task: str = "", source: str = TASK) -> dict[str, str]:
    return {
        "app/BUILD": f"""
            python_sources()
            flyte_task(name="t", entry_point="w.py:train", {task})
            flyte_task(name="u", entry_point="w.py:train", output_path="other/u.json")
            flyte_deployment(name="deploy", tasks=[":t", "app:u"], {deployment})
            """,
        "app/w.py": source,
    }


def run_request(
    root: RuleRoot,
    spec: str,
    *typed: str,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> RunRequest:
    root.options("--no-python-enable-resolves", *options, "run", spec, "--", *typed, env=env)
    target = root.target(spec)
    kind = RunTaskFieldSet if isinstance(target, FlyteTask) else RunDeploymentFieldSet
    return root.runner.request(RunRequest, [kind.create(target)])


def deploy_process(root: RuleRoot, spec: str, **settings: Any) -> InteractiveProcess:
    root.options("--no-python-enable-resolves", *settings.pop("options", ()), **settings)
    field_set = DeployDeploymentFieldSet.create(root.target(spec))
    made = root.runner.request(DeployProcess, [field_set])
    assert made.name == spec
    assert made.publish_dependencies == ()  # some versions of Pants publish them in a dry run, too
    assert made.process is not None
    return made.process


def paths(root: RuleRoot, digest: Digest) -> set[str]:
    return set(root.runner.request(Snapshot, [digest]).files)


def packaged(root: RuleRoot, digest: Digest) -> set[str]:
    return {p for p in paths(root, digest) if p.endswith((".tar.gz", ".json")) and "/" in p}


def plan(root: RuleRoot, digest: Digest) -> dict[str, Any]:
    return json.loads(root.contents(digest)["__deploy_plan.json"])
