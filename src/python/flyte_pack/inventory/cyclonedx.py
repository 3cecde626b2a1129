"""Writes an inventory as CycloneDX 1.6 (ECMA-424, first edition), in JSON.

Equal inventories give equal bytes: there is no time in it, and its serial number is computed from
the content.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flyte_pack.inventory.parts import Base, File, Package
from flyte_pack.json_fields import canonical, dump
from flyte_shim import __version__

_ALGORITHMS = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_TOP = "what-is-listed"  # bom-ref of the artifact itself
_OWN = "pants-flyte:"  # begins the names of properties (CycloneDX, "Property Taxonomy")


def document(
    artifact: Mapping[str, Any],
    files: Iterable[File],
    packages: Sequence[Package],
    bases: Sequence[Base] = (),
    complete: bool = True,
) -> bytes:
    """artifact: what is listed, from `bundle` or `image`. complete: whether all packages are known
    that it needs.
    """
    first_party = _first_party(files)
    listed = [*first_party, *map(_package, packages), *map(_base, bases)]
    listed.sort(key=lambda one: one["bom-ref"])
    names: dict[str, list[str]] = {}
    for package in packages:
        names.setdefault(package.name, []).append(_purl(package))
    depends = {_TOP: [one["bom-ref"] for one in listed]}
    for package in packages:
        needs = {ref for name in package.requires for ref in names.get(name, ())}
        depends[_purl(package)] = sorted(needs - {_purl(package)})
    content: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [
                    {"type": "application", "name": "pants-flyte", "version": __version__}
                ]
            },
            "component": {**artifact, "bom-ref": _TOP},
        },
        "components": listed,
        "dependencies": [
            {"ref": ref, **({"dependsOn": on} if on else {})} for ref, on in sorted(depends.items())
        ],
        "compositions": _compositions(first_party, bases, complete),
    }
    name = f"https://cyclonedx.org/{canonical(content).decode()}"
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    return dump(content)


def bundle(address: str, content_hash: str, archive_hash: str) -> dict[str, Any]:
    return {
        "type": "application",
        "name": address,
        "version": content_hash,
        "hashes": [_hash("sha256", archive_hash)],
    }


def image(address: str, digest: str) -> dict[str, Any]:
    return {
        "type": "container",
        "name": address,
        "version": digest,
        "hashes": [_hash(*digest.split(":"))],
    }


def _first_party(files: Iterable[File]) -> list[dict[str, Any]]:
    """A component for each target, with its files; those without one stand by themselves."""
    by_target: dict[str | None, list[dict[str, Any]]] = {}
    for file in sorted(files):
        component = {
            "type": "file",
            "bom-ref": f"file:{file.path}",
            "name": file.path,
            "hashes": [_hash("sha256", file.sha256)],
        }
        by_target.setdefault(file.target, []).append(component)
    alone = by_target.pop(None, [])
    targets = [
        {"type": "library", "bom-ref": f"target:{target}", "name": target, "components": those}
        for target, those in by_target.items()
    ]
    return [*targets, *alone]


def _package(package: Package) -> dict[str, Any]:
    purl = _purl(package)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "purl": purl,
    }
    if package.version:
        component["version"] = package.version
    if package.expression is not None:
        licence = {"expression": package.expression, "acknowledgement": "declared"}
        component["licenses"] = [licence]
    elif package.licences:
        component["licenses"] = [
            {"license": {"name": name, "acknowledgement": "declared"}} for name in package.licences
        ]
    if package.hashes:
        # Of all files that the lock file allows: which one was taken, an installer does not say.
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": purl,
                "comment": "the files that the lock file allows",
                "hashes": [_hash(*one.split(":")) for one in sorted(package.hashes)],
            }
        ]
    return {**component, **_on(package.platforms)}


def _base(base: Base) -> dict[str, Any]:
    component = {
        "type": "container",
        "bom-ref": f"base:{base.platform}",
        "name": base.name,
        "version": base.digest,
        "hashes": [_hash(*base.digest.split(":"))],
    }
    if base.in_registry:
        repository, _, tag = base.name.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = base.name, ""
        name = repository.rpartition("/")[2]
        tagged = f"&tag={_quoted(tag)}" if tag else ""
        component["purl"] = (
            f"pkg:oci/{_quoted(name)}@{_quoted(base.digest)}"
            f"?repository_url={quote(repository, safe='/')}{tagged}"
        )
    return {**component, **_on((base.platform,))}


def _on(platforms: Iterable[str]) -> dict[str, Any]:
    properties = [{"name": f"{_OWN}platform", "value": one} for one in platforms]
    return {"properties": properties} if properties else {}


def _compositions(
    first_party: Sequence[Mapping[str, Any]], bases: Sequence[Base], complete: bool
) -> list[dict[str, Any]]:
    """What is listed in full, and what is not (CycloneDX, "Compositions")."""
    found: list[dict[str, Any]] = []
    if targets := sorted(one["bom-ref"] for one in first_party if "components" in one):
        found.append({"aggregate": "complete", "assemblies": targets})
    if bases:
        refs = sorted(f"base:{base.platform}" for base in bases)
        found.append({"aggregate": "incomplete", "assemblies": refs})
    if not complete:
        found.append({"aggregate": "incomplete", "dependencies": [_TOP]})
    return found


def _purl(package: Package) -> str:
    """The package URL (ECMA-427), whose names of Python packages are normalized ones."""
    place = "debian/" if package.kind == "deb" else ""
    version = f"@{_quoted(package.version)}" if package.version else ""
    pairs = sorted((package.qualifiers or {}).items())
    qualifiers = "&".join(f"{key}={_quoted(value)}" for key, value in pairs)
    purl = f"pkg:{package.kind}/{place}{_quoted(package.name)}{version}"
    return f"{purl}?{qualifiers}" if qualifiers else purl


def _quoted(text: str) -> str:
    return quote(text, safe=".-_~:")


def _hash(algorithm: str, digits: str) -> dict[str, str]:
    return {"alg": _ALGORITHMS[algorithm], "content": digits}
