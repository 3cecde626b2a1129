"""The settings of a deployment: of a target, of a settings file, of `[flyte]`, or as typed.

`config_file` reads files, which are YAML; the rules have no reader for it and get JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional, Tuple, get_type_hints

from flyte_pack import names
from flyte_pack.json_fields import OBJECT, Document, read, safe_path
from flyte_pack.store.uris import check_store_uri
from flyte_pack.task_link import CopyStyle


def check_path(text: str) -> str:
    """`text`, if it may be a path. Raises `InvalidName`."""
    if not text or not text.isprintable() or "://" in text:
        raise names.InvalidName("expected a path")
    return text


def check_directory(text: str) -> str:
    """The path of a directory below the build root, in its shortest form. Raises `InvalidName`."""
    path = text[2:] if text.startswith("./") else text
    path = path.rstrip("/") or text
    try:
        return path if path == "." else safe_path(path)
    except ValueError as error:
        raise names.InvalidName(
            f"expected a directory below the build root, such as src or '.', not {error}"
        ) from None


_RefName = Annotated[str, names.check_ref_name]
_Image = Annotated[str, names.check_image]
_Domain = Annotated[str, names.check_domain]


@dataclass(frozen=True)
class Settings:
    """Each is None where it is not set. A setting is stated here, with its check.

    insecure: no TLS. flyte_config: path of a config.yaml of Flyte's own, from the build root.
    images: (ref name, reference) pairs, sorted by name.
    """

    endpoint: Optional[Annotated[str, names.check_endpoint]] = None
    org: Optional[Annotated[str, names.check_org]] = None
    insecure: Optional[bool] = None
    flyte_config: Optional[Annotated[str, check_path]] = None
    store: Optional[Annotated[str, check_store_uri]] = None
    registry: Optional[Annotated[str, names.check_registry]] = None
    project: Optional[Annotated[str, names.check_project]] = None
    domain: Optional[_Domain] = None
    version: Optional[Annotated[str, names.check_version]] = None
    copy_style: Optional[CopyStyle] = None
    root_dir: Optional[Annotated[str, check_directory]] = None
    images: Annotated[Tuple[Tuple[_RefName, _Image], ...], OBJECT] = ()

    @staticmethod
    def read(name: str, value: object, what: str) -> Any:
        """The value of a setting, checked; `what` names it in errors. Raises `InvalidData`."""
        return read(_TYPES[name], value, what)

    def over(self, below: Settings) -> Settings:
        """These settings; those of `below` where these are not set. Images go name by name."""
        merged = {n: getattr(below if v is None else self, n) for n, v in vars(self).items()}
        images = {**dict(below.images), **dict(self.images)}
        return Settings(**{**merged, "images": tuple(sorted(images.items()))})


UNSET = Settings()


@dataclass(frozen=True)
class DeployConfig(Document):
    """A settings file. settings: at its top. domains: its sections, by domain, sorted.

    A domain's section comes before the top, setting by setting, and image by image.
    """

    NAME = "settings"

    settings: Settings = UNSET
    domains: Annotated[Tuple[Tuple[_Domain, Settings], ...], OBJECT] = ()

    def for_domain(self, domain: str | None) -> Settings:
        """What holds in a domain; None where none is known."""
        section = dict(self.domains).get(domain or "", UNSET)
        return section.over(self.settings)


_TYPES = get_type_hints(Settings, include_extras=True)
TEXTS = tuple(name for name in _TYPES if name not in ("insecure", "images"))
# A file has sections for domains. The others belong to a target or a command line.
IN_FILES = tuple(
    name for name in _TYPES if name not in ("domain", "version", "copy_style", "root_dir")
)
