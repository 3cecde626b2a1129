"""Reads and writes JSON documents by the types of dataclasses.

The reader is strict, since a document may come from a store that others write to. It refuses
unknown, missing and duplicate keys, values of another type, and control characters, which would
reach a terminal. Its messages name the path of the field, and never repeat a value:
`deploy plan: environments[0].python: not a string`.

What a field's type means:

    str                          a string without control characters; `Raw`: any string
    int, bool                    an integer from 0 to 2**63 - 1; true or false
    bytes                        a document inside the document: a string
    Optional[X]                  null or X
    Tuple[X, ...]                a list
    Tuple[X, Y], a NamedTuple    a list of exactly these
    Dict[str, X]                 an object with any keys
    a dataclass                  an object with exactly these keys, and those of `DERIVED`; a key in
                                 `OMITTED` is there only where it has a value
    a class with a method parse  a string
    Annotated[X, check]          X, as the function `check` returns it; it may raise `ValueError`
    Annotated[X, OBJECT]         an object, where X is a NamedTuple or Tuple[Tuple[str, Y], ...]
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, NewType, Optional, TypeVar, Union

from flyte_pack.errors import UserError
from flyte_shim import shown
from flyte_shim.paths import is_sha256, path_problem


class InvalidData(UserError):
    """An invalid document, or an invalid value for one; the message names document and field."""


# A document may hold a name of any length, which is in the path of a field or in what is wrong.
_MOST_SAID = 1000
OBJECT = object()
_RAW = object()
Raw = Annotated[str, _RAW]


def one_of(*choices: Any) -> Callable[[Any], Any]:
    """A check: the value is one of these."""

    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"not one of {', '.join(map(str, choices))}")
        return value

    return check


def matching(pattern: str, problem: str) -> Callable[[str], str]:
    """A check: the whole text matches `pattern`."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(problem)
        return text

    return check


def _sha256(text: str) -> str:
    if not is_sha256(text):
        raise ValueError("not a SHA-256")
    return text


def safe_path(text: str) -> str:
    """A check: the path is relative and stays below the directory that it is relative to."""
    if problem := path_problem(text):
        raise ValueError(problem)
    return text


Sha256 = NewType("Sha256", Annotated[str, _sha256])
_digest = matching("sha256:[0-9a-f]{64}", "not sha256: and 64 hexadecimal digits")
Digest = NewType("Digest", Annotated[str, _digest])
SafePath = Annotated[str, safe_path]


_D = TypeVar("_D", bound="Document")


class Document:
    """Base of a dataclass that is a whole document.

    NAME: for messages. COMPACT: whether it is written in few bytes. OLDER: the classes of documents
    with older schemas, by their numbers, which `from_json` gives as they are.
    """

    SCHEMA: ClassVar[int] = 1
    NAME: ClassVar[str] = "document"
    COMPACT: ClassVar[bool] = False
    OLDER: ClassVar[typing.Mapping[int, type]] = {}

    def to_json(self) -> bytes:
        """Equal documents give equal bytes."""
        document = {"schema": self.SCHEMA, **as_json(self)}
        return canonical(document) if self.COMPACT else dump(document)

    @classmethod
    def from_json(cls: type[_D], data: bytes, what: str | None = None) -> _D:
        """Read what `to_json` wrote; `what` names it in messages. Raises `InvalidData`."""
        what = what or cls.NAME
        try:
            raw = json.loads(data.decode(), object_pairs_hook=_pairs, parse_constant=_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidData(
                f"{what}: not a JSON document: {shown.printable(str(error))}"
            ) from None
        if type(raw) is not dict or "schema" not in raw:
            raise InvalidData(f"{what}: not a JSON object with a schema")
        found = raw.pop("schema")
        kind = None
        if type(found) is int:
            kind = cls if found == cls.SCHEMA else cls.OLDER.get(found)
        if kind is None:
            raise InvalidData(
                f"{what}: has schema {found!a:.20}, this pants-flyte reads schema {cls.SCHEMA}. "
                "Use the version of pants-flyte that wrote it, or a newer one"
            )
        try:
            return _codec(kind).read(raw)  # type: ignore[no-any-return]
        except _Wrong as wrong:
            raise InvalidData(f"{what}: {wrong}") from None


def as_json(value: Any) -> dict[str, Any]:
    """A dataclass as an object for `json.dumps`."""
    write = _codec(type(value)).write
    assert write is not None
    return write(value)  # type: ignore[no-any-return]


def read(kind: Any, raw: object, what: str) -> Any:
    """A single value of a type, such as a field's; `what` names it. Raises `InvalidData`."""
    try:
        return _codec(kind).read(raw)
    except _Wrong as wrong:
        raise InvalidData(str(wrong.below(what))) from None


def canonical(document: object) -> bytes:
    """`document` as JSON with sorted keys and no white space; equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def dump(document: dict[str, Any]) -> bytes:
    """JSON for people to read too; equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, indent=2).encode() + b"\n"


