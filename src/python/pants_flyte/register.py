"""What Pants loads for `backend_packages = ["pants_flyte"]`."""

from __future__ import annotations

from typing import Iterable, Type, Union

from pants.backend.python.dependency_inference.default_module_mapping import (
    DEFAULT_MODULE_MAPPING,
)
from pants.backend.python.util_rules import pex, pex_from_targets
from pants.engine.rules import Rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule

from pants_flyte import flyte_modules
from pants_flyte.engine.tried import explained

flyte_modules.add_to(DEFAULT_MODULE_MAPPING)

# Pants reads each rule when its module is imported.
with explained():
    from pants_flyte import (
        asked_image,
        changed,
        closure,
        completeness,
        docker_image,
        engine,
        explain,
        first_party,
        image,
        loop,
        lost_imports,
        named_in_code,
        named_in_data,
        packed,
        registered,
        resolve_modules,
        task,
        task_generator,
        task_packages,
        unowned,
    )
    from pants_flyte.goals import (
        deploy,
        lint,
        package,
        publish,
        run,
        run_image,
        tailor,
        test,
    )
    from pants_flyte.goals import (
        explain as explain_goal,
    )
    from pants_flyte.image_target_types import FlyteBaseImage, FlyteImage
    from pants_flyte.target_types import (
        FlyteApp,
        FlyteBundle,
        FlyteDeployment,
        FlyteTask,
        FlyteTasks,
    )


def target_types() -> Iterable[Type[Target]]:
    return [
        FlyteBaseImage,
        FlyteImage,
        FlyteBundle,
        FlyteTask,
        FlyteTasks,
        FlyteApp,
        FlyteDeployment,
    ]


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *engine.rules(),
        *changed.rules(),
        *closure.rules(),
        *completeness.rules(),
        *resolve_modules.rules(),
        *docker_image.rules(),
        *asked_image.rules(),
        *first_party.rules(),
        *registered.rules(),
        *image.rules(),
        *loop.rules(),
        *task.rules(),
        *explain.rules(),
        *packed.rules(),
        *unowned.rules(),
        *task_generator.rules(),
        *task_packages.rules(),
        *lost_imports.rules(),
        *named_in_code.rules(),
        *named_in_data.rules(),
        *package.rules(),
        *run.rules(),
        *deploy.rules(),
        *lint.rules(),
        *explain_goal.rules(),
        *publish.rules(),
        *run_image.rules(),
        *tailor.rules(),
        *test.rules(),
        *pex.rules(),
        *pex_from_targets.rules(),
    ]
