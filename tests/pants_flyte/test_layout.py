"""Where files go in a bundle, and which imports a `root_dir` breaks: tables of values."""

from __future__ import annotations

import pytest
from pants.build_graph.address import Address

from flyte_pack.code.module_scan import scan
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import literal_glob
from pants_flyte.layout import (
    BrokenImport,
    SourceFile,
    broken_imports,
    broken_imports_error,
    case_collisions,
    check_root_dir,
    check_shadows,
    files_beside_modules,
    module_name,
    moves_modules,
    place,
    place_all,
)

TASK = Address("app", target_name="t")


def module(path: str, root: str = "", *, owner: str | None = "code", **more: bool) -> SourceFile:
    address = Address("t", target_name=owner) if owner else None
    return SourceFile(path, address, root, python=True, **more)


def data(path: str, root: str | None = None, owner: str = "data") -> SourceFile:
    """A `files` target's file; a resource where it has a source root."""
    return SourceFile(path, Address("t", target_name=owner), root, python=False)


# --- root_dir -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "root_dir"),
    [
        (None, None),
        ("src", "src"),
        ("src/", "src"),
        ("./src", "src"),
        ("src//app/.", "src/app"),
        ("src/../lib", "lib"),
        (" src ", "src"),
        (".", ""),
        ("./", ""),
        ("", ""),
        ("a/..", ""),
    ],
)
def test_a_root_dir_is_normalised_and_empty_for_the_build_root(value, root_dir):
    assert check_root_dir(TASK, value) == root_dir


@pytest.mark.parametrize("value", ["..", "../x", "a/../..", "/", "/abs/src"])
def test_a_root_dir_outside_the_build_root_is_refused(value):
    with pytest.raises(FlyteTargetError, match=r"app:t: `root_dir` is .* not below the build root"):
        check_root_dir(TASK, value)


@pytest.mark.parametrize(
    ("file", "root_dir", "path"),
    [
        # Unset: source roots are stripped, `files` keep their path.
        (module("src/app/w.py", "src"), None, "app/w.py"),
        (module("app/w.py", ""), None, "app/w.py"),
        (module("w.py", ""), None, "w.py"),
        (module("a/b/src/w.py", "a/b/src"), None, "w.py"),
        (data("src/app/x.json", "src"), None, "app/x.json"),
        (data("src/app/x.csv"), None, "src/app/x.csv"),
        # Set: one prefix for everything.
        (module("src/app/w.py", "src"), "", "src/app/w.py"),
        (data("src/app/x.csv"), "", "src/app/x.csv"),
        (module("src/app/w.py", "src"), "src", "app/w.py"),
        (data("src/app/x.csv"), "src", "app/x.csv"),
        (module("src/app/w.py", "src"), "src/app", "w.py"),
        (module("src/app/w.py", "src"), "src/ap", None),
        (module("src/app/w.py", "src"), "lib", None),
        (data("x.csv"), "src", None),
    ],
)
def test_a_file_has_its_place_below_the_root(file, root_dir, path):
    assert place(file, root_dir) == path


# --- all files together ---------------------------------------------------------------------------


def test_files_are_placed_by_their_path_in_the_bundle():
    files = [module("src/a.py", "src"), data("src/d.csv"), data("src/r.json", "src")]
    assert place_all(TASK, files, None) == {
        "a.py": files[0],
        "src/d.csv": files[1],
        "r.json": files[2],
    }


def test_one_file_of_two_owners_is_no_collision_and_the_first_owner_counts():
    first, second = module("src/a.py", "src", owner="one"), module("src/a.py", "src", owner="two")
    assert place_all(TASK, [first, second], None) == {"a.py": first}


def test_one_file_may_have_two_places():
    files = [data("src/x.json"), data("src/x.json", "src")]
    assert set(place_all(TASK, files, None)) == {"src/x.json", "x.json"}


