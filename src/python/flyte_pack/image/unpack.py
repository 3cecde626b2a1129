"""Unpacks the layers of an image into a directory, as a container would see them.

Image specification 1.0, "Applying Changesets" and "Whiteouts". Names and links in a layer may be
hostile: each path is followed by hand, links count from the directory as their root, and nothing is
written or removed outside it. Devices, pipes, extended attributes and set-user-ID bits
are left out.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from queue import Queue
from threading import Thread

from flyte_pack.oci.inflate import inflate_pieces
from flyte_pack.oci.layout import Layout, checked_blob
from flyte_pack.oci.model import GZIP_LAYERS, PLAIN_LAYERS, Descriptor, InvalidImage
from flyte_pack.oci.tar_stream import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Member, TarStream

MAX_FILES = 2_000_000
MAX_BYTES = 64 << 30
_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))
_MAX_PATH = 4095
_LEADS_NOWHERE = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOENT)
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"


def unpack(layout: Layout, layers: tuple[Descriptor, ...], root: str) -> None:
    """Unpack `layers`, lowest first, into the empty directory `root`. All files are the caller's.

    Raises `InvalidImage` if a layer does not match its digest or cannot be unpacked, or `OSError`.
    Then a part is left.
    """
    tree = _Tree(os.fsencode(root))
    for layer in layers:
        what = f"{layout.name}: the layer {layer.digest}"
        if layer.media_type not in (*GZIP_LAYERS, *PLAIN_LAYERS):
            raise InvalidImage(
                f"{what} is {layer.media_type!a:.100}, which only a container engine can unpack "
                "here"
            )
        blob = checked_blob(layout, layer)
        pieces = inflate_pieces(blob, what) if layer.media_type in GZIP_LAYERS else blob
        ahead = _Ahead(pieces)
        try:
            tree.apply(TarStream(iter(ahead), what), what)
        finally:
            ahead.close()
    tree.finish()


class Resolver:
    """Paths of a tree that is somebody's root, as they are on this machine."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    def resolve(self, path: bytes) -> bytes:
        """`path`, as the tree's inhabitants see it, with all links followed; no slash at the ends.

        What is missing of it stays as it is. Raises `OSError` for a loop of links.
        """
        done: list[bytes] = []
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[-1:]
                continue
            done.append(part)
            try:
                target = os.readlink(self.place(b"/".join(done)))
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    raise
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            del done[len(done) - 1 if not target.startswith(b"/") else 0 :]
            todo += target.split(b"/")[::-1]
        return b"/".join(done)

    def place(self, resolved: bytes) -> bytes:
        """Where a resolved path is on this machine."""
        return b"%b/%b" % (self._root, resolved)


