"""Every name that the backend takes out of Pants is in it: in the installed Pants, and in a newer one, if there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pants
import pytest
from pants.version import PANTS_SEMVER

import pants_flyte
from tests.support.current_pants import HOW, find_current_pants, release
from tests.support.pants_symbols import PantsSources

PACKAGE = Path(pants_flyte.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

BY_NAME_SINCE = (2, 30)


def missing_from(pants: PantsSources) -> list[str]:
    """As `module: name`. Of the two halves of the engine port, the one that this release gets."""
    unused = "by_get.py" if pants.release >= BY_NAME_SINCE else "by_name.py"
    return [
        f"{module.relative_to(PACKAGE)}: {name}"
        for module in MODULES
        if module.name != unused
        for name in pants.missing(module.read_text())
    ]


@pytest.fixture(scope="module")
def installed() -> PantsSources:
    return PantsSources(Path(next(iter(pants.__path__))).parent, PANTS_SEMVER.release)


def test_the_installed_pants_has_all_names(installed: PantsSources) -> None:
    assert missing_from(installed) == []


def test_the_current_pants_has_all_names() -> None:
    current = find_current_pants(os.environ)
    if current is None or current.sources is None:
        pytest.skip(HOW)
    assert missing_from(PantsSources(current.sources, release(current.version))) == []


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("from pants.engine.rules import rule, collect_rules", []),
        ("from pants.engine.rules import no_such", ["pants.engine.rules.no_such"]),
        ("from pants.no_such import rule", ["pants.no_such.rule"]),
        ("from pants.engine.internals.native_engine import Digest as D", []),
        ("from pants.engine.internals.native_engine import No", ["pants.engine.internals.native_engine.No"]),
        # A name inside of something is none of the module.
        ("from pants.engine.fs import digest", ["pants.engine.fs.digest"]),
        # An attribute of a module.
        ("from pants.engine import fs as files\nfiles.Digest\nfiles.No", ["pants.engine.fs.No"]),
        ("def f():\n    from pants.engine.rules import no_such", ["pants.engine.rules.no_such"]),
        # Guards.
        ("if TYPE_CHECKING or PANTS_SEMVER.release < (2, 2):\n    from pants.a import b", []),
        (
            "if PANTS_SEMVER.release < (9, 9):\n    from pants.a import b\nelse:\n    from pants.c import d",
            ["pants.a.b"],
        ),
        ("if something:\n    from pants.a import b\nelse:\n    from pants.c import d", ["pants.a.b", "pants.c.d"]),
        ("try:\n    from pants.a import b\nexcept ImportError:\n    pass", ["pants.a.b"]),
    ],
)  # fmt: skip
def test_what_the_check_finds(installed: PantsSources, code: str, missing: list[str]) -> None:
    assert installed.missing(code) == missing
