"""The schema of settings files is current, and judges as the reader does, as far as it goes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from flyte_pack.deploy.config import IN_FILES
from flyte_pack.deploy.config_file import read_config
from flyte_pack.deploy.config_schema import ABOUT, schema
from flyte_pack.json_fields import InvalidData

EXAMPLE = b"""\
endpoint: localhost:8090
insecure: true
org: acme
project: bikes
flyte_config: ~/.flyte/config.yaml
store: file:///srv/bikes
registry: localhost:5000/bikes/
images: {trainer: ghcr.io/org/trainer:2026.1}
domains:
  production: {images: {trainer: ghcr.io/org/trainer:2026.1.3}, insecure: no}
"""
FILE = Path(__file__).parents[3] / "docs" / "deploy-settings.schema.json"


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == json.dumps(schema(), indent=2) + "\n"
    assert set(ABOUT) == set(IN_FILES)
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    "text",
    [EXAMPLE, b"{}", b"domains: {}", b"domains: {dev-1: {images: {}}}", b"store: s3://bucket/x"],
)
def test_what_the_reader_takes_is_valid(text: bytes) -> None:
    read_config(text, "x")
    jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    [
        *(b"endpont: h", b"- endpoint", b"domains: [a]", b"domains: {staging: }", b"images: r/a:1"),
        *(b"org: 12", b"org: no", b"org:", b"project: 1.10", b"insecure: 'true'", b"insecure: 1"),
        *(b"store: [a]", b"domains: {d: {domains: {}}}", b"domains: {.a: {}}", b"version: a"),
        *(b"flyte_config: ''", b"images: {a: 1}", b"domains: {a/b: {}}", b"domain: staging"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses(text: bytes) -> None:
    with pytest.raises(InvalidData):
        read_config(text, "x")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())
