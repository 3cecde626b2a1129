"""Writes layers: tar archives in the order given, compressed by the pinned codec.

A layer has entries for the directories that are added to it and for no others. Another directory
is as the lower layers have it, or whoever unpacks makes it (image specification, "Image Layer
Filesystem Changeset").
"""

from __future__ import annotations

import os

from flyte_pack import tar
from flyte_pack.codec import GzipWriter
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Digest
from flyte_pack.oci.model import blob_path
from flyte_pack.oci.parts import WHITEOUT, Layer, whiteout_problem

_READ = 1 << 20


class LayerWriter:
    """One layer, in `directory`/blobs/sha256/; a context manager.

    Nothing is left behind unless `finish` was called. Paths are relative to the image's root, with
    "/", without "." and "..". `owner` owns the members unless said otherwise.
    """

    def __init__(self, directory: str, owner: tar.Owner = tar.ROOT) -> None:
        """Raises `UserError`, or `OSError` where the blob cannot be written."""
        self._directory = directory
        self._owner = owner
        os.makedirs(os.path.join(directory, "blobs", "sha256"), exist_ok=True)
        self._temporary = os.path.join(directory, "blobs", f".{os.getpid()}-{id(self)}.tmp")
        self._file = open(self._temporary, "xb", buffering=0)  # noqa: SIM115  # closed in __exit__
        self._gzip = GzipWriter(self._file, hash_input=True)
        self._directories: set[str] = set()

    def add_directory(self, path: str, mode: int = 0o755, owner: tar.Owner | None = None) -> None:
        """A directory; adding it again does nothing."""
        if path not in self._directories:
            self._directories.add(path)
            self._gzip.add(tar.directory(_checked(path), mode, owner or self._owner))

    def add_parents(self, path: str, top: str) -> None:
        """The directories above `path`, those above `top` left out, each with mode 0755."""
        parent = path.rpartition("/")[0]
        if parent in self._directories or not f"{parent}/".startswith(f"{top}/"):
            return
        if parent != top:
            self.add_parents(parent, top)
        self.add_directory(parent)

    def add_bytes(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        self._gzip.add(
            tar.header(_checked(path), mode, len(content), self._owner),
            content,
            tar.padding(len(content)),
        )

    def add_open_file(self, path: str, fd: int, size: int, mode: int, name: str) -> None:
        """A regular file of `size` bytes from the descriptor `fd`; `name` is for errors.

        Raises `UserError` if the file has another size.
        """
        data = os.read(fd, min(size, _READ) + 1)
        self._gzip.add(tar.header(_checked(path), mode, size, self._owner))
        read = 0
        while data and read <= size:
            read += len(data)
            self._gzip.add(data)
            # A file that fits is read whole at once; what follows is nothing but a file that grew.
            data = b"" if read == size and size <= _READ else os.read(fd, _READ)
        if read != size:
            raise UserError(f"{name}: its size changed while it was being packed")
        self._gzip.add(tar.padding(size))

    def add_file(self, path: str, source: str, mode: int) -> None:
        """A regular file out of the file `source`, which may be a link to one."""
        with open(source, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            self.add_open_file(path, file.fileno(), size, mode, source)

    def add_symlink(self, path: str, target: str) -> None:
        """A symbolic link to `target`, a path as it is to be in the image."""
        self._gzip.add(tar.symlink(_checked(path), target, self._owner))

    def add_hard_link(self, path: str, target: str, mode: int) -> None:
        """Another name for the file `target`, which the layer has already; root's."""
        self._gzip.add(tar.hard_link(_checked(path), target, mode))

    def add_whiteout(self, path: str) -> None:
        """Hide what lower layers have at `path` (image specification, "Whiteouts")."""
        directory, slash, name = _checked(path).rpartition("/")
        self._gzip.add(tar.header(f"{directory}{slash}{WHITEOUT}{name}", 0o644, 0, self._owner))

    def finish(self, what: str) -> Layer:
        """End the layer and give the blob its name. `what` says what is in it."""
        self._gzip.add(tar.END)
        self._gzip.finish()
        self._file.close()
        digest = Digest(f"sha256:{self._gzip.sha256}")
        os.replace(self._temporary, os.path.join(self._directory, blob_path(digest)))
        diff_id = Digest(f"sha256:{self._gzip.input_sha256}")
        return Layer(digest, self._gzip.size, diff_id, what)

    def next_member(self) -> None:
        """What is added next is compressed by itself: an edit before it changes none of it."""
        self._gzip.next_member()

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._gzip.__exit__()
        self._file.close()
        if os.path.lexists(self._temporary):
            os.unlink(self._temporary)


def _checked(path: str) -> str:
    """`path`, if it removes nothing. Names come from wheels and from the machine, too."""
    if problem := whiteout_problem(path):
        raise UserError(f"{path!a:.200} cannot be in a layer: it has {problem}")
    return path
