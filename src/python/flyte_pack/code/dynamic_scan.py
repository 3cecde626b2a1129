"""Finds on a module's syntax tree what it imports or starts by name, where no statement says so.

`importlib.import_module`, tables of a module's `__getattr__`, lazy loaders, modules found by
`pkgutil`, programs started by `python -m`. Nothing is imported or run. Standard library alone, as
`flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import ast
import re
import shlex
from typing import Iterator, Mapping, NamedTuple, Sequence

from flyte_pack.code.paths import CWD, PACKAGE, Paths, Place
from flyte_pack.code.values import OWN_PACKAGE, absolute, dotted, last_name

_BY_NAME = (
    *(b"import_module", b"__import__(", b"find_spec", b"run_module", b"run_path", b"iter_modules"),
    *(b"walk_packages", b"attach(__name__", b"attach_stub(__name__", b"Lazy", b'*.py"', b"*.py'"),
    *(b"uvicorn", b"hypercorn", b"granian", b"entry_points", b"ExtensionManager", b"DriverManager"),
    *(b"resolve_name", b"pydoc", b"import_string", b"lazy_loader", b"spec_from_file_location"),
    *(b"FileLoader(",),
)
_STARTING = (b"subprocess", b"Popen", b"os.exec", b"os.spawn", b"os.system", b"os.posix_spawn")
_TABLE = b"\ndef __getattr__("
# Of the submodules that a star import brings, `__all__` may be all that names them.
_OFFERS = re.compile(rb"^__all__\b", re.MULTILINE)
# Functions that start a program.
STARTS = frozenset(
    """
    run Popen call check_call check_output create_subprocess_exec create_subprocess_shell getoutput
    getstatusoutput system popen execl execle execlp execlpe execv execve execvp execvpe spawnl
    spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp
    """.split()  # noqa: SIM905
)
_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?(?:\.exe)?")
_RUNS_MODULE = re.compile(r"-[bBdEiIOPqsSuvx]*m(.*)")  # `-m a.b`, `-um a.b`, `-ma.b`
_WITH_APP = ("celery", "flask")
_OPTIONS_WITH_VALUE = ("-W", "-X")
_SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "waitress-serve")
_LAUNCHERS = (
    "torchrun",
    "accelerate",
    "deepspeed",
    "streamlit",
    "horovodrun",
    "mpirun",
    "spark-submit",
)
# `python -m` of these starts another module.
_MODULES_THAT_LAUNCH = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate.commands.launch": "accelerate",
    "mpi4py": "mpirun",
    "cProfile": "python",
    "coverage": "python",
    "debugpy": "python",
}
_PROGRAMS = tuple(
    word.encode() for word in ("python", "executable", *_SERVERS, *_LAUNCHERS, *_WITH_APP)
)

_IMPORTING = ("import_module", "__import__")
# What loads a file, and which of its arguments that is.
_LOADING = {"run_path": 0, "spec_from_file_location": 1, "SourceFileLoader": 1}
_STEVEDORE = (
    *("ExtensionManager", "NamedExtensionManager", "EnabledExtensionManager", "DriverManager"),
    *("HookManager", "DispatchExtensionManager", "NameDispatchExtensionManager"),
)

MODULE, MAYBE, SUBMODULES, SCRIPT, UNKNOWN = "module", "maybe", "submodules", "script", "unknown"
GROUP = "group"


class Dynamic(NamedTuple):
    """What a module asks for by name.

    kind: `MODULE`: this name. `MAYBE`: a string that could be one, from its own package or from the
    top. `SUBMODULES`: all below this package ("": its own). `SCRIPT`: a file, by path. `GROUP`: all
    entry points of this group. `UNKNOWN`: a name that the source does not say. said: as the
    source has it. guard: as of `Imported`.
    """

    kind: str
    name: str
    line: int
    said: str
    guard: str = ""


def may_be_dynamic(source: bytes) -> bool:
    """Whether it is worth a look. Fast, with false positives."""
    return (
        any(word in source for word in _BY_NAME)
        or source.startswith(_TABLE[1:])
        or _TABLE in source
        or (any(word in source for word in _PROGRAMS) and any(word in source for word in _STARTING))
    )


def offers(source: bytes) -> bool:
    """Whether a package says what a star import brings."""
    return _OFFERS.search(source) is not None


def dynamic_in(tree: ast.Module, nodes: Sequence[ast.AST], values: Paths) -> Iterator[Dynamic]:
    """nodes: all of the tree."""
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from _called(node, values)
        elif isinstance(node, ast.Subscript) and _are_entry_points(node.value, values):
            yield from _group(node.slice, node.lineno, "entry_points", values)
    yield from _lazy(tree, nodes)
    if values.is_package:
        yield from _offered(tree)


def _called(call: ast.Call, values: Paths) -> Iterator[Dynamic]:
    name = last_name(call.func)
    if isinstance(call.func, ast.Name):
        name = values.modules.get(name) or dotted(values.only(call.func) or call.func)
        name = name.rpartition(".")[2]
    if name in ("import_module", "__import__", "find_spec", "run_module"):
        if name in ("find_spec", "run_module") and _is_method(call):
            return
        yield from _by_name(call, name, values)
    elif name == "map" and len(call.args) == 2 and last_name(call.args[0]) in _IMPORTING:
        for element in values.elements(call.args[1]):
            each = ast.copy_location(ast.Call(call.args[0], [element], []), call)
            yield from _by_name(each, last_name(call.args[0]), values)
    elif name in ("resolve_name", "import_string") or values.called(call.func) == "pydoc.locate":
        yield from _object(call, name, values)
    elif values.called(call.func) == "lazy_loader.load":
        yield from _by_name(call, "load", values)
    elif name in _LOADING and len(call.args) > _LOADING[name]:
        for place in values.places(call.args[_LOADING[name]]):
            if place.start == CWD and place.path.endswith(".py"):
                yield Dynamic(SCRIPT, place.path, call.lineno, f'{name}("{place.path}")')
    elif name in ("iter_modules", "walk_packages"):
        yield from _walked(call, name, values)
    elif name == "glob" and call.args:
        yield from _globbed(call, values)
    elif name in ("attach", "attach_stub") and call.args and _is_own(call.args[0]):
        for argument in (*call.args[1:], *(keyword.value for keyword in call.keywords)):
            for text in _strings(argument, keys=True, depth=1):
                yield Dynamic(MAYBE, f".{text}", call.lineno, f"{name}(...)")
    elif name in STARTS:
        yield from _started(call, values)
    elif name in ("entry_points", "iter_entry_points", "select", "get") or name in _STEVEDORE:
        yield from _entry_points(call, name, values)


def _object(call: ast.Call, how: str, values: Paths) -> Iterator[Dynamic]:
    """Of `resolve_name("a.b:f")`; `a.b.f` may be a module, or something in one."""
    for text in values.texts(call.args[0]) if call.args else ():
        module, colon, _ = text.partition(":")
        if _is_dotted(module) and "." in text:
            said = f'{how}("{text}")'
            yield Dynamic(MODULE if colon else MAYBE, module, call.lineno, said)


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "__name__"


def _is_method(call: ast.Call) -> bool:
    """Whether it is `loader.find_spec(...)` of some object: not of a module that has it."""
    if not isinstance(call.func, ast.Attribute):
        return False
    return dotted(call.func.value) not in ("importlib.util", "util", "runpy", "importlib_util")


def _by_name(call: ast.Call, how: str, values: Paths) -> Iterator[Dynamic]:
    arguments = list(call.args)
    first = arguments[0] if arguments else None
    package = arguments[1] if len(arguments) > 1 else None
    for keyword in call.keywords:
        if keyword.arg in ("name", "mod_name"):
            first = keyword.value
        elif keyword.arg == "package":
            package = keyword.value
    texts = values.texts(first)
    guard = "optional" if how == "find_spec" or values.loose else ""
    if not texts and first is not None and how != "find_spec":
        yield Dynamic(UNKNOWN, "", call.lineno, f"{how}({_unparsed(first)})")
    for text in texts:
        said = f'{how}("{text}")'
        if first is not None and text.startswith(OWN_PACKAGE):
            said = f"{how}({_unparsed(first)})"
        yield from _named(text, package, call, said, guard, values)


def _named(
    text: str, package: ast.expr | None, call: ast.Call, said: str, guard: str, values: Paths
) -> Iterator[Dynamic]:
    name = text
    if text.startswith(OWN_PACKAGE):
        name = f".{text[1:].lstrip('.')}"
    elif text.startswith(".") and said.startswith(("import_module", "find_spec")):
        base = values.text(package)
        if base is None:
            # From `__name__` of a plain module it leads nowhere, but may be meant for a package.
            if package is not None and _is_own(package):
                yield Dynamic(MAYBE, text, call.lineno, said)
            else:
                yield Dynamic(UNKNOWN, "", call.lineno, said)
            return
        if base != OWN_PACKAGE:
            is_relative = base.startswith(OWN_PACKAGE)
            inner = base[1:].strip(".") if is_relative else base
            name = absolute(text, inner)
            name = f".{name}" if is_relative else name
    if re.fullmatch(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        yield Dynamic(MODULE, name, call.lineno, said, guard)


def _unparsed(node: ast.expr) -> str:
    """As the source has it, but short."""
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError):
        return "..."
    return text if len(text) <= 40 and "\n" not in text else "..."


def _walked(call: ast.Call, how: str, values: Paths) -> Iterator[Dynamic]:
    """`iter_modules(plugins.__path__)`, or a list of directories."""
    path = call.args[0] if call.args else None
    for keyword in call.keywords:
        if keyword.arg == "path":
            path = keyword.value
    if path is None:
        return
    found = False
    for one in [path] if not values.elements(path) else values.elements(path):
        base = _package_with_path(one, values)
        names = [] if base is None else [base]
        if base is None:
            names = [name for name in map(_package_at, values.places(one)) if name is not None]
        for name in names:
            found = True
            yield Dynamic(SUBMODULES, name, call.lineno, f"{how}({_unparsed(path)})")
    if not found:
        yield Dynamic(UNKNOWN, "", call.lineno, f"{how}({_unparsed(path)})")


def _package_with_path(node: ast.expr, values: Paths) -> str | None:
    """The package of `package.__path__`; "" for the module's own."""
    if isinstance(node, ast.Name) and node.id == "__path__":
        return ""
    if not isinstance(node, ast.Attribute) or node.attr != "__path__":
        return None
    first, _, rest = dotted(node.value).partition(".")
    base = values.modules.get(first)
    if base is None:
        imported = values.only(node.value)
        if isinstance(imported, ast.Call) and last_name(imported.func) == "import_module":
            return values.text(imported.args[0]) if imported.args else None
        return None
    return f"{base}.{rest}" if rest else base


