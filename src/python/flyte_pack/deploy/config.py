"""The settings of a deployment: of a target, of a settings file, of `[flyte]`, or as typed.

`config_file` reads files, which are YAML; the rules have no reader for it and get JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Optional, Tuple

from flyte_pack.json_fields import OBJECT, Document
from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_endpoint,
    check_image,
    check_org,
    check_project,
    check_ref_name,
    check_registry,
)
from flyte_pack.store.uris import check_store_uri


def check_path(text: str) -> str:
    """`text`, if it may be a path. Raises `InvalidName`."""
    if not text or not text.isprintable():
        raise InvalidName("expected a path")
    return text


_RefName = Annotated[str, check_ref_name]
_Image = Annotated[str, check_image]
_Domain = Annotated[str, check_domain]


@dataclass(frozen=True)
class Settings:
    """Each is None where it is not set. images: (ref name, reference) pairs, sorted by name.

    flyte_config: path of a config.yaml of Flyte's own, relative to the build root. insecure: no TLS.
    """

    endpoint: Optional[Annotated[str, check_endpoint]] = None
    org: Optional[Annotated[str, check_org]] = None
    insecure: Optional[bool] = None
    flyte_config: Optional[Annotated[str, check_path]] = None
    store: Optional[Annotated[str, check_store_uri]] = None
    registry: Optional[Annotated[str, check_registry]] = None
    project: Optional[Annotated[str, check_project]] = None
    images: Annotated[Tuple[Tuple[_RefName, _Image], ...], OBJECT] = ()

    def over(self, below: Settings) -> Settings:
        """These settings, and those of `below` where there is none of these; images name by name."""
        merged = {
            name: getattr(below if value is None else self, name)
            for name, value in vars(self).items()
        }
        images = {**dict(below.images), **dict(self.images)}
        return Settings(**{**merged, "images": tuple(sorted(images.items()))})


@dataclass(frozen=True)
class DeployConfig(Document):
    """A settings file. settings: at its top. domains: its sections, by domain, sorted.

    A domain's section comes before the top, setting by setting, and image by image.
    """

    NAME = "settings"

    settings: Settings = Settings()
    domains: Annotated[Tuple[Tuple[_Domain, Settings], ...], OBJECT] = ()

    def for_domain(self, domain: str | None) -> Settings:
        """What holds in a domain; None where none is known."""
        section = dict(self.domains).get(domain or "", Settings())
        return section.over(self.settings)


# The settings that are texts.
CHECKS = {
    "endpoint": check_endpoint,
    "org": check_org,
    "flyte_config": check_path,
    "store": check_store_uri,
    "registry": check_registry,
    "project": check_project,
}
