"""Has Flyte run a task, and follows it: `python -m flyte_pack run-remote`.

The task is run as it was packaged just now, which ships what is missing of it, or as it was
deployed. This process becomes `flyte_side`, in the environment of the task's resolve, which starts
and follows the run.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyte_pack import command
from flyte_pack.deploy.ahead import started_ahead
from flyte_pack.deploy.bundles import check_whole
from flyte_pack.deploy.control_plane import Found, find_control_plane
from flyte_pack.deploy.flyte_settings import NO_CONTROL_PLANE
from flyte_pack.deploy.git import provenance
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.options import parse
from flyte_pack.deploy.plan import DeployPlan, Environment, Request, resolve
from flyte_pack.deploy.records import (
    RUN,
    DeployedTask,
    Provenance,
    RecordedTask,
    VersionRecord,
)
from flyte_pack.deploy.registration import run
from flyte_pack.deploy.report import commit_text
from flyte_pack.errors import UsageError, UserError
from flyte_pack.names import TargetAddress
from flyte_pack.progress import Console, Say, write
from flyte_pack.run.options import HELP, OURS, RunOptions, split
from flyte_pack.run.shipment import Shipment
from flyte_pack.store import Store
from flyte_pack.store.opening import open_store


def main(argv: Sequence[str]) -> int:
    """The command; becomes the run, and returns only the exit code of a failure."""
    parser = command.parser("python -m flyte_pack run-remote")
    parser.add_argument("--plan", required=True, help="the plan of the build rules")
    parser.add_argument("--dir", required=True, help="the directory that its files are in")
    parser.add_argument("--task", dest="address", required=True, help="the address of the task")
    return command.run(parser, argv, _run, hint="./pants run {} -- --help")


@dataclass(frozen=True)
class _Start:
    """What is to be run. name, version: Flyte's. arguments: the inputs, as they were typed.

    more: what tells `registration.run` the task.
    """

    name: str
    version: str
    arguments: Sequence[str]
    more: dict[str, Any]


def _run(given: argparse.Namespace) -> None:
    options, address = split(given.typed), TargetAddress(given.address)
    directory = os.path.abspath(given.dir)
    with open(given.plan, "rb") as file:
        plan = DeployPlan.from_json(file.read())
    request = _request(plan, options)
    say = Console(sys.stderr)
    found = find_control_plane(request, os.getcwd(), os.environ, say)
    environment = next((e for e in request.plan.environments if address in e.tasks), None)
    if found is None or environment is None:
        raise UserError(NO_CONTROL_PLANE)
    if options.help:
        write(sys.stdout, f"{HELP}\n")
    if options.deployed is None:
        start = _shipped(request, found, directory, address, options, say)
    else:
        start = _deployed(request, found, address, options, say)
    say.draw("")
    _become(start, request, found, directory, environment, address, options)


def _request(plan: DeployPlan, options: RunOptions) -> Request:
    """As for deploying; a store that only this machine has cannot hand the bundle to Flyte."""
    request = resolve(plan, parse(options.of_deploying))
    upload = request.options.upload
    if options.deployed is None and upload is None and request.store.startswith("file:"):
        upload = "flyte"
    return replace(request, options=replace(request.options, upload=upload))


def _become(
    start: _Start,
    request: Request,
    found: Found,
    directory: str,
    environment: Environment,
    address: TargetAddress,
    options: RunOptions,
) -> None:
    deployed = "" if options.deployed is None else " --deployed"
    run(
        python=environment.command(directory),
        environ={**os.environ, **environment.env},
        control_plane=found.control_plane,
        project=request.project,
        domain=request.domain,
        name=start.name,
        version=start.version,
        arguments=start.arguments,
        program=f"./pants run {address} -- --remote{deployed}",
        ours=OURS,
        follow=not options.detach,
        **start.more,
    )


# --- as it is now --------------------------------------------------------------------------------


def _shipped(
    request: Request,
    found: Found,
    directory: str,
    address: TargetAddress,
    options: RunOptions,
    say: Say,
) -> _Start:
    """Ship what is missing of the task that was packaged into `directory`."""
    with started_ahead(request, directory, say, each_time=True) as processes:
        store = open_store(request.store, os.getcwd(), say)
        shipment = Shipment(
            request,
            store=store,
            ledger=Ledger(store, request.project, request.domain, address),
            directory=directory,
            build_root=os.getcwd(),
            found=found,
            say=say,
            action=RUN,
            processes=processes,
        )
        with shipment:
            shipment.push_docker_images()
            work = shipment.prepare()
            [task] = work.record.tasks
            one, arguments = _chosen(task, options.rest)
            for image in shipment.push_images():
                if image["status"] == "new":
                    say(f"pushed {image['reference']}")
            work, _, _ = shipment.carry_out(work)
            # Once more: what was uploaded has changed the record.
            [task] = work.record.tasks
            one, arguments = _chosen(task, options.rest)
            assert one.flyte_name is not None
            made = shipment.request(one.flyte_name, one.version)
    return _Start(one.flyte_name, one.version, arguments, {"request": made})


# --- as it was deployed --------------------------------------------------------------------------


def _deployed(
    request: Request, found: Found, address: TargetAddress, options: RunOptions, say: Say
) -> _Start:
    """The task of a recorded version, which is checked as far as this machine can."""
    store = open_store(request.store, os.getcwd(), say)
    ledger = Ledger(store, request.project, request.domain, request.plan.address)
    where = f"{request.plan.address} in {request.project}/{request.domain} of {store.uri}"
    deploy = f"deploy it: ./pants run {request.plan.address}"
    version, typed = _version(ledger, found, options, where, deploy)
    recorded = ledger.recorded(version)
    if recorded is None:
        raise UserError(f"the record of version {version} is missing in {where}")
    task = next((task for task in recorded.record.tasks if task.address == address), None)
    if task is None:
        raise UserError(f"version {version} of {where} does not have it; {deploy}")
    one, arguments = _chosen(task, typed)
    if one.flyte_name is None:
        raise UserError(f"version {version} of {where} was not registered; {deploy}")
    if task.bundle is not None:
        # What the pods fetch; where others write to the store, the record may claim another one.
        check_whole(store, [task.bundle])
    _tell(recorded.record, store, say)
    return _Start(one.flyte_name, one.version, arguments, {"command": one.command})


def _version(
    ledger: Ledger, found: Found, options: RunOptions, where: str, deploy: str
) -> tuple[str, Sequence[str]]:
    """The version to run, and what was typed for the task."""
    current = ledger.current()
    if options.deployed:
        try:
            return ledger.find(options.deployed), options.rest
        except UserError:
            # `--deployed TASK` of an environment means the current version.
            if current is None or options.deployed not in _names(ledger, current.version):
                raise
            typed: Sequence[str] = (options.deployed, *options.rest)
    else:
        typed = options.rest
    if current is None:
        raise UserError(f"nothing was deployed yet by {where}; {deploy}")
    if current.registered != found.identity:
        at = "nowhere" if current.registered is None else f"at {current.registered}"
        raise UserError(
            f"version {current.version} was deployed by {where}, and registered {at}, "
            f"not at {found.identity}; {deploy}"
        )
    return current.version, typed


def _names(ledger: Ledger, version: str) -> set[str]:
    recorded = ledger.recorded(version)
    tasks = recorded.record.tasks if recorded else ()
    return {
        one.name
        for task in tasks
        if task.kind == "environment"
        for one in task.tasks
        if one.kind is None
    }


def _tell(record: VersionRecord, store: Store, say: Say) -> None:
    """Say what runs, and warn if the checkout is not of its commit."""
    made, here = record.provenance, provenance(os.getcwd(), store.uri)
    say(
        f"runs version {record.version} of {record.address}, which was deployed {_age(made.time)} "
        f"from commit {commit_text(made.commit, made.dirty)}"
    )
    if not _same(made, here):
        say(
            f"warning: the checkout is at commit {commit_text(here.commit, here.dirty)}, and may "
            "differ from what runs: leave out --deployed to run the code as it is"
        )


def _same(made: Provenance, here: Provenance) -> bool:
    """Whether both are of one commit, without changes."""
    return (
        made.commit is not None
        and made.commit == here.commit
        and made.dirty is False
        and here.dirty is False
    )


def _age(time: str) -> str:
    """How long ago a time of a record is."""
    then = datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def _chosen(task: RecordedTask, typed: Sequence[str]) -> tuple[DeployedTask, Sequence[str]]:
    """The task, or that of an environment which `typed` names first; and the rest of `typed`."""
    names = {one.name: one for one in task.tasks if one.kind is None and not one.along}
    if task.kind == "task":
        # Under another name where the module has it from elsewhere; then it is the only one.
        name = task.entry_point.rpartition(":")[2]
        return names.get(name) or next(iter(names.values())), typed
    if not typed or typed[0] not in names:
        raise UsageError(
            f"which task of the environment? Type its name first: {', '.join(sorted(names))}"
        )
    return names[typed[0]], typed[1:]
