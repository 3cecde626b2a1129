"""Reads again all that versions need, down to each file of bundles and each blob of images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyte_pack.deploy.contents import Wrong, check_archive, read_manifest
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.records import StoredBundle, VersionRecord
from flyte_pack.http import HttpError
from flyte_pack.json_fields import InvalidData
from flyte_pack.manifest import Manifest
from flyte_pack.names import InvalidName
from flyte_pack.oci.model import Index, InvalidImage, parse_document
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Progress, Say
from flyte_pack.store import Store, StoreError
from flyte_shim import shown

if TYPE_CHECKING:
    from flyte_pack.registry.client import Registry, Session

_INDEX_LIMIT = 1 << 20
_DEPLOY_AGAIN = (
    "bring it back from a backup, or deploy the commit that made it again, with --repair"
)


@dataclass(frozen=True)
class Checked:
    """What became of one thing that a version needs.

    kind: record, history, index, archive, manifest or image. name: its address. status: ok,
    missing, damaged, or unknown where nobody could look. problem: what is wrong, and fix: what to
    do; None if it is ok. size: in bytes, if known.
    """

    kind: str
    name: str
    status: str = "ok"
    problem: str | None = None
    fix: str | None = None
    size: int | None = None


def verify(
    store: Store,
    ledger: Ledger,
    versions: Iterable[str],
    *,
    say: Say,
    insecure: Collection[str] = (),
    images: bool = True,
    session: Session | None = None,
) -> tuple[Checked, ...]:
    """Everything that these versions need, each once. Writes nothing.

    insecure: `host[:port]` of registries that may be spoken to over plain HTTP. images: False to
    ask no registry.
    """
    records: list[VersionRecord] = []
    found = [_history(store, ledger)]
    for version in versions:
        checked, record = _record(store, ledger, version)
        found.append(checked)
        if record is not None:
            records.append(record)
    bundles = dict.fromkeys(bundle for record in records for bundle in record.bundles)
    progress = Progress(say, "archives read", sum(bundle.archive_size for bundle in bundles))
    for bundle in bundles:
        found += _bundle(store, bundle, progress)
    references = {task.image for record in records for task in record.tasks if task.image}
    if images and references:
        found += _images(sorted(references), insecure, say, session)
    return tuple(found)


# --- records -------------------------------------------------------------------------------------


def _history(store: Store, ledger: Ledger) -> Checked:
    name = store.uri_of(ledger.entry_key(1)).rpartition("/")[0]
    try:
        numbers = [entry.number for entry in ledger.history()]
    except (InvalidData, StoreError) as error:
        return Checked("history", name, "damaged", str(error), "do what the message says")
    gaps = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if numbers else []
    if gaps:
        missing = ", ".join(map(str, gaps[:5]))
        return Checked(
            *("history", name, "missing", f"there is no entry {missing}"),
            "bring it back from a backup; what is current is not affected",
        )
    return Checked("history", name)


def _record(store: Store, ledger: Ledger, version: str) -> tuple[Checked, VersionRecord | None]:
    name = store.uri_of(ledger.version_key(version))
    try:
        recorded = ledger.recorded(version)
    except (InvalidData, StoreError) as error:
        return Checked("record", name, "damaged", str(error), _DEPLOY_AGAIN), None
    if recorded is None:
        return Checked("record", name, "missing", "it is not in the store", _DEPLOY_AGAIN), None
    return Checked("record", name), recorded.record


# --- bundles -------------------------------------------------------------------------------------


def _bundle(store: Store, bundle: StoredBundle, progress: Progress) -> Iterator[Checked]:
    yield _index(store, bundle)
    manifest: Manifest | None = None
    try:
        manifest = read_manifest(store, bundle)
    except Wrong as wrong:
        yield _wrong("manifest", store, wrong)
    else:
        yield Checked("manifest", store.uri_of(bundle.manifest.key), size=bundle.manifest_size)
    try:
        check_archive(store, bundle.archive, manifest, progress)
    except Wrong as wrong:
        yield _wrong("archive", store, wrong)
    else:
        yield Checked("archive", store.uri_of(bundle.archive.key), size=bundle.archive_size)


def _wrong(kind: str, store: Store, wrong: Wrong) -> Checked:
    name = store.uri_of(wrong.blob.key)
    return Checked(kind, name, wrong.status, str(wrong), _DEPLOY_AGAIN, wrong.blob.size)


def _index(store: Store, bundle: StoredBundle) -> Checked:
    """The entry may name another archive of the same content: only new deployments read it."""
    name = store.uri_of(bundle.index_key)
    fix = "deploy that commit again (with --repair, where it is damaged): it is written anew"
    try:
        data = store.read(bundle.index_key, _INDEX_LIMIT)
        if data is None:
            return Checked("index", name, "missing", "it is not in the store", fix)
        if StoredBundle.from_json(data, name).content_hash != bundle.content_hash:
            return Checked("index", name, "damaged", "it is about another content", fix)
    except (InvalidData, StoreError) as error:
        return Checked("index", name, "damaged", str(error), fix)
    return Checked("index", name, size=len(data))


# --- images --------------------------------------------------------------------------------------


def _images(
    references: Iterable[str], insecure: Collection[str], say: Say, session: Session | None
) -> list[Checked]:
    # Only versions with images pay for the HTTP client.
    from flyte_pack.http.transfers import in_parallel
    from flyte_pack.registry.client import Session

    session = session or Session(insecure, say=say)
    found: dict[str, Checked] = {}

    def look(session: Session, text: str) -> None:
        found[text] = _image(session, text)

    with in_parallel(session.transport.stopped) as submit:
        for text in references:
            submit(look, session, text)
    return [found[text] for text in references]


def _image(session: Session, text: str) -> Checked:
    from flyte_pack.registry.client import Refused

    push = "push it again (deploy the commit that made it again), or bring it back from a backup"
    try:
        reference = Reference.parse(text)
        registry = session.registry(reference.registry)
        which = reference.digest or reference.tag or "latest"
        missing = _missing(registry, reference.repository, which)
    except Refused as refused:
        if refused.status == 404:
            return Checked("image", text, "missing", "the registry does not have it", push)
        return Checked("image", text, "unknown", str(refused), "see to it that it can be pulled")
    except HttpError as error:
        fix = "try again where the registry can be reached, or leave images out: --no-image-check"
        return Checked("image", text, "unknown", str(error), fix)
    except (InvalidImage, InvalidName) as error:
        return Checked("image", text, "damaged", shown.printable(str(error)), push)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        return Checked("image", text, "damaged", f"the registry lacks {missing[0]}{more}", push)
    return Checked("image", text)


def _missing(registry: Registry, repository: str, which: str, nested: bool = False) -> list[str]:
    """What the registry lacks of an image. Raises `RegistryError`, `InvalidImage`."""
    from flyte_pack.registry.client import Refused, may_pull

    scopes = may_pull(repository)
    data, media_type = registry.manifest(repository, which, scopes)
    document = parse_document(data, f"{registry.name}/{repository}: {which}", media_type)
    missing = []
    if isinstance(document, Index):
        if nested:
            raise InvalidImage(f"{which} is an index in an index")
        for child in document.manifests:
            try:
                missing += _missing(registry, repository, child.digest, nested=True)
            except Refused as refused:
                if refused.status != 404:
                    raise
                missing.append(child.digest)
        return missing
    for blob in (document.config, *document.layers):
        if not registry.has_blob(repository, blob.digest, scopes):
            missing.append(blob.digest)
    return missing
