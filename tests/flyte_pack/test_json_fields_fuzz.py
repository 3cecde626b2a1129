"""Documents as a hostile store may answer with them: each is read, or refused with one clear message."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import typing
from contextlib import suppress

import pytest

import flyte_pack
from flyte_pack import json_fields
from flyte_pack.deploy.records import HistoryEntry, StoredBundle, VersionRecord
from flyte_pack.errors import UserError
from flyte_pack.json_fields import OBJECT, Document, InvalidData
from tests.support.fuzzing import fuzz

SHA256 = "0123456789abcdef" * 4
# What a value may have to look like.
LEAVES = (
    *("a", "a/b", "auto", "task", "app", "deploy", SHA256, f"sha256:{SHA256}", "1" * 40),
    *("2026-01-31T12:00:00Z", "services/ml:train", "registry.example/team/name", "linux/amd64"),
    *("entry_point", "registry.example/team/name:tag", "3.11", "x86_64", "cp311", "file:///srv"),
    *(1, 0o644, True),
)
ODD = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1 << 63,
        10**400,
        1.5,
        "",
        "a",
        "\0",
        "\ud800",
        "\x1b[2J",
        "../x",
    ),
    *("/etc/passwd", "a" * 70_000, "é", [], [[]], {}, {"a": None}, [0] * 3, SHA256, "v" * 129),
)


def documents():
    """All kinds of documents that there are."""
    for module in pkgutil.walk_packages(flyte_pack.__path__, "flyte_pack."):
        if ".flyte_side" not in module.name and not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:  # a Python without what the locks hold
                if (error.name or "flyte").startswith("flyte"):
                    raise
    found, todo = [], [Document]
    while todo:
        kinds = todo.pop().__subclasses__()
        todo += kinds
        found += [kind for kind in kinds if kind.__module__.startswith("flyte_pack.")]
    return sorted(set(found), key=lambda kind: kind.__name__)


def sample(kind):
    """Raw JSON that a type reads, as far as each value by itself goes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[1:] == (...,):
        return [sample(arguments[0])]
    if origin is tuple:
        return [sample(one) for one in arguments]
    if origin is typing.Union:
        return sample(arguments[0])
    if OBJECT in arguments and hasattr(arguments[0], "_fields"):
        return dict(zip(arguments[0]._fields, sample(arguments[0])))
    if OBJECT in arguments:
        return dict(sample(arguments[0]))
    if origin is dict:
        return {sample(arguments[0]): sample(arguments[1])}
    if hasattr(kind, "_fields"):
        return [sample(one) for one in typing.get_type_hints(kind, include_extras=True).values()]
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "parse"):
        hints = typing.get_type_hints(kind, include_extras=True)
        raw = {field.name: sample(hints[field.name]) for field in dataclasses.fields(kind)}
        derived = getattr(kind, "DERIVED", {})
        return {**raw, **{name: getattr(kind(**raw), by) for name, by in derived.items()}}
    if arguments and typing.get_origin(arguments[0]) is tuple:
        return sample(arguments[0])
    for value in LEAVES:
        with suppress(InvalidData):
            json_fields.read(kind, value, "value")
            return value
    return "a"


def mutate(rng, value):
    """A copy with one thing in it changed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        copy = value.copy()
        key = rng.choice(sorted(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
        act = rng.random()
        if act < 0.08:
            del copy[key]
        elif act < 0.16 and isinstance(copy, dict):
            copy[rng.choice(["", "schema", "\x1b", "\ud800", "x"])] = copy[key]
        elif act < 0.16:
            copy += copy
        else:
            copy[key] = mutate(rng, copy[key])
        return copy
    return rng.choice([*ODD, *LEAVES])


def read(kind, data):
    """The document, or None where it was refused as it should be."""
    try:
        return kind.from_json(data, "x.json")
    except UserError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 2000
    return None


@pytest.mark.parametrize("kind", documents(), ids=lambda kind: kind.__name__)
def test_a_changed_document_is_read_or_refused_and_never_breaks_the_reader(kind):
    whole = {**sample(kind), "schema": kind.SCHEMA}
    if kind in (StoredBundle, VersionRecord, HistoryEntry):
        assert read(kind, json.dumps(whole).encode()) is not None
    for rng in fuzz(250):
        raw = whole
        for _ in range(rng.randrange(1, 4)):
            raw = mutate(rng, raw)
        data = json.dumps(raw).encode()
        if rng.random() < 0.2:
            at = rng.randrange(len(data))
            data = data[:at] + bytes(rng.choices(range(256), k=3)) + data[at + rng.randrange(4) :]
        found = read(kind, data)
        if found is not None:
            assert read(kind, found.to_json()) == found
