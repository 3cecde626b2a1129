"""Joins the parts of a layer that other processes packed: `python -m flyte_pack image-join`."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.oci.layer import join_parts
from flyte_pack.oci.parts import Layers


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-join")
    parser.add_argument("--what", required=True, help="what is in the layer")
    parser.add_argument("--out", required=True, help="where blobs/ and layers.json go")
    parser.add_argument("parts", nargs="+", help="in order")
    return command.run(parser, argv, _join)


def _join(options: argparse.Namespace) -> None:
    try:
        layer = join_parts(options.parts, options.out, options.what)
    except zlib.error as error:
        raise UserError(str(error)) from None
    Layers((layer,)).write(options.out)