# --- by type -------------------------------------------------------------------------------------


class _Wrong(Exception):
    """A value cannot be read; the path of the field grows while the error passes its containers."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path = ""

    def below(self, step: str) -> _Wrong:
        self.path = step + ("" if self.path[:1] in ("", "[") else ".") + self.path
        return self

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.path, self.args[0])))[:_MOST_SAID]


class _Codec(NamedTuple):
    """How a type is read and written. write: None where JSON takes the value as it is.

    types: those of JSON's values that are read as they are, without a look at the value.
    """

    read: Callable[[Any], Any]
    write: Optional[Callable[[Any], Any]] = None
    types: frozenset[type] = frozenset()


def _made(kind: Any) -> _Codec:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin is Union and len(arguments) == 2 and arguments[1] is type(None):
        return _optional(_codec(arguments[0]))
    if origin is dict:
        return _map(_codec(arguments[0]), _codec(arguments[1]), dict)
    if origin is tuple and arguments[1:] == (...,):
        return _list(arguments[0])
    if _columns(kind):
        return _Codec(_row_reader(kind))
    if hasattr(kind, "parse"):
        return _Codec(_checked(_read_text, (kind.parse,)), str)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return _object(kind, {field.name: _codec(hints[field.name]) for field in fields(kind)})
    if hasattr(kind, "__supertype__"):  # a NewType
        return _codec(kind.__supertype__)
    return _LEAVES[kind]


_codec: Callable[[Any], _Codec] = cache(_made)


def _annotated(kind: Any, notes: tuple[Any, ...]) -> _Codec:
    if OBJECT in notes and hasattr(kind, "_fields"):
        return _object(kind, dict(_columns(kind)))
    if OBJECT in notes:
        key, value = typing.get_args(typing.get_args(kind)[0])
        return _map(_codec(key), _codec(value), _sorted_pairs)
    codec = _Codec(_read_raw, None, frozenset({str})) if _RAW in notes else _codec(kind)
    checks = tuple(note for note in notes if note is not _RAW)
    return _Codec(_checked(codec.read, checks), codec.write) if checks else codec


def _checked(read: Callable[[Any], Any], checks: Iterable[Callable[[Any], Any]]) -> Any:
    def read_checked(raw: Any) -> Any:
        value = read(raw)
        try:
            for check in checks:
                value = check(value)
        except (UserError, ValueError) as error:
            raise _Wrong(str(error)) from None
        return value

    return read_checked


def _optional(codec: _Codec) -> _Codec:
    read, write = codec.read, codec.write
    return _Codec(
        lambda raw: None if raw is None else read(raw),
        write and (lambda value: None if value is None else write(value)),
        codec.types and codec.types | {type(None)},
    )


def _list(kind: Any) -> _Codec:
    read, write, _ = _codec(kind)

    def read_list(raw: Any) -> Any:
        if type(raw) is not list:
            raise _Wrong("not a list")
        values: list[Any] = []
        try:
            for one in raw:
                values.append(read(one))
        except _Wrong as wrong:
            raise wrong.below(f"[{len(values)}]") from None
        return tuple(values)

    columns = [codec for _, codec in _columns(kind)]
    make = getattr(kind, "_make", tuple)

    def read_rows(raw: Any) -> Any:
        # By columns, which is several times faster; only a wrong list is read row by row.
        if type(raw) is list and {*map(type, raw)} == {list} and {*map(len, raw)} == {len(columns)}:
            try:
                found: list[Any] = list(zip(*raw))
                for at, codec in enumerate(columns):
                    types = set(map(type, found[at]))
                    if types <= codec.types:
                        continue
                    if types == {str}:
                        known = {value: codec.read(value) for value in set(found[at])}
                        found[at] = map(known.__getitem__, found[at])
                    else:
                        found[at] = map(codec.read, found[at])
                return tuple(map(make, zip(*found)))
            except _Wrong:
                pass
        return read_list(raw)

    return _Codec(
        read_rows if columns else read_list,
        write and (lambda values: [write(one) for one in values]),
    )


def _columns(kind: Any) -> list[tuple[str, _Codec]]:
    """The values of a row, by name or position; none where `kind` is not a row."""
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] != (...,):
        return [(f"[{i}]", _codec(one)) for i, one in enumerate(typing.get_args(kind))]
    is_named = typing.get_origin(kind) is None and hasattr(kind, "_fields")
    hints = typing.get_type_hints(kind, include_extras=True) if is_named else {}
    return [(name, _codec(one)) for name, one in hints.items()]


def _row_reader(kind: Any) -> Callable[[Any], Any]:
    columns, make = _columns(kind), getattr(kind, "_make", tuple)

    def read(raw: Any) -> Any:
        if type(raw) is not list or len(raw) != len(columns):
            raise _Wrong(f"not a list of {len(columns)} values")
        values = []
        for (name, codec), value in zip(columns, raw):
            try:
                values.append(codec.read(value))
            except _Wrong as wrong:
                raise wrong.below(name) from None
        return make(values)

    return read


def _map(key: _Codec, value: _Codec, make: Callable[[dict[Any, Any]], Any]) -> _Codec:
    write = value.write or (lambda one: one)

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _Wrong("not a JSON object")
        values = {}
        for name, one in raw.items():
            step = "[?]"  # an invalid key may hold a secret
            try:
                known = key.read(name)
                step = f"[{known}]"
                values[known] = value.read(one)
            except _Wrong as wrong:
                raise wrong.below(step) from None
        return make(values)

    return _Codec(read, lambda values: {name: write(one) for name, one in dict(values).items()})


def _sorted_pairs(values: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(values.items()))


def _object(kind: Any, codecs: dict[str, _Codec]) -> _Codec:
    readers = [(name, codec.read) for name, codec in codecs.items()]
    writers = [(name, codec.write) for name, codec in codecs.items()]
    derived: dict[str, str] = getattr(kind, "DERIVED", {})
    omitted: tuple[str, ...] = getattr(kind, "OMITTED", ())
    known = {*codecs, *derived}

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _Wrong("not a JSON object")
        if omitted:
            raw = {**dict.fromkeys(omitted), **raw}
        if raw.keys() != known:
            unknown = raw.keys() - known
            names = ", ".join(ascii(key) for key in sorted(unknown or known - raw.keys()))
            raise _Wrong(f"{'unknown' if unknown else 'missing'} keys: {names:.200}")
        values = {}
        for name, read_one in readers:
            try:
                values[name] = read_one(raw[name])
            except _Wrong as wrong:
                raise wrong.below(name) from None
        try:
            made = kind(**values)
        except (UserError, ValueError) as error:
            raise _Wrong(str(error)) from None
        for name, attribute in derived.items():
            if raw[name] != getattr(made, attribute):
                raise _Wrong("contradicts the other fields").below(name)
        return made

    def write(value: Any) -> dict[str, Any]:
        written = {name: getattr(value, attribute) for name, attribute in derived.items()}
        for name, write_one in writers:
            one = getattr(value, name)
            if one is not None or name not in omitted:
                written[name] = one if write_one is None else write_one(one)
        return written

    return _Codec(read, write)


def _leaf(kind: type, what: str) -> Callable[[Any], Any]:
    def read(raw: Any) -> Any:
        if type(raw) is not kind:  # by exact type: True is an int for isinstance
            raise _Wrong(what)
        return raw

    return read


_read_raw = _leaf(str, "not a string")
_read_int = _leaf(int, "not an integer")


def _read_text(raw: Any) -> str:
    text: str = _read_raw(raw)
    if not text.isprintable():
        raise _Wrong("holds a control character")
    return text


def _read_size(raw: Any) -> int:
    number: int = _read_int(raw)
    if not 0 <= number < 1 << 63:
        raise _Wrong("not an integer from 0 to 2**63 - 1")
    return number


_LEAVES = {
    str: _Codec(_read_text),
    int: _Codec(_read_size),
    bool: _Codec(_leaf(bool, "not true or false")),
    bytes: _Codec(
        lambda raw: _read_raw(raw).encode("utf-8", "surrogatepass"),
        lambda data: data.decode("utf-8", "surrogatepass"),
    ),
}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
