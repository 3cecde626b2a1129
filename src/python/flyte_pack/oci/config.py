"""The config of an image, read and written in one place.

Image specification 1.1, "Image Configuration". A config may come from a registry or a file of
unknown origin. The fields that we use are checked, as they become variables, arguments and paths.
Other settings are kept as they are, if their texts are such that anybody could use them. Fields
beside `config` that describe a build are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_pack.json_fields import canonical
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor, InvalidImage, Platform
from flyte_shim.words import check_word, word_problem

# No build may differ from the next, so none says when it happened.
CREATED = "1970-01-01T00:00:00Z"
_MAX_VARIABLES = 2_000  # bubblewrap takes three arguments for each, and 9,000 in all
_MAX_PATH = 4095  # bytes (path_resolution(7)); names of users are shorter
_MAX_DEPTH = 50  # of lists and objects in each other
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
        if (
            not isinstance(history, list)
            or not all(isinstance(one, dict) for one in history)
            or _problem(history)
        ):
            history = []  # it only informs
        platform = Platform.from_fields(document, what)
        check_word(str(platform), f"{what}: the platform", longest=100, error=InvalidImage)
        env = _variables(settings.pop("Env", None), f"{what}: `Env`")
        entrypoint = _command(settings.pop("Entrypoint", None), f"{what}: `Entrypoint`")
        cmd = _command(settings.pop("Cmd", None), f"{what}: `Cmd`", bool(entrypoint))
        user = _string(settings.pop("User", None), f"{what}: `User`")
        workdir = _string(settings.pop("WorkingDir", None), f"{what}: `WorkingDir`")
        labels = model.string_map(settings.pop("Labels", None), f"{what}: `Labels`")
        for name, value in labels.items():
            check_word(name, f"{what}: the name of a label", error=InvalidImage)
            check_word(value, f"{what}: the label {name}", lines=True, error=InvalidImage)
        if problem := _problem(settings):
            raise InvalidImage(f"{what}: `config` {problem}")
        return cls(
            platform=platform,
            diff_ids=tuple(
                model.check_digest(one, f"{what}: a diff_id")
                for one in _strings(rootfs.get("diff_ids"), f"{what}: `diff_ids`")
            ),
            history=tuple(history),
            env=env,
            entrypoint=entrypoint,
            cmd=cmd,
            user=user,
            workdir=workdir,
            labels=labels,
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
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidImage(f"{what} is not a string")
    return check_word(value, what, longest=_MAX_PATH, error=InvalidImage)


def _variables(value: object, what: str) -> dict[str, str]:
    """The variables of `NAME=VALUE`, the last of a name (image specification, "Env")."""
    found = {}
    for variable in _strings(value, what):
        check_word(variable, what, lines=True, error=InvalidImage)
        name, _, text = variable.partition("=")
        if not name or not name.isprintable():
            raise InvalidImage(f"{what} has a variable whose name is empty or has line ends")
        found[name] = text
    if len(found) > _MAX_VARIABLES:
        raise InvalidImage(f"{what} has more than {_MAX_VARIABLES:,} variables")
    return found


def _command(value: object, what: str, may_be_empty: bool = False) -> tuple[str, ...]:
    """The words of a command; none for `[""]`, by which docker is told that there is none."""
    words = _strings(value, what)
    for word in words:
        check_word(word, what, lines=True, error=InvalidImage)
    if words[:1] == ("",) and not may_be_empty:
        if len(words) > 1:
            raise InvalidImage(f"{what} names no program: its first word is empty")
        return ()
    return words


def _problem(value: object) -> str | None:
    """What is wrong with a value that is kept as it is: a text in it, or that JSON cannot have it.

    Not recursive, as the value may be nested as deeply as the reader of JSON bore.
    """
    left = [(value, 0)]
    while left:
        one, depth = left.pop()
        if isinstance(one, str):
            if problem := word_problem(one, lines=True):
                return f"has a text that {problem}"
        elif isinstance(one, float) and not math.isfinite(one):
            return "has a number that JSON cannot have"
        elif isinstance(one, (dict, list)):
            if depth > _MAX_DEPTH:
                return f"is nested more than {_MAX_DEPTH} deep"
            parts = (*one, *one.values()) if isinstance(one, dict) else one
            left += [(part, depth + 1) for part in parts]
    return None
