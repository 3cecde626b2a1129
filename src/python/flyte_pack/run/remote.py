"""Has Flyte run a task as it was deployed, and follows it: `python -m flyte_pack run-remote`.

Which version that is, the record of the deployment says; what starts and follows the run is Flyte's own, in the
environment of the task's resolve, which this process becomes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from flyte_pack.deploy.control_plane import find_control_plane
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.options import UsageError, parse
from flyte_pack.deploy.plan import DeployPlan, Refused, resolve
from flyte_pack.deploy.records import DeployedTask, RecordedTask
from flyte_pack.deploy.registration import RegistrationError, run
from flyte_pack.json_fields import InvalidData, printable
from flyte_pack.names import InvalidName
from flyte_pack.run.options import RunUsageError, split
from flyte_pack.store import StoreError
from flyte_pack.store.opening import open_store


def main(argv: Sequence[str]) -> int:
    """`--plan PLAN.json --dir DIR --task ADDRESS -- WHAT THE USER TYPED`. Returns only the exit code of a failure."""
    address = ""
    try:
        cut = list(argv).index("--") if "--" in argv else len(argv)
        parser = argparse.ArgumentParser(prog="python -m flyte_pack run-remote")
        parser.add_argument("--plan", required=True, help="the deployment's plan")
        parser.add_argument("--dir", required=True, help="the directory that its files are in")
        parser.add_argument("--task", required=True, help="the address of the task")
        ours = parser.parse_args(list(argv[:cut]))
        address = f"{ours.task}: "
        _run(ours.plan, os.path.abspath(ours.dir), ours.task, argv[cut + 1 :])
    except (UsageError, RunUsageError) as error:
        print(f"{address}{error}", file=sys.stderr)
        return 2
    except (Refused, InvalidData, InvalidName, RegistrationError, StoreError, OSError) as error:
        print(printable(f"{address}{error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(plan_file: str, directory: str, address: str, typed: Sequence[str]) -> None:
    options = split(typed)
    with open(plan_file, "rb") as file:
        plan = DeployPlan.from_json(file.read())
    of_deployment = parse(options.of_deployment)
    request = resolve(plan, of_deployment)
    found = find_control_plane(request, os.getcwd(), os.environ)
    environment = next((e for e in request.environments if address in e.tasks), None)
    if found is None or environment is None:
        raise Refused(
            "where is Flyte? Type --endpoint HOST, or set `endpoint` in the deployment, in its settings file or in `[flyte]`; "
            "or have a config.yaml of Flyte's"
        )
    store = open_store(request.store, os.getcwd())
    ledger = Ledger(store, request.project, request.domain, request.address)
    where = f"{request.address} in {request.project}/{request.domain} of {store.uri}"
    current = ledger.current()
    if request.version is not None:
        version = ledger.find(request.version)
    elif current is None:
        raise Refused(
            f"nothing was deployed yet by {where}. Deploy it: ./pants run {request.address}"
        )
    elif current.registered != found.identity:
        raise Refused(
            f"version {current.version} was deployed by {where}, and registered "
            f"{'nowhere' if current.registered is None else f'at {current.registered}'}, not at {found.identity}. "
            f"Deploy it there: ./pants run {request.address}"
        )
    else:
        version = current.version
    recorded = ledger.recorded(version)
    if recorded is None:
        raise Refused(f"the record of version {version} is missing in {where}")
    task = next((task for task in recorded.record.tasks if task.address == address), None)
    if task is None:
        raise Refused(
            f"version {version} of {where} does not have it. Deploy it: ./pants run {request.address}"
        )
    one, arguments = _chosen(task, options.rest)
    if one.flyte_name is None:
        raise Refused(
            f"version {version} of {where} was not registered. Deploy it: ./pants run {request.address}"
        )
    run(
        (os.path.join(directory, environment.python),),
        {**os.environ, **environment.env},
        found.control_plane,
        request.project,
        request.domain,
        one.flyte_name,
        one.version,
        arguments,
        f"./pants run {address} -- --remote",
    )


def _chosen(task: RecordedTask, typed: Sequence[str]) -> tuple[DeployedTask, Sequence[str]]:
    """The task of an environment that comes first in what was typed, and what follows; or the one there is."""
    if task.kind == "task":
        return task.tasks[0], typed
    names = {one.name: one for one in task.tasks}
    if not typed or typed[0] not in names:
        raise RunUsageError(
            f"which task of the environment? Type its name first: {', '.join(sorted(names))}"
        )
    return names[typed[0]], typed[1:]
