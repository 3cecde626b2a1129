"""What an environment's Image asks for is read where it is literal."""

from __future__ import annotations

from textwrap import dedent

import pytest

from flyte_pack.code.entry_names import Code, Wanted
from flyte_pack.code.image_scan import Asked, Copied, FilePath, asked_by
from flyte_pack.code.module_scan import scan
from flyte_pack.flyte_side import asked as words


def read(source: str, environment: str = "env", **others: str) -> Asked | None:
    sources = {"pkg.m": source, "pkg": "", **others}
    code = Code()
    while True:
        try:
            return asked_by(code, ("pkg.m", environment))
        except Wanted as wanted:
            text = sources.get(wanted.module)
            data = dedent(text or "").encode()
            path = f"src/{wanted.module.replace('.', '/')}.py"
            scanned = None if text is None else scan(data)
            code.add(wanted.module, scanned, wanted.module == "pkg", (path, data))


def image(expression: str, before: str = "", **others: str) -> Asked | None:
    return read(f"{before}\nenv = flyte.TaskEnvironment('e', image={expression})", **others)


PACKAGES = {
    "constants": ("I.with_pip_packages('a', 'b')", "", ("a", "b")),
    "calls, in their order": ("I.with_pip_packages('a').clone(name='x').with_pip_packages('b')", "", ("a", "b")),
    "a name": ("I.with_pip_packages(A, *B)", "A = 'a'\nB: list = ['b', A]", ("a", "b", "a")),
    "a sum": ("I.with_pip_packages(*(B + ['c']))", "B = ('b',)", ("b", "c")),
    "a name that is bound again": ("I.with_pip_packages(A)", "A = 'a'\nA = 'b'", ("b",)),
    "a name that may be bound again": ("I.with_pip_packages(A, 'c')", "A = 'a'\nif x: A = 'b'", ("c",)),
    "a list that grows": ("I.with_pip_packages(*B)", "B = ['b']\nB += ['c']", ()),
    "a name of itself": ("I.with_pip_packages(A, *B)", "A = B\nB = A", ()),
    "a relative import": ("I.with_pip_packages(*o.NAMES)", "from . import o", ("a",)),
    "a star": ("I.with_pip_packages(*NAMES)", "from pkg.o import *", ("a",)),
    "a module": ("I.with_pip_packages(*pkg.o.NAMES)", "import pkg.o", ("a",)),
    "an import of an import": ("I.with_pip_packages(*N)", "from pkg.p import NAMES as N", ("a",)),
    "a module that is not first-party": ("I.with_pip_packages(*x.NAMES)", "import x", ()),
}  # fmt: skip


@pytest.mark.parametrize(("expression", "before", "packages"), PACKAGES.values(), ids=PACKAGES)
def test_packages_by_constants_and_names(expression, before, packages):
    before = f"{before}\nI = flyte.Image.from_base('x').clone(extendable=True)"
    others = {"pkg.o": "NAMES = ['a']", "pkg.p": "from pkg.o import NAMES"}
    found = image(expression, before, **others)
    assert found is not None
    assert found.packages == packages


@pytest.mark.parametrize(
    "source",
    [
        "env = make(image=flyte.Image.from_debian_base())",
        "env = flyte.TaskEnvironment('e')",
        "env = flyte.TaskEnvironment('e', image='r/x:1')",
        "env = flyte.TaskEnvironment('e', image=make())",
        "env = flyte.TaskEnvironment('e', image=I)\nI = I.with_workdir('/w')",
        "env = flyte.TaskEnvironment('e', **{'image': flyte.Image.from_debian_base()})",
        "env = flyte.TaskEnvironment('e', image=A)\nif x: env = flyte.TaskEnvironment('e', image=B)",
        "def env(): ...",
        "env = other = 1",
        "",
    ],
)
def test_what_is_no_literal_image_of_one_environment_is_not_read(source):
    assert read(source) is None


