"""Reads and writes the small JSON documents of a deployment: strictly, field by field.

What is read may come from a store that others write to, so nothing is taken on trust: no duplicate or unknown key, no
value of another type, no control character (it would reach a terminal), no nesting without end.
"""

from __future__ import annotations

import json
from typing import Any

from flyte_pack.errors import UserError
from flyte_shim import shown
from flyte_shim.paths import is_sha256


class InvalidData(UserError):
    """A document, or a value for one, that can not be used; the message names the document and the field."""


def dump(document: dict[str, Any]) -> bytes:
    """`document` as JSON with sorted keys, made to be read by people too; equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, indent=2).encode() + b"\n"


def load(data: bytes, what: str, schema: int) -> Fields:
    """The object in `data`, of schema version `schema`; `what` names it in errors. Raises `InvalidData`."""
    try:
        raw = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{what}: not a JSON document: {shown.printable(str(error))}") from None
    fields = Fields(raw, what)
    found = fields.integer("schema")
    if found != schema:
        raise InvalidData(
            f"{what}: has schema {found}, this pants-flyte reads schema {schema}. "
            "Use the version of pants-flyte that wrote it, or a newer one."
        )
    return fields


class Fields:
    """A JSON object whose fields are taken out one by one; `end` complains about those that nobody took."""

    def __init__(self, raw: object, where: str) -> None:
        if type(raw) is not dict:
            raise InvalidData(f"{where}: not a JSON object")
        self._raw: dict[str, Any] = dict(raw)
        self._where = where

    def text(self, key: str) -> str:
        return self._text(self._take(key), key)

    def optional_text(self, key: str) -> str | None:
        value = self._take(key)
        return None if value is None else self._text(value, key)

    def document(self, key: str) -> bytes:
        """A document inside the document, as its bytes: any text, which whoever takes it checks."""
        value = self._take(key)
        if type(value) is not str:
            raise InvalidData(f"{self._where}: {key!r} is {value!r:.80}, not a string")
        return value.encode("utf-8", "surrogatepass")

    def optional_document(self, key: str) -> bytes | None:
        if self._raw.get(key, "") is None:
            self._take(key)
            return None
        return self.document(key)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._text(value, key) for value in self._list(key))

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise InvalidData(
                f"{self._where}: {key!r} is {value!r:.80}, not one of {', '.join(choices)}"
            )
        return value

    def sha256(self, key: str) -> str:
        value = self.text(key)
        if not is_sha256(value):
            raise InvalidData(f"{self._where}: {key!r} is {value!r:.80}, which is no SHA-256")
        return value

    def integer(self, key: str) -> int:
        value = self._take(key)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise InvalidData(f"{self._where}: {key!r} is {value!r:.80}, not a number of 0 or more")
        return value

    def optional_boolean(self, key: str) -> bool | None:
        value = self._take(key)
        if value is not None and type(value) is not bool:
            raise InvalidData(f"{self._where}: {key!r} is {value!r:.80}, not true, false or null")
        return value

    def nested(self, key: str) -> Fields:
        return Fields(self._take(key), f"{self._where}: {key}")

    def optional_nested(self, key: str) -> Fields | None:
        value = self._take(key)
        return None if value is None else Fields(value, f"{self._where}: {key}")

    def nested_list(self, key: str) -> tuple[Fields, ...]:
        where = f"{self._where}: {key}"
        return tuple(Fields(v, f"{where}[{i}]") for i, v in enumerate(self._list(key)))

    def values(self, key: str) -> list[Any]:
        """A list whose values the caller checks."""
        return self._list(key)

    def text_map(self, key: str) -> dict[str, str]:
        value = self._take(key)
        if type(value) is not dict:
            raise InvalidData(f"{self._where}: {key!r} is not a JSON object")
        return {self._text(name, key): self._text(text, key) for name, text in value.items()}

    def nested_map(self, key: str) -> dict[str, Fields]:
        """An object whose values are objects, by names that the caller checks."""
        where = f"{self._where}: {key}"
        nested = Fields(self._take(key), where)
        return {self._text(name, key): Fields(value, where) for name, value in nested._raw.items()}

    def default(self, key: str, value: object) -> None:
        """Stand in for a field that may be left out."""
        self._raw.setdefault(key, value)

    def end(self) -> None:
        if self._raw:
            unknown = ", ".join(repr(key) for key in sorted(self._raw))
            raise InvalidData(f"{self._where}: unknown fields: {unknown:.200}")

    def _take(self, key: str) -> Any:
        try:
            return self._raw.pop(key)
        except KeyError:
            raise InvalidData(f"{self._where}: the field {key!r} is missing") from None

    def _list(self, key: str) -> list[Any]:
        value = self._take(key)
        if type(value) is not list:
            raise InvalidData(f"{self._where}: {key!r} is not a list")
        return value

    def _text(self, value: object, key: str) -> str:
        if type(value) is not str:
            raise InvalidData(f"{self._where}: {key!r} is {value!r:.80}, not a string")
        if not all(map(_is_plain, value)):
            raise InvalidData(f"{self._where}: {key!r} holds a control character: {value!a:.80}")
        return value


def _is_plain(character: str) -> bool:
    return character.isprintable() or character == " "


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