@pytest.mark.parametrize(
    ("one", "two", "path"),
    [
        (module("a/util.py", "a", owner="one"), module("b/util.py", "b", owner="two"), "util.py"),
        (data("x.json", owner="one"), data("src/x.json", "src", owner="two"), "x.json"),
        (
            module("src/x_pb2.py", "src", owner="one"),
            module("src/x_pb2.py", "src", owner="two", generated=True),
            "x_pb2.py",
        ),
        (
            module("src/x_pb2.py", "src", owner="one", generated=True),
            module("src/x_pb2.py", "src", owner="two", generated=True),
            "x_pb2.py",
        ),
        (module("a/util.py", "a"), module("b/util.py", "b", owner=None, beside=True), "util.py"),
        # A file where another one needs a directory.
        (data("a/x", "a", owner="one"), module("b/x/y.py", "b", owner="two"), "x"),
        (data("a/x", "a", owner="one"), module("b/x/y/z.py", "b", owner="two"), "x"),
    ],
)
def test_two_sources_on_one_path_are_an_error_that_names_both(one, two, path):
    for files in ([one, two], [two, one]):
        with pytest.raises(FlyteTargetError) as caught:
            place_all(TASK, files, None)
        message = str(caught.value)
        assert message.startswith("app:t: different files would land on one path of the bundle:")
        assert f"* {path}: " in message
        for file in files:
            assert f"{file.path} ({file.owner or 'no owner'})" in message
    assert place_all(TASK, [one], None)
    assert place_all(TASK, [two], None)


def test_a_root_dir_above_keeps_two_source_roots_apart():
    files = [module("a/util.py", "a"), module("b/util.py", "b")]
    assert set(place_all(TASK, files, "")) == {"a/util.py", "b/util.py"}


def test_files_outside_the_root_are_an_error_that_names_them_with_their_owners():
    files = [
        module("src/w.py", "src"),
        module("lib/x.py", "lib"),
        module("lib/__init__.py", "", owner=None),
    ]
    with pytest.raises(FlyteTargetError) as caught:
        place_all(TASK, files, "src")
    message = str(caught.value)
    assert "app:t: `root_dir` is 'src', but the bundle needs files outside it" in message
    assert "* lib/x.py (t:code)" in message
    assert "* lib/__init__.py (no owner)" in message
    assert "src/w.py" not in message
    assert "leave it unset" in message


def test_an_error_names_some_culprits_and_counts_the_others():
    with pytest.raises(FlyteTargetError) as caught:
        place_all(TASK, [module(f"lib/m{i}.py") for i in range(20)], "src")
    message = str(caught.value)
    assert message.count("* lib/m") == 8
    assert "* and 12 more" in message


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        (["a.py", "b.py"], []),
        (["a.py", "A.py"], [("A.py", "a.py")]),
        (["Lib/a.py", "lib/a.py", "lib/b.py"], [("Lib/a.py", "lib/a.py")]),
        (["straße.py", "strasse.py"], [("strasse.py", "straße.py")]),
        (["a", "A", "b", "B", "c"], [("A", "a"), ("B", "b")]),
    ],
)
def test_paths_that_differ_only_in_case_are_grouped(paths, groups):
    assert sorted(case_collisions(paths)) == groups


@pytest.mark.parametrize(
    ("files", "root_dir", "apart"),
    [
        # The file stays at src/app/d.csv while the module goes to app/w.py.
        ([module("src/app/w.py", "src"), data("src/app/d.csv")], None, [("src/app/d.csv", "app/w.py")]),
        ([module("src/app/w.py", "src"), data("src/app/d.csv")], "src", []),
        ([module("src/app/w.py", "src"), data("src/app/d.json", "src")], None, []),
        ([module("src/app/w.py", "src"), data("src/data/d.csv")], None, []),
        ([module("app/w.py", ""), data("app/d.csv")], None, []),
    ],
)  # fmt: skip
def test_a_file_that_is_parted_from_the_module_beside_it_is_found(files, root_dir, apart):
    assert files_beside_modules(place_all(TASK, files, root_dir)) == apart


