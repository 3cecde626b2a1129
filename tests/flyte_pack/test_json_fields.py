"""Documents are read strictly, by the types of their fields, and errors name the path of a field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Dict, NamedTuple, Optional, Tuple

import pytest

from flyte_pack.json_fields import (
    OBJECT,
    Digest,
    Document,
    InvalidData,
    Raw,
    SafePath,
    Sha256,
    one_of,
)


class Row(NamedTuple):
    name: Raw
    kind: Annotated[str, one_of("a", "b")]
    size: int


@dataclass(frozen=True)
class Part:
    path: SafePath
    sha256: Sha256
    size: int

    DERIVED = {"key": "key"}

    def __post_init__(self):
        if self.size == 13:
            raise InvalidData("13 is no size of a part")

    @property
    def key(self) -> str:
        return f"parts/{self.sha256}"


@dataclass(frozen=True)
class Pair:
    left: str
    right: str

    @classmethod
    def parse(cls, text: str) -> Pair:
        left, slash, right = text.partition("/")
        if not slash:
            raise InvalidData("not LEFT/RIGHT")
        return cls(left, right)

    def __str__(self) -> str:
        return f"{self.left}/{self.right}"


@dataclass(frozen=True)
class Whole(Document):
    NAME = "whole"

    name: str
    digest: Optional[Digest]
    inner: Optional[bytes]
    on: Optional[bool]
    parts: Tuple[Part, ...]
    rows: Tuple[Row, ...]
    pairs: Tuple[Tuple[str, int], ...]
    env: Dict[str, str]
    parsed: Pair
    named: Annotated[Tuple[Tuple[str, Part], ...], OBJECT]
    objects: Tuple[Annotated[Row, OBJECT], ...]


PART = Part("a/b", Sha256("0" * 64), 3)
WHOLE = Whole(
    name="größe",
    digest=Digest("sha256:" + "1" * 64),
    inner=b'{"a":\n1}',
    on=False,
    parts=(PART,),
    rows=(Row("a\n", "a", 1), Row("", "b", 0)),
    pairs=(("x", 1),),
    env={"A": "b"},
    parsed=Pair("l", "r"),
    named=(("one", PART), ("two", PART)),
    objects=(Row("r", "b", 2),),
)


@pytest.mark.parametrize("compact", [False, True])
def test_a_document_reads_as_it_was_written(monkeypatch, compact):
    monkeypatch.setattr(Whole, "COMPACT", compact)
    assert Whole.from_json(WHOLE.to_json()) == WHOLE
    assert (b"\n" in WHOLE.to_json()) is not compact


def test_rows_are_lists_and_marked_ones_objects():
    document = json.loads(WHOLE.to_json())
    assert document["rows"] == [["a\n", "a", 1], ["", "b", 0]]
    assert document["objects"] == [{"name": "r", "kind": "b", "size": 2}]
    assert list(document["named"]) == ["one", "two"]
    assert document["parts"][0]["key"] == "parts/" + "0" * 64
    assert document["parsed"] == "l/r"
    assert document["inner"] == '{"a":\n1}'


def change(*path, to):
    document = json.loads(WHOLE.to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("name",), 1, "name: not a string"),
        (("name",), None, "name: not a string"),
        (("name",), "a\x1b[2J", "name: holds a control character"),
        (("name",), "\ud800", "name: holds a control character"),
        (("digest",), "sha512:0", "digest: not sha256: and 64 hexadecimal digits"),
        (("inner",), {}, "inner: not a string"),
        (("on",), 0, "on: not true or false"),
        (("parts",), {}, "parts: not a list"),
        (("parts", 0), [], "parts[0]: not a JSON object"),
        (("parts", 0, "path"), "../x", "parts[0].path: a '..' in the path"),
        (("parts", 0, "sha256"), "A" * 64, "parts[0].sha256: not a SHA-256"),
        (("parts", 0, "size"), True, "parts[0].size: not an integer"),
        (("parts", 0, "size"), 1.0, "parts[0].size: not an integer"),
        (("parts", 0, "size"), -1, "parts[0].size: not an integer from 0 to 2**63 - 1"),
        (("parts", 0, "size"), 1 << 63, "parts[0].size: not an integer from 0 to 2**63 - 1"),
        (("parts", 0, "size"), 13, "parts[0]: 13 is no size of a part"),
        (("parts", 0, "key"), "elsewhere", "parts[0].key: contradicts the other fields"),
        (("parts", 0, "more"), 1, "parts[0]: unknown keys: 'more'"),
        (("parts", 0, "\x1b"), 1, r"parts[0]: unknown keys: '\x1b'"),
        (("rows", 1), ["a", "b"], "rows[1]: not a list of 3 values"),
        (("rows", 1), "abc", "rows[1]: not a list of 3 values"),
        (("rows", 1, 0), 1, "rows[1].name: not a string"),
        (("rows", 1, 1), "c", "rows[1].kind: not one of a, b"),
        (("rows", 1, 1), [], "rows[1].kind: not a string"),
        (("rows", 1, 2), True, "rows[1].size: not an integer"),
        (("pairs", 0, 1), "1", "pairs[0][1]: not an integer"),
        (("parsed",), "lr", "parsed: not LEFT/RIGHT"),
        (("env",), [], "env: not a JSON object"),
        (("env", "A"), 1, "env[A]: not a string"),
        (("env", "\x1b"), "", "env[?]: holds a control character"),
        (("named", "two", "size"), None, "named[two].size: not an integer"),
        (("objects", 0, "kind"), "c", "objects[0].kind: not one of a, b"),
        (("objects", 0), ["r", "b", 2], "objects[0]: not a JSON object"),
        (("schema",), 2, "has schema 2"),
        (("schema",), True, "has schema True"),
    ],
)  # fmt: skip
def test_errors_name_the_document_and_the_path_of_the_field(path, to, said):
    with pytest.raises(InvalidData) as error:
        Whole.from_json(change(*path, to=to), "x.json")
    assert str(error.value).startswith(f"x.json: {said}")


def test_every_key_must_be_there():
    document = json.loads(WHOLE.to_json())
    del document["parts"][0]["key"], document["parts"][0]["size"]
    with pytest.raises(InvalidData, match=r"^whole: parts\[0\]: missing keys: 'key', 'size'$"):
        Whole.from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{", b"{}", b'{"schema": NaN}', b'{"schema": 1, "schema": 1}',
     b"[" * 100_000, b"9" * 5000, b'{"\x1b": 1}'],
)  # fmt: skip
def test_what_is_not_a_document_is_refused(data):
    with pytest.raises(InvalidData, match=r"^whole: ") as error:
        Whole.from_json(data)
    assert str(error.value).isprintable()
