"""Reads the settings of deployments from YAML.

    endpoint: flyte.example.com
    store: s3://flyte-bundles/bikes
    images: {trainer: ghcr.io/org/trainer:2026.1}
    domains:
      production: {store: s3://prod/bikes}

`python -m flyte_pack deploy-config --file X --output Y.json` makes JSON of it for the build rules.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from flyte_pack import command
from flyte_pack.deploy.config import IN_FILES, DeployConfig, Settings
from flyte_pack.fresh import fresh_file
from flyte_pack.json_fields import InvalidData
from flyte_shim import shown

_MOST_BYTES = 256 << 10
_MOST_DEPTH = 8
_MOST_VALUES = 4000  # names count too; a longer file would keep a reader waiting for seconds
_TEXT, _BOOLEAN = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"


def read_config(text: bytes, what: str) -> DeployConfig:
    """The settings in a YAML file. Raises `InvalidData`, which names `what` and the line.

    Anchors, tags, a second document and unknown keys are refused. Messages repeat no value that
    could hold a password.
    """
    import yaml  # only a deployment that has such a file pays for it

    if len(text) > _MOST_BYTES:
        raise InvalidData(f"{what}: has {len(text):,} bytes, which is too long for settings")
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
        _check_events(events, what)
        root = yaml.compose(text, Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{what}:{mark.line + 1}" if mark else what
        problem = error.problem or error.context or "this cannot be read"
        # What is after the problem would repeat the line.
        raise InvalidData(f"{where}: not YAML: {shown.line(problem, longest=200)}") from None
    except yaml.YAMLError as error:  # bytes that are no text
        reason = getattr(error, "reason", "it cannot be read")
        raise InvalidData(f"{what}: not YAML: {shown.line(str(reason), longest=200)}") from None
    if root is None:
        return DeployConfig()
    reader = _Reader(what)
    top = reader.mapping(root, "the file")
    domains = {}
    if "domains" in top:
        for domain, section in reader.mapping(top.pop("domains")[1], "domains").items():
            reader.read("domain", section[0], domain)
            values = reader.mapping(section[1], f"the section of {domain}")
            domains[domain] = reader.settings(values, ())
    settings = reader.settings(top, ("domains",))
    return DeployConfig(settings, tuple(sorted(domains.items())))


def _check_events(events: Iterable[Any], what: str) -> None:
    """Refuse what settings do not need before anything is built, so that nothing can grow."""
    import yaml

    depth = documents = values = 0
    for event in events:
        where = f"{what}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InvalidData(f"{where}: a second document begins: settings are one")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise InvalidData(
                f"{where}: anchors and aliases (& and *) are not understood here: write it out"
            )
        if getattr(event, "tag", None) is not None:
            raise InvalidData(f"{where}: tags (!) are not understood here: leave it out")
        values += isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
        if values > _MOST_VALUES:
            raise InvalidData(f"{where}: more than {_MOST_VALUES:,} names and values are too many")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise InvalidData(f"{where}: is nested too deeply for settings")


class _Reader:
    """Takes settings out of YAML's nodes, which know their lines."""

    def __init__(self, what: str) -> None:
        self._what = what

    def mapping(self, node: Any, name: str) -> dict[str, tuple[Any, Any]]:
        """(node of the key, node of the value) by key."""
        if node.id != "mapping":
            raise self._error(node, f"{name}: expected `name: value` pairs")
        found: dict[str, tuple[Any, Any]] = {}
        for key, value in node.value:
            text = self._text(key, f"a name in {name}")
            if set(text) & set("@:/"):  # no name of ours, and perhaps an address with a password
                raise self._error(key, f"a name in {name} holds '@', ':' or '/', which none may")
            if text in found:
                first = found[text][0].start_mark.line + 1
                raise self._error(key, f"{text!a:.40} is there twice; the first is in line {first}")
            found[text] = key, value
        return found

    def settings(self, values: Mapping[str, tuple[Any, Any]], also: tuple[str, ...]) -> Settings:
        """also: keys that may be there besides."""
        known = (*IN_FILES, *also)
        found: dict[str, Any] = {}
        for name, (key, value) in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise self._error(
                    key, f"unknown setting {name!a:.40}{hint} (there are {', '.join(known)})"
                )
            if name == "images":
                images = (self._image(*one) for one in self.mapping(value, name).items())
                found[name] = tuple(sorted(pair for pairs in images for pair in pairs))
            elif name == "insecure":
                if value.id != "scalar" or value.tag != _BOOLEAN:
                    raise self._error(value, "insecure: expected true or false")
                found[name] = value.value.lower() in ("true", "yes", "on")
            else:
                found[name] = self.read(name, value, self._text(value, name))
        return Settings(**found)

    def _image(self, name: str, nodes: tuple[Any, Any]) -> Any:
        text = self._text(nodes[1], f"images: {name}")
        return self.read("images", nodes[1], {name: text})

    def read(self, name: str, node: Any, raw: object) -> Any:
        """A setting's value, checked."""
        try:
            return Settings.read(name, raw, name)
        except InvalidData as error:
            raise self._error(node, str(error)) from None

    def _text(self, node: Any, name: str) -> str:
        if node.id != "scalar":
            raise self._error(node, f"{name}: expected a text")
        if node.tag != _TEXT:
            # Not what the author sees there: no is false, 1.10 is 1.1, nothing at all is null.
            kind = node.tag.rpartition(":")[2]
            raise self._error(
                node, f"{name}: YAML reads this as a {kind}: put a text in quotes, or take it out"
            )
        if not node.value.isprintable():
            raise self._error(node, f"{name}: holds a line break or control character")
        return str(node.value)

    def _error(self, node: Any, text: str) -> InvalidData:
        return InvalidData(f"{self._what}:{node.start_mark.line + 1}: {text}")


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = command.parser("python -m flyte_pack deploy-config", "Check settings in YAML.")
    parser.add_argument("--file", required=True, help="the settings, in YAML")
    parser.add_argument("--output", required=True, help="where to write them as JSON")
    return command.run(parser, argv, _convert)


def _convert(given: argparse.Namespace) -> None:
    with open(given.file, "rb") as file:
        config = read_config(file.read(_MOST_BYTES + 1), given.file)
    with fresh_file(given.output) as path, open(path, "wb") as output:
        output.write(config.to_json())
