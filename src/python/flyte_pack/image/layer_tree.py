"""The names that layers come to, in memory: what a container would see, without unpacking it.

Image specification 1.0, "Applying Changesets" and "Whiteouts", as `image/unpack.py` follows them on
a disk; a fuzzer compares the two. Content is kept only of files that a caller asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flyte_pack.oci.model import InvalidImage
from flyte_pack.oci.tar_stream import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Member

MAX_FILES = 1_000_000
_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"


@dataclass
class Node:
    """kind: of a member of a tar. content: what `keep` made of it. layer: the last that has it."""

    kind: bytes
    layer: int
    mode: int = 0o755
    uid: int = 0
    link: bytes = b""
    content: object = None
    children: dict[bytes, Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.kind == DIRECTORY


class LayerTree:
    """keep: what to remember of the content of a regular file, by its path in the layer."""

    def __init__(self, keep: Callable[[Member], object] = lambda member: None) -> None:
        self.top = Node(DIRECTORY, -1)
        self._keep = keep
        self._layer = -1
        self._files = 0

    def apply(self, members: Iterable[Member], what: str) -> None:
        """Put one more layer on top. Raises `InvalidImage`; then the tree is of no use."""
        self._layer += 1
        for member in members:
            self._files += 1
            if self._files > MAX_FILES:
                raise InvalidImage(f"{what}: the image has more than {MAX_FILES:,} files")
            parts = [part for part in member.name.split(b"/") if part not in (b"", b".")]
            if b".." in parts:
                raise InvalidImage(f"{what}: {member.name!r:.200} leads out of the image")
            if parts:
                self._add(parts, member, what)

    def find(self, path: bytes, follow: bool = True) -> tuple[bytes, Node] | None:
        """What is at `path`, and its path without links; None where nothing is.

        follow: also where the last part is a link.
        """
        done: list[tuple[bytes, Node]] = [(b"", self.top)]
        todo, links = path.split(b"/")[::-1], 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[max(1, len(done) - 1) :]
                continue
            child = done[-1][1].children.get(part)
            if child is None:
                return None
            if child.kind == SYMLINK and (follow or any(p not in (b"", b".") for p in todo)):
                links += 1
                if links > _MAX_LINKS:
                    return None
                if child.link.startswith(b"/"):
                    del done[1:]
                todo += child.link.split(b"/")[::-1]
                continue
            done.append((part, child))
        return b"/".join(name for name, _ in done[1:]), done[-1][1]

    def _add(self, parts: list[bytes], member: Member, what: str) -> None:
        name = parts.pop()
        above = self._directory(parts, what)
        if name.startswith(_WHITEOUT):
            self._white_out(above, name, what)
            return
        old = above.children.get(name)
        made = Node(member.kind, self._layer, member.mode, member.uid, member.link)
        if member.kind == DIRECTORY:
            if old is not None and old.is_directory:
                made.children = old.children
        elif member.kind == REGULAR:
            made.content = self._keep(member)
        elif member.kind == HARD_LINK:
            found = self.find(member.link.lstrip(b"/"), follow=False)
            if found is None or found[1].kind != REGULAR:
                raise InvalidImage(f"{what}: the link {member.name!r:.200} leads to no file")
            # As the file is replaced as a whole, and never written to, one node serves both.
            made = Node(**{**vars(found[1]), "layer": self._layer})
        elif member.kind != SYMLINK:
            return
        above.children[name] = made

    def _directory(self, parts: list[bytes], what: str) -> Node:
        """The directory that a path leads to; made where it is missing, and of this layer."""
        done, todo, links = [self.top], parts[::-1], 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[max(1, len(done) - 1) :]
                continue
            child = done[-1].children.get(part)
            if child is not None and child.kind == SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise InvalidImage(f"{what}: too many levels of symbolic links")
                if child.link.startswith(b"/"):
                    del done[1:]
                todo += child.link.split(b"/")[::-1]
                continue
            if child is None or not child.is_directory:
                child = done[-1].children[part] = Node(DIRECTORY, self._layer)
            done.append(child)
        for node in done:
            node.layer = self._layer
        return done[-1]

    def _white_out(self, above: Node, name: bytes, what: str) -> None:
        if name == _OPAQUE:
            self._clear_lower(above)
        elif not name.startswith(b".wh..wh."):  # those are aufs' own
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise InvalidImage(f"{what}: the whiteout {name!r:.200} names nothing")
            self._hide(above, hidden)

    def _clear_lower(self, directory: Node) -> None:
        """Remove what the layers below have in it, and leave what this layer put there."""
        for name in list(directory.children):
            self._hide(directory, name)

    def _hide(self, directory: Node, name: bytes) -> None:
        child = directory.children.get(name)
        if child is None:
            return
        if child.layer < self._layer:
            del directory.children[name]
        elif child.is_directory:
            self._clear_lower(child)
