"""Unpacks the archive of a bundle into a new directory, and refuses everything else.

The format is what our packer writes: one gzip member (RFC 1952) with a POSIX tar ("ustar
interchange format" and "pax interchange format" of IEEE Std 1003.1, pax) of regular files. A parser
for this subset takes a tenth of the time of the standard library's tarfile. A link, a device, a
directory member, a GNU extension or a second gzip member is an error.

The archive's hash was checked before. The checks here guard against an archive that was built
wrongly or with bad intent.
"""

from __future__ import annotations

import os
import zlib

from flyte_shim.errors import DamagedArchive, DuplicatePath, TooLarge, UnsafePath, UnsupportedMember
from flyte_shim.files import write_all
from flyte_shim.paths import path_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

_BLOCK = 512
_READ = 1 << 17
_INFLATE = 1 << 20
_ZEROS = bytes(_BLOCK)
# The block size of most file systems.
_DISK_BLOCK = 4096
# Zeros pad a tar after the end marker to a multiple of its record size, 10,240 bytes by default.
_MAX_PADDING = 1 << 20
_MAX_PAX = 1 << 16
# Pax records that do not affect paths or content (pax, "pax Header Block Keyword"). `path` and
# `size` are used; any other keyword is refused.
_HARMLESS_PAX = frozenset({"atime", "comment", "ctime", "gid", "gname", "mtime", "uid", "uname"})
_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"g": "a global pax header",
    b"K": "a GNU long link name",
    b"L": "a GNU long name",
    b"S": "a GNU sparse file",
}


class Limits:
    """The limits: bytes of the archive, number of files and directories, bytes of all together.

    A directory takes a block of the disk, and a pax header its size.
    """

    def __init__(
        self, archive_bytes: int = 1 << 30, files: int = 200_000, total_bytes: int = 4 << 30
    ) -> None:
        self.archive_bytes, self.files, self.total_bytes = archive_bytes, files, total_bytes


class _Taken:
    """How much of the limits an archive has taken."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._files, self._bytes = limits, 0, 0

    def add(self, files: int, size: int) -> None:
        """Take `files` files or directories of `size` bytes together; raises TooLarge."""
        self._files += files
        self._bytes += size
        if self._files > self._limits.files:
            raise TooLarge(
                f"the archive holds more than {self._limits.files} files and directories. If that "
                "is right, set FLYTE_SHIM_MAX_FILES"
            )
        if self._bytes > self._limits.total_bytes:
            raise TooLarge(
                f"the archive unpacks to more than {self._limits.total_bytes} bytes. If that is "
                "right, set FLYTE_SHIM_MAX_BYTES"
            )


def extract(
    archive: str, directory: str, limits: Limits, mtime: int
) -> tuple[dict[str, bool], int]:
    """Unpack the archive at `archive` into `directory`, which must not exist.

    Files get the mode 0444, or 0555 if executable, less the umask, and the time `mtime`;
    directories get 0700. Returns the directories, as paths below the top (which is ""), with
    whether each holds Python modules; and about how many bytes the files use on disk. Raises
    ArchiveError or OSError; the caller removes a partial tree.
    """
    # In bytes, because names are UTF-8 on disk whatever the locale's encoding is.
    root = os.fsencode(directory)
    os.mkdir(root, 0o700)
    made = {"": False}
    blocks, taken = 0, _Taken(limits)
    parent, parent_fd = "", os.open(root, os.O_RDONLY)
    try:
        with open(archive, "rb", buffering=0) as file:
            for path, executable, chunks in _read(file, taken):
                above, _, name = path.rpartition("/")
                try:
                    if above != parent:
                        _make_directories(root, above, made, taken)
                        os.close(parent_fd)
                        parent_fd = -1
                        parent_fd = os.open(b"%b/%b" % (root, above.encode()), os.O_RDONLY)
                        parent = above
                    fd = os.open(
                        name.encode(),
                        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                        0o555 if executable else 0o444,
                        dir_fd=parent_fd,
                    )
                except FileExistsError:
                    raise _collision(root, path, made) from None
                size = 0
                try:
                    for chunk in chunks:
                        write_all(fd, chunk)
                        size += len(chunk)
                    os.utime(fd, (mtime, mtime))
                finally:
                    os.close(fd)
                blocks += -(-size // _DISK_BLOCK)
                if name.endswith(".py"):
                    made[above] = True
    finally:
        if parent_fd >= 0:
            os.close(parent_fd)
    return made, (blocks + len(made)) * _DISK_BLOCK


def _make_directories(root: bytes, path: str, made: dict[str, bool], taken: _Taken) -> None:
    if path in made:
        return
    _make_directories(root, path.rpartition("/")[0], made, taken)
    taken.add(1, _DISK_BLOCK)
    os.mkdir(b"%b/%b" % (root, path.encode()), 0o700)
    made[path] = False


def _collision(root: bytes, path: str, made: dict[str, bool]) -> DuplicatePath:
    """Why `path` could not be made in a tree that holds only the archive's files."""
    parts = path.split("/")
    for depth, name in enumerate(parts):
        above = "/".join(parts[:depth])
        if name.encode() not in os.listdir(b"%b/%b" % (root, above.encode())):
            return DuplicatePath(
                f"the archive holds {path!r} and another path that are the same on the cache's "
                "file system; rename one of them, or put the cache on a case-sensitive file system"
            )
        here = f"{above}/{name}" if above else name
        if here not in made and here != path:
            return DuplicatePath(f"the archive holds {here!r} as a file, and {path!r} below it")
    if path in made:
        return DuplicatePath(f"the archive holds {path!r} as a file and as a directory")
    return DuplicatePath(f"the archive holds {path!r} twice")


