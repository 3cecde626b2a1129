"""Looks up the digests of images that a deployment names and does not build."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from flyte_pack.http import HttpError
from flyte_pack.names import InvalidName
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Say
from flyte_pack.registry import RegistryError

if TYPE_CHECKING:
    from flyte_pack.registry.client import Session


def resolve_images(
    references: Iterable[str],
    insecure: Collection[str] = (),
    *,
    say: Say = lambda line: None,
    check: bool = True,
    published: Mapping[str, str] = MappingProxyType({}),
    session: Session | None = None,
) -> dict[str, str]:
    """`registry/repository@digest` of each reference, or the reference where nobody looked.

    A registry is asked once for each, by digest if it has one.
    insecure: `host[:port]` of registries that may be spoken to over plain HTTP. check: False to ask
    none. published: the targets that some references are published by, for errors. say: is told of
    retries and of unchecked images. Raises `RegistryError`, which names all that failed.
    """
    wanted = {text: _parse(text) for text in sorted(set(references))}
    if not wanted:
        return {}
    if not check:
        unseen = ", ".join(wanted)
        say(f"warning: --no-image-check: nobody looked whether these images exist: {unseen}")
        return {text: text for text in wanted}
    # Only a deployment with such images pays for the HTTP client.
    from flyte_pack.http.transfers import in_parallel
    from flyte_pack.registry.client import Session

    session = session or Session(insecure, say=say)
    found: dict[str, str] = {}
    failed: dict[str, str] = {}

    def look(session: Session, text: str, reference: Reference) -> None:
        try:
            found[text] = f"{reference.name}@{_look(session, reference, published.get(text))}"
        except HttpError as error:
            failed[text] = str(error)

    with in_parallel(session.transport.stopped) as submit:
        for text, reference in wanted.items():
            submit(look, session, text, reference)
    if failed:
        raise RegistryError("; ".join(f"{text}: {failed[text]}" for text in sorted(failed)))
    return found


def _look(session: Session, reference: Reference, publisher: str | None) -> str:
    from flyte_pack.registry.auth import Denied
    from flyte_pack.registry.client import Refused, may_pull

    registry = session.registry(reference.registry)
    repository = reference.repository
    which = reference.digest or reference.tag or "latest"
    try:
        digest = registry.manifest_digest(repository, which, may_pull(repository))
    except (Refused, Denied) as error:
        # Many registries answer so for what is not there, too.
        question = f"is {reference.name} its name"
        if publisher:
            question = f"is it published (./pants publish {publisher})"
        raise RegistryError(f"{error}; {question}, and may you pull from there?") from None
    except HttpError as error:
        raise RegistryError(
            f"{error}. Where that registry cannot be reached from here, --no-image-check deploys "
            "images unseen"
        ) from None
    if digest is None:
        mend = "push it, or name another one (--image NAME=URI, or where this one is written)"
        if publisher:
            mend = f"publish it first: ./pants publish {publisher}"
        raise RegistryError(f"{registry.name} has no {which} of {repository}: {mend}")
    return digest


def _parse(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidName as error:
        raise RegistryError(str(error)) from None
