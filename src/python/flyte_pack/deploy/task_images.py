"""Which image each task runs in: one that is built here, one that is named, or its code's own."""

from __future__ import annotations

from typing import Iterable, Mapping, Optional, Tuple

from flyte_pack.deploy.plan import Request
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Digest
from flyte_pack.names import InvalidName, check_image, check_ref_name
from flyte_pack.progress import Say
from flyte_pack.registry.plan import PushPlan
from flyte_pack.task_link import TaskLink

# (image, the name that it was looked up by) of each task, by its address.
Images = Mapping[str, Tuple[Optional[str], Optional[str]]]


def images_of(request: Request, links: Iterable[TaskLink], pushes: Iterable[PushPlan]) -> Images:
    """Where the images are, or will be when they are pushed. Raises `UserError`."""
    found: dict[str, tuple[str | None, str | None]] = {}
    used: dict[str, str] = {}
    built = {push.digest: push for push in pushes}
    for link in links:
        image, ref_name = link.image, None
        try:
            if link.built_image is not None:
                image, ref_name = _pushed(link, built), link.built_image.ref_name
            elif image is not None and link.image_is_reference:
                check_image(image)
            elif image is not None:
                ref_name = check_ref_name(image)
                used[ref_name] = link.address
                image = request.images.get(ref_name)
        except InvalidName as error:
            raise InvalidName(f"{link.address}: {error}") from None
        found[link.address] = image, ref_name
    for ref_name, address in used.items():
        if ref_name not in request.images:
            raise UserError(
                f"{address} uses the image {ref_name!r}, and nothing says which that is"
                f"{_known(request.images)}: type --image {ref_name}=registry/name:tag, or set "
                f"images={{{ref_name!r}: ...}} in the target"
            )
    for ref_name in sorted(dict(request.options.settings.images).keys() - used.keys()):
        raise UserError(f"--image {ref_name}=...: no task uses an image of that name{_known(used)}")
    return found


def pinned(images: Images, links: Iterable[TaskLink], request: Request, say: Say) -> Images:
    """The same, with digests for those not built here: registered images must exist and not change.

    links: of all tasks. Those that Docker has built are left as they are. Raises `RegistryError`.
    """
    pushed = {image.address for image in request.plan.docker_images or ()}
    built = {
        link.address
        for link in links
        if link.built_image is not None or link.published_by in pushed
    }
    references = {
        image
        for address, (image, _) in images.items()
        if image is not None and address not in built
    }
    if not references:
        return images
    # Only who needs it pays for the HTTP client.
    from flyte_pack.deploy.mapped_images import resolve_images

    resolved = resolve_images(
        references,
        request.plan.insecure_registries,
        say=say,
        check=request.options.image_check,
        published={link.image or "": link.published_by for link in links if link.published_by},
    )
    return {
        address: (resolved.get(image or "", image), ref_name)
        for address, (image, ref_name) in images.items()
    }


def _pushed(link: TaskLink, built: Mapping[Digest, PushPlan]) -> str:
    assert link.built_image is not None
    push = built.get(link.built_image.digest)
    if push is None or not push.destinations:
        ref_name = link.built_image.ref_name
        instead = (
            f" (or name one that is there already: --image {ref_name}=URI)" if ref_name else ""
        )
        raise UserError(
            f"{link.address} runs in {link.built_image.address}, which is built here, and no "
            "registry is known to push it to: type --registry HOST, or set `registry` in the "
            f"target, or `[flyte].registries`{instead}"
        )
    return f"{push.destinations[0].name}@{push.digest}"


def _known(names: Iterable[str]) -> str:
    known = ", ".join(sorted(names))
    return f" (known: {known})" if known else " (none is known)"