def read_members(
    file: BinaryIO, limits: Limits
) -> Iterator[tuple[str, bool, Iterable[bytes | memoryview]]]:
    """The members of the archive in `file`: path, whether it is executable, and its bytes.

    A chunk of bytes is valid until the next one is read. Paths are not checked against each other,
    and directories are not counted. Raises ArchiveError.
    """
    return _read(file, _Taken(limits))


def _read(
    file: BinaryIO, taken: _Taken
) -> Iterator[tuple[str, bool, Iterable[bytes | memoryview]]]:
    stream = _Inflated(file)
    try:
        yield from _members(stream, taken)
    finally:
        stream.close()


def _members(
    stream: _Inflated, taken: _Taken
) -> Iterator[tuple[str, bool, Iterable[bytes | memoryview]]]:
    pax: dict[str, str] = {}
    while True:
        header = bytes(stream.take(_BLOCK))
        if header == _ZEROS:
            break
        _check_header(header)
        kind = header[156:157]
        size = _octal(header[124:136], "size")
        if kind == b"x":
            if pax:
                raise DamagedArchive("the archive has two pax headers for one file")
            if not 0 < size <= _MAX_PAX:
                raise TooLarge(f"a pax header is {size} bytes long; at most {_MAX_PAX} are read")
            taken.add(0, size)
            pax = _pax_records(bytes(stream.take(_padded(size)))[:size])
            continue
        path = pax.get("path") or _ustar_path(header)
        _check_member(kind, path)
        if "size" in pax:
            size = _decimal(pax["size"])
        taken.add(1, size)
        executable = bool(_octal(header[100:108], "mode") & 0o100)
        padded = _padded(size)
        if padded <= _INFLATE:
            yield path, executable, (stream.take(padded)[:size],) if size else ()
        else:
            chunks = stream.chunks(size, padded)
            yield path, executable, chunks
            for _ in chunks:
                pass
        pax = {}
    if pax:
        raise DamagedArchive("the archive ends after a pax header")
    stream.finish()


def _check_member(kind: bytes, path: str) -> None:
    if kind not in (b"0", b"\0"):
        what = _TYPES.get(kind, f"a member of type {kind!r}")
        raise UnsupportedMember(
            f"the archive holds {what} ({path!r:.200}); a bundle has regular files only"
        )
    problem = path_problem(path)
    if problem:
        raise UnsafePath(f"the archive holds {problem}: {path!r:.200}")


