"""Finds on a module's syntax tree the data files that it opens by a constant path.

Beside itself (`Path(__file__).parent / "x.json"`, `importlib.resources`, `pkgutil.get_data`), or
from the working directory (`open("data/x.json")`). Nothing is imported or run. Standard library
alone, as `flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import ast
import posixpath
import re
from typing import Iterable, Iterator, NamedTuple, Sequence

from flyte_pack.code.dynamic_scan import STARTS
from flyte_pack.code.paths import CWD, HERE, Paths, Place
from flyte_pack.code.syntax import nodes_of
from flyte_pack.code.values import last_name

# Worth a look by itself.
_ALONE = re.compile(
    rb"__file__|resources\b|resource_[sf]|get_data\(|open_text\(|open_binary\(|config_path|PackageLoader|Flask\("
    rb"|attach_stub|include ?="
    # A directory may have any name.
    rb"|listdir\(|scandir\(|iterdir\(|glob\(|os\.walk\(|FileSystemLoader\("
)
_OPENING = re.compile(
    rb"open\(|read_|\.read\(|load|scan_|Path\(|imread|ZipFile|connect\(|fileConfig|from_local"
    rb"|subprocess|os\.system|listdir|glob\(|Loader\(|genfromtxt|fromfile|shutil"
)
# A text that may be a path: with an ending that is no attribute's, or a directory.
_FILE_NAME = re.compile(
    rb"""["'][\w./ *-]{0,200}\w\.(?:[A-Za-z]\w{0,9}|\*)["']|["'][\w. *-]{1,100}/[\w.*{]"""
)

# Functions that read a file, whatever they belong to; the path comes first.
_READERS = re.compile(
    r"open|(?:read|scan)_(?:csv|json|parquet|excel|table|feather|pickle|ndjson|ipc|avro|xml|html|"
    r"orc|sas|stata|hdf|fwf|file|delta|text|lines|yaml|toml|config)|load_workbook|loadtxt|"
    r"genfromtxt|fromfile|imread|fileConfig|from_local(?:_sync)?|load_dotenv"
)
# These as well, but they may as well be given something that is no path.
_MAY_READ = re.compile(
    r"load(?:s|_\w+)?|read|from_(?:file|path|pretrained|json|yaml|toml|csv|parquet)|ZipFile|"
    r"connect|copy(?:2|file|tree)?|InferenceSession"
)
_PATH_KEYWORDS = frozenset(
    """
    file path filename filepath filepath_or_buffer filenames fname io source src path_or_buf
    dotenv_path
    """.split()  # noqa: SIM905
)
_METHODS = frozenset(("open", "read_text", "read_bytes"))
_IN_PACKAGE = frozenset(
    """
    open_text open_binary read_text read_binary path get_data is_resource resource_string
    resource_stream resource_filename
    """.split()  # noqa: SIM905
)
# Calls that read nothing of what they are given, as far as anybody can tell by the name.
_NO_READERS = frozenset(
    """
    mkdir makedirs touch unlink rmdir rmtree chdir chmod rename replace print debug info error
    exception append insert extend add exists lexists is_file is_dir isfile isdir stat getsize
    getmtime splitext basename relative_to relpath commonpath startswith endswith format repr len
    isinstance hasattr getattr setattr set addsitedir strip lstrip rstrip split rsplit splitlines
    partition rpartition encode add_argument Argument Option Field field get setdefault
    TemporaryDirectory mkdtemp mkstemp abspath iter_modules walk_packages
    """.split()  # noqa: SIM905
)
_WRITING = ("write", "save", "dump", "log", "warn", "delete", "remove", "Error", "Exception")
_LONGEST = 500  # characters; what is longer is no path
_EXISTS = ("exists", "is_file", "isfile", "is_dir", "isdir")
_PLAIN_PATTERN = re.compile(r"[\w./*?-]+")


class Read(NamedTuple):
    """Files that a module reads.

    start: where `path` starts. `HERE`: the module's directory. `PACKAGE`: that of `package`. `CWD`:
    the working directory. optional: it goes on without the file. sure: it reads that, rather than
    hands the path to something. pattern: `path` is one, with `*` and `**`. included: it is what an
    environment of Flyte includes, so that it has to be there.
    """

    start: str
    path: str
    line: int
    package: str = ""
    optional: bool = False
    sure: bool = True
    pattern: bool = False
    included: bool = False


def may_read(source: bytes) -> bool:
    """Whether it is worth a look. Fast, with false positives."""
    if _ALONE.search(source) is not None:
        return True
    return _FILE_NAME.search(source) is not None and _OPENING.search(source) is not None


def reads_in(nodes: Sequence[ast.AST], values: Paths) -> Iterator[Read]:
    """nodes: all of a module."""
    found: dict[tuple[str, str, str, bool], Read] = {}
    for node in nodes:
        if isinstance(node, ast.Call):
            for read in _read_by(node, values):
                key = (read.start, read.path, read.package, read.pattern)
                if key not in found or (read.sure and not found[key].sure):
                    found[key] = read
    yield from found.values()


def named_in(source: bytes) -> tuple[Read, ...]:
    """What it opens, and all else beside itself of which it makes a path; that may be a directory.

    Nothing for a module that this Python cannot parse.
    """
    if not may_read(source):
        return ()
    try:
        nodes = nodes_of(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    values = Paths(nodes)
    found = {one._replace(sure=True): None for one in reads_in(nodes, values) if not one.pattern}
    for node in nodes:
        if isinstance(node, (ast.Call, ast.BinOp)):
            for place in values.places(node):
                if place.start != CWD:
                    found[Read(place.start, place.normal.path, node.lineno, place.package)] = None
    return tuple(found)


def lines_that_ask(nodes: Iterable[ast.AST]) -> Iterator[int]:
    """The lines that run only where something exists."""
    for node in nodes:
        if isinstance(node, ast.If) and _asks(node.test):
            for inner in node.body:
                yield from range(inner.lineno, (inner.end_lineno or inner.lineno) + 1)
        elif isinstance(node, ast.IfExp) and _asks(node.test):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _asks(test: ast.expr) -> bool:
    return any(
        isinstance(one, ast.Call) and last_name(one.func) in _EXISTS for one in ast.walk(test)
    )


def _read_by(call: ast.Call, values: Paths) -> Iterator[Read]:
    name = last_name(call.func)
    if not name:
        return
    method = call.func.value if isinstance(call.func, ast.Attribute) else None
    if method is not None and name in _METHODS:
        places = values.places(method)
        if places and not isinstance(method, ast.Constant):
            if _reads(call, method=True):
                yield from _files(places, call, values, not values.loose)
            return
    if name == "attach_stub":  # of `lazy_loader`, which reads the stub
        yield Read(HERE, f"{values.file_name}i", call.lineno)
        return
    if re.fullmatch(r"\w*Environment|clone_with", name):
        yield from _included(call, values)
    if name in _IN_PACKAGE and len(call.args) >= 2 and _of_resources(call.func, values):
        for package in values.packages(call.args[0]):
            for text in values.texts(call.args[1]):
                yield from _files([package.joined(text)], call, values)
        return
    patterns = list(_patterns(call, name, method, values))
    if patterns:
        for place, tail in patterns:
            yield from _matching(place, tail, call)
        return
    if name == "open" and not _reads(call):
        return
    certain, maybe = _READERS.fullmatch(name), _MAY_READ.fullmatch(name)
    if certain or maybe:
        for argument in _paths_given(call):
            places = values.places(argument)
            loose = values.loose
            if not certain:
                places = tuple(p for p in places if p.start != CWD or _looks_like_file(p.path))
            yield from _files(places, call, values, not loose)
    elif name in STARTS or not (
        name in _NO_READERS or name.startswith("to_") or any(word in name for word in _WRITING)
    ):
        yield from _handed(call, name in STARTS, values)


def _included(call: ast.Call, values: Paths) -> Iterator[Read]:
    for keyword in call.keywords:
        for one in values.elements(keyword.value) if keyword.arg == "include" else ():
            path = posixpath.normpath(values.text(one) or "/")
            is_pattern = "*" in path or "?" in path
            if not path.startswith("/") and (not is_pattern or _PLAIN_PATTERN.fullmatch(path)):
                yield Read(HERE, path, one.lineno, pattern=is_pattern, included=True)


def _paths_given(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args[:1]
    for keyword in call.keywords:
        if keyword.arg in _PATH_KEYWORDS:
            yield keyword.value


def _handed(call: ast.Call, starts: bool, values: Paths) -> Iterator[Read]:
    """Paths beside the module that a call is given, and what a program is."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    for argument in given:
        parts = [argument, *values.elements(argument)] if starts else [argument]
        if isinstance(argument, (ast.List, ast.Tuple)):
            parts = argument.elts
        for part in parts:
            for place in values.places(part):
                if place.start != CWD:
                    yield from _files([place], call, values, sure=False)
                elif starts:
                    for word in place.path.split()[:20]:
                        if _is_argument_file(word):
                            named = place._replace(path=word)
                            yield from _files([named], call, values, sure=False)


def _looks_like_file(path: str) -> bool:
    if len(path) > _LONGEST or re.fullmatch(r"[\w./ -]+", path) is None:
        return False
    ending = posixpath.splitext(path)[1]
    return "/" in path or re.fullmatch(r"\.[A-Za-z]\w{0,9}", ending) is not None


def _is_argument_file(word: str) -> bool:
    return "/" in word and _looks_like_file(word) and not word.endswith(".py")


def _files(
    places: Iterable[Place | None], call: ast.Call, values: Paths, sure: bool = True
) -> Iterator[Read]:
    for place in places:
        if place is None or "\n" in place.path or len(place.path) > _LONGEST:
            continue
        path = place.normal.path
        if place.start == HERE and path == values.file_name:
            continue
        if path not in (".", "..") and not path.endswith("/.."):
            yield Read(place.start, path, call.lineno, place.package, sure=sure)


def _patterns(
    call: ast.Call, name: str, method: ast.expr | None, values: Paths
) -> Iterator[tuple[Place, str]]:
    """Directories of which a call takes all files, or those that match."""
    first = call.args[0] if call.args else None
    if name in ("iterdir", "glob", "rglob") and method is not None:
        if name == "glob" and last_name(method) == "glob":
            for place in values.places(first):
                yield place, ""
            return
        tails = ("*",) if name == "iterdir" else values.texts(first)
        for place in values.places(method) if not isinstance(method, ast.Constant) else ():
            for tail in tails:
                yield place, f"**/{tail}" if name == "rglob" else tail
    elif name in ("listdir", "scandir", "walk", "FileSystemLoader", "iglob"):
        tail = {"walk": "**", "FileSystemLoader": "**", "iglob": ""}.get(name, "*")
        for place in values.places(first):
            yield place, tail
        for one in values.elements(first):
            for place in values.places(one):
                yield place, tail
    elif name == "PackageLoader" and first is not None:
        folder = call.args[1] if len(call.args) > 1 else None
        for keyword in call.keywords:
            folder = keyword.value if keyword.arg == "package_path" else folder
        for text in ("templates",) if folder is None else values.texts(folder):
            for place in values.packages(first):
                yield place, f"{text}/**"
    elif name == "Flask" and last_name(first) == "__name__":
        for text in ("templates", "static"):
            yield Place(HERE, ""), f"{text}/**"
    elif name in ("main", "initialize") and values.called(call.func).startswith("hydra"):
        for keyword in call.keywords:
            for text in values.texts(keyword.value) if keyword.arg == "config_path" else ():
                if "://" not in text:
                    yield Place(HERE, text), "**"


def _matching(place: Place, tail: str, call: ast.Call) -> Iterator[Read]:
    if tail.startswith("/"):
        return
    path = posixpath.normpath(posixpath.join(place.path, tail))
    first = next((part for part in path.split("/") if part != ".."), "")
    if not _PLAIN_PATTERN.fullmatch(path) or path.startswith("/") or "**." in path:
        return
    # All files of a repository, or of the code around the module, are meant by nobody.
    if (place.start == CWD or path.startswith("..")) and ("*" in first or not first):
        return
    if place.start == HERE and (path == "*" or first == "**"):
        return
    yield Read(place.start, path, call.lineno, place.package, pattern=True)


def _of_resources(func: ast.expr, values: Paths) -> bool:
    """Whether it is called as a function of `importlib.resources` or `pkgutil`, or by its name."""
    owner = values.called(func).rpartition(".")[0].rpartition(".")[2]
    if isinstance(func, ast.Name) and not owner:
        return func.id not in ("path", "is_resource")
    return owner in ("resources", "pkgutil", "importlib_resources", "pkg_resources")


def _reads(call: ast.Call, method: bool = False) -> bool:
    """Whether the mode, if any, is one for reading."""
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    at = 0 if method else 1
    if last_name(call.func) == "open" and len(call.args) > at:
        modes.append(call.args[at])
    for mode in modes:
        if not isinstance(mode, ast.Constant) or not isinstance(mode.value, str):
            return False
        if set(mode.value) & set("wax+"):
            return False
    return True
