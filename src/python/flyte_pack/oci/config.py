"""The config of an image, read and written in one place.

Image specification 1.1, "Image Configuration". A config may come from a registry or a file of
unknown origin. The fields that we use are checked. Other settings are kept as they are. Fields
beside `config` that describe a build are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_pack.json_fields import canonical
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor, InvalidImage, Platform

# No build may differ from the next, so none says when it happened.
CREATED = "1970-01-01T00:00:00Z"
# What container engines search where an image sets no PATH.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ImageConfig:
    """diff_ids: digests of the uncompressed layers, lowest first. history: the entries as they are.

    env, entrypoint, cmd, user, workdir, labels: fields of `config`. other: the rest of `config`.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str | None = None
    workdir: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, what: str) -> ImageConfig:
        """`what` names the config in errors. Raises `InvalidImage`."""
        document = model.parse_object(data, what)
        settings = _object(document, "config", what)
        rootfs, history = _object(document, "rootfs", what), document.get("history")
        if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
            history = []  # it only informs
        env = _strings(settings.pop("Env", None), f"{what}: `Env`")
        return cls(
            platform=Platform.from_fields(document, what),
            diff_ids=tuple(
                model.check_digest(one, f"{what}: a diff_id")
                for one in _strings(rootfs.get("diff_ids"), f"{what}: `diff_ids`")
            ),
            history=tuple(history),
            env=dict(variable.partition("=")[::2] for variable in env),
            entrypoint=_strings(settings.pop("Entrypoint", None), f"{what}: `Entrypoint`"),
            cmd=_strings(settings.pop("Cmd", None), f"{what}: `Cmd`"),
            user=_string(settings.pop("User", None), f"{what}: `User`"),
            workdir=_string(settings.pop("WorkingDir", None), f"{what}: `WorkingDir`"),
            labels=model.string_map(settings.pop("Labels", None), f"{what}: `Labels`"),
            other=settings,
        )

    def to_json(self) -> bytes:
        """Equal configs give equal bytes."""
        settings: dict[str, Any] = {
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "Entrypoint": list(self.entrypoint) or None,
            "Cmd": list(self.cmd) or None,
            "User": self.user,
            "WorkingDir": self.workdir,
            "Labels": dict(self.labels),
        }
        stated = {key: value for key, value in settings.items() if value is not None}
        document: dict[str, Any] = {
            "created": CREATED,
            **self.platform.as_fields(),
            "config": {**self.other, **stated},
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": list(self.history),
        }
        return canonical(document)

    def check_layers(self, layers: Sequence[Descriptor | str], what: str) -> None:
        """Raises `InvalidImage` unless there is one diff_id for each of the manifest's layers."""
        if len(self.diff_ids) != len(layers):
            raise InvalidImage(
                f"{what}: the config and the manifest differ in their layers: "
                f"{len(self.diff_ids)} diff_ids and {len(layers)} layers"
            )


def history_entry(created_by: str) -> Mapping[str, str]:
    """The entry of one layer."""
    return {"created": CREATED, "created_by": created_by}


def _object(document: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidImage(f"{what}: `{key}` is not an object")
    return dict(value)


def _strings(value: object, what: str) -> tuple[str, ...]:
    value = value or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidImage(f"{what} is not a list of strings")
    return tuple(value)


def _string(value: object, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidImage(f"{what} is not a string")
    return value
