"""The command line: `python -m flyte_pack <command> ...`.

Each command is a module with `main(argv) -> exit code`, and is imported on demand: a build starts
the packer hundreds of times, and must not pay for what a deployment imports.
"""

from __future__ import annotations

import sys

_COMMANDS = {
    "bundle": "flyte_pack.bundle",
    "bundle-with-inventory": "flyte_pack.inventory.bundle",
    "run": "flyte_pack.run.local",
    "deploy": "flyte_pack.deploy",
    "explain-at": "flyte_pack.at_revision",
    "deploy-config": "flyte_pack.deploy.config_file",
    "push": "flyte_pack.registry.program",
    "base-lock": "flyte_pack.image.base_lock",
    "apt-lock": "flyte_pack.image.apt_program",
    "image-apt": "flyte_pack.image.apt_layers",
    "image-host-base": "flyte_pack.image.host_base",
    "image-local-base": "flyte_pack.image.local_base",
    "image-resolve": "flyte_pack.image.resolve",
    "image-compiler": "flyte_pack.image.compiler",
    "image-install": "flyte_pack.image.install",
    "image-layer": "flyte_pack.image.layer",
    "image-run": "flyte_pack.image.run",
    "image-smoke": "flyte_pack.image.smoke",
    "inventory": "flyte_pack.inventory.program",
    "archive-sizes": "flyte_pack.inventory.sizes",
    "run-in-image": "flyte_pack.run.in_image",
    "run-remote": "flyte_pack.run.remote",
}


def main(argv: list[str]) -> int:
    """Run the command that `argv` names; returns the exit code."""
    module = _COMMANDS.get(argv[0]) if argv else None
    if module is None:
        asked = f"unknown command {argv[0]!r}" if argv else "no command"
        print(
            f"flyte_pack: {asked}; one of: {', '.join(_COMMANDS)} "
            "(python -m flyte_pack <command> --help)",
            file=sys.stderr,
        )
        return 2
    __import__(module)
    code: int = sys.modules[module].main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