@pytest.mark.parametrize(
    ("path", "glob"),
    [("a/b.py", "a/b.py"), ("[x]*?.py", "[[]x][*][?].py"), ("!a.py", "./!a.py"), ("b/!a", "b/!a")],
)
def test_a_path_becomes_a_glob_that_means_it_alone(path, glob):
    assert literal_glob(path) == glob


# --- imports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.py", "a"),
        ("a/b.py", "a.b"),
        ("a/__init__.py", "a"),
        ("a/b/__init__.py", "a.b"),
        ("__init__.py", "__init__"),
        ("a/b.pyi", "a.b"),
    ],
)
def test_a_module_is_named_by_its_path(path, name):
    assert module_name(path) == name


@pytest.mark.parametrize(
    ("files", "root_dir", "moves"),
    [
        ([module("src/a.py", "src")], None, False),
        ([module("src/a.py", "src")], "src", False),
        ([module("src/a.py", "src")], "", True),
        ([module("a.py", "")], "", False),
        ([module("app/a.py", "")], "app", True),
        ([data("src/a.json", "src")], "", False),
    ],
)
def test_modules_move_where_the_root_is_not_their_source_root(files, root_dir, moves):
    assert moves_modules(files, root_dir) is moves


def breaks(importer: SourceFile, imported: SourceFile, source: str, root_dir: str) -> list[str]:
    scans = {importer.path: scan(source), imported.path: scan("")}
    found = broken_imports([importer, imported], scans, root_dir)
    assert all(b.importer == importer.path and b.line == 1 for b in found)
    assert all(b.module_path == place(imported, root_dir) for b in found)
    return [b.statement for b in found]


@pytest.mark.parametrize(
    ("importer", "imported", "root_dir", "statement"),
    [
        # A source root above the modules, and the build root as the bundle's top.
        ("src:app/w.py", "src:lib/x.py", "", "import lib.x"),
        ("src:app/w.py", "src:lib/x.py", "", "from lib import x"),
        ("src:app/w.py", "src:lib/x.py", "", "from lib.x import y"),
        ("src:app/w.py", "src:lib/x.py", "", "from lib.x import *"),
        ("src:app/w.py", "src:lib/__init__.py", "", "import lib"),
        ("src:app/w.py", "src:lib/__init__.py", "", "from lib import y"),
        ("src:w.py", "src:x.py", "", "import x"),
        # A top below where imports start.
        (":services/ml/w.py", ":services/ml/x.py", "services", "from services.ml.x import y"),
        (":services/ml/w.py", ":services/ml/x.py", "services/ml", "import services.ml.x"),
        # Relative imports that climb out of what is left of the package.
        (":app/ml/w.py", ":app/x.py", "app", "from .. import x"),
        (":app/ml/w.py", ":app/x.py", "app", "from ..x import y"),
        (":app/w.py", ":app/x.py", "app", "from . import x"),
        # A package that is spread over two source roots falls apart.
        ("a:ns/w.py", "b:ns/x.py", "", "from . import x"),
        ("a:ns/w.py", "b:ns/x.py", "", "from .x import y"),
        ("a:ns/w.py", "b:ns/x.py", "", "from ns.x import y"),
    ],
)
def test_an_import_breaks_where_its_module_has_moved(importer, imported, root_dir, statement):
    assert breaks(_at(importer), _at(imported), statement, root_dir) == [statement]


