"""The JSON schema of settings files, with which editors complete and check them.

It says what a file looks like. What a single text must be (an image, a store) the reader checks.
`docs/deploy-settings.schema.json` is what this gives; a test holds that.
"""

from __future__ import annotations

from typing import Any

from flyte_pack.deploy.config import IN_FILES

ABOUT = {
    "endpoint": "Flyte's control plane, as HOST[:PORT] or https://HOST[:PORT].",
    "org": "The organization, where the control plane serves several.",
    "insecure": "Whether the endpoint speaks plain HTTP, without TLS.",
    "flyte_config": "A config.yaml of Flyte's own, from the build root: endpoint, how to log in.",
    "store": "Where bundles and records go: s3://, gs://, abfs:// or file://.",
    "registry": "Where images that are built here are pushed, as HOST[/PATH] or @NAME.",
    "project": "The Flyte project.",
    "images": "References of images, by the names that code uses in `Image.from_ref_name`.",
}
_TEXT = {"type": "string", "minLength": 1}
_KINDS: dict[str, dict[str, Any]] = {
    "insecure": {"type": "boolean"},
    "images": {"type": "object", "additionalProperties": _TEXT},
}
_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"


def schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12."""
    settings = {name: {"description": ABOUT[name], **_KINDS.get(name, _TEXT)} for name in IN_FILES}
    section = {"type": "object", "additionalProperties": False, "properties": settings}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of flyte_deployment targets",
        **section,
        "properties": {
            **settings,
            "domains": {
                "description": "The same for single domains; a section wins over the top.",
                "type": "object",
                "propertyNames": {"pattern": _NAME},
                "additionalProperties": section,
            },
        },
    }
