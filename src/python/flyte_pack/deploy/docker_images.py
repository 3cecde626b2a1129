"""Pushes the images that Docker has built for a deployment, and finds their digests.

Docker compresses the layers when it pushes an image, so its digest is known only afterwards. What
is known before is the image ID: the digest of the image's config or, where the engine keeps images
in containerd, of its manifest or index. A registry's tag stands for the image that was built where
either agrees, whoever pushed it. An index counts where one of its images does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyte_pack import children
from flyte_pack.deploy.plan import DockerImage
from flyte_pack.errors import UserError
from flyte_pack.http import HttpError
from flyte_pack.names import TargetAddress
from flyte_pack.oci.model import InvalidImage, Manifest, digest_of, parse_document
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Say
from flyte_pack.registry.auth import Denied
from flyte_pack.registry.client import Refused, Session, may_pull
from flyte_shim import shown

# Docker without BuildKit tells the first twelve digits.
_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_CLIENTS = ("docker", "podman")
_MOST_IMAGES = 100  # of an index, each of which is asked for


@dataclass(frozen=True)
class Settled:
    """An image that was pushed or, in a dry run, perhaps would be.

    reference: by digest; in a dry run by tag where it is not there yet. told: what was done, by
    repository, as the report has it.
    """

    address: TargetAddress
    reference: str
    told: tuple[dict[str, Any], ...]


def push_docker_images(
    images: Iterable[DockerImage],
    *,
    search_path: Sequence[str],
    insecure: Collection[str],
    say: Say,
    dry_run: bool,
    session: Session | None = None,
) -> tuple[Settled, ...]:
    """Push what its registries do not have under its tags.

    search_path: directories, to find Docker's client in. insecure: `host[:port]` of registries that
    may be asked over plain HTTP (what Docker does is its own setting). Raises `UserError`.
    """
    session = session or Session(insecure, say=say)
    return tuple(_settle(image, search_path, session, say, dry_run) for image in images)


def _settle(
    image: DockerImage, search_path: Sequence[str], session: Session, say: Say, dry_run: bool
) -> Settled:
    found: dict[str, str] = {}
    moved: dict[str, list[str]] = {}
    ids = [image.image_id] if _ID.fullmatch(image.image_id) else []
    for name in image.names:
        reference = Reference.parse(name)
        tags = moved.setdefault(reference.name, [])
        ids = ids or [_asked_id(image, name, search_path)]
        digest = _digest_there(session, reference, image.address, ids[0], or_unknown=True)
        if digest is None:
            tags.append(reference.tag or "latest")
            if not dry_run:
                say(f"{image.address}: pushing {name}")
                _push(image, name, search_path)
                digest = _pushed(session, reference, image, ids[0])
        if digest is not None:
            found.setdefault(reference.name, digest)
    first = Reference.parse(image.names[0])
    if first.name not in found:
        say(
            f"warning: {image.address} is not in {first.registry} yet, and its digest is known "
            "only when it was pushed: the versions below will be others"
        )
    told = tuple(
        {
            "address": image.address,
            "reference": f"{name}@{found[name]}" if name in found else f"{name}:{tags[0]}",
            "status": "new" if tags else "unchanged",
            "tags": tags,
            "bytes": 0,  # Docker does not tell
        }
        for name, tags in moved.items()
    )
    return Settled(image.address, str(told[0]["reference"]), told)


def _pushed(session: Session, reference: Reference, image: DockerImage, image_id: str) -> str:
    try:
        digest = _digest_there(session, reference, image.address, image_id)
    except (Refused, Denied) as error:
        raise UserError(
            f"{image.address}: it was pushed, and its digest cannot be read: {error}"
        ) from None
    if digest is None:
        raise UserError(
            f"{image.address}: {reference} was pushed, and stands for another image than the one "
            f"that was built here ({image_id}): did somebody else push to that tag? Deploy again, "
            "or give the image a tag of its own in `image_tags`"
        )
    return digest


# --- what a registry has -------------------------------------------------------------------------


def _digest_there(
    session: Session,
    reference: Reference,
    address: TargetAddress,
    image_id: str,
    or_unknown: bool = False,
) -> str | None:
    """The digest that the tag has, if that is the image; None if it is not.

    address: the image's, for errors. or_unknown: None, too, where the registry refuses to tell; for
    many do so for what is not there.
    """
    registry = session.registry(reference.registry)
    repository, scopes = reference.repository, may_pull(reference.repository)
    try:
        data, media_type = registry.manifest(repository, reference.tag or "latest", scopes)
        for digest, image in _images(session, reference, data, media_type):
            if _is(image_id, digest) or (image and _is(image_id, image.config.digest)):
                return digest_of(data)
    except (Refused, Denied) as error:
        if or_unknown or getattr(error, "status", None) == 404:
            return None
        raise
    except InvalidImage:
        return None
    except HttpError as error:
        raise UserError(f"{address}: {error}") from None
    return None


def _images(
    session: Session, reference: Reference, data: bytes, media_type: str
) -> Iterator[tuple[str, Manifest | None]]:
    """The digest of what was served, and its manifest; if it is an index, those of its images."""
    served = parse_document(data, str(reference), media_type)
    if isinstance(served, Manifest):
        yield digest_of(data), served
        return
    yield digest_of(data), None
    registry = session.registry(reference.registry)
    repository, scopes = reference.repository, may_pull(reference.repository)
    for one in served.manifests[:_MOST_IMAGES]:
        yield one.digest, None
        if one.platform is not None and one.platform.os != "unknown":  # that is an attestation
            more, its_type = registry.manifest(repository, one.digest, scopes)
            image = parse_document(more, str(reference), its_type)
            yield one.digest, image if isinstance(image, Manifest) else None


def _is(image_id: str, digest: str) -> bool:
    return digest.partition(":")[2].startswith(image_id.rpartition(":")[2])


# --- Docker's client -----------------------------------------------------------------------------


def _client(image: DockerImage, search_path: Sequence[str]) -> str:
    where = os.pathsep.join(search_path) or None
    found = next(filter(None, (shutil.which(name, path=where) for name in _CLIENTS)), None)
    if found is None:
        raise UserError(
            f"{image.address}: there is no `docker` here to push it by: install Docker, or name "
            "its directory in `[docker].executable_search_paths`"
        )
    return found


def _run(image: DockerImage, search_path: Sequence[str], *words: str) -> tuple[str, str | None]:
    """What it prints; and None, or what is wrong in one line."""
    client = _client(image, search_path)
    try:
        done = children.run([client, *words], text=True, errors="replace")
    except OSError as error:
        raise UserError(f"{image.address}: {client} cannot be started: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout.strip(), None
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return "", shown.line(said[-1] if said else f"exit code {done.returncode}")


def _asked_id(image: DockerImage, name: str, search_path: Sequence[str]) -> str:
    """The ID of what `name` stands for in the engine, where the build did not say it."""
    answer, problem = _run(image, search_path, "image", "inspect", "--format", "{{.Id}}", name)
    if problem is not None or not _ID.fullmatch(answer):
        raise UserError(
            f"{image.address}: which image {name} was built as, neither Pants nor Docker can say: "
            f"{problem or shown.line(answer)}"
        )
    return answer


def _push(image: DockerImage, name: str, search_path: Sequence[str]) -> None:
    _, problem = _run(image, search_path, "push", "--quiet", name)
    if problem is not None:
        registry = Reference.parse(name).registry
        raise UserError(
            f"{image.address}: Docker cannot push {name}: {problem}. Does that repository exist, "
            f"and may you push there (`docker login {registry}`)? Where images go is said by its "
            "`registries` and `repository`"
        )