PATHS = {
    "Path(__file__).parent / 'r.txt'": FilePath("src/pkg/r.txt", True),
    "pathlib.Path(__file__).resolve().parent.parent / 'a' / 'r.txt'": FilePath("src/a/r.txt", True),
    "os.path.join(os.path.dirname(__file__), 'r.txt')": FilePath("src/pkg/r.txt", True),
    "'a/r.txt'": FilePath("a/r.txt"),
    "Path('a', 'r.txt')": FilePath("a/r.txt"),
    "PLACE / 'r.txt'": FilePath("a/r.txt"),
}


@pytest.mark.parametrize(("expression", "path"), PATHS.items())
def test_paths(expression, path):
    found = image(
        f"flyte.Image.from_debian_base().with_requirements({expression})", "PLACE = Path('a')"
    )
    assert found is not None
    assert found.requirements == (path,)


@pytest.mark.parametrize("expression", ["'/etc/r.txt'", "Path.cwd()", "Path()", "x('r.txt')", "1"])
def test_paths_that_are_nowhere_in_the_repository(expression):
    found = image(
        f"flyte.Image.from_debian_base().with_requirements({expression}).with_workdir('/w')"
    )
    assert found == Asked(workdir="/w")


def test_all_layers():
    found = image(
        "flyte.Image.from_debian_base((3, 12)).with_apt_packages('a', secret_mounts=X).with_commands(['c'])"
        ".with_env_vars({'A': '1', 'B': x(), **MORE, y: '2'}).with_source_file(src=[Path('f'), Path('g')], dst='in/')"
        ".with_source_folder(Path('d'), '.', True).with_uv_project('pyproject.toml').with_unknown(1)",
        "MORE = {'C': '3'}",
    )
    assert found == Asked(
        python=(3, 12),
        apt=("a",),
        commands=("c",),
        variables={"A": "1", "B": None, "C": "3"},
        copied=(
            Copied(FilePath("f"), "in/"),
            Copied(FilePath("g"), "in/"),
            Copied(FilePath("d"), ".", is_folder=True, contents_only=True),
        ),
        projects=(FilePath("pyproject.toml"),),
    )
    assert "'1'" not in repr(found), "a value may be a secret"


@pytest.mark.parametrize("depth", [90, 3000])
def test_a_long_chain_is_read_or_left(depth):
    chain = "flyte.Image.from_debian_base()" + ".with_workdir('/w')" * depth
    source = f"env = flyte.TaskEnvironment('e', image={chain})"
    try:
        scan(source)
    except SyntaxError:
        return  # nested too deeply for this Python
    assert read(source) == (Asked(workdir="/w") if depth < 100 else None)


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("pandas", "pandas"),
        ("pandas[x] >= 2", "pandas"),
        ("a.b_c~=1", "a.b_c"),
        ("x ; python_version < '3'", "x"),
        ("x @ https://u:p@h.test/y.git", "x"),
        ("git+https://u:p@h.test/o/name.git@v1", "name"),
        ("git+ssh://git@h.test/o/name#egg=other&x=y", "other"),
        ("./dist/acme_lib-1.0-py3-none-any.whl", "acme-lib"),
        ("./lib", "lib"),
        ("-r more.txt", None),
    ],
)
def test_the_name_of_a_requirement(requirement, name):
    assert words.distribution_of(requirement) == name


def test_the_lines_of_a_requirements_file():
    text = "# x\n a==1 \\\n   --hash=sha256:0\n\nb>=2  # why\n-r c.txt\nd --hash=sha256:1\n"
    assert words.requirements_in(text) == ["a==1", "b>=2", "d"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[project]\nname = "p"\ndependencies = ["a[x]>=1", \'b\']\n', ["a[x]>=1", "b"]),
        ('[x]\ny = 1\n[project]\ndependencies = [\n  # no\n  "a",\n  "b",\n]\n[z]\n', ["a", "b"]),
        ('[project]\nname = "p"\n[tool.x]\ndependencies = ["a"]\n', []),
        ("[project]\ndependencies = []\n", []),
        ("", []),
    ],
)
def test_the_dependencies_of_a_project(text, found):
    assert words.project_dependencies(text) == found
