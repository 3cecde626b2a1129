"""What third-party distributions an image holds: `packages.json`, which the installing process writes beside its layers.

The rules read it too, so there is nothing but the standard library here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from flyte_pack.json_fields import Document


@dataclass(frozen=True)
class Package:
    """An installed distribution; name: normalized (PEP 503); scripts: names of its programs in /opt/venv/bin, sorted."""

    name: str
    version: str
    scripts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Packages(Document):
    """python: `3.12`, the version whose site-packages they are in; platform: `linux/amd64`; packages: sorted by name."""

    NAME = "packages.json"

    python: str
    platform: str
    packages: Tuple[Package, ...] = ()