def _package_at(place: Place) -> str | None:
    """What a directory beside the module is called from there, with leading dots."""
    if place.start == PACKAGE:
        return f"{place.package}.{place.path.replace('/', '.')}".strip(".")
    if place.start == CWD:
        return None
    parts = place.normal.path.split("/")
    up = sum(part == ".." for part in parts)
    inner = [part for part in parts if part not in ("..", ".")]
    if not up and not inner:
        return ""
    return "." * (up + 1) + ".".join(inner)


def _globbed(call: ast.Call, values: Paths) -> Iterator[Dynamic]:
    """`Path(__file__).parent.glob("*.py")`."""
    pattern = values.text(call.args[0])
    if pattern is not None and pattern.endswith("*.py") and isinstance(call.func, ast.Attribute):
        for place in values.places(call.func.value):
            name = _package_at(place)
            if name is not None:
                yield Dynamic(SUBMODULES, name, call.lineno, f'glob("{pattern}")')
        return
    for place in values.places(call.args[0]):
        directory, _, last = place.path.rpartition("/")
        name = _package_at(place._replace(path=directory)) if last == "*.py" else None
        if name is not None:
            yield Dynamic(SUBMODULES, name, call.lineno, "glob(...)")


# --- entry points ---------------------------------------------------------------------------------