@pytest.mark.parametrize(
    ("importer", "imported", "root_dir", "statement"),
    [
        ("src:app/w.py", "src:lib/x.py", "src", "from lib import x"),
        (":app/w.py", ":lib/x.py", "", "from lib import x"),
        # Relative imports move along with the package.
        ("src:app/w.py", "src:app/x.py", "", "from . import x"),
        ("src:app/w.py", "src:app/x.py", "", "from .x import y"),
        ("src:app/ml/w.py", "src:app/x.py", "", "from ..x import y"),
        ("src:app/ml/w.py", "src:app/x.py", "", "from .. import x"),
        ("src:app/__init__.py", "src:app/x.py", "", "from .x import y"),
        (":services/ml/w.py", ":services/ml/x.py", "services", "from .x import y"),
        # Something else of a similar name.
        ("src:app/w.py", "src:lib/x.py", "", "from lib import xx"),
        ("src:app/w.py", "src:lib/x.py", "", "import libx"),
        ("src:app/w.py", "src:lib/x.py", "", "from .lib import x"),
        ("src:app/w.py", "src:x.py", "", "from .x import y"),
        # A relative import that leaves the top is broken in the repository already.
        ("src:w.py", "src:x.py", "", "from . import x"),
        ("src:w.py", "src:x.py", "", "from ... import x"),
    ],
)
def test_an_import_that_works_is_no_false_alarm(importer, imported, root_dir, statement):
    assert breaks(_at(importer), _at(imported), statement, root_dir) == []


def _at(text: str) -> SourceFile:
    """`root:path below it`."""
    root, _, path = text.partition(":")
    return module(f"{root}/{path}" if root else path, root)


def broken(sources: dict[str, str]) -> list[tuple[str, int, str, str]]:
    """What breaks among these modules of the source root `src` when the build root is the top."""
    modules = [module(f"src/{path}", "src") for path in sources]
    scans = {f"src/{path}": scan(text) for path, text in sources.items()}
    found = broken_imports(modules, scans, "")
    return [(b.importer, b.line, b.statement, b.module_path) for b in found]


def test_broken_imports_are_sorted_and_named_once():
    source = "def f():\n    import lib.x\nfrom lib import x\nimport os\nimport lib.x, lib.x\n"
    assert broken({"w.py": source, "lib/x.py": "import w", "lib/y.py": ""}) == [
        ("src/lib/x.py", 1, "import w", "src/w.py"),
        ("src/w.py", 2, "import lib.x", "src/lib/x.py"),
        ("src/w.py", 3, "from lib import x", "src/lib/x.py"),
        ("src/w.py", 5, "import lib.x", "src/lib/x.py"),
    ]


@pytest.mark.parametrize(
    ("statement", "path"),
    [
        ("from lib import x", "src/lib/x.py"),
        ("from lib import y", "src/lib/__init__.py"),
        ("from lib import *", "src/lib/__init__.py"),
        ("import lib", "src/lib/__init__.py"),
    ],
)
def test_a_broken_import_is_of_the_module_it_means(statement, path):
    assert broken({"w.py": statement, "lib/__init__.py": "", "lib/x.py": ""}) == [
        ("src/w.py", 1, statement, path)
    ]


def test_one_of_two_modules_of_a_name_is_enough():
    files = [module("a/w.py", "a"), module("a/util.py", "a"), module("b/util.py", "b")]
    scans = {file.path: scan("import util" if file.path == "a/w.py" else "") for file in files}
    assert broken_imports(files, scans, None) == []
    assert [b.module_path for b in broken_imports(files, scans, "")] == ["a/util.py"]


BROKEN = [BrokenImport("src/w.py", 2, "import lib.x", "src/lib/x.py")]


@pytest.mark.parametrize(
    ("source_roots", "fix"),
    [
        (["src", "src"], "Set `root_dir='src'`, the source root that they start from, or leave it unset."),
        ([""], "Set `root_dir='.'`, the source root that they start from, or leave it unset."),
        (["lib", "src"], "Leave `root_dir` unset: the modules come from several source roots (lib, src), "),
    ],
)  # fmt: skip
def test_the_error_names_file_line_statement_and_the_root_that_would_do(source_roots, fix):
    message = str(broken_imports_error(TASK, "", BROKEN, source_roots))
    assert message.startswith("app:t: `root_dir='.'` breaks these imports:")
    assert (
        "* src/w.py:2: `import lib.x`, but the module is at src/lib/x.py in the bundle" in message
    )
    assert fix in message


