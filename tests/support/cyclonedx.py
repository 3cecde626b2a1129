"""Readers of inventories that are not ours: the official schema, and CycloneDX's own library."""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from typing import Any

import jsonschema
from cyclonedx.model.bom import Bom
from cyclonedx.schema import _res
from packageurl import PackageURL

_FILES = ("bom-1.6", "spdx", "jsf-0.82")


@cache
def _schemas() -> dict[str, Any]:
    place = importlib.resources.files(_res)
    schemas = {}
    for name in _FILES:
        schema = json.loads(place.joinpath(f"{name}.SNAPSHOT.schema.json").read_bytes())
        schemas[schema["$id"]] = schemas[name] = schema
    return schemas


def read_bom(data: bytes) -> Bom:
    """A document that the schema of CycloneDX 1.6 takes, whose references lead somewhere."""
    document = json.loads(data)
    schemas = _schemas()
    schema = schemas["bom-1.6"]
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=schemas)
    jsonschema.Draft7Validator(schema, resolver=resolver).validate(document)
    # The library does not know these yet.
    known = {key: value for key, value in document.items() if key != "compositions"}
    bom = Bom.from_json(known)  # type: ignore[attr-defined]  # py-serializable adds it
    bom.validate()
    for url in filter(None, (one.get("purl") for one in _components(document))):
        assert PackageURL.from_string(url).to_string() == url
    refs = [one["bom-ref"] for one in _components(document)]
    assert len(refs) == len(set(refs))
    named = {
        ref for one in document["dependencies"] for ref in (one["ref"], *one.get("dependsOn", ()))
    }
    assert named <= set(refs)
    return bom


def _components(document: Any) -> list[Any]:
    found = [document["metadata"]["component"]]
    for one in found:
        found += one.get("components", ())
    found += document["components"]
    for one in document["components"]:
        found += one.get("components", ())
    return found


def by_name(bom: Bom) -> dict[str, Any]:
    """The components below the top, by name."""
    return {one.name: one for one in bom.components}
