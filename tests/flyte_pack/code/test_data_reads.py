"""Which files a module names by constant paths."""

from __future__ import annotations

import pytest

from flyte_pack.code.data_reads import Read, named_in
from flyte_pack.code.paths import CWD, HERE, PACKAGE


def reads(code: bytes) -> set[Read]:
    """What is found, on whatever line."""
    return {one._replace(line=1) for one in named_in(code)}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("(Path(__file__).parent / 'a.json').read_text()", Read(HERE, "a.json", 1)),
        ("Path(__file__).resolve().parent.parent / 'd' / 'a.json'", Read(HERE, "../d/a.json", 1)),
        ("TOP = Path(__file__).parent\nload(TOP / 'a.json')", Read(HERE, "a.json", 1)),
        ("TOP = Path(__file__).parent\nTOP.joinpath('d', 'a.json')", Read(HERE, "d/a.json", 1)),
        ("open(os.path.join(os.path.dirname(__file__), 'd/a.csv'))", Read(HERE, "d/a.csv", 1)),
        ("os.path.join(os.path.dirname(os.path.abspath(__file__)), 'a')", Read(HERE, "a", 1)),
        ("importlib.resources.files('p.q').joinpath('a.json')", Read(PACKAGE, "a.json", 1, "p.q")),
        ("(resources.files(__package__) / 'a.json').open()", Read(HERE, "a.json", 1)),
        ("from importlib.resources import files\nfiles() / 'a.json'", Read(HERE, "a.json", 1)),
        ("resources.read_text('.q', 'a.json')", Read(HERE, "q/a.json", 1)),
        ("pkgutil.get_data(__name__, 'd/a.bin')", Read(HERE, "d/a.bin", 1)),
        ("open('data/a.json')", Read(CWD, "data/a.json", 1)),
        ("open('./data/a.json', 'rb')", Read(CWD, "data/a.json", 1)),
        ("NAME = 'data/a.csv'\npandas.read_csv(NAME)", Read(CWD, "data/a.csv", 1)),
        ("Path('data/a.json').read_text()", Read(CWD, "data/a.json", 1)),
        ("with gzip.open('data/a.gz') as f: ...", Read(CWD, "data/a.gz", 1)),
    ],
)
def test_found(code: str, expected: Read) -> None:
    assert expected in reads(code.encode())


@pytest.mark.parametrize(
    "code",
    [
        "open(name)",
        "open(f'data/{name}.json')",
        "open('/etc/hosts')",
        "open('~/a.json')",
        "pandas.read_csv('s3://bucket/a.csv')",
        "open('out.json', 'w')",
        "open('out.json', mode='ab')",
        "Path('out.json').open('x')",
        "Path('out.json').write_text('')",
        "Path(__file__)",
        "Path(__file__).parent / name",
        "'open(\"a.json\")'",
        "open('a.json'",
        "open('\0')",
        "open(" * 5000,
    ],
)
def test_not_found(code: str) -> None:
    assert {one for one in reads(code.encode()) if one.path not in ("_", ".")} == set()


def test_a_name_with_two_values_has_none() -> None:
    assert reads(b"A = 'a.json'\nif x:\n    A = 'b.json'\nopen(A)") == set()


def test_deep_nesting_ends() -> None:
    code = "open(" + "Path(" * 60 + "'a.json'" + ")" * 61
    assert reads(code.encode()) == set()
