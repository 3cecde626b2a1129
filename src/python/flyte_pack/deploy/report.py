"""The deploy program's result as text for people; the same document as JSON is for programs."""

from __future__ import annotations

import shlex
from typing import Any

from flyte_pack import diff_text
from flyte_pack.progress import megabytes

_DIGITS = 12  # of a hash or commit


def text(document: dict[str, Any]) -> str:
    """The document of any command, as lines."""
    lines = {
        "deploy": _deploy,
        "list": _list,
        "show": _show,
        "diff": _diff,
        "rollback": _rollback,
        "verify": _verify,
        "prune": _prune,
        "export": _export,
        "import": _deploy,
        "promote": _deploy,
    }
    where = f"{document['project']}/{document['domain']} of {document['store']}"
    heading = f"{document['address']} in {where}"
    return "\n".join([heading, *lines[document["command"]](document)]) + "\n"


def _deploy(document: dict[str, Any]) -> list[str]:
    lines = []
    for image in document["images"]:
        tags = "".join(f", tag {tag}" for tag in image["tags"])
        size = f"  {megabytes(image['bytes'])}" if image["bytes"] else ""
        lines.append(f"  image {image['reference']}{size}  {image['status']}{tags}")
    for bundle in document["bundles"]:
        content = bundle["content_hash"][:_DIGITS]
        lines.append(f"  bundle {content}  {megabytes(bundle['archive_size'])}  {bundle['status']}")
    for task in document["tasks"]:
        what = f": {', '.join(task['changes'])}" if task["changes"] else ""
        kind = task.get("kind", "task")
        lines.append(f"  {kind} {task['address']}  {task['status']}{what}")
    lines += _at_flyte(document)
    version, dry = document["version"], document["dry_run"]
    upload = document["upload"]
    if any(upload.values()):
        lines.append(
            f"{'To upload' if dry else 'Uploaded'}: {megabytes(sum(upload.values()))} "
            f"(bundles {megabytes(upload['bundles'])}, images {megabytes(upload['images'])})."
        )
    if document["deployed"]:
        lines.append(
            f"{'Would deploy' if dry else 'Deployed'} version {version} ({_history(document)})."
        )
    elif document["writes"] or any(image["status"] == "new" for image in document["images"]):
        lines.append(
            f"{'Would write' if dry else 'Wrote'} what was missing; version {version} is current."
        )
    else:
        lines.append(f"Nothing to do: version {version} is current, and all of it is in place.")
    return lines + _dry(document)


def _rollback(document: dict[str, Any]) -> list[str]:
    version = document["version"]
    if not document["deployed"]:
        return [f"Nothing to do: version {version} is already current.", *_dry(document)]
    verb = "Would roll back" if document["dry_run"] else "Rolled back"
    return [
        *_at_flyte(document),
        f"{verb} to version {version} ({_history(document)}).",
        *_dry(document),
    ]


_STATUS = {
    "again": "again, under this version, to be the newest",
    "deactivated": "not in this version: {0}",
}


def _at_flyte(document: dict[str, Any]) -> list[str]:
    """What was registered, and what runs that name no version use from now on."""
    lines = []
    for one in document["registered"]:
        status = _STATUS.get(one["status"], one["status"])
        kind = one.get("kind", "registration")
        at = f"  {one['url']}" if "url" in one else ""
        lines.append(f"  {kind} {one['name']} {one['version']}  {status}{at}")
    tasks = [one for one in document["registered"] if one.get("kind") != "app"]
    if any(one["status"] != "unchanged" for one in tasks):
        lines.append("Runs that name no version use the registered ones above.")
    for one in document["triggers"]:
        done = "to be deactivated" if document["dry_run"] else "deactivated"
        status = _STATUS.get(one["status"], one["status"]).format(done)
        lines.append(f"  trigger {one['name']} of {one['task']}  {status}")
    for name in document["apps"]:
        done = "to be deactivated" if document["dry_run"] else "deactivated"
        lines.append(f"  app {name}  not in this version: {done}")
    return lines


def _list(document: dict[str, Any]) -> list[str]:
    versions = document["versions"]
    if not versions:
        return ["Nothing is deployed yet."]
    width = max(len("version"), *(len(v["version"]) for v in versions))
    lines = [f"  {'version':{width}}  {'deployed (UTC)':20}  {'commit':20}  history"]
    for v in versions:
        mark = "*" if v["current"] else " "
        commit = v["error"] or commit_text(v["commit"], v["dirty"])
        history = ", ".join(map(str, v["history"]))
        deployed = v["deployed"] or "never"
        line = f"{mark} {v['version']:{width}}  {deployed:20}  {commit:20}  {history}"
        lines.append(line.rstrip())
    return lines


