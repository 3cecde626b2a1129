"""Modules with apps, the requests that Flyte's own deploy makes of them, and where apps are."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.control_plane import IMAGE, RealControlPlane
from tests.support.flyte_versions import python_with_flyte

# Flyte's names of the environments below that not every supported version has.
APPS = """\
    import pathlib
    from datetime import timedelta
    import flyte
    import flyte.app
    from libs.features import FACTOR

    tasks = flyte.TaskEnvironment(name="tasks")

    @tasks.task
    async def double(x: int = 2) -> int:
        return x * FACTOR

    served = flyte.app.AppEnvironment(name="served", depends_on=[tasks])

    @served.server
    def serve():
        pass

    @served.on_startup
    async def start():
        pass

    args = flyte.app.AppEnvironment(
        name="args",
        args=["python", "-m", "http.server", "8080"],
        resources=flyte.Resources(cpu=1, memory="1Gi"),
        env_vars={"B": "2", "A": "1"},
        secrets=[flyte.Secret(key="token", as_env_var="TOKEN")],
        include=("page.html",),
        description="What it is for",
        type="static",
    )
    text = flyte.app.AppEnvironment(name="text", args="python -m http.server '8080'")
    command = flyte.app.AppEnvironment(name="command", command="python3 -m http.server 8080")
    scaled = flyte.app.AppEnvironment(
        name="scaled",
        args=["serve"],
        port=flyte.app.Port(port=9000, name="h2c"),
        requires_auth=False,
        scaling=flyte.app.Scaling(
            replicas=(1, 5),
            metric=flyte.app.Scaling.Concurrency(10),
            scaledown_after=timedelta(minutes=5),
        ),
        domain=flyte.app.Domain(subdomain="scaled", custom_domain="www.example.com"),
        links=[flyte.app.Link(path="/docs", title="Docs", is_relative=True)],
        timeouts=flyte.app.Timeouts(request=60),
        cluster_pool="gpu",
    )
    rated = flyte.app.AppEnvironment(
        name="rated",
        args=["serve"],
        scaling=flyte.app.Scaling(replicas=2, metric=flyte.app.Scaling.RequestRate(7)),
    )
    fed = flyte.app.AppEnvironment(
        name="fed",
        args=["serve"],
        parameters=[
            flyte.app.Parameter(name="url", value=flyte.app.AppEndpoint(app_name="served"), env_var="URL"),
            flyte.app.Parameter(name="model", value=flyte.io.File(path="s3://models/m"), mount="/tmp/m/"),
            flyte.app.Parameter(name="word", value="a b"),
        ],
        depends_on=[served],
    )
    cloned = text.clone_with("cloned", env_vars={"C": "3"})
    connector = flyte.app.ConnectorEnvironment(name="connector", include=["libs/features.py"])

    everything = flyte.TaskEnvironment(
        name="everything",
        depends_on=[served, args, text, command, scaled, rated, fed, cloned, connector],
    )

    @everything.task
    async def ask() -> str:
        return served.endpoint
"""
FILES = {
    "services/app.py": APPS,
    "services/page.html": "<p>",
    "services/libs/features.py": "",
    "libs/features.py": "FACTOR = 2\n",
}
NAMES = {
    *("args", "cloned", "command", "connector", "fed", "rated", "scaled", "served", "text"),
}
URI = "s3://bundles/archives/ab.tar.gz"

_DEPLOY = """
import asyncio, json, os, pathlib, sys
os.environ["DO_NOT_TRACK"] = "1"
root, endpoint, module, name, image, uri = sys.argv[1:]
sys.path.insert(0, root)
import flyte
from flyte.models import CodeBundle, SerializationContext
root = pathlib.Path(root)
flyte.init(endpoint=endpoint, insecure=True, project="bikes", domain="development", root_dir=root,
           sync_local_sys_paths=False)
env = getattr(__import__(module, fromlist=["_"]), name)
from flyte._deploy import plan_deploy
from flyte._deployer import DeploymentContext, get_deployer
from flyte._internal.imagebuild.image_builder import ImageCache
envs = {n: e for p in plan_deploy(env) for n, e in p.envs.items()}
bundle = CodeBundle(tgz=uri, destination=".", computed_version="ab" * 32) if uri else None
context = SerializationContext(
    project="bikes", domain="development", version="v1", root_dir=root, code_bundle=bundle,
    image_cache=ImageCache(image_lookup={n: image for n in envs}))
async def main():
    for e in envs.values():
        await get_deployer(type(e))(DeploymentContext(environment=e, serialization_context=context))
asyncio.run(main())
os._exit(0)  # a thread of Flyte's may abort a Python that takes itself down
"""


def deploy_as_flyte_does(
    plane: RealControlPlane, line: str, root: str, module: str, name: str, uri: str = URI
) -> None:
    """Have Flyte's own deployers register an environment, and what it depends on, as version v1."""
    arguments = (root, plane.endpoint, module, name, IMAGE, uri)
    subprocess.run(
        [str(python_with_flyte(line)), "-I", "-c", _DEPLOY, *arguments], check=True, cwd=Path(root)
    )


def requests(plane: RealControlPlane) -> dict[str, Any]:
    """By app, the requests that deployed it, with what is compressed in them for how it is spelled."""
    return {app["name"]: _read(app["request"]) for app in plane.state()["apps"]}


def _read(value: Any, before: object = None) -> Any:
    if isinstance(value, dict):
        return {key: _read(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_read(one, value[at - 1] if at else None) for at, one in enumerate(value)]
    if before in ("--image-cache", "--parameters"):
        return json.loads(gzip.decompress(base64.b64decode(value)))
    return value
