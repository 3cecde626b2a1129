"""Packs a layer of files at hand, such as code or the shim: `python -m flyte_pack image-layer`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import source_from_cache
from types import MappingProxyType

from flyte_pack import command
from flyte_pack.guards import Guard
from flyte_pack.image.compiler import Compiler, add_compiler
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.parts import Layer, Layers
from flyte_pack.sources import SourceTree

_PART = 1000  # files in a part of a layer, roughly
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-layer")
    parser.add_argument("--plan", required=True, help="a LayerPlan")
    parser.add_argument("--sources", required=True, help="the directory that its files are in")
    parser.add_argument("--out", required=True, help="where blobs/ and layers.json go")
    parser.add_argument("--seen", help="where to write what guards saw, a Sighting")
    add_compiler(parser)
    return command.run(parser, argv, _pack)


def _pack(options: argparse.Namespace) -> None:
    with open(options.plan, "rb") as file:
        plan = LayerPlan.from_json(file.read())
    with command.no_garbage():
        compiled = _NOTHING
        if options.compiler:
            compiler = Compiler.given(options.compiler)
            plan, compiled = compile_modules(
                plan, options.sources, compiler, options.bytecode_cache
            )
        guard = Guard() if options.seen else None
        layer = pack_layer(plan, options.sources, options.out, compiled=compiled, guard=guard)
    Layers((layer,)).write(options.out)
    if guard:
        with open(options.seen, "wb") as file:
            file.write(guard.sighting().to_json())


def compile_modules(
    plan: LayerPlan, sources: str, compiler: Compiler, cache: str | None = None
) -> tuple[LayerPlan, Mapping[str, bytes]]:
    """Compile the sources of which the plan has bytecode. cache: as for `Compiler.compile`.

    Gives the plan without what does not compile, and the bytecode of the rest, by its path.
    Python compares each with its source: a bundle, or a person, may replace that in a container.
    """
    modules = {
        path: (os.path.join(sources, source), f"/{source_from_cache(path)}")
        for path, source in plan.files
        if path.endswith(".pyc") and source.endswith(".py")
    }
    made = compiler.compile(modules.values(), checked=True, cache=cache)
    compiled = {path: bytecode for path, bytecode in zip(modules, made) if bytecode}
    files = tuple(row for row in plan.files if row[0] in compiled or row[0] not in modules)
    return replace(plan, files=files), compiled


def pack_layer(
    plan: LayerPlan,
    sources: str,
    out: str,
    part: int = _PART,
    compiled: Mapping[str, bytes] = _NOTHING,
    guard: Guard | None = None,
) -> Layer:
    """Write the layer below `out`, its members sorted by path. Raises `UserError` or `OSError`.

    One of more than two parts, each of about so many files, is sorted and compressed by part.
    compiled: of `compile_modules`. guard: looks at each file.
    """
    parts = plan.in_parts(part) if len(plan.files) > 2 * part else []
    with LayerWriter(out, plan.owner) as layer, SourceTree(sources) as tree:
        for one in parts:
            _add_members(layer, one, tree, compiled, guard)
            layer.next_member()
        if not parts:
            _add_members(layer, plan, tree, compiled, guard)
        return layer.finish(plan.what)


def _add_members(
    layer: LayerWriter,
    plan: LayerPlan,
    tree: SourceTree,
    compiled: Mapping[str, bytes],
    guard: Guard | None,
) -> None:
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
        elif path in compiled:
            layer.add_bytes(path, compiled[path])
        else:
            fd, status = tree.open(files[path])
            try:
                mode = 0o755 if status.st_mode & 0o111 else 0o644
                layer.add_open_file(path, fd, status.st_size, mode, files[path])
                if guard:
                    guard.look_at(files[path], fd, status.st_size)
            finally:
                os.close(fd)