def _show(document: dict[str, Any]) -> list[str]:
    record = document["record"]
    origin = record["provenance"]
    lines = [
        f"version {record['version']}{' (current)' if document['current'] else ''}",
        f"made {origin['time']} from commit {commit_text(origin['commit'], origin['dirty'])}"
        + (f": {origin['unknown']}" if origin.get("unknown") else ""),
        f"copy_style {record['copy_style']}",
    ]
    for entry in document["history"]:
        source = f", from {entry['source']}" if entry.get("source") else ""
        lines.append(f"history {entry['number']}: {entry['action']} {entry['time']}{source}")
    for task in record["tasks"]:
        root = "stripped source roots" if task["root_dir"] is None else task["root_dir"]
        lines += [
            f"  {task['kind']} {task['address']}",
            f"    entry point  {task['entry_point']} (module {task['module']}, root: {root})",
        ]
        if task["image"] is not None:
            name = f" (as {task['image_ref_name']})" if task["image_ref_name"] else ""
            lines.append(f"    image        {task['image']}{name}")
        if task["bundle"] is not None:
            bundle = task["bundle"]
            lines += [
                f"    archive      {bundle['archive']} ({megabytes(bundle['archive_size'])})",
                f"    manifest     {bundle['manifest']} ({megabytes(bundle['manifest_size'])})",
                f"    content      {bundle['content_hash']}",
            ]
        for one in task["tasks"]:
            lines.append(f"    {one['name']}: {shlex.join(one['command'])}")
    return lines


def _diff(document: dict[str, Any]) -> list[str]:
    new, old = document["new"] or "what is in the checkout", document["old"]
    told = diff_text.parts(document["differences"])
    lines = [f"version {new} against {old}" if document["new"] else f"{new} against version {old}"]
    return [*lines, *(line for part in told for line in ("", *part))]


def _verify(document: dict[str, Any]) -> list[str]:
    lines = []
    for one in document["checked"]:
        size = f"  {megabytes(one['size'])}" if one["size"] is not None else ""
        lines.append(f"  {one['status']:7}  {one['kind']:8}  {one['name']}{size}")
        if one["problem"]:
            lines += [f"           {one['problem']}", f"           to do: {one['fix']}"]
    count, broken = len(document["checked"]), document["broken"]
    versions = document["versions"]
    of = f"{len(versions)} versions need" if versions[1:] else f"version {''.join(versions)} needs"
    if broken:
        return [*lines, f"{broken} of the {count} things that {of} are not as they must be."]
    return [*lines, f"All {count} things that {of} are there, and whole."]


def _prune(document: dict[str, Any]) -> list[str]:
    objects, dry = document["objects"], document["dry_run"]
    lines = [f"  version {version}" for version in document["versions"]]
    for one in objects:
        state = "" if dry or one["deleted"] else "  stays: it is needed again"
        lines.append(f"  {one['kind']:8}  {one['key']}  {megabytes(one['size'])}{state}")
    young, days = document["young"], document["older_than_days"]
    if young:
        size = megabytes(sum(one["size"] for one in young))
        since = f"{days} day{'' if days == 1 else 's'}"
        lines.append(
            f"{len(young)} more that nothing needs ({size}) were written within {since}, "
            "and stay for now."
        )
    gone = [one for one in objects if dry or one["deleted"]]
    size = megabytes(sum(one["size"] for one in gone))
    if not objects:
        lines.append("Nothing to prune.")
    elif dry:
        lines.append(f"Would delete {len(gone)} objects ({size}). To do so, type --yes.")
    else:
        lines.append(f"Deleted {len(gone)} objects ({size}).")
    return [*lines, *document["problems"]]


def _export(document: dict[str, Any]) -> list[str]:
    return [
        *(f"  image {image}" for image in document["images"]),
        f"Version {document['version']} is in {document['folder']}: {document['files']} files, "
        f"{megabytes(document['bytes'])}. There, `sha256sum -c SHA256SUMS` checks it.",
    ]


def _dry(document: dict[str, Any]) -> list[str]:
    return ["This was a dry run: nothing was written."] if document["dry_run"] else []


def _history(document: dict[str, Any]) -> str:
    before = f", before: {document['previous']}" if document["previous"] else ""
    return f"history {document['history']}{before}"


def commit_text(commit: str | None, dirty: bool | None) -> str:
    """A commit, and whether files differed from it."""
    if commit is None:
        return "unknown"
    return commit[:_DIGITS] + {True: " (dirty)", False: "", None: " (dirty?)"}[dirty]