# --- names ---------------------------------------------------------------------------------------

NFC, NFD = "\u00e9t\u00e9", "e\u0301te\u0301"


@pytest.mark.parametrize(
    ("file", "root_dir", "path"),
    [
        (module(f"{NFD}.py"), None, f"{NFC}.py"),
        (module(f"src/{NFD}/{NFD}.py", "src"), None, f"{NFC}/{NFC}.py"),
        (module(f"src/{NFD}.py", "src"), "", f"src/{NFC}.py"),
        (module(f"src/{NFD}.py", "src"), "src", f"{NFC}.py"),
        (module(f"{NFC}.py"), None, f"{NFC}.py"),
        # What a resource is called is no identifier, but its package is.
        (data(f"src/{NFD}/{NFD}.csv", "src"), None, f"{NFC}/{NFD}.csv"),
        (data(f"{NFD}/{NFD}.csv"), None, f"{NFD}/{NFD}.csv"),
    ],
)
def test_modules_are_where_import_statements_look_for_them(file, root_dir, path):
    assert place(file, root_dir) == path


def test_two_spellings_of_one_module_are_a_collision():
    with pytest.raises(FlyteTargetError, match="different files would land on one path"):
        place_all(TASK, [module(f"{NFC}.py"), module(f"{NFD}.py")], None)


def stray(path: str) -> SourceFile:
    """A file that is there for `copy_style="all"`."""
    return SourceFile(path, None, "", python=path.endswith(".py"), beside=True)


@pytest.mark.parametrize(
    "file",
    [
        *(module("platform.py"), module("queue.py"), module("src/types.py", "src")),
        *(module("logging/__init__.py"), module("json/__init__.py"), stray("email/__init__.py")),
        *(stray("random.py"), stray("select.cpython-312-x86_64-linux-gnu.so"), stray("ssl.pyc")),
        *(data("platform.py"), data("x/secrets.py", "x"), module("asyncio/__init__.pyc")),
        *(module("flyte.py"), module("flyte/__init__.py"), module("flyte/mine.py")),
        *(module("flyte/sub/mine.py"), stray("flyte/__init__.py")),
    ],
    ids=lambda file: file.path,
)
def test_what_flytes_runtime_needs_cannot_be_shadowed(file):
    with pytest.raises(FlyteTargetError) as caught:
        place_all(TASK, [module("app/w.py"), file], None)
    name = file.stripped.split("/")[0].split(".")[0]
    assert f"* {file.path} is" in str(caught.value)
    assert f"`{name}`" in str(caught.value)
    assert "Rename it, or move it into a package" in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        # Below the top, or no module.
        *(module("pkg/platform.py"), module("pkg/types/__init__.py"), data("platform.json")),
        *(stray("platform/data.csv"), stray("flyte/README.md"), data("queue.txt"), stray("email.pyi")),
        # A directory without `__init__.py` comes after every module of that name.
        *(module("platform/linux.py"), stray("types/x.py"), stray("flyte/script.py")),
        # Nothing of Flyte imports these, or Python has them before it looks for files.
        *(module("test/__init__.py"), module("code.py"), module("this.py"), module("turtle.py")),
        *(module("time.py"), module("sys.py"), module("builtins.py"), module("os.py")),
        *(module("tests/__init__.py"), module("flyte_tools/__init__.py"), module("my_queue.py")),
        *(module("platform.dir/x.py"), module("Platform.py"), module("abc.py"), module("src/x.py", "src")),
    ],
    ids=lambda file: file.path,
)  # fmt: skip
def test_other_names_are_free(file):
    place_all(TASK, [module("app/w.py"), file], None)


def test_a_root_dir_may_take_a_module_off_the_top():
    files = [module("src/platform.py", "src")]
    check_shadows(TASK, place_all(TASK, files, ""), "the bundle")
    with pytest.raises(FlyteTargetError, match="the top of the image comes first"):
        place_all(TASK, files, "src", "the image")
