"""Makes a base image of this machine's own files, to try images out offline.

It holds a CPython of this machine below /usr/local, the shared libraries that it loads, a shell, a
few programs and certificates, in two layers. It is marked as not for production.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.fresh import fresh_entries
from flyte_pack.image import host_python
from flyte_pack.image.base import BaseFacts, BaseImage, BasePlatform
from flyte_pack.image.base_files import glibc_version
from flyte_pack.image.host_python import HostFile, Interpreter
from flyte_pack.oci import model
from flyte_pack.oci.config import ImageConfig, history_entry
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.model import Descriptor, Manifest, blob_path
from flyte_pack.oci.parts import Layer

NOTICE = "Made of one machine's own files by pants-flyte, to try images out. Not for production."
_USER = 1000
_NOBODY = 65534
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"flyte:x:{_USER}:{_USER}:flyte:/home/flyte:/bin/sh\n"
        f"nobody:x:{_NOBODY}:{_NOBODY}:nobody:/nonexistent:/bin/false\n"
    ),
    "etc/group": f"root:x:0:\nflyte:x:{_USER}:\nnogroup:x:{_NOBODY}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": (
        'ID=pants-flyte-host\nNAME="pants-flyte host base"\n'
        'PRETTY_NAME="pants-flyte host base (not for production)"\n'
    ),
}
# /bin and the like are links into /usr, as Linux distributions have them now.
_LINKS = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")}
_DIRECTORIES = {
    **dict.fromkeys(("dev", "etc", "home", "proc", "run", "sys", "usr", "var"), 0o755),
    **dict.fromkeys(("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "usr/local"), 0o755),
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
    "root": 0o700,
}


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-host-base", NOTICE)
    parser.add_argument("--python", required=True, help="absolute path of a CPython")
    parser.add_argument("--out", required=True, help="directory for base.json and blobs/")
    return command.run(parser, argv, _write)


def _write(given: argparse.Namespace) -> None:
    """Write `base.json` and `blobs/`. Equal files on the machine give equal bytes."""
    if not sys.platform.startswith("linux"):
        raise UserError(
            "a base image of this machine's own files needs Linux: use a base image of a registry, "
            "or a layout or archive"
        )
    interpreter = host_python.find_interpreter(given.python)
    with fresh_entries(given.out) as directory:
        system = list(host_python.system_files(interpreter))
        python = host_python.python_files(interpreter)
        layers = (
            _layer(directory, "shell, libraries and certificates", system, _add_system),
            _layer(directory, f"CPython {_version(interpreter)}", python),
        )
        base = _base(directory, interpreter, layers, _glibc(system))
        with open(os.path.join(directory, "base.json"), "wb") as file:
            file.write(base.to_json())


def _layer(
    directory: str,
    what: str,
    files: Iterable[HostFile],
    first: Callable[[LayerWriter], None] = lambda writer: None,
) -> Layer:
    with LayerWriter(directory) as writer:
        first(writer)
        for file in sorted(files, key=lambda f: f.path):
            writer.add_parents(file.path, "usr")
            mode = 0o755 if file.executable else 0o644
            if file.link is not None:
                writer.add_symlink(file.path, file.link)
            elif file.content is not None:
                writer.add_bytes(file.path, file.content, mode)
            else:
                writer.add_file(file.path, file.source, mode)
        return writer.finish(f"{what} of this machine")


def _add_system(writer: LayerWriter) -> None:
    for path, mode in sorted(_DIRECTORIES.items()):
        writer.add_directory(path, mode)
    for path, target in sorted(_LINKS.items()):
        writer.add_symlink(path, target)
    writer.add_directory("home/flyte", 0o755, (_USER, _USER))
    for path in ("etc/ssl", "etc/ssl/certs"):
        writer.add_directory(path)
    for path, text in sorted(_FILES.items()):
        writer.add_bytes(path, text.encode())


def _version(interpreter: Interpreter) -> str:
    return ".".join(map(str, interpreter.version))


def _glibc(files: Iterable[HostFile]) -> str | None:
    (library,) = (file.source for file in files if file.path.endswith("/libc.so.6"))
    with open(library, "rb") as file:
        return glibc_version(file.read())


def _base(
    directory: str, interpreter: Interpreter, layers: Sequence[Layer], glibc: str | None
) -> BaseImage:
    python = f"/{host_python.PREFIX}/bin/{interpreter.name}"
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHON_VERSION": _version(interpreter),
    }
    if host_python.certificates():
        # An OpenSSL of this machine may have been told of another place when it was built.
        environment["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
    config = ImageConfig(
        interpreter.platform,
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=tuple(history_entry(f"pants-flyte: {layer.what}") for layer in layers),
        env=environment,
        cmd=(python,),
        labels={model.DESCRIPTION: NOTICE},
    ).to_json()
    manifest = Manifest(
        model.OCI_MANIFEST,
        Descriptor.of(model.OCI_CONFIG, config),
        tuple(layer.descriptor for layer in layers),
        {model.DESCRIPTION: NOTICE},
    ).to_json()
    for document in (config, manifest):
        with open(os.path.join(directory, blob_path(model.digest_of(document))), "wb") as file:
            file.write(document)
    platform, digest = interpreter.platform, model.digest_of(manifest)
    facts = BaseFacts(python, _version(interpreter), glibc)
    platforms = (BasePlatform(platform, manifest, config, facts),)
    return BaseImage(None, digest, None, platforms, python, production=False)
