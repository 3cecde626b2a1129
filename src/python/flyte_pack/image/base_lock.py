"""Pins a base image in a lock file, and tells how its tag has moved since."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields, replace

from flyte_pack import command
from flyte_pack.command import say
from flyte_pack.fresh import fresh_file
from flyte_pack.image.base import BaseDistribution, BaseFacts, BaseImage, BasePlatform
from flyte_pack.image.base_files import BaseReader
from flyte_pack.json_fields import InvalidData
from flyte_pack.names import InvalidName
from flyte_pack.oci import model
from flyte_pack.oci.config import ImageConfig
from flyte_pack.oci.model import Index, InvalidImage, Manifest, Platform
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Say, megabytes, write
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import Registry, Session, may_pull
from flyte_pack.registry.plan import check_host
from flyte_pack.registry.program import EPILOG
from flyte_pack.registry.pull import pieces, read

DRIFTED = 1
FAILED = 2
_LONG = "distributions"  # of `BaseFacts`


def main(argv: list[str]) -> int:
    """The command; returns its exit code, which is 1 if `check` finds a difference."""
    parser = command.parser("python -m flyte_pack base-lock")
    for name in ("--address", "--image", "--lockfile"):
        parser.add_argument(name, required=True)
    parser.add_argument("--platform", action="append", required=True)
    parser.add_argument("--python")
    command.add_insecure(parser)
    return command.run(parser, argv, _do, FAILED, hint="./pants run {} -- --help")


def _do(given: argparse.Namespace) -> int:
    typed = _typed(f"./pants run {given.address} --").parse_args(given.typed)
    given.insecure += typed.insecure
    return _lock(given) if typed.what == "lock" else _check(given)


def _typed(prog: str) -> argparse.ArgumentParser:
    parser = command.parser(
        prog,
        "Pin the base image by its digest in a lock file, or see whether its tag has moved since.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "what",
        choices=("lock", "check"),
        help="lock: write or refresh the lock file, and say what changed. check: write nothing; "
        f"the exit code is {DRIFTED} if the tag points to another image than the lock file",
    )
    command.add_insecure(parser)
    return parser


def fetch(
    image: str,
    platforms: Sequence[Platform],
    python: str | None = None,
    session: Session | None = None,
) -> BaseImage:
    """The content of the lock file of `image`, `registry/repository[:tag][@digest]`.

    python: as in `BaseImage`. Raises `RegistryError`, also if the image lacks a platform.
    """
    try:
        reference = Reference.parse(image)
    except InvalidName as error:
        raise RegistryError(f"{image}: {error}") from None
    registry = (session or Session()).registry(reference.registry)
    try:
        which = reference.digest or reference.tag or "latest"
        scopes = may_pull(reference.repository)
        data, media_type = registry.manifest(reference.repository, which, scopes)
        name = str(Reference(reference.registry, reference.repository, reference.tag, None))
        document = model.parse_document(data, image, media_type)
        if isinstance(document, Index):
            found = tuple(
                _from_index(registry, reference, document, platform) for platform in platforms
            )
            return BaseImage(name, model.digest_of(data), data, found, python)
        config = read(registry, reference.repository, document.config, model.MAX_DOCUMENT)
        own = ImageConfig.parse(config, image).platform
        for platform in platforms:
            if platform != own:
                raise _lacks(image, platform, [own])
        return BaseImage(
            name, model.digest_of(data), None, (BasePlatform(own, data, config),), python
        )
    except (InvalidImage, InvalidName, UnicodeDecodeError) as error:
        raise RegistryError(f"{image}: {registry.cleaned(str(error))}") from None


def _from_index(
    registry: Registry, reference: Reference, index: Index, platform: Platform
) -> BasePlatform:
    # Attestations of a build are listed like platforms, as unknown/unknown.
    known = [(one.platform, one) for one in index.manifests if one.platform is not None]
    descriptor = next((one for has, one in known if has == platform), None)
    if descriptor is None:
        raise _lacks(str(reference), platform, [has for has, _ in known if has.os != "unknown"])
    data, _ = registry.manifest(
        reference.repository, descriptor.digest, may_pull(reference.repository)
    )
    manifest = model.parse_document(data, descriptor.digest, descriptor.media_type)
    if not isinstance(manifest, Manifest):
        raise InvalidImage(f"{descriptor.digest}: an index where a manifest should be")
    config = read(registry, reference.repository, manifest.config, model.MAX_DOCUMENT)
    return BasePlatform(platform, data, config)


def _lacks(image: str, platform: Platform, known: Collection[Platform]) -> RegistryError:
    has = ", ".join(sorted(map(str, known))) or "none that it names"
    return RegistryError(
        f"{image} has no {platform}; it has {has}. Change the target's `platforms` or its `image`"
    )


def with_facts(
    image: BaseImage, known: BaseImage | None, session: Session, say: Say = say
) -> BaseImage:
    """`image` with what the files of its layers say, for which these are read, and not kept.

    known: an older lock file; the layers of an image that it knows are not read again. What cannot
    be read is left open. Raises `RegistryError` for a Python that the base does not have.
    """
    assert image.name is not None
    reference = Reference.parse(image.name)
    registry, found = session.registry(reference.registry), []
    for base in image.platforms:
        old = known.for_platform(base.platform) if known and known.python == image.python else None
        if old and old.facts and old.facts.is_whole and old.digest == base.digest:
            found.append(replace(base, facts=old.facts))
            continue
        total = sum(layer.size for layer in base.layers)
        say(f"reading the {len(base.layers)} layers of {base.platform} ({megabytes(total)})")
        reader = BaseReader()
        problem: object = None
        try:
            for layer in base.layers:
                reader.add(layer, pieces(registry, reference.repository, layer), layer.digest)
            facts = reader.facts(base, image.python)
            problem = reader.unreadable
        except InvalidImage as error:
            raise RegistryError(f"{image.name}, {base.platform}: {error}") from None
        except RegistryError as error:  # then the target's fields and defaults have to do
            facts, problem = None, error
        if facts is None:
            say(f"what its files say is not known: {problem}")
        found.append(replace(base, facts=facts))
    return replace(image, platforms=tuple(found))


# --- the two commands ----------------------------------------------------------------------------


def _lock(given: argparse.Namespace) -> int:
    old, trouble = _read(given.lockfile)
    session = _session(given)
    new = with_facts(_fetch(given, session), old, session)
    data = new.to_json()
    if trouble:
        say(f"{given.address}: {trouble}; it is written anew")
    elif old is None:
        say(f"{given.address}: locks {new.name} at {new.digest}")
    elif old.to_json() == data:
        write(sys.stdout, f"{given.lockfile}: unchanged, {new.name} is at {new.digest}\n")
        return 0
    with fresh_file(given.lockfile) as temporary, open(temporary, "xb") as file:
        file.write(data)
    _tell([f"{given.lockfile}: written", *(() if old is None else differences(old, new))])
    return 0


def _check(given: argparse.Namespace) -> int:
    remedy = f"./pants run {given.address} -- lock"
    old, trouble = _read(given.lockfile)
    if old is None:
        raise RegistryError(f"{trouble or f'{given.lockfile} is missing'}: write it by {remedy}")
    new = _fetch(given, _session(given))
    if _without_facts(old).to_json() == new.to_json():
        _tell([f"{given.lockfile}: in step, {new.name} is at {new.digest}"])
        return 0
    _tell([f"{given.lockfile}: not in step with the registry", *differences(old, new)])
    say(f"{given.address}: refresh the lock file by {remedy}")
    return DRIFTED


def _fetch(given: argparse.Namespace, session: Session) -> BaseImage:
    try:
        platforms = list(dict.fromkeys(map(Platform.parse, given.platform)))
    except InvalidImage as error:
        raise RegistryError(str(error)) from None
    return fetch(given.image, platforms, given.python, session)


def _session(given: argparse.Namespace) -> Session:
    return Session(tuple(map(check_host, given.insecure)), say=say)


def _without_facts(image: BaseImage) -> BaseImage:
    return replace(image, platforms=tuple(replace(p, facts=None) for p in image.platforms))


def _read(path: str) -> tuple[BaseImage | None, str | None]:
    """The lock file as it is, and what is wrong with it."""
    try:
        with open(path, "rb") as file:
            return BaseImage.from_json(file.read(), path), None
    except FileNotFoundError:
        return None, None
    except (InvalidData, InvalidImage) as error:
        return None, str(error)


def _tell(lines: Sequence[str]) -> None:
    write(sys.stdout, "".join(f"{line}\n" for line in lines))


def differences(old: BaseImage, new: BaseImage) -> list[str]:
    """What a person wants to know of a base that has moved, a line each."""
    facts = (("image", "name"), ("digest", "digest"), ("python", "python_path"))
    values = ((what, getattr(old, field), getattr(new, field)) for what, field in facts)
    lines = [_changed(what, was, now) for what, was, now in values if was != now]
    for platform in sorted({p.platform for p in (*old.platforms, *new.platforms)}):
        was, now = old.for_platform(platform), new.for_platform(platform)
        if was is None or now is None:
            lines.append(f"  {platform}: {'added' if was is None else 'removed'}")
        elif was.digest != now.digest:
            before, after = ({layer.digest for layer in p.layers} for p in (was, now))
            lines.append(
                f"  {platform}: {len(after - before)} layers added, {len(before - after)} removed, "
                f"{len(before & after)} kept"
            )
            versions = [p.parsed_config.env.get("PYTHON_VERSION") for p in (was, now)]
            if versions[0] != versions[1]:
                lines.append(_changed(f"{platform}: PYTHON_VERSION", *versions))
        if was and now and now.facts is not None and was.facts != now.facts:
            lines += _changed_facts(platform, was.facts or BaseFacts(), now.facts)
    return lines


def _changed_facts(platform: Platform, old: BaseFacts, new: BaseFacts) -> list[str]:
    values = ((f.name, getattr(old, f.name), getattr(new, f.name)) for f in fields(BaseFacts))
    return [
        _changed(f"{platform}: {what}", *(map(_names, (was, now)) if what == _LONG else (was, now)))
        for what, was, now in values
        if was != now
    ]


def _names(distributions: Sequence[BaseDistribution] | None) -> str:
    """For a person, who wants to know of versions, and of no files."""
    return ", ".join(f"{d.name} {d.version}".rstrip() for d in distributions or ())[:500]


def _changed(what: str, old: object, new: object) -> str:
    return f"  {what}: {old or 'none'} -> {new or 'none'}"