class _Tree(Resolver):
    def __init__(self, root: bytes) -> None:
        super().__init__(root)
        self._parents: dict[bytes, bytes] = {}  # where directories of the layers' paths are
        self._modes: dict[bytes, tuple[int, int]] = {}  # and times
        self._added: set[bytes] = set()  # by the layer at hand
        self._files = 0
        self._bytes = 0

    def apply(self, members: TarStream, what: str) -> None:
        self._added = {b""}
        self._parents.clear()  # what leads to a member is of its layer
        for member in members:
            self._count(member.size, what)
            try:
                self._add(member, what)
            except OSError as error:
                if error.errno not in _LEADS_NOWHERE:
                    raise
                raise InvalidImage(f"{what}: {member.name!r:.200}: {error.strerror}") from None

    def _count(self, size: int, what: str) -> None:
        """Count a member of any kind, or a directory that none names."""
        self._files += 1
        self._bytes += size
        if self._files > MAX_FILES or self._bytes > MAX_BYTES:
            raise InvalidImage(
                f"{what}: the image unpacks to more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes"
            )

    def finish(self) -> None:
        """Set modes and times of directories, once they are filled."""
        for path, (mode, mtime) in sorted(self._modes.items(), reverse=True):
            place = self.place(path)
            os.chmod(place, mode | 0o700)
            os.utime(place, (mtime, mtime))

    def _add(self, member: Member, what: str) -> None:
        parts = [part for part in member.name.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in member.name or len(member.name) > _MAX_PATH:
            raise InvalidImage(
                f"{what}: {member.name!r:.200} leads out of the image, or is not a path"
            )
        if not parts:
            if member.kind == DIRECTORY:
                self._modes[b""] = (member.mode, member.mtime)
            return
        name = parts.pop()
        above = self._directory(b"/".join(parts), what)
        path = b"%b/%b" % (above, name) if above else name
        if name.startswith(_WHITEOUT):
            self._white_out(above, name, what)
            return
        place = self.place(path)
        if member.kind == REGULAR:
            self._regular(member, path, place)
        elif member.kind == DIRECTORY:
            if not self._is_directory(path):
                self._clear(path)
                os.mkdir(place, 0o700)
            self._modes[path] = (member.mode & 0o1777, member.mtime)
        elif member.kind == SYMLINK:
            self._clear(path)
            os.symlink(member.link, place)
        elif member.kind == HARD_LINK:
            self._hard_link(member, path, place, what)
        else:
            return
        self._note(path)

    def _regular(self, member: Member, path: bytes, place: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(place, flags, 0o600)
        except FileExistsError:
            self._clear(path)
            fd = os.open(place, flags, 0o600)
        try:
            for piece in member.content():
                while piece:
                    piece = piece[os.write(fd, piece) :]
            os.fchmod(fd, member.mode & 0o1777 | 0o400)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    def _hard_link(self, member: Member, path: bytes, place: bytes, what: str) -> None:
        parts = [part for part in member.link.split(b"/") if part not in (b"", b".")]
        if not parts or b".." in parts:
            raise InvalidImage(f"{what}: the link {member.name!r:.200} leads out of the image")
        name = parts.pop()
        above = self.resolve(b"/".join(parts))
        target = b"%b/%b" % (above, name) if above else name
        if target == path:
            return
        if not stat.S_ISREG(os.lstat(self.place(target)).st_mode):
            raise InvalidImage(f"{what}: the link {member.name!r:.200} leads to no regular file")
        self._clear(path)
        os.link(self.place(target), place, follow_symlinks=False)

    def _directory(self, path: bytes, what: str) -> bytes:
        """The directory that `path` leads to; made where it is missing."""
        found = self._parents.get(path)
        if found is None:
            found = self.resolve(path)
            at = b""
            for part in found.split(b"/") if found else ():
                at = b"%b/%b" % (at, part) if at else part
                if not self._is_directory(at):
                    self._count(0, what)
                    self._clear(at)
                    os.mkdir(self.place(at), 0o755)
                    self._modes[at] = (0o755, 0)
                self._note(at)
            self._parents[path] = found
        return found

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self.place(path)).st_mode)
        except FileNotFoundError:
            return False

    def _note(self, path: bytes) -> None:
        """`path` and what is above it are of this layer, so no whiteout of it removes them."""
        while path not in self._added:
            self._added.add(path)
            path = path.rpartition(b"/")[0]

    def _white_out(self, above: bytes, name: bytes, what: str) -> None:
        directory = self.place(above)
        if name == _OPAQUE:
            for child in os.listdir(directory):
                self._clear_lower(b"%b/%b" % (above, child) if above else child)
        elif not name.startswith(b".wh..wh."):  # those are aufs' own
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise InvalidImage(f"{what}: the whiteout {name!r:.200} names nothing")
            self._clear_lower(b"%b/%b" % (above, hidden) if above else hidden)

    def _clear_lower(self, path: bytes) -> None:
        """Remove what the layers below have at `path`, and leave what this layer put there."""
        if path not in self._added:
            self._clear(path)
        elif self._is_directory(path):
            for child in os.listdir(self.place(path)):
                self._clear_lower(b"%b/%b" % (path, child))

    def _clear(self, path: bytes) -> None:
        """Remove what is at `path`, if anything is."""
        place = self.place(path)
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        self._parents.clear()
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(place)
            return
        shutil.rmtree(place)
        below = path + b"/"
        for gone in [p for p in self._modes if p == path or p.startswith(below)]:
            del self._modes[gone]


class _Ahead:
    """Iterates over `pieces` in a thread, a few ahead: it inflates while files are written."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._queue: Queue[bytes | BaseException | None] = Queue(4)
        self._closed = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        self._closed = True
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.01)

    def _run(self) -> None:
        try:
            for piece in self._pieces:
                if self._closed:
                    break
                self._queue.put(piece)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)
