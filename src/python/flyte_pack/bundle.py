"""Packs a code bundle: `python -m flyte_pack bundle`, from a plan and a directory of sources.

What the archive holds, how it is identified and what the manifest says is in docs/bundle-format.md.
The result is a function of the plan and of the bytes and executable bits of the files it names.
"""

from __future__ import annotations

import hashlib
import os
from operator import attrgetter

from flyte_pack import command, tar
from flyte_pack.bundle_plan import BundlePlan, BundleSummary, PlanFile
from flyte_pack.codec import GzipWriter
from flyte_pack.errors import UsageError, UserError
from flyte_pack.fresh import fresh_file
from flyte_pack.guards import Guard
from flyte_pack.json_fields import InvalidData, Sha256
from flyte_pack.manifest import Manifest, ManifestFile
from flyte_pack.sources import SourceTree
from flyte_shim.hashing import content_hash, sha256_bytes
from flyte_shim.paths import path_problem

_READ = 1 << 20
_PACKAGE = "__init__.py"
_USAGE = (
    "usage: python -m flyte_pack bundle --plan PLAN.json --sources DIR "
    "--archive OUT.tar.gz --manifest OUT.json --summary OUT.json [--seen OUT.json] [--memory DIR]"
)


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if argv in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    return command.guarded(
        "flyte_pack bundle", lambda: _pack(argv), hint="python -m flyte_pack bundle --help"
    )


def _pack(argv: list[str]) -> None:
    options = _options(argv)
    # Looking for garbage takes a fifth of the time, and there is none.
    with command.no_garbage():
        with open(options["plan"], "rb") as file:
            plan = BundlePlan.from_json(file.read())
        guard = Guard(options.get("memory")) if "seen" in options else None
        outputs = (options["archive"], options["manifest"], options["summary"])
        pack(plan, options["sources"], *outputs, guard)
        if guard:
            with fresh_file(options["seen"]) as seen, open(seen, "wb") as file:
                file.write(guard.sighting().to_json())


def pack(
    plan: BundlePlan,
    sources: str,
    archive: str,
    manifest: str,
    summary: str,
    guard: Guard | None = None,
) -> BundleSummary:
    """Pack what `plan` names out of the directory `sources`, into files at the three other paths.

    guard: looks at each file.

    Raises `UserError`, or `OSError` for an output that cannot be written. All three are written in
    full beside their places before the first is moved there.
    """
    files = in_archive_order(plan)
    # The archive is moved to its place first.
    with fresh_file(summary) as s, fresh_file(manifest) as m, fresh_file(archive) as a:
        packed, archive_hash, archive_size = _write_archive(files, sources, a, guard)
        described = Manifest(
            copy_style=plan.copy_style,
            root_dir=plan.root_dir,
            entry_points=plan.entry_points,
            files=packed,
            content_hash=Sha256(content_hash((f.path, f.mode, f.size, f.sha256) for f in packed)),
            archive_hash=archive_hash,
            archive_size=archive_size,
            graph=plan.graph,
        )
        manifest_json = described.to_json()
        result = BundleSummary(
            content_hash=described.content_hash,
            archive_hash=archive_hash,
            archive_size=archive_size,
            manifest_hash=Sha256(sha256_bytes(manifest_json)),
            manifest_size=len(manifest_json),
            files=len(packed),
            bytes=sum(f.size for f in packed),
        )
        for path, content in ((m, manifest_json), (s, result.to_json())):
            with open(path, "wb") as file:
                file.write(content)
    return result


def in_archive_order(plan: BundlePlan) -> list[PlanFile]:
    """The plan's files, sorted by the UTF-8 bytes of their paths in the bundle.

    Raises `InvalidData` for a plan that does not give each file a place of its own. The rules that
    make plans find such mistakes earlier, and know the targets at fault; this is the last check.
    """
    places: dict[str, str] = {}
    directories = {""}
    for source, path, *_ in plan.files:
        if problem := path_problem(path):
            raise InvalidData(f"bundle plan: {problem}: {path!r}")
        if path in places:
            raise InvalidData(
                f"bundle plan: {path!r} is there twice, from {places[path]!r} and {source!r}"
            )
        places[path] = source
        directory = path.rpartition("/")[0]
        while directory not in directories:
            directories.add(directory)
            directory = directory.rpartition("/")[0]
    for path in sorted(directories.intersection(places)):
        raise InvalidData(f"bundle plan: {path!r} is both a file and a directory that holds files")
    for point in plan.entry_points:
        if point.path not in places:
            raise InvalidData(f"bundle plan: the entry point {point.path!r} is not among the files")
    # UTF-8 sorts as its code points do, and so do Python's strings.
    return sorted(plan.files, key=attrgetter("path"))


def _write_archive(
    files: list[PlanFile], sources: str, path: str, guard: Guard | None
) -> tuple[tuple[ManifestFile, ...], Sha256, int]:
    """Write the archive; gives its files as the manifest has them, its SHA-256 and its size."""
    packed = []
    with SourceTree(sources) as tree, open(path, "wb", buffering=0) as output:
        with GzipWriter(output) as gzip:
            for source, path, owner, reason, by, kind, root, origin, bare in files:
                fd, status = tree.open(source)
                try:
                    size, mode = status.st_size, 0o755 if status.st_mode & 0o111 else 0o644
                    header = tar.header(path, mode, size)
                    digest, blank = _pack_file(gzip, header, fd, size, source, guard)
                finally:
                    os.close(fd)
                alone = bare or (blank and kind == "module" and os.path.basename(path) == _PACKAGE)
                packed.append(
                    ManifestFile(
                        path, size, mode, digest, owner, reason, by, kind, root, alone, origin
                    )
                )
            gzip.add(tar.END)
            gzip.finish()
    return tuple(packed), Sha256(gzip.sha256), gzip.size


def _pack_file(
    gzip: GzipWriter, header: bytes, fd: int, size: int, source: str, guard: Guard | None
) -> tuple[Sha256, bool]:
    """Add `header`, the `size` bytes of `fd`, and padding; gives the SHA-256 of the content, and
    whether that is nothing but white space, as far as it is looked for.
    """
    # One byte more than there should be shows a file that grew.
    data = os.read(fd, min(size, _READ) + 1)
    if len(data) == size:  # the whole file, as nearly always
        gzip.add(header, data, tar.padding(size))
        whole = hashlib.sha256(data).hexdigest()
        if guard:
            guard.look(source, data, whole)
        return Sha256(whole), not data or data.isspace()
    digest, read = hashlib.sha256(), 0
    gzip.add(header)
    while data and read <= size:
        read += len(data)
        digest.update(data)
        gzip.add(data)
        data = os.read(fd, _READ)
    if read != size:
        raise UserError(f"{source}: its size changed while it was being packed")
    gzip.add(tar.padding(size))
    if guard:
        guard.look_at(source, fd, size, digest.hexdigest())
    return Sha256(digest.hexdigest()), False


def _options(argv: list[str]) -> dict[str, str]:
    needed = ("plan", "sources", "archive", "manifest", "summary")
    names = (*needed, "seen", "memory")
    options = {}
    rest = iter(argv)
    for argument in rest:
        name = argument[2:]
        if not argument.startswith("--") or name not in names or name in options:
            raise UsageError(f"unexpected argument {argument!r}")
        value = next(rest, None)
        if not value:
            raise UsageError(f"{argument} needs a value")
        options[name] = value
    missing = [f"--{name}" for name in needed if name not in options]
    if missing:
        raise UsageError(f"missing {', '.join(missing)}")
    return options