def _entry_points(call: ast.Call, how: str, values: Paths) -> Iterator[Dynamic]:
    """`entry_points(group="x")`, also of the result of `entry_points()`; `stevedore`."""
    if how in ("select", "get") and not (
        isinstance(call.func, ast.Attribute) and _are_entry_points(call.func.value, values)
    ):
        return
    group = None
    if how not in ("entry_points", "select") and call.args:
        group = call.args[0]
    for keyword in call.keywords:
        if keyword.arg in ("group", "namespace"):
            group = keyword.value
    if group is not None:
        yield from _group(group, call.lineno, how, values)


def _are_entry_points(node: ast.expr, values: Paths) -> bool:
    found = values.only(node)
    if not isinstance(found, ast.Call):
        return False
    return values.called(found.func).rpartition(".")[2] == "entry_points"


def _group(node: ast.expr, line: int, how: str, values: Paths) -> Iterator[Dynamic]:
    groups = [group for group in values.texts(node) if not group.startswith(OWN_PACKAGE)]
    for group in groups:
        yield Dynamic(GROUP, group, line, f'{how}("{group}")')
    if not groups:
        yield Dynamic(UNKNOWN, "", line, f"{how}({_unparsed(node)})")


# --- programs -------------------------------------------------------------------------------------


def _started(call: ast.Call, values: Paths) -> Iterator[Dynamic]:
    words: list[str | None] = []
    for argument in (*call.args, *(k.value for k in call.keywords if k.arg in ("args", "argv"))):
        several = values.elements(argument)
        if several:
            words += [_word(element, values) for element in several]
        else:
            words += _line(argument, values)
    if words and _served(call.func, values):
        words.insert(0, _SERVERS[0])
    yield from _program(words, call.lineno)


