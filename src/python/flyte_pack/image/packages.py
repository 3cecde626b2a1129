"""What third-party distributions an image holds: `packages.json`, which the installing process writes beside its layers.

The rules read it too, so there is nothing but the standard library here.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyte_pack.json_fields import Fields, dump, load

SCHEMA = 1


@dataclass(frozen=True)
class Package:
    """An installed distribution; name: normalized (PEP 503); scripts: names of its programs in /opt/venv/bin, sorted."""

    name: str
    version: str
    scripts: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, fields: Fields) -> Package:
        package = cls(fields.text("name"), fields.text("version"), fields.texts("scripts"))
        fields.end()
        return package


@dataclass(frozen=True)
class Packages:
    """python: `3.12`, the version whose site-packages they are in; platform: `linux/amd64`; packages: sorted by name."""

    python: str
    platform: str
    packages: tuple[Package, ...] = ()

    def to_json(self) -> bytes:
        """Equal values give equal bytes."""
        return dump(
            {
                "schema": SCHEMA,
                "python": self.python,
                "platform": self.platform,
                "packages": [{**vars(p), "scripts": list(p.scripts)} for p in self.packages],
            }
        )

    @classmethod
    def from_json(cls, data: bytes, what: str = "packages.json") -> Packages:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        packages = cls(
            python=fields.text("python"),
            platform=fields.text("platform"),
            packages=tuple(map(Package.from_fields, fields.nested_list("packages"))),
        )
        fields.end()
        return packages
