"""Compiles modules to bytecode that depends on the source and the release of CPython alone.

Run by an interpreter of the image's version, with the standard library alone: `compiler` does it.
It reads one JSON document, {"checked": ..., "cache": ..., "modules": [[source, place], ...]}. A
module in the file `source`, which will lie at `place`, is compiled, unless the directory `cache`
has it from before. All bytecode goes to standard output, each after its size (8 bytes,
little-endian): writing thousands of files takes longer than all else where few are compiled anew.

`compileall` does not serve: `marshal` writes an object once and refers to it wherever it is the
very same one, and marks whether anything else refers to it. Both depend on what the process has
compiled before.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import marshal
import multiprocessing
import os
import sys
from types import CodeType
from typing import Any

# PEP 552: a hash of the source, which is not looked at, or compared with that of the source.
_UNCHECKED, _CHECKED = ((flags).to_bytes(4, "little") for flags in (0b01, 0b11))
# What else the bytecode depends on.
with open(__file__, "rb") as _file:
    _SELF = hashlib.sha256(repr(sys.version_info).encode() + _file.read()).digest()
_ATTRIBUTES = (
    *("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_filename", "co_name"),
    *(("co_qualname", "co_exceptiontable") if sys.version_info >= (3, 11) else ()),
    "co_linetable" if sys.version_info >= (3, 10) else "co_lnotab",
)


def main() -> None:
    asked = json.load(sys.stdin)
    flags = _CHECKED if asked["checked"] else _UNCHECKED
    work = functools.partial(_compile, flags, asked["cache"] or "")
    modules = asked["modules"]
    context = multiprocessing.get_context("fork")
    with context.Pool(min(len(modules) // 50 + 1, os.cpu_count() or 1)) as pool:
        for compiled in pool.imap(work, modules, chunksize=20):
            sys.stdout.buffer.write(len(compiled).to_bytes(8, "little") + compiled)


def _compile(flags: bytes, cache: str, module: tuple[str, str]) -> bytes:
    source, place = module
    with open(source, "rb") as file:
        content = file.read()
    key = hashlib.sha256(_SELF + os.fsencode(place) + b"\0" + content).hexdigest()
    kept = os.path.join(cache, key[:2], key)
    data = cache and _kept(kept)
    if not data:
        try:
            code = compile(content, place, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return b""  # A template, or code for another version: an import of it says so.
        data = stable_marshal(code)
        if cache:
            _keep(kept, hashlib.sha256(data).digest() + data)
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(content) + data


def _kept(path: str) -> bytes:
    """What was kept there; nothing if that is not as it was written."""
    try:
        with open(path, "rb") as file:
            digest, data = file.read(32), file.read()
    except FileNotFoundError:
        return b""
    return data if hashlib.sha256(data).digest() == digest else b""


def _keep(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Not into a file that is there: it may be being read.
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as output:
        output.write(data)
    os.replace(temporary, path)


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
    main()
