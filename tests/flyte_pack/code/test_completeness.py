"""What is missing, of what modules need and what there is. No false alarm over real packages."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from flyte_pack.code.bound_names import bound_in
from flyte_pack.code.code_scan import CodeScan, scan_code
from flyte_pack.code.completeness import (
    ERROR,
    UNSURE,
    Module,
    Owner,
    Surroundings,
    ThirdParty,
    missing_imports,
    names_of,
)

NUMPY = ("//:numpy", "numpy")
THIRD = ThirdParty(
    resolve="default",
    lock="default.lock",
    modules={"numpy": [NUMPY], "sklearn": [("//:sk", "scikit-learn")]},
    required=frozenset({"//:sk"}),
    locked=frozenset({"numpy", "scikit-learn", "scipy", "flask"}),
    needs={"scikit-learn": {"numpy", "scipy"}, "numpy": set(), "scipy": set(), "flask": set()},
    mapped={"yaml": ["pyyaml"], "google.cloud.storage": ["google-cloud-storage"], "pkg_resources": ["setuptools"]},
    is_known=True,
)  # fmt: skip


FILES = {
    "app/__init__.py": "",
    "app/deep/x.py": "",
    "app/stars.py": "from lib.one import *\nfrom .stars2 import *\nown = 1",
    "app/stars2.py": "from .stars import *\nif own:\n    more = 1",
    "app/any.py": "from os import *",
    "app/lazy.py": "def __getattr__(name): ...",
    "odd/set.py": "import sys\nsys.modules[__name__].x = 1",
    "app/new.py": "import (",
    "app/sets.py": "from lib import one\nimport app.stars\none.later = 1\nsetattr(app.stars, 'even_later', 2)",
    "lib/one.py": "value = 1\nif value:\n    other = 2",
}


def told(source: str, third: ThirdParty = THIRD, **around) -> list[tuple[str, str]]:
    files = {**FILES, "app/m.py": source}
    modules = []
    for path, text in files.items():
        name = path[: -len(".py")].replace("/", ".").removesuffix(".__init__")
        try:
            scan = scan_code(text.encode(), path)
        except SyntaxError as error:
            scan = CodeScan(problem=str(error))
        modules.append(Module(path, name, path.endswith("__init__.py"), scan))
    surroundings = Surroundings(
        shipped=names_of(m.name for m in modules),
        repository={
            "lib.two": [Owner("lib/two.py", "lib/two.py", "default")],
            "other.four": [Owner("other/four.py", "other/four.py", "default")],
        },
        third_party=third,
        resolve="default",
        minors=(11, 12),
    )
    found = missing_imports(
        modules, replace(surroundings, **around), lambda path: bound_in(files[path].encode(), path)
    )
    return [(one.certainty, one.advice) for one in found]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy, scipy.linalg, sklearn",  # by the needs of what is required
        "import json, xml.dom",
        "from app import deep, m",
        "from app.deep import x",
        "import lib",
        "from . import deep",
        "from .deep import x",
        "from lib.one import value, other, __doc__",
        "from app.stars import value, other, own, more",
        "from app.any import whatever",
        "from app.lazy import whatever",
        "from odd.set import x",
        "from lib.one import later",
        "from app.stars import even_later",
        "from app.new import whatever",
    ],
)
def test_what_is_there(source):
    assert told(source) == []


CASES = {
    "import flask": (ERROR, "flask is in default.lock, and nothing that ships requires it"),
    "import yaml": (ERROR, "`pyyaml` supplies it; add it to the requirements of the resolve"),
    "import google.cloud.storage.blob": (ERROR, "`google-cloud-storage` supplies it"),
    "import pkg_resources": (UNSURE, "`setuptools` supplies it"),
    "import nunpy": (ERROR, "did you mean `numpy`?"),
    "import colections.abc": (ERROR, "did you mean `collections`?"),
    "from ap.deep.x import f": (ERROR, "did you mean `app.deep.x`?"),
    "from other import four": (ERROR, "other/four.py supplies it"),
    "import _numpy": (UNSURE, "is known to supply it"),
    "import brand_new": (UNSURE, "is known to supply it"),
    "from google.cloud import storage": (ERROR, "`google-cloud-storage` supplies it"),
    "from app.m.z import f": (ERROR, "there is no module `app.m.z` in the repository"),
    "import_module('.gone', package=__package__)": (ERROR, "there is no module `app.gone`"),
    "import lib.two": (ERROR, "lib/two.py supplies it, and nothing that ships depends on that"),
    "from lib import two": (ERROR, "lib/two.py supplies it"),
    "from lib import tow": (ERROR, "is a directory without `__init__.py` and has no such module"),
    "from app import depp": (ERROR, "did you mean `app.deep`?"),
    "from lib.one import valeu": (
        ERROR,
        "`lib.one` defines no such name; did you mean `lib.one.value`?",
    ),
    "def f():\n    from lib.one import gone": (ERROR, "`lib.one` defines no such name"),
    "from .stars2 import gone": (ERROR, "`app.stars2` defines no such name"),
    "from app.stars import omre": (ERROR, "did you mean `app.stars.more`?"),
    "try:\n    from lib.one import gone\nexcept ImportError:\n    pass": (
        "quiet",
        "`lib.one` defines no such name",
    ),
    "if hasattr(x, 'y'):\n    from lib.one import gone": (
        "quiet",
        "`lib.one` defines no such name",
    ),
    "import distutils": (ERROR, "only Python before 3.12 has it"),
}


@pytest.mark.parametrize("source", [s for s in CASES if s != "import distutils"])
def test_what_is_missing(source):
    ((certainty, advice),) = told(source)
    assert certainty == CASES[source][0]
    assert CASES[source][1] in advice


def test_what_another_image_may_have_is_no_error():
    for source in ("import yaml", "import flask"):
        ((certainty, _),) = told(source, replace(THIRD, is_known=False))
        assert certainty == UNSURE


def test_what_the_base_image_has_is_there():
    base = replace(THIRD, in_base=frozenset({"pyyaml", "flask", "torch"}))
    assert told("import yaml, flask, torch", base) == []


def test_without_the_needs_a_locked_distribution_may_be_there():
    assert told("import flask", replace(THIRD, needs=None)) == []


def test_without_a_lock_file_nobody_knows():
    third = ThirdParty(modules=THIRD.modules, is_known=True)
    assert [certainty for certainty, _ in told("import yaml, flask", third)] == [UNSURE, UNSURE]


def test_a_requirement_that_something_takes_out_may_be_in_the_image():
    third = replace(THIRD, needs=None, excluded=frozenset({"//:numpy"}))
    assert [certainty for certainty, _ in told("import numpy", third)] == [UNSURE]
    third = replace(third, excluded=frozenset())
    assert [certainty for certainty, _ in told("import numpy", third)] == [ERROR]


def test_what_a_wheel_has_is_there():
    by_wheel = replace(
        THIRD, having={"strange": ["scipy"], "strange.x": ["scipy"], "strangely": []}
    )
    assert told("import strange.x", by_wheel) == []
    ((certainty, _),) = told("import strangely", by_wheel)
    assert certainty == UNSURE


def test_a_requirement_that_does_not_say_its_modules_is_named():
    modules = {**THIRD.modules, "flask": [("//:flask", "flask")]}
    by_wheel = replace(
        THIRD, modules=modules, having={"strange": ["flask"], "strange.x": ["flask"]}
    )
    ((certainty, advice),) = told("import strange.x", by_wheel)
    assert certainty == ERROR
    assert "`flask` has it, which //:flask does not say" in advice
    assert 'write `modules=["strange"]` there' in advice


def test_what_no_wheel_has_is_missing():
    third = replace(THIRD, all_at_hand=True)
    assert told("import brand_new", third) == [
        (
            ERROR,
            "no distribution in default.lock has it; add the one that does to the requirements of "
            "the resolve `default`",
        )
    ]
    # The base image may have distributions whose modules nobody knows.
    ((certainty, _),) = told("import brand_new", replace(third, in_base=frozenset({"torch"})))
    assert certainty == UNSURE


def test_of_the_pythons_that_may_run_it_one_may_lack_a_module():
    assert told("import distutils", minors=(12,))[0][1] == (
        "only Python before 3.12 has it, and this runs on Python 3.12"
    )
    assert told("import distutils", minors=(11,)) == []
    assert [certainty for certainty, _ in told("import distutils", minors=(11, 12))] == ["quiet"]


def test_a_module_of_another_resolve_is_named_with_what_to_write():
    owner = Owner("lib/gpu.py", "lib/gpu.py", "gpu")
    ((_, advice),) = told("import lib.gpu", repository={"lib.gpu": [owner]})
    assert 'write `resolve=parametrize("default", "gpu")` there' in advice


def test_a_compiled_module_may_define_any_name():
    assert told("from lib.one import gone", compiled={"lib.one"}) == []


def test_code_that_changes_where_python_looks_is_believed():
    assert told("import sys\nsys.path.append('app/deep')\nimport x") == []


def test_the_standard_library_is_complete():
    """Laid out as first-party code. What is missing there would be a false alarm."""
    top = Path(sysconfig.get_paths()["stdlib"])
    modules = []
    for path in (p for folder in ("", "json", "asyncio", "email", "re", "importlib", "concurrent", "xml", "unittest") for p in sorted((top / folder).rglob("*.py") if folder else top.glob("*.py"))):  # fmt: skip
        inside = path.relative_to(top)
        name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        modules.append(Module(str(inside), name, inside.name == "__init__.py", scan_code(path.read_bytes(), str(inside))))  # fmt: skip
    around = Surroundings(
        names_of(m.name for m in modules), {}, ThirdParty(), "", minors=(sys.version_info[1],)
    )
    assert len(modules) > 100
    found = missing_imports(modules, around, lambda path: bound_in((top / path).read_bytes(), path))
    assert [str(one) for one in found if one.certainty == ERROR] == []
