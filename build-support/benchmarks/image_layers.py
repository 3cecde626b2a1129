"""Measures ways of splitting an image's third-party dependencies into layers.

    python build-support/benchmarks/image_layers.py [--lock LOCK] [--runs 3] [--own 0 65536 ...]

It wants uv and the other packages of src/python/flyte_pack/flyte-image.lock, `docker-registry` and
`skopeo` on PATH, the package index, and, for the last column, a docker engine that DOCKER_HOST
names. A way of splitting is a size from which on a distribution gets a layer of its own (0: each
has one; a huge one: all are in one layer).

* layers, MB: of the image, compressed.
* write: from the installed files to blobs with their digests.
* push: by skopeo into an empty registry on this machine; pull: by docker, with unpacking, into an engine that has nothing.
* change: what is pushed when one distribution changes, as the median and the largest over all of them, and the most over
  what the distribution needs itself among those whose blob has 5 MB or more.
* sharing: what of an image that needs Flyte alone is there already where the whole image has been pushed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python")]

from flyte_pack.image.dependency_layers import split, write_layers  # noqa: E402
from flyte_pack.image.installed import Distribution, read_installed  # noqa: E402
from flyte_pack.image.lock_files import read_lock  # noqa: E402
from flyte_pack.image.resolve import format_pins, needed, parse_roots  # noqa: E402
from flyte_pack.image.uv import run_uv  # noqa: E402
from flyte_pack.image.wheel_target import WheelTarget  # noqa: E402
from flyte_pack.oci.model import OCI_CONFIG, OCI_MANIFEST, digest_of  # noqa: E402
from flyte_pack.oci.parts import Layer  # noqa: E402

TARGET = WheelTarget("3.12", "linux/amd64")
ROOTS = "flyte\nnumpy\npandas\nscikit-learn\n"
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--lock", help=f"a lock file with {ROOTS.split()}; one is made if it is not given"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--max-layers", type=int, default=1000)
    sizes = [0, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 40]
    parser.add_argument("--own", type=int, nargs="+", default=sizes, help="bytes, as installed")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="image-layers-") as work,
        registry(Path(work, "registry")) as address,
    ):
        lock = Path(options.lock) if options.lock else make_lock(Path(work))
        whole = installed(lock, ROOTS, Path(work, "whole"))
        flyte = installed(lock, "flyte\n", Path(work, "flyte"))
        print(f"{len(whole)} distributions, {sum(d.size for d in whole) / MB:.0f} MB installed")
        print(
            f"{'own layer from':>15} {'layers':>7} {'MB':>7} {'write':>7} {'push':>7} {'pull':>7} "
            f"{'change: median':>15} {'largest':>8} {'5 MB: over':>11} {'sharing':>8}"
        )
        for own in options.own:
            times = [
                measure(whole, own, options.max_layers, Path(work, "image"), address)
                for _ in range(options.runs)
            ]
            layers = times[0][0]
            write, push, pull = (statistics.median(run[n] for run in times) for n in (1, 2, 3))
            changes, over = change(whole, own, options.max_layers, layers, Path(work, "alone"))
            there = {layer.digest for layer in layers}
            less = written(flyte, own, options.max_layers, Path(work, "less"))
            shared = sum(x.size for x in less if x.digest in there) / sum(x.size for x in less)
            print(
                f"{own:>15,} {len(layers):>7} {sum(x.size for x in layers) / MB:>7.1f} {write:>6.2f}s {push:>6.2f}s "
                f"{pull:>6.2f}s {statistics.median(changes) / MB:>12.2f} MB {max(changes) / MB:>5.1f} MB "
                f"{over:>10.1%} {shared:>8.0%}",
                flush=True,
            )


def measure(
    distributions: Sequence[Distribution], own: int, most: int, directory: Path, address: str
) -> tuple[list[Layer], float, float, float]:
    """Layers, and seconds to write, push and pull them."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    start = time.perf_counter()
    layers = write_layers(split(distributions, most, own), str(directory))
    write = time.perf_counter() - start
    finish_layout(directory, layers)
    name = f"{address}/run-{time.monotonic_ns()}"
    start = time.perf_counter()
    run(
        "skopeo",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        f"oci:{directory}",
        f"docker://{name}:a",
    )
    push = time.perf_counter() - start
    pull = float("nan")
    if "DOCKER_HOST" in os.environ:
        start = time.perf_counter()
        run("docker", "pull", "--quiet", f"{name}:a")
        pull = time.perf_counter() - start
        run("docker", "rmi", f"{name}:a")
    return layers, write, push, pull


def change(
    distributions: Sequence[Distribution],
    own: int,
    most: int,
    layers: Sequence[Layer],
    directory: Path,
) -> tuple[list[int], float]:
    """Bytes to push for a change of each distribution; the largest excess for those of 5 MB or
    more.
    """
    groups = split(distributions, most, own)
    alone = {x.what: x.size for x in written(distributions, 0, 1000, directory)}
    pushed, over = [], 0.0
    for group, layer in zip(groups, layers):
        for distribution in group.distributions:
            pushed.append(layer.size)
            mine = alone.get(str(distribution), 0)
            if mine >= 5 * MB:
                over = max(over, layer.size / mine - 1)
    return pushed, over


def written(
    distributions: Sequence[Distribution], own: int, most: int, directory: Path
) -> list[Layer]:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return write_layers(split(distributions, most, own), str(directory))


def installed(lock: Path, roots: str, prefix: Path) -> list[Distribution]:
    pins = needed(read_lock(lock.read_text(), TARGET), parse_roots(roots), TARGET)
    prefix.mkdir()
    pinned = prefix.with_suffix(".txt")
    pinned.write_text(format_pins(pins))
    arguments = [
        "install",
        "-r",
        str(pinned),
        "--no-deps",
        "--require-hashes",
        "--prefix",
        str(prefix),
    ]
    run_uv(arguments, TARGET, os.environ)
    return read_installed(str(prefix), TARGET.minor, {pin.name: pin.version for pin in pins})


def make_lock(directory: Path) -> Path:
    (directory / "a.in").write_text(ROOTS)
    lock = directory / "a.lock"
    lock.write_text(
        run_uv(["compile", str(directory / "a.in"), "--generate-hashes"], TARGET, os.environ)
    )
    return lock


def finish_layout(directory: Path, layers: Sequence[Layer]) -> None:
    """Make an image of the layers alone, tagged `a`."""

    def blob(media_type: str, document: object) -> dict[str, object]:
        data = json.dumps(document).encode()
        digest = digest_of(data)
        (directory / "blobs/sha256" / digest[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    config = blob(OCI_CONFIG, {"os": "linux", "architecture": "amd64", "rootfs": rootfs})
    blobs = [{"mediaType": x.media_type, "digest": x.digest, "size": x.size} for x in layers]
    manifest = blob(
        OCI_MANIFEST,
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": blobs},
    )
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    directory.mkdir()
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": address, "secret": "x"},
    }
    (directory / "c.yml").write_text(json.dumps(settings))
    server = subprocess.Popen(
        ["docker-registry", "serve", str(directory / "c.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        host, port = address.split(":")
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
        yield address
    finally:
        server.terminate()
        server.wait()


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
