"""The settings of deployments that a file holds, as the build rules and the deploy program have them: checked, and as JSON.

`config_file` reads them from YAML, which the rules have no reader for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flyte_pack.json_fields import Fields, InvalidData, dump, load
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
from flyte_pack.store.uris import StoreError, check_store_uri

SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """Each None where it is not set. images: (ref name, reference) pairs, sorted by name.

    flyte_config: path of a config.yaml of Flyte's own, from the build root if it is relative. insecure: no TLS.
    """

    endpoint: str | None = None
    insecure: bool | None = None
    org: str | None = None
    flyte_config: str | None = None
    store: str | None = None
    registry: str | None = None
    project: str | None = None
    images: tuple[tuple[str, str], ...] = ()

    def over(self, below: Settings) -> Settings:
        """These settings, and those of `below` where there is none of these; images name by name."""
        merged = {
            name: getattr(below if value is None else self, name)
            for name, value in vars(self).items()
        }
        images = {**dict(below.images), **dict(self.images)}
        return Settings(**{**merged, "images": tuple(sorted(images.items()))})


@dataclass(frozen=True)
class DeployConfig:
    """A whole file. settings: at its top. domains: (domain, its section) pairs, sorted by domain.

    A domain's section comes before the top, setting by setting, and image by image.
    """

    settings: Settings = Settings()
    domains: tuple[tuple[str, Settings], ...] = ()

    def for_domain(self, domain: str | None) -> Settings:
        """What holds in a domain; None where none is known."""
        section = dict(self.domains).get(domain or "", Settings())
        return section.over(self.settings)

    def to_json(self) -> bytes:
        """Equal configurations give equal bytes."""
        domains = {domain: _as_fields(section) for domain, section in self.domains}
        return dump({"schema": SCHEMA, "settings": _as_fields(self.settings), "domains": domains})

    @classmethod
    def from_json(cls, data: bytes, what: str) -> DeployConfig:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        settings = _from_fields(fields.nested("settings"), what)
        domains = {
            _checked(domain, check_domain, what): _from_fields(section, what)
            for domain, section in fields.nested_map("domains").items()
        }
        fields.end()
        return cls(settings, tuple(sorted(domains.items())))


def check_path(text: str) -> str:
    """`text`, if it may be a path. Raises `InvalidName`."""
    if not text or not text.isprintable():
        raise InvalidName("expected a path")
    return text


# The settings that are texts.
CHECKS: Mapping[str, Callable[[str], str]] = {
    "endpoint": check_endpoint,
    "org": check_org,
    "flyte_config": check_path,
    "store": check_store_uri,
    "registry": check_registry,
    "project": check_project,
}


def _as_fields(settings: Settings) -> dict[str, Any]:
    return {**vars(settings), "images": dict(settings.images)}


def _from_fields(fields: Fields, what: str) -> Settings:
    read: dict[str, Any] = {}
    for name, check in CHECKS.items():
        text = fields.optional_text(name)
        read[name] = None if text is None else _checked(text, check, what)
    insecure = fields.optional_boolean("insecure")
    images = {
        _checked(name, check_ref_name, what): _checked(image, check_image, what)
        for name, image in fields.text_map("images").items()
    }
    fields.end()
    return Settings(**read, insecure=insecure, images=tuple(sorted(images.items())))


def _checked(text: str, check: Callable[[str], str], what: str) -> str:
    try:
        return check(text)
    except (InvalidName, StoreError) as error:
        raise InvalidData(f"{what}: {error}") from None
