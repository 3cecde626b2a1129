"""Pants' visibility rules hold for the targets that fields such as `tasks` and `image` name."""

from __future__ import annotations

import pytest
from pants.backend.visibility.rules import rules as visibility_rules
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_goals import run_request
from tests.support.flyte_rules import RuleRoot

TASK = 'import flyte\nenv = flyte.TaskEnvironment("e")\n@env.task\ndef train(): ...\n'
CLOSED = '__dependents_rules__(("*", "/**", "!*"))\n'


@pytest.fixture(scope="module")
def guarded() -> RuleRoot:
    return RuleRoot(more_rules=visibility_rules())


@pytest.mark.parametrize("closed", [CLOSED, ""])
def test_a_deployment_cannot_reach_a_task_that_is_closed_to_it(guarded: RuleRoot, closed: str):
    guarded.clear()
    guarded.write(
        {
            "ml/BUILD": f'{closed}python_sources()\nflyte_task(name="t", entry_point="t.py:env")\n',
            "ml/t.py": TASK,
            "ops/BUILD": 'flyte_deployment(name="deploy", tasks=["ml:t"])\n',
        }
    )
    if not closed:
        run_request(guarded, "ops:deploy")
        return
    with pytest.raises(ExecutionError, match=r"flyte_deployment ops:deploy -> flyte_task ml:t"):
        run_request(guarded, "ops:deploy")


@pytest.mark.parametrize("closed", [CLOSED, ""])
def test_a_task_cannot_use_a_bundle_that_is_closed_to_it(guarded: RuleRoot, closed: str):
    guarded.clear()
    guarded.write(
        {
            "ml/BUILD": 'python_sources()\nflyte_task(name="t", entry_point="t.py:env", '
            'bundle="shared:b")\n',
            "ml/t.py": TASK,
            "shared/BUILD": f'{closed}flyte_bundle(name="b", dependencies=["ml"])\n',
        }
    )
    if not closed:
        assert guarded.package("ml:t").link.bundle is not None
        return
    with pytest.raises(ExecutionError, match=r"flyte_task ml:t -> flyte_bundle shared:b"):
        guarded.package("ml:t")