def _served(func: ast.expr, values: Paths) -> bool:
    return values.called(func) in ("uvicorn.run", "hypercorn.run", "granian.run")


def _line(argument: ast.expr, values: Paths) -> list[str | None]:
    """The words of a command line, or the one word that it is."""
    argument = values.only(argument) or argument
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    text = ""
    for part in parts:
        inner = part.value if isinstance(part, ast.FormattedValue) else part
        word = _word(inner, values)
        text += "$" if word is None and len(parts) > 1 else word or ""
    if " " not in text:
        return [text or None]
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    return [None if "$" in word else word for word in words]


def _word(node: ast.expr, values: Paths) -> str | None:
    if dotted(node) in ("sys.executable", "executable"):
        return "python"
    if isinstance(node, ast.Call) and last_name(node.func) == "str" and node.args:
        node = node.args[0]
    text = values.text(node)
    if text is None:
        stands_for = values.only(node)
        if stands_for is not None and dotted(stands_for) == "sys.executable":
            return "python"
    return text


def _program(words: list[str | None], line: int) -> Iterator[Dynamic]:
    """The module or script of the first `python` among the words of a command, or the like."""
    for at, word in enumerate(words):
        if word is None:
            continue
        name = word.rpartition("/")[2]
        rest = words[at + 1 :]
        if name in _SERVERS:
            yield from _app(name, rest, line)
            return
        if name in _LAUNCHERS:
            yield from _launched(name, rest, line)
            return
        if name in _WITH_APP:
            yield from _with_app(name, rest, line)
            return
        if _PYTHON.fullmatch(word):
            yield from _python(rest, line)
            return


def _python(words: Sequence[str | None], line: int) -> Iterator[Dynamic]:
    rest = iter(words)
    for option in rest:
        if option in _OPTIONS_WITH_VALUE:
            next(rest, None)
        elif option is not None and (short := _RUNS_MODULE.fullmatch(option)):
            module = short[1] or next(rest, None)
            after = [*rest]
            if module in (*_SERVERS, *_LAUNCHERS) or module in _MODULES_THAT_LAUNCH:
                yield from _program([_MODULES_THAT_LAUNCH.get(module, module), *after], line)
            elif module and _is_dotted(module):
                yield Dynamic(MODULE, module, line, f"python -m {module}")
            elif module is None:
                yield Dynamic(UNKNOWN, "", line, "python -m ...")
            return
        elif option == "-c":
            yield from _imported(next(rest, None), line)
            return
        elif option is not None and option.startswith("-"):
            continue
        elif option is not None and option.endswith(".py"):
            yield Dynamic(SCRIPT, option, line, f"python {option}")
            return
        elif option is not None and _PYTHON.fullmatch(option):
            continue  # `os.execv(sys.executable, [sys.executable, ...])`
        else:
            return


