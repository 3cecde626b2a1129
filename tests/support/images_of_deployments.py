"""Tasks of a deployment with an image that was built for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from flyte_pack.task_link import LinkedImage
from tests.support.deploying import BuildRoot
from tests.support.registries import AMD64, ARM64, Image, RealRegistry, make_image


def with_image(
    root: BuildRoot, registry: RealRegistry, tmp_path: Path, name: str = "train", **changes: Any
) -> tuple[Image, str]:
    """Package a task with an image of two platforms that is built here, to be pushed to `registry`."""
    image = make_image(tmp_path / f"{name}-image", 1000, name.encode(), platforms=(AMD64, ARM64))
    shutil.copytree(image.layout, root.dist / f"{name}-image", dirs_exist_ok=True)
    linked = LinkedImage(
        f"services/ml:{name}-image", f"{name}-image", image.digest, "trainer", "/app"
    )
    root.package(name, f"name = {name!r}\n", image=None, built_image=linked, **changes)
    push = image.plan(f"{registry.host}/bikes/{name}:v1")
    document = json.loads(push.to_json())
    document["layout"] = f"{name}-image"
    (root.dist / f"{name}-push.json").write_text(json.dumps(document))
    return image, f"{name}-push.json"
