"""Reads what a program of Linux says of itself (System V ABI, "ELF Header", "Program Header")."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_INTERPRETER = 3  # PT_INTERP


@dataclass(frozen=True)
class Elf:
    """machine: `e_machine`. linker: the path of the dynamic linker; None if it is linked statically
    or is a library.
    """

    machine: int
    linker: str | None


def read_elf(data: bytes) -> Elf | None:
    """Of the beginning of a program; None for what is no 64-bit program of little-endian Linux."""
    if data[:6] != MAGIC + b"\2\1" or len(data) < 64:
        return None
    (machine,) = struct.unpack_from("<H", data, 18)
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for at in range(start, start + size * count, size or 1):
        if size < 40 or at + 40 > len(data):
            break
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == _INTERPRETER:
            return Elf(machine, data[offset : offset + length].rstrip(b"\0").decode("latin-1"))
    return Elf(machine, None)
