"""Packs a layer of files at hand, such as code or the shim: `python -m flyte_pack image-layer`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.image.layer_plan import PART, LayerPlan
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.parts import Layer, Layers
from flyte_pack.sources import SourceTree


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-layer")
    parser.add_argument("--plan", required=True, help="a LayerPlan")
    parser.add_argument("--sources", required=True, help="the directory that its files are in")
    parser.add_argument("--out", required=True, help="where blobs/ and layers.json go")
    parser.add_argument(
        "--part", action="store_true", help="write a part of a layer, for image-join"
    )
    return command.run(parser, argv, _pack)


def _pack(options: argparse.Namespace) -> None:
    with open(options.plan, "rb") as file:
        plan = LayerPlan.from_json(file.read())
    with command.no_garbage():
        if options.part:
            pack_part(plan, options.sources, options.out)
            return
        layer = pack_layer(plan, options.sources, options.out)
    Layers((layer,)).write(options.out)


def pack_layer(plan: LayerPlan, sources: str, out: str) -> Layer:
    """Write the layer below `out`, its members sorted by path. Raises `UserError` or `OSError`."""
    with LayerWriter(out, plan.owner) as layer:
        _add_members(layer, plan, sources)
        return layer.finish(plan.what)


def pack_part(plan: LayerPlan, sources: str, out: str) -> None:
    """Write the plan's members as a part of a layer, to be joined with others."""
    with LayerWriter(out, plan.owner) as layer:
        _add_members(layer, plan, sources)
        layer.finish_part(os.path.join(out, PART))


def _add_members(layer: LayerWriter, plan: LayerPlan, sources: str) -> None:
    modes = dict(plan.directories)
    texts = {path: (content, mode) for path, content, mode in plan.texts}
    links, files = dict(plan.links), dict(plan.files)

    def add_directories(path: str) -> None:
        """Those of the plan down to `path`, with all that are below the topmost of them."""
        known = False
        for end in [i for i, c in enumerate(path) if c == "/"] + [len(path)]:
            directory = path[:end]
            if directory in modes or known:
                known = True
                layer.add_directory(directory, modes.get(directory, 0o755))

    for path in sorted(plan.hidden):
        layer.add_whiteout(path)
    with SourceTree(sources) as tree:
        last = None
        for path in sorted([*modes, *texts, *links, *files]):
            parent = path.rpartition("/")[0]
            if parent and parent != last:
                add_directories(parent)
                last = parent
            if path in modes:
                add_directories(path)
            elif path in texts:
                content, mode = texts[path]
                layer.add_bytes(path, content.encode(), mode)
            elif path in links:
                layer.add_symlink(path, links[path])
            else:
                fd, status = tree.open(files[path])
                try:
                    mode = 0o755 if status.st_mode & 0o111 else 0o644
                    layer.add_open_file(path, fd, status.st_size, mode, files[path])
                finally:
                    os.close(fd)
