"""Compiles modules to bytecode that depends on the source and the version of CPython alone.

Run by an interpreter of the image's version, with the standard library alone. `compileall` does not
serve: `marshal` writes an object once and refers to it wherever it is the very same one, and marks
whether anything else refers to it. Both depend on what the process has compiled before.
"""

from __future__ import annotations

import importlib.util
import marshal
import multiprocessing
import os
import sys
from types import CodeType
from typing import Any

_CHECKED_NEVER = (1).to_bytes(4, "little")  # PEP 552: a hash of the source, which is not looked at
_ATTRIBUTES = (
    *("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_filename", "co_name"),
    *(("co_qualname", "co_exceptiontable") if sys.version_info >= (3, 11) else ()),
    "co_linetable" if sys.version_info >= (3, 10) else "co_lnotab",
)


def main(site: str, place: str) -> None:
    """Compile the modules below `site`, except tests. They will lie below `place`."""
    sources = []
    for directory, names, files in os.walk(site):
        names[:] = [name for name in names if name not in ("test", "tests", "__pycache__")]
        sources += [os.path.join(directory, file) for file in files if file.endswith(".py")]
    work = [(source, place + source[len(site) :]) for source in sources]
    context = multiprocessing.get_context("fork")
    with context.Pool(min(len(work) // 50 + 1, os.cpu_count() or 1)) as pool:
        for _ in pool.imap_unordered(_compile, work, chunksize=20):
            pass


def _compile(work: tuple[str, str]) -> None:
    source, path = work
    with open(source, "rb") as file:
        content = file.read()
    try:
        code = compile(content, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # A template, or code for another version: an import of it says so.
    compiled = importlib.util.cache_from_source(source, optimization="")
    os.makedirs(os.path.dirname(compiled), exist_ok=True)
    # Not into a file that is there: it may be a link to the installer's cache.
    temporary = f"{compiled}.{os.getpid()}"
    with open(temporary, "wb") as output:
        output.write(importlib.util.MAGIC_NUMBER + _CHECKED_NEVER)
        output.write(importlib.util.source_hash(content) + stable_marshal(code))
    os.replace(temporary, compiled)


def stable_marshal(code: CodeType) -> bytes:
    """`code` marshalled so that equal objects are one, and each has another reference."""
    known: dict[Any, Any] = {}
    same = _same(code, known)
    return marshal.dumps(same)


def _same(value: Any, known: dict[Any, Any]) -> Any:
    """The object in `known` that stands for `value`.

    Objects in it are never freed, so their ids identify them.
    """
    kind: Any = type(value)
    if kind is CodeType:
        changes = {name: _same(getattr(value, name), known) for name in _ATTRIBUTES}
        return value.replace(**changes)
    key: Any = value
    if kind in (float, complex):
        key = repr(value)  # -0.0 equals 0.0, and nan not even itself
    elif kind is tuple:
        value = tuple(_same(item, known) for item in value)
        key = tuple(map(id, value))
    elif kind is frozenset:
        value = frozenset(
            sorted((_same(item, known) for item in value), key=lambda x: (str(type(x)), repr(x)))
        )
        key = frozenset(map(id, value))
    elif kind is slice:  # as a constant, from Python 3.14 on
        value = slice(*(_same(item, known) for item in (value.start, value.stop, value.step)))
        key = tuple(map(id, (value.start, value.stop, value.step)))
    elif kind is str:
        # It shows in the bytes whether a string is interned, so all of them are.
        value = sys.intern(value)
    return known.setdefault((kind, key), value)


if __name__ == "__main__":
    main(*sys.argv[1:])