class _Inflated:
    """The uncompressed bytes of a gzip file, in order, with only a few blocks in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._view = memoryview(b"")
        self._at = 0
        self._ahead: _Ahead | None = None

    def close(self) -> None:
        if self._ahead:
            self._ahead.close()

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, at most 1 MiB."""
        end = self._at + size
        if end > len(self._view):
            parts = [self._view[self._at :]]
            have = len(parts[0])
            while have < size:
                more = self._more()
                if not more:
                    raise DamagedArchive(
                        "the archive is truncated: it ends in the middle of its tar"
                    )
                parts.append(memoryview(more))
                have += len(more)
            self._view = memoryview(b"".join(parts)) if parts[0] else parts[-1]
            self._at, end = 0, size
        view = self._view[self._at : end]
        self._at = end
        return view

    def chunks(self, size: int, padded: int) -> Iterator[memoryview]:
        """The next `size` bytes in pieces; skips the rest of `padded`."""
        while padded > 0:
            count = min(padded, _INFLATE // 2)
            yield self.take(count)[: max(0, size)]
            size, padded = size - count, padded - count

    def finish(self) -> None:
        """Check that only zeros follow in the tar, and nothing after the gzip member."""
        rest = len(self._view) - self._at
        if any(self._view[self._at :]):
            raise DamagedArchive("the archive has data after the end of its tar")
        while more := self._more():
            rest += len(more)
            if rest > _MAX_PADDING:
                raise TooLarge("the archive has too much padding after the end of its tar")
            if any(more):
                raise DamagedArchive("the archive has data after the end of its tar")

    def _more(self) -> bytes:
        """The next piece of at most 1 MiB, empty at the end of the file."""
        if self._ahead:
            return self._ahead.get()
        piece = self._inflate_more()
        if not self._inflate.eof:  # inflate the rest while this piece is written
            self._ahead = _Ahead(self._inflate_more)
        return piece

    def _inflate_more(self) -> bytes:
        inflate = self._inflate
        while not inflate.eof:
            data = inflate.unconsumed_tail or self._file.read(_READ)
            try:
                piece = inflate.decompress(data, _INFLATE)
            except zlib.error as error:
                raise DamagedArchive(f"the archive is not a whole gzip file: {error}") from None
            if piece:
                return piece
            if not data:
                raise DamagedArchive("the archive is truncated: its gzip data ends too early")
        if inflate.unused_data or self._file.read(1):
            raise DamagedArchive("the archive has data after its gzip member")
        return b""


class _Ahead:
    """Calls `produce` a few pieces ahead on a thread, until it returns an empty piece or fails."""

    def __init__(self, produce: Callable[[], bytes]) -> None:
        # Only a large archive needs these imports.
        from queue import Queue
        from threading import Thread

        self._produce, self._closed = produce, False
        self._pieces: Queue[bytes | BaseException] = Queue(2)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def get(self) -> bytes:
        """The next piece; raises what `produce` raised."""
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        """End the thread, which may wait for room in the queue."""
        self._closed = True
        while self._thread.is_alive():
            while not self._pieces.empty():
                self._pieces.get()
            self._thread.join(0.01)

    def _run(self) -> None:
        piece: bytes | BaseException = b"-"
        while piece and not isinstance(piece, BaseException) and not self._closed:
            try:
                piece = self._produce()
            except BaseException as error:
                piece = error
            self._pieces.put(piece)


def _padded(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _check_header(header: bytes) -> None:
    """Check magic and checksum (pax, "ustar Header Block")."""
    stored = _octal(header[148:156], "checksum")
    # The checksum is the sum of all bytes, with blanks in place of the checksum field. The low half
    # of an Adler-32 is that sum plus one, modulo 65521, and ten times faster than sum().
    expected = 1 + stored - 8 * 0x20 + sum(header[148:156])
    if zlib.adler32(header) & 0xFFFF != expected % 65521:
        raise DamagedArchive("the archive is damaged: the checksum of a tar header is wrong")
    if header[257:265] != b"ustar\x0000":
        if header[257:265] == b"ustar  \0":
            raise UnsupportedMember(
                "the archive is in GNU tar's own format; a bundle is in the ustar or pax format"
            )
        raise DamagedArchive("the archive is not a POSIX tar: a header has no 'ustar' in it")


def _octal(field: bytes, what: str) -> int:
    """A number in a header: octal digits, perhaps between blanks, ended by a blank or NUL."""
    digits = field.partition(b"\0")[0].strip(b" ") or b"0"
    if digits.strip(b"01234567"):
        raise UnsupportedMember(f"a tar header's {what} is not an octal number: {field!r}")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DamagedArchive(f"a pax header has no number as its size: {text!r:.40}")
    return int(text)


def _ustar_path(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    raw = b"%b/%b" % (prefix, name) if prefix else name
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnsafePath(f"the archive holds a path that is not valid UTF-8: {raw!r}") from None


def _pax_records(data: bytes) -> dict[str, str]:
    """The records of an extended header, each "%d %s=%s\\n" with its total length first."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits, blank, _ = data[at : at + 8].partition(b" ")
        if not (blank and digits.isdigit()):
            raise DamagedArchive("a record of a pax header does not begin with its length")
        end = at + int(digits)
        record = data[at + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or record[-1:] != b"\n" or not equals:
            raise DamagedArchive("a record of a pax header has a wrong length")
        try:
            keyword, text = key.decode(), value.decode()
        except UnicodeDecodeError:
            raise UnsafePath(
                f"a pax header holds {value!r:.200}, which is not valid UTF-8"
            ) from None
        if keyword in records:
            raise DamagedArchive(f"a pax header has {keyword!r:.60} twice")
        if keyword not in _HARMLESS_PAX and keyword not in ("path", "size"):
            raise UnsupportedMember(
                f"a pax header has the record {keyword!r:.60}, which no bundle uses"
            )
        if not text and keyword in ("path", "size"):
            raise DamagedArchive(f"a pax header has an empty {keyword}")
        records[keyword] = text
        at = end
    return records
