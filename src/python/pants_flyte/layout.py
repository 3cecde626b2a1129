"""Where each file goes in a bundle, and whether imports still work there. Pure functions."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from pants.build_graph.address import Address
from pants.engine.target import Target

from flyte_pack.code.module_scan import Import, ModuleScan
from flyte_pack.errors import listing
from pants_flyte.build_types import SourceFile
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import composed
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.target_types import FlyteRootDirField


def check_root_dir(address: Address, value: Optional[str]) -> Optional[str]:
    """A `root_dir` as a user wrote it, normalised ("" is the build root), or None where unset."""
    if value is None:
        return None
    root = os.path.normpath(value.strip() or ".")
    if os.path.isabs(root) or root.split(os.sep)[0] == os.pardir:
        raise FlyteTargetError(
            address,
            f"`root_dir` is {value!r}, which is not below the build root. Give a directory "
            "relative to the build root, such as `src`, or `.` for the build root itself.",
        )
    return root_path(root)


def root_dir_of(
    target: Target, flyte: FlyteSubsystem, override: Optional[str] = None
) -> Optional[str]:
    """The override, else the field, else the option. "" is the build root."""
    for value in (override, target[FlyteRootDirField].value, flyte.root_dir):
        if value is not None:
            return check_root_dir(target.address, value)
    return None


def root_path(root: str) -> str:
    """A root as the start of paths: the build root, which Pants calls ".", is ""."""
    return "" if root == "." else root


def place(file: SourceFile, root_dir: Optional[str]) -> Optional[str]:
    """The file's path in the bundle; None where it lies outside `root_dir`.

    Modules, and the directories of what moves with them, are spelled as import statements look for
    them: composed. In the repository, the names may be as macOS decomposes them.
    """
    if root_dir is None:
        path = file.stripped
    elif root_dir == "":
        path = file.path
    elif file.path.startswith(f"{root_dir}/"):
        path = file.path[len(root_dir) + 1 :]
    else:
        return None
    if path.isascii() or file.source_root is None:
        return path
    directory, name = os.path.split(path)
    return os.path.join(composed(directory), composed(name) if file.python else name)


def place_all(
    address: Address, files: Sequence[SourceFile], root_dir: Optional[str], what: str = "the bundle"
) -> Dict[str, SourceFile]:
    """All files by their path in the bundle, or below an image's working directory.

    what: names the place in errors, which are about files outside `root_dir`, and about different
    sources on one path.
    """
    placed: Dict[str, SourceFile] = {}
    outside: List[SourceFile] = []
    clashes: List[Tuple[str, SourceFile, SourceFile]] = []
    for file in files:
        path = place(file, root_dir)
        if path is None:
            outside.append(file)
            continue
        other = placed.setdefault(path, file)
        # One file that two targets own is one source; two sources that happen to be equal are not.
        if other is not file and (other.path != file.path or other.generated or file.generated):
            clashes.append((path, other, file))
    if outside:
        lines = listing(f"{f.path} ({f.owner or 'no owner'})" for f in outside)
        raise FlyteTargetError(
            address,
            f"`root_dir` is {root_dir!r}, but {what} needs files outside it:\n{lines}\n"
            "Set `root_dir` to a directory above them all (`.` is the build root), or leave it "
            "unset, so that each source root is stripped.",
        )
    clashes += [  # one file lies where another needs a directory
        (parent, placed[parent], file)
        for path, file in placed.items()
        for parent in directories_above(path)
        if parent in placed
    ]
    if clashes:
        lines = listing(
            f"{path}: {a.path} ({a.owner or 'no owner'}) and {b.path} ({b.owner or 'no owner'})"
            for path, a, b in clashes
        )
        raise FlyteTargetError(
            address,
            f"different files would land on one path of {what}:\n{lines}\n"
            "Rename or move one of them, take one target out of the dependencies (`!address`), or "
            "set `root_dir` so that their source roots stay apart.",
        )
    check_shadows(address, placed, what)
    return placed


def directories_above(path: str) -> Iterator[str]:
    """Innermost first, without the top."""
    while path := os.path.dirname(path):
        yield path


def case_collisions(paths: Iterable[str]) -> List[Tuple[str, ...]]:
    """Groups of paths that are one path to a file system that ignores case."""
    groups: Dict[str, List[str]] = defaultdict(list)
    for path in paths:
        groups[path.casefold()].append(path)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


def files_beside_modules(placed: Mapping[str, SourceFile]) -> List[Tuple[str, str]]:
    """(`files` path in the bundle, module path in the bundle) that were siblings and no longer are.

    A `files` target keeps its path while the module beside it loses its source root, so the module
    does not find the file next to itself.
    """
    module_dirs: Dict[str, str] = {}
    for path, file in placed.items():
        if file.python:
            module_dirs.setdefault(os.path.dirname(file.path), path)
    apart = []
    for path, file in placed.items():
        if file.source_root is None and not file.python:
            module = module_dirs.get(os.path.dirname(file.path))
            if module is not None and os.path.dirname(module) != os.path.dirname(path):
                apart.append((path, module))
    return apart


# --- names that Flyte needs -----------------------------------------------------------------------

# What Flyte's runtime imports of the standard library, in part only when a task runs. Modules that
# Python has in itself or loads before it looks at any path, such as `sys` and `os`, are not among
# them: nothing shadows these.
_RUNTIME_NEEDS = frozenset(
    re.findall(
        r"\w+",
        """
    array ast asyncio base64 binascii bisect bz2 calendar collections colorsys concurrent
    configparser contextlib contextvars copy copyreg csv ctypes dataclasses datetime decimal dis
    email enum fcntl fnmatch fractions functools getpass gettext glob grp gzip hashlib heapq
    hmac html http importlib inspect ipaddress json keyword linecache locale logging lzma math
    mimetypes mmap multiprocessing numbers opcode operator pathlib pickle pkgutil platform queue
    quopri random re reprlib resource secrets select selectors shlex shutil signal smtplib
    socket sqlite3 ssl string struct subprocess sysconfig tarfile tempfile termios textwrap
    threading token tokenize traceback types typing unicodedata urllib uuid warnings weakref
    webbrowser zipfile zlib zoneinfo
    """,
    )
)
_FLYTE = "flyte"
# A module, or a package that is more than a directory: that alone comes before a later one.
_TOP_MODULE = re.compile(r"([^./]+)(?:/__init__)?(?:\.[\w-]+)?\.(?:py|pyc|so)")


def check_shadows(address: Address, placed: Mapping[str, SourceFile], what: str) -> None:
    """Refuse modules at the top that Python would find instead of Flyte, or of what Flyte needs."""
    shadows: List[str] = []
    for path, file in placed.items():
        found = _TOP_MODULE.fullmatch(path)
        if found and found[1] in _RUNTIME_NEEDS:
            shadows.append(f"{file.path} is `{found[1]}`, a module of the standard library")
        elif found and found[1] == _FLYTE:
            shadows.append(f"{file.path} is `{_FLYTE}`, Flyte's own package")
        elif path.startswith(f"{_FLYTE}/") and file.python and not file.beside:
            shadows.append(f"{file.path} is in `{_FLYTE}`, Flyte's own package, which hides it")
    if shadows:
        raise FlyteTargetError(
            address,
            f"the top of {what} comes first where Python looks for modules, and Flyte's runtime "
            f"would not find its own:\n{listing(sorted(shadows))}\nRename it, or move it into a "
            "package. If imports start further up in the repository, set `root_dir` to where they "
            'start. What is there only for `copy_style="all"` can be left out, by a '
            "`.flyteignore` or `[flyte].all_excludes`.",
        )


# --- imports -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BrokenImport:
    """An import statement that does not find its module, which the bundle has at `module_path`."""

    importer: str
    line: int
    statement: str
    module_path: str


def module_name(path: str) -> str:
    """`a/b.py` -> `a.b`; `a/__init__.py` -> `a`."""
    name = os.path.splitext(path)[0].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def moves_modules(files: Iterable[SourceFile], root_dir: Optional[str]) -> bool:
    """Whether any module has another path in the bundle than the one that importers know."""
    return any(file.python and place(file, root_dir) != file.stripped for file in files)


def broken_imports(
    modules: Sequence[SourceFile], scans: Mapping[str, ModuleScan], root_dir: Optional[str]
) -> List[BrokenImport]:
    """The imports of one another that break in the bundle, where all these modules have a place.

    scans: what each imports, by its path from the build root.
    """
    known: Dict[str, List[SourceFile]] = defaultdict(list)
    for module in modules:
        known[module_name(module.stripped)].append(module)
    broken = set()
    for importer in modules:
        for found in scans[importer.path].imports:
            before = _imported_names(found, importer.stripped)
            after = _imported_names(found, str(place(importer, root_dir))) or (None, None)
            for name, new_name in reversed(tuple(zip(before, after))):
                paths = [str(place(module, root_dir)) for module in known.get(name, ())]
                if paths and new_name not in [module_name(path) for path in paths]:
                    broken.add(BrokenImport(importer.path, found.line, _statement(found), paths[0]))
                    break
    return sorted(broken, key=lambda b: (b.importer, b.line, b.statement))


def _statement(found: Import) -> str:
    if found.name is None:
        return f"import {found.module}"
    return f"from {'.' * found.level}{found.module} import {found.name}"


def _imported_names(found: Import, importer: str) -> Tuple[str, ...]:
    """The modules that an import may mean: `m`, and `m.n` of `from m import n`.

    importer: the path of the module that has it. Nothing for a relative import that leaves the
    top-level package.
    """
    base: List[str] = []
    if found.level:
        package = importer.split("/")[:-1]
        if len(package) < found.level:
            return ()
        base = package[: len(package) - found.level + 1]
    base += [found.module] if found.module else []
    return (".".join(base), *([".".join([*base, found.name])] if found.name else []))


def broken_imports_error(
    address: Address, root_dir: str, broken: Sequence[BrokenImport], source_roots: Iterable[str]
) -> FlyteTargetError:
    """The error for imports that a `root_dir` breaks, with the root that would do."""
    roots = sorted({root or "." for root in source_roots})
    fix = (
        f"Set `root_dir={roots[0]!r}`, the source root that they start from, or leave it unset."
        if len(roots) == 1
        else "Leave `root_dir` unset: the modules come from several source roots "
        f"({', '.join(roots)}), and each of them is then stripped."
    )
    lines = listing(
        f"{b.importer}:{b.line}: `{b.statement}`, but the module is at {b.module_path} in the "
        "bundle"
        for b in broken
    )
    return FlyteTargetError(
        address, f"`root_dir={root_dir or '.'!r}` breaks these imports:\n{lines}\n{fix}"
    )