def _imported(text: str | None, line: int) -> Iterator[Dynamic]:
    """By the program that is the text after `-c`."""
    try:
        nodes = list(ast.walk(ast.parse(text or "")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            yield Dynamic(MODULE, name, line, f"python -c: import {name}")


def _with_app(name: str, words: Sequence[str | None], line: int) -> Iterator[Dynamic]:
    """Of `celery -A a.b` and `flask --app a.b`; both also take `a.b:app`."""
    for at, word in enumerate(words):
        option, equals, value = (word or "").partition("=")
        if option in ("-A", "--app"):
            app = value if equals else (*words[at + 1 : at + 2], None)[0]
            module = (app or "").partition(":")[0]
            if _is_dotted(module):
                yield Dynamic(MAYBE, module, line, f"{name} {option} {app}")
            return


def _launched(name: str, words: Sequence[str | None], line: int) -> Iterator[Dynamic]:
    """Of `torchrun`, `accelerate launch` and the like: options that nobody knows, then a script."""
    rest = iter(words)
    for word in rest:
        if word in ("-m", "--module"):
            module = next(rest, None)
            if module and _is_dotted(module):
                yield Dynamic(MODULE, module, line, f"python -m {module}")
            return
        if word is not None and word.endswith(".py") and not word.startswith("-"):
            yield Dynamic(SCRIPT, word, line, f"{name} {word}")
            return


def _app(name: str, words: Sequence[str | None], line: int) -> Iterator[Dynamic]:
    """Of `gunicorn`, `uvicorn` and the like: `pkg.mod:app`."""
    for word in words:
        found = re.fullmatch(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):[^\W\d][\w.]*(?:\(.*\))?", word or "")
        if found:
            yield Dynamic(MODULE, found[1], line, f"{name} {word}")
            return


def _is_dotted(name: str) -> bool:
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


# --- lazy loading ---------------------------------------------------------------------------------


def _lazy(tree: ast.Module, nodes: Sequence[ast.AST]) -> Iterator[Dynamic]:
    """The strings of the tables that `__getattr__` or a lazy module reads."""
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    tables: set[str] = set()
    how = "__getattr__"
    if "__getattr__" in defined:
        tables |= _read_by(defined["__getattr__"], defined)
        for text, line in _imported_inside(defined["__getattr__"]):
            yield Dynamic(MAYBE, text, line, how)
    for node in nodes:
        if isinstance(node, ast.Call) and "Lazy" in last_name(node.func):
            tables |= {last_name(argument) for argument in node.args}
            for argument in node.args:
                if isinstance(argument, ast.Dict):
                    for text in _strings(argument, keys=True):
                        yield Dynamic(MAYBE, text, node.lineno, last_name(node.func))
    for node in nodes if tables else ():
        value, line, keys = None, 0, True
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = [t.value if isinstance(t, ast.Subscript) else t for t in targets]
            if any(last_name(target) in tables for target in named):
                value, line = node.value, node.lineno
                for target in targets:
                    if isinstance(target, ast.Subscript):
                        for part in ast.walk(target):
                            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                                yield Dynamic(MAYBE, part.value, line, how)
        if value is not None:
            for text in _strings(value, keys):
                yield Dynamic(MAYBE, text, line, how)


def _offered(tree: ast.Module) -> Iterator[Dynamic]:
    """What `from package import *` imports, where it is a module."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and any(last_name(one) == "__all__" for one in targets):
                for text in _strings(node.value, keys=False):
                    if "." not in text:
                        yield Dynamic(MAYBE, f".{text}", node.lineno, "__all__")


def _read_by(function: ast.FunctionDef, others: Mapping[str, ast.FunctionDef]) -> set[str]:
    """The names that it uses, and those of the functions here that it calls."""
    used: set[str] = set()
    waiting, seen = [function], {function.name}
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name):
                used.add(node.id)
                if node.id in others and node.id not in seen:
                    seen.add(node.id)
                    waiting.append(others[node.id])
    return used - {"name", "importlib", "globals"}


def _imported_inside(function: ast.FunctionDef) -> Iterator[tuple[str, int]]:
    """`import_module(f".{name}", __name__)`, where `name` is one of some constants."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.Eq)):
            for text in _strings(node.comparators[0], keys=True):
                yield text, node.lineno


def _strings(node: ast.expr, keys: bool, depth: int = 9) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.fullmatch(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*(:\w+)?", node.value):
            yield node.value.partition(":")[0]
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        for element in node.elts:
            yield from _strings(element, keys, depth)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            if keys and key is not None:
                yield from _strings(key, keys, depth)
        if depth > 1:
            for value in node.values:
                yield from _strings(value, keys, depth)
    elif isinstance(node, ast.Call):
        for argument in node.args:
            yield from _strings(argument, keys, depth)
    elif isinstance(node, ast.BinOp):
        yield from _strings(node.left, keys, depth)
        yield from _strings(node.right, keys, depth)
