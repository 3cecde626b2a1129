"""Joins the parts of a layer that other processes packed: `python -m flyte_pack image-join`."""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections.abc import Sequence

from flyte_pack.codec import CodecError
from flyte_pack.image.layer import LAYERS
from flyte_pack.oci.layer import join_parts
from flyte_pack.oci.parts import Layers


def main(argv: Sequence[str]) -> int:
    """The command; gives its exit code: 0, or 1 for a layer that cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m flyte_pack image-join", allow_abbrev=False)
    parser.add_argument("--what", required=True, help="what is in the layer")
    parser.add_argument("--out", required=True, help="where blobs/ and layers.json go")
    parser.add_argument("parts", nargs="+", help="in order")
    options = parser.parse_args(argv)
    try:
        layer = join_parts(options.parts, options.out, options.what)
        with open(os.path.join(options.out, LAYERS), "wb") as file:
            file.write(Layers((layer,)).to_json())
    except (CodecError, zlib.error) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'writing'}: {error.strerror or error}"
    else:
        return 0
    print(f"flyte_pack image-join: {message}", file=sys.stderr)
    return 1
