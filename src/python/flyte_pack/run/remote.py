"""Has Flyte run a task as it was deployed, and follows it: `python -m flyte_pack run-remote`.

The record of the deployment says which version that is. This process becomes `flyte_side`, in the
environment of the task's resolve, which starts and follows the run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.deploy.control_plane import find_control_plane
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.options import parse
from flyte_pack.deploy.plan import DeployPlan, Request, resolve
from flyte_pack.deploy.records import DeployedTask, RecordedTask
from flyte_pack.deploy.registration import run
from flyte_pack.errors import UsageError, UserError
from flyte_pack.names import TargetAddress
from flyte_pack.run.options import split
from flyte_pack.store.opening import open_store


def main(argv: Sequence[str]) -> int:
    """The command; becomes the run, and returns only the exit code of a failure."""
    parser = command.parser("python -m flyte_pack run-remote")
    parser.add_argument("--plan", required=True, help="the deployment's plan")
    parser.add_argument("--dir", required=True, help="the directory that its files are in")
    parser.add_argument("--task", dest="address", required=True, help="the address of the task")
    return command.run(parser, argv, _run, hint="")


def _run(given: argparse.Namespace) -> None:
    options, address = split(given.typed), given.address
    with open(given.plan, "rb") as file:
        plan = DeployPlan.from_json(file.read())
    request = resolve(plan, parse(options.of_deployment))
    found = find_control_plane(request, os.getcwd(), os.environ)
    environment = next((e for e in request.plan.environments if address in e.tasks), None)
    if found is None or environment is None:
        raise UserError(
            "no control plane is known: type --endpoint HOST, or set `endpoint` in the deployment, "
            "in its settings file or in `[flyte]`, or write a config.yaml of Flyte's"
        )
    name, version, arguments = _deployed(request, found.identity, address, options.rest)
    run(
        python=(os.path.join(os.path.abspath(given.dir), environment.python),),
        environ={**os.environ, **environment.env},
        control_plane=found.control_plane,
        project=request.project,
        domain=request.domain,
        name=name,
        version=version,
        arguments=arguments,
        program=f"./pants run {address} -- --remote",
    )


def _deployed(
    request: Request, identity: str, address: TargetAddress, typed: Sequence[str]
) -> tuple[str, str, Sequence[str]]:
    """Flyte's name of the task, its registered version, and what was typed for it."""
    store = open_store(request.store, os.getcwd())
    ledger = Ledger(store, request.project, request.domain, request.plan.address)
    where = f"{request.plan.address} in {request.project}/{request.domain} of {store.uri}"
    deploy = f"deploy it: ./pants run {request.plan.address}"
    current = ledger.current()
    if request.settings.version is not None:
        version = ledger.find(request.settings.version)
    elif current is None:
        raise UserError(f"nothing was deployed yet by {where}; {deploy}")
    elif current.registered != identity:
        at = "nowhere" if current.registered is None else f"at {current.registered}"
        raise UserError(
            f"version {current.version} was deployed by {where}, and registered {at}, "
            f"not at {identity}; {deploy}"
        )
    else:
        version = current.version
    recorded = ledger.recorded(version)
    if recorded is None:
        raise UserError(f"the record of version {version} is missing in {where}")
    task = next((task for task in recorded.record.tasks if task.address == address), None)
    if task is None:
        raise UserError(f"version {version} of {where} does not have it; {deploy}")
    one, arguments = _chosen(task, typed)
    if one.flyte_name is None:
        raise UserError(f"version {version} of {where} was not registered; {deploy}")
    return one.flyte_name, one.version, arguments


def _chosen(task: RecordedTask, typed: Sequence[str]) -> tuple[DeployedTask, Sequence[str]]:
    """The task, or that of an environment which `typed` names first; and the rest of `typed`."""
    if task.kind == "task":
        return task.tasks[0], typed
    names = {one.name: one for one in task.tasks}
    if not typed or typed[0] not in names:
        raise UsageError(
            f"which task of the environment? Type its name first: {', '.join(sorted(names))}"
        )
    return names[typed[0]], typed[1:]
