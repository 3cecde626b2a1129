"""Files of a build root with images on a base that needs no registry, and small packages to be
found without one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache

from tests.support.bases import base_image
from tests.support.codec_envs import CACHE
from tests.support.flyte_rules import RuleRoot
from tests.support.wheels import AMD64, ARM64, Wheel, lock_of, write_wheel

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"

# pftest_a needs pftest_b, and nothing needs pftest_c; pftest_d differs by platform.
WHEELS = (
    Wheel("pftest-a", requires=("pftest-b",), scripts={"a-command": "pftest_a:main"}),
    Wheel("pftest-b"),
    Wheel("pftest-c"),
    Wheel("pftest-d", files={"pftest_d.py": "amd64"}, tag=AMD64),
    Wheel("pftest-d", files={"pftest_d.py": "arm64"}, tag=ARM64),
)

BASE = {
    "img/BUILD": """
        flyte_base_image(
            name="base", image="docker.io/library/python:3.12-slim", platforms=["linux/amd64"]
        )
        """,
    "img/base.lock.json": base_image().to_json(),
    "locks/default.txt": lock_of(WHEELS),
    "3rdparty/BUILD": "\n".join(
        f"python_requirement(name='{letter}', requirements=['pftest-{letter}'])"
        for letter in "abcd"
    ),
}


@cache
def wheel_directory() -> str:
    """Where the wheels are: always the same place, so that Pants need not make its tools anew for
    it.
    """
    name = "-".join(["wheels", *(wheel.sha256[:8] for wheel in WHEELS)])
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f"{name}.", dir=CACHE)
        for wheel in WHEELS:
            write_wheel(CACHE / os.path.basename(made), wheel)
        try:
            os.rename(made, place)
        except OSError:  # another process was first
            shutil.rmtree(made)
    return str(place)


def image_options(
    root: RuleRoot, *more: str, bytecode: str = "off", env: Mapping[str, str] | None = None
) -> None:
    """The options for these files, and `more`.

    Unless said, nothing is compiled, whichever releases of CPython this machine has.
    """
    links = f"--python-repos-find-links=['file://{wheel_directory()}']"
    root.options(links, f"--flyte-image-bytecode={bytecode}", *more, env=env)


def app(
    image: str = "", task: str = "", source: str = "import app.lib, pftest_a\n"
) -> dict[str, str | bytes]:
    """A task and its image, `app:t` and `app:image`, with these fields more."""
    return {
        **BASE,
        "app/BUILD": f"""
            python_sources()
            flyte_image(name="image", base="img:base", dependencies=[":t"], {image})
            flyte_task(name="t", entry_point="w.py:train", image=":image", {task})
            """,
        "app/w.py": source + TASK,
        "app/lib.py": "value = 1\n",
    }  # fmt: skip


def image(fields: str = "", **files: str | bytes) -> dict[str, str | bytes]:
    """An image for nothing, `app:image`, with these fields more."""
    return {**BASE, "app/BUILD": f'flyte_image(name="image", base="img:base", {fields})', **files}
