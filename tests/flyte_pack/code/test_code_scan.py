"""What a module needs, read from its syntax tree: imports, names, files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from flyte_pack.code.bound_names import Bound
from flyte_pack.code.code_scan import CodeScan, scan_code
from flyte_pack.code.stdlib_modules import in_standard_library


def scanned(source: str, path: str = "app/m.py") -> CodeScan:
    return scan_code(dedent(source).lstrip("\n").encode(), path)


GUARDS = {
    "import a": "",
    "def f():\n    import a": "",
    "try:\n    import a\nexcept ImportError:\n    pass": "optional",
    "try:\n    import a\nexcept (ValueError, ModuleNotFoundError):\n    pass": "optional",
    "try:\n    import a\nexcept Exception:\n    pass": "optional",
    "try:\n    import a\nexcept:\n    pass": "optional",
    "try:\n    import a\nexcept ValueError:\n    pass": "",
    "try:\n    import a\nfinally:\n    pass": "",
    "with suppress(ImportError):\n    import a": "optional",
    "with open('x'):\n    import a": "",
    "if TYPE_CHECKING:\n    import a": "typing",
    "if t.TYPE_CHECKING:\n    import a": "typing",
    "MYPY = False\nif MYPY:\n    import a": "typing",
    "if sys.version_info[0] >= 3:\n    import a": "",
    "if not TYPE_CHECKING:\n    import a": "",
    "if TYPE_CHECKING:\n    pass\nelse:\n    import a": "",
    "if x and TYPE_CHECKING:\n    import a": "typing",
    "if find_spec('a'):\n    import a": "optional",
    "if find_spec('a') is not None:\n    import a": "optional",
    "if __name__ == '__main__':\n    import a": "optional",
    "class C:\n    import a": "",
    "for x in y:\n    import a": "",
    "async def f():\n    async with g:\n        import a": "",
    "if sys.platform == 'linux':\n    import a": "",
    "if os.name == 'posix':\n    import a": "",
    "if x or y:\n    import a": "",
}


@pytest.mark.parametrize("source", GUARDS)
def test_whether_the_code_does_without(source):
    (one,) = scanned(source).imports
    assert (one.module, one.guard) == ("a", GUARDS[source])


@pytest.mark.parametrize(
    "source",
    [
        "if sys.platform == 'win32':\n    import a",
        "if sys.platform != 'linux':\n    import a",
        "if sys.platform in ('win32', 'cygwin'):\n    import a",
        "if sys.platform not in ('linux', 'darwin'):\n    import a",
        "WINDOWS = sys.platform == 'win32'\nif WINDOWS:\n    import a",
        "MAC = sys.platform.startswith('darwin')\nif x and MAC:\n    import a",
        "if sys.implementation.name == 'pypy':\n    import a",
        "if sys.version_info[0] == 2:\n    import a",
        "if sys.version_info.major < 3:\n    import a",
        "if six.PY2:\n    import a",
        "if PY3:\n    pass\nelse:\n    import a",
        "if sys.platform.startswith('win'):\n    import a",
        "if not sys.platform.startswith('linux'):\n    import a",
        "if os.name == 'nt':\n    import a",
        "if platform.system() == 'Darwin':\n    import a",
        "if sys.platform == 'linux':\n    pass\nelse:\n    import a",
        "if False:\n    import a",
        "if 0:\n    import a",
        "if sys.platform == 'win32' and x:\n    import a",
        "import a  # pants: no-infer-dep",
        "import a  # flyte: missing-ok",
        "from __future__ import annotations",
        "'''\nimport a\n'''",
        "x = 'import a'",
    ],
)
def test_what_python_never_imports_in_a_container(source):
    assert scanned(source).imports == ()


VERSIONS = {
    "sys.version_info >= (3, 11)": (11, 10_000),
    "sys.version_info < (3, 11)": (0, 11),
    "sys.version_info[:2] <= (3, 10)": (0, 11),
    "sys.version_info[:2] > (3, 10)": (11, 10_000),
    "sys.version_info > (3, 10)": (10, 10_000),
    "sys.version_info >= (3,)": (0, 10_000),
    "sys.version_info < (3, 0)": (0, 0),
    "version_info >= (3, 9) and x": (9, 10_000),
    "not sys.version_info >= (3, 11)": (0, 11),
}


@pytest.mark.parametrize("test", VERSIONS)
def test_the_pythons_that_come_to_an_import(test):
    (one,) = scanned(f"if {test}:\n    import a").imports
    assert (one.since, one.before) == VERSIONS[test]


def test_a_pragma_on_one_line_of_a_statement_is_about_its_names():
    source = "from a import (\n    b,\n    c,  # flyte: missing-ok\n)\nfrom d import (\n    e,\n)  # flyte: missing-ok\n"
    assert [one.name for one in scanned(source).imports] == ["b"]


def test_imports_below_long_code_are_read():
    body = "x = 1\n" * 500
    assert [i.module for i in scanned(f"import a\n{body}import b\n{body}").imports] == ["a", "b"]
    # The text ends inside of a `try` where its head does.
    (one,) = scanned(f"try:\n    import a\nexcept ImportErr:\n    pass\n{body}").imports
    assert one.guard == ""


DYNAMIC = {
    "import_module('a.b')": [("module", "a.b")],
    "import_module('.b', 'a')": [("module", "a.b")],
    "import_module('..b', 'a.c')": [("module", "a.b")],
    "import_module('.b', __package__)": [("module", ".b")],
    "import_module('.b', package=__name__)": [("maybe", ".b")],
    "import_module(name)": [("unknown", "")],
    "import_module(f'a.{name}')": [("unknown", "")],
    "__import__('a')": [("module", "a")],
    "importlib.util.find_spec('a')": [("module", "a")],
    "self.finder.find_spec('a')": [],
    "runpy.run_module('a')": [("module", "a")],
    "import_module('.b', __spec__.parent)": [("module", ".b")],
    "import_module('.b', __name__.rpartition('.')[0])": [("module", ".b")],
    "import_module(__name__.rsplit('.', 1)[0] + '.b')": [("module", ".b")],
    "list(map(import_module, ['a', 'b.c']))": [("module", "a"), ("module", "b.c")],
    "load = importlib.import_module\nload('a')": [("module", "a")],
    "names = ['a']\nnames.append('b')\nnames += ['c']\nnames.extend(('d',))\nfor n in names: import_module(n)": [
        ("module", "a"),
        ("module", "b"),
        ("module", "c"),
        ("module", "d"),
    ],
    "command = [sys.executable]\nif x:\n    command.append('-u')\ncommand += ['-m', 'a.b']\nsubprocess.run(command)": [
        ("module", "a.b")
    ],
    "names = f()\nnames += ['a']\nfor n in names: import_module(n)": [("unknown", "")],
    "names = 'a b'.split()\nnames.append(x)\nfor n in names: import_module(n)": [
        ("module", "a"),
        ("module", "b"),
    ],
    "pkgutil.resolve_name('a.b:c')": [("module", "a.b")],
    "pkgutil.resolve_name('a.b.c')": [("maybe", "a.b.c")],
    "pydoc.locate('a.b')": [("maybe", "a.b")],
    "import_string('a.b')": [("maybe", "a.b")],
    "lazy_loader.load('a.b')": [("module", "a.b")],
    "spec_from_file_location('x', 'a/b.py')": [("script", "a/b.py")],
    "SourceFileLoader('x', 'a/b.py')": [("script", "a/b.py")],
    "subprocess.run(['python', '-um', 'a.b'])": [("module", "a.b")],
    "subprocess.run(['python', '-ma.b'])": [("module", "a.b")],
    "subprocess.run(['python', '-c', 'import a; from b.c import d'])": [
        ("module", "a"),
        ("module", "b.c"),
    ],
    "subprocess.run(['python', '-c', 'import ('])": [],
    "subprocess.run(['celery', '-A', 'a.b', 'worker'])": [("maybe", "a.b")],
    "subprocess.run('flask --app=a.b:app run', shell=True)": [("maybe", "a.b")],
    "entry_points(group='a.b')": [("group", "a.b")],
    "importlib.metadata.entry_points().select(group='a')": [("group", "a")],
    "for e in entry_points().get('a', []): e.load()": [("group", "a")],
    "for e in entry_points()['a']: e.load()": [("group", "a")],
    "found = entry_points()\nfound.select(group='a')": [("group", "a")],
    "pkg_resources.iter_entry_points('a')": [("group", "a")],
    "DriverManager(namespace='a', name='b')": [("group", "a")],
    "entry_points(group=name)": [("unknown", "")],
    "entry_points()": [],
    "x.select(group='a')  # entry_points": [],
    "x.get('a')  # entry_points": [],
    "runpy.run_path('a/b.py')": [("script", "a/b.py")],
    "subprocess.run(['python', '-m', 'a.b'])": [("module", "a.b")],
    "subprocess.run(['/usr/bin/python3.11', '-W', 'error', '-m', 'a'])": [("module", "a")],
    "subprocess.Popen((sys.executable, '-u', 'a/b.py'))": [("script", "a/b.py")],
    "subprocess.run([sys.executable, '-c', 'x'])": [],
    "subprocess.run([sys.executable, '-m', name])": [("unknown", "")],
    "subprocess.run('python -m a.b', shell=True)": [("module", "a.b")],
    "subprocess.run(['ls', '-m', 'python'])": [],
    "os.execl(sys.executable, 'python', '-m', 'a')": [("module", "a")],
    "asyncio.subprocess.create_subprocess_exec(sys.executable, '-m', 'a')": [("module", "a")],
    "import p\npkgutil.iter_modules(p.__path__)": [("submodules", "p")],
    "from a import p\npkgutil.walk_packages(p.__path__, 'a.p.')": [("submodules", "a.p")],
    "pkgutil.iter_modules(__path__)": [("submodules", "")],
    "pkgutil.iter_modules([x])": [("unknown", "")],
    "a, b = lazy.attach(__name__, submodules=['c'], submod_attrs={'d': ['E']})": [("maybe", ".c"), ("maybe", ".d")],
    "from importlib import import_module as im\nim('a.b')": [("module", "a.b")],
    "for one in ('a', 'a.b'):\n    import_module(one)": [("module", "a"), ("module", "a.b")],
    "NAMES = ['a', 'b']\n[import_module(one) for one in sorted(NAMES)]": [("module", "a"), ("module", "b")],
    "T = {'x': 'a', 'y': 'b'}\ndef f(k):\n    return import_module(T[k])": [("module", "a"), ("module", "b")],
    "T = {'x': ('a', 'C')}\ndef f(k):\n    module, name = T[k]\n    return import_module(T[k][0])": [("module", "a")],
    "T = {'x': 'a'}\nimport_module(T.get(k, 'b'))": [("module", "a"), ("module", "b")],
    "for name, module in {'x': 'a'}.items():\n    import_module(module)": [("module", "a")],
    "def f():\n    name = 'a.b'\n    import_module(name)\ndef g():\n    name = 'c'": [("module", "a.b")],
    "def f(name='a.b'):\n    import_module(name)": [("module", "a.b")],
    "class C:\n    names = ['a']\n    def f(self):\n        for n in self.names:\n            import_module(n)": [("module", "a")],
    "P = 'a'\nimport_module(f'{P}.b')": [("module", "a.b")],
    "P = 'a'\nimport_module(P + '.b')": [("module", "a.b")],
    "P = 'a'\nimport_module('%s.b' % P)": [("module", "a.b")],
    "P = 'a'\nimport_module('{}.{x}'.format(P, x='b'))": [("module", "a.b")],
    "import_module('.'.join(['a', 'b']))": [("module", "a.b")],
    "import_module(f'{__package__}.b')": [("module", ".b")],
    "import_module(__name__ + '.b')": [("unknown", "")],
    "for one in 'a b'.split():\n    import_module(one)": [("module", "a"), ("module", "b")],
    "pkgutil.iter_modules([os.path.dirname(__file__)])": [("submodules", "")],
    "pkgutil.iter_modules([str(Path(__file__).parent / 'p')])": [("submodules", ".p")],
    "pkgutil.iter_modules([str(Path(__file__).parents[1] / 'p')])": [("submodules", "..p")],
    "p = import_module('a')\npkgutil.iter_modules(p.__path__)": [("module", "a"), ("submodules", "a")],
    "Path(__file__).parent.glob('*.py')": [("submodules", "")],
    "glob.glob(os.path.join(os.path.dirname(__file__), 'p', '*.py'))": [("submodules", ".p")],
    "def f(x):\n    cmd = [sys.executable, '-m', 'a.b']\n    cmd.append(x)\n    subprocess.run(cmd)": [("module", "a.b")],
    "subprocess.run(shlex.split('python -m a.b'))": [("module", "a.b")],
    "subprocess.run([sys.executable, '-m', 'a.b', *args])": [("module", "a.b")],
    "subprocess.run([sys.executable] + ['-m', 'a.b'])": [("module", "a.b")],
    "subprocess.run(f'{sys.executable} -m a.b {x}', shell=True)": [("module", "a.b")],
    "subprocess.run(f'python -m {x}', shell=True)": [("unknown", "")],
    "subprocess.run(['torchrun', '--nproc_per_node', '2', 'a/b.py'])": [("script", "a/b.py")],
    "subprocess.run([sys.executable, '-m', 'torch.distributed.run', '-m', 'a.b'])": [("module", "a.b")],
    "subprocess.run(['gunicorn', '-w', '4', 'a.b:app'])": [("module", "a.b")],
    "uvicorn.run('a.b:app', host='0.0.0.0')": [("module", "a.b")],
    "subprocess.run(['ls', 'a.b:app'])": [],
}  # fmt: skip


@pytest.mark.parametrize("source", DYNAMIC)
def test_what_is_named_by_constants(source):
    found = scanned(source).dynamic
    assert [(one.kind, one.name) for one in found] == DYNAMIC[source]


READS = {
    "open('a/b.json')": ("cwd", "a/b.json"),
    "open('/etc/x.json')": None,
    "open('~/x.json')": None,
    "open('a.json', 'w')": None,
    "open('a.json', mode='ab')": None,
    "open('a.json', mode)": None,
    "open(name)": None,
    "open(f'{x}.json')": None,
    "pd.read_csv('a/b.csv')": ("cwd", "a/b.csv"),
    "pd.read_csv('s3://a/b.csv')": None,
    "Path('a/b.json').read_text()": ("cwd", "a/b.json"),
    "Path('a', 'b.json').open()": ("cwd", "a/b.json"),
    "Path('a/b.json').open('w')": None,
    "Path('a/b.json').write_text('')": None,
    "(Path(__file__).parent / 'x.json').read_text()": ("here", "x.json"),
    "(Path(__file__).parents[1] / 'd' / 'x.json').read_bytes()": ("here", "../d/x.json"),
    "Path(__file__).with_name('x.json').read_text()": ("here", "x.json"),
    "open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'd', 'x.json'))": ("here", "d/x.json"),
    "open(Path(__file__).parent / name)": None,
    "D = Path(__file__).parent\ndef f():\n    return open(D / 'x.json')": ("here", "x.json"),
    "def f(d):\n    return open(d / 'x.json')": None,
    "pkgutil.get_data('a.b', 'd/x.json')": ("package", "d/x.json"),
    "pkgutil.get_data(__package__, 'x.json')": ("here", "x.json"),
    "importlib.resources.files('a').joinpath('d', 'x.json').open()": ("package", "d/x.json"),
    "(files('a') / 'x.json').read_text()": ("package", "x.json"),
    "resources.open_text('a', 'x.json')": ("package", "x.json"),
    "import a\nfiles(a).joinpath('x.json').read_text()": ("package", "x.json"),
    "from . import d\nfiles(d).joinpath('x.json').read_text()": ("here", "d/x.json"),
    "with as_file(files('a') / 'x.json') as p:\n    open(p)": ("package", "x.json"),
    "with resources.path('a', 'x.json') as p:\n    p.read_text()": ("package", "x.json"),
    "pkg_resources.resource_string(__name__, 'x.json')": ("here", "x.json"),
    "open(os.path.dirname(__file__) + '/x.json')": ("here", "x.json"),
    "open(f'{os.path.dirname(__file__)}/d/x.json')": ("here", "d/x.json"),
    "from os.path import dirname, join\nopen(join(dirname(__file__), 'x.json'))": ("here", "x.json"),
    "open(os.path.split(__file__)[0] + '/x.json')": ("here", "x.json"),
    "D = Path(__file__).parent\nN = 'x'\nopen(D / f'{N}.json')": ("here", "x.json"),
    "def f():\n    p = Path(__file__).parent / 'x.json'\n    return p.open()\ndef g():\n    p = 1": ("here", "x.json"),
    "Path(__file__).with_suffix('.json').read_text()": ("here", "m.json"),
    "class C:\n    D = Path(__file__).parent\n    def f(self):\n        return open(self.D / 'x.json')": ("here", "x.json"),
    "np.load(Path(__file__).parent / 'x.npy')": ("here", "x.npy"),
    "anything(Path(__file__).parent / 'x.bin')": ("here", "x.bin"),
    "makedirs(Path(__file__).parent / 'out')": None,
    "frame.to_csv(Path(__file__).parent / 'out.csv')": None,
    "sys.path.insert(0, os.path.dirname(__file__))": None,
    "logging.getLogger(__file__)": None,
    "open(file='a/b.json')": ("cwd", "a/b.json"),
    "open(os.path.join(os.getcwd(), 'a/b.json'))": ("cwd", "a/b.json"),
    "json.loads('a/b.json is no file of mine, {}')": None,
    "subprocess.run(['bash', 'a/b.sh'])": ("cwd", "a/b.sh"),
    "subprocess.run(['bash', str(Path(__file__).parent / 'b.sh')])": ("here", "b.sh"),
    "runpy.run_path(Path(__file__).parent / 'b.py')": ("here", "b.py"),
    "lazy.attach_stub(__name__, __file__)": ("here", "m.pyi"),
    "(Path(__file__).parent / 'd').glob('*.sql')": ("here", "d/*.sql"),
    "flyte.TaskEnvironment('e', include=['d/x.json'])": ("here", "d/x.json"),
    "INCLUDE = ('d/*.json',)\nenv.clone_with('e', include=INCLUDE)": ("here", "d/*.json"),
    "TaskEnvironment('e', include=[name, '/etc/x.json'])": None,
    "resources.files('a.d').iterdir()": ("package", "*"),
    "Path('data').glob('*.csv')": ("cwd", "data/*.csv"),
    "os.listdir('data')": ("cwd", "data/*"),
    "for top, _, names in os.walk('data'): ...": ("cwd", "data/**"),
    "os.listdir(os.path.join(os.path.dirname(__file__), 'd'))": ("here", "d/*"),
    "glob.glob('d/*.sql')": ("cwd", "d/*.sql"),
    "Path('.').rglob('*')": None,
    "Path(__file__).parents[3].rglob('*.json')": None,
    "jinja2.PackageLoader('a', 'd')": ("package", "d/**"),
    "jinja2.FileSystemLoader(Path(__file__).parent / 'd')": ("here", "d/**"),
    "import hydra\n@hydra.main(config_path='conf')\ndef f(c): ...": ("here", "conf/**"),
}  # fmt: skip


@pytest.mark.parametrize("source", READS)
def test_the_files_that_are_read_by_a_constant_path(source):
    found = [(one.start, one.path) for one in scanned(source).reads]
    assert found == ([] if READS[source] is None else [READS[source]])


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    open('a/b.json')\nexcept OSError:\n    pass",
        "with suppress(FileNotFoundError):\n    open('a/b.json')",
        "if os.path.exists('a/b.json'):\n    open('a/b.json')",
        "p = Path('a/b.json')\nx = p.read_text() if p.is_file() else ''",
    ],
)
def test_what_the_code_may_do_without(source):
    (one,) = scanned(source).reads
    assert (one.path, one.optional) == ("a/b.json", True)


def test_what_is_one_of_several_need_not_be_there():
    scan = scanned("T = {'x': 'a'}\ndef f(k):\n    import_module(T[k])\nimport_module('b')")
    assert [(one.name, one.guard) for one in scan.dynamic] == [("a", "optional"), ("b", "")]


@pytest.mark.parametrize(
    "value", ["'x' + {0}", "f'{{{0}}}{{{0}}}{{{0}}}'", "T[{0}] if {0} else {0}", "'/'.join([{0}, {0}])"]
)  # fmt: skip
def test_an_expression_that_grows_takes_no_time(value):
    lines = ["T = {'a': 'b'}", "A0 = 'a'"]
    lines += [f"A{n} = {value.format(f'A{n - 1}')}" for n in range(1, 400)]
    source = "\n".join([*lines, "import_module(A399)", "open(Path(__file__).parent / A399)"])
    start = time.process_time()
    scanned(source)
    assert time.process_time() - start < 5


def test_names_that_stand_for_each_other_stand_for_nothing():
    scan = scanned("A = B\nB = A\nC = [*C]\nimport_module(A)\nopen(B)\nsubprocess.run(C)  # python")
    assert [one.kind for one in scan.dynamic] == ["unknown"]


def test_the_program_says_what_the_function_does(tmp_path):
    sources = {"ok.py": "import a\nimport_module(x)\nopen('a.json')\n", "bad.py": "import (\n"}
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    top = Path(__file__).resolve().parents[3] / "src/python"
    code = f"import sys; sys.path.insert(0, {str(top)!r}); from flyte_pack.code.code_scan import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-ISc", code, *sources], cwd=tmp_path, capture_output=True, check=True
    )
    found = {path: CodeScan.from_json(raw) for path, raw in json.loads(done.stdout).items()}
    expected = scan_code(sources["ok.py"].encode(), "ok.py")
    assert found["ok.py"] == replace(expected, bound=Bound(frozenset({"a"})))
    assert found["bad.py"].problem


def test_the_standard_library_is_that_of_the_running_python():
    if sys.version_info >= (3, 10):
        minor = sys.version_info[1]
        lacking = [n for n in sys.stdlib_module_names if not in_standard_library(n, minor)]
        assert lacking == []


def test_what_leaves_and_joins_the_standard_library():
    assert in_standard_library("tomllib", 11)
    assert not in_standard_library("tomllib", 10)
    assert in_standard_library("distutils", 11)
    assert not in_standard_library("distutils", 12)
    assert not in_standard_library("numpy", 12)
