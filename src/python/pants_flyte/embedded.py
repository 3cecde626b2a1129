"""Checks that an image holds a task's code where the task's imports look for it."""

from __future__ import annotations

from typing import Mapping

from pants.build_graph.address import Address

from flyte_pack.errors import listing
from pants_flyte.build_types import BuiltImage, SourceFile
from pants_flyte.errors import FlyteTargetError


def check_embedded(
    address: Address, entry: str, placed: Mapping[str, SourceFile], image: BuiltImage
) -> None:
    """Raises `FlyteTargetError`. placed: all that the task reaches, by its path below the root of
    imports, the working directory in the image. entry: the entry point's module.
    """
    top = image.workdir[1:]
    at = {source: path for path, source in sorted(image.code.items(), reverse=True)}
    missing = {
        path: file for path, file in placed.items() if image.code.get(f"{top}/{path}") != file.path
    }
    if not missing:
        return
    expected = next((path for path, file in placed.items() if file.path == entry), "")
    if expected in missing and entry in at:
        text = _elsewhere(entry, f"{top}/{expected}", at[entry], top, image)
        raise FlyteTargetError(address, text)
    lines = listing(
        f"{file.path} ({file.owner or 'no owner'}), expected at /{top}/{path}"
        + (f", found at /{at[file.path]}" if file.path in at else "")
        for path, file in sorted(missing.items())
    )
    raise FlyteTargetError(
        address,
        f'`copy_style` is "none", and the image {image.address} lacks files that the task '
        f"reaches:\n{lines}\n"
        f"Name this task, or the code, in the `dependencies` of {image.address}, and leave its "
        "`code` unset or set it to True; or copy the files' source root with `source_folders`.",
    )


def _elsewhere(entry: str, expected: str, actual: str, top: str, image: BuiltImage) -> str:
    """The usual mistake: a folder was copied in place of its contents, or the other way round."""
    text = (
        f"the image {image.address} has {entry} at /{actual}, and with this target's `root_dir` it "
        f"is imported from /{expected}. "
    )
    if image.embeds_code:  # the graph put it there: no folder was copied
        return f"{text}Give both the same `root_dir`."
    inner, outer = expected[len(top) + 1 :], actual[len(top) + 1 :]
    if actual.endswith(f"/{inner}") and actual.startswith(f"{top}/"):
        folder = outer[: -len(inner) - 1]
        return (
            f"{text}The image holds the folder {folder!r} itself where its contents are looked "
            f"for: set `copy_contents_only` to True in the `source_folders` of {image.address}, or "
            f"set `root_dir` here to a directory above {folder!r}."
        )
    if expected.endswith(f"/{outer}"):
        folder = inner[: -len(outer) - 1]
        return (
            f"{text}The image holds the contents of the folder {folder!r} where the folder itself "
            "is looked for: set `copy_contents_only` to False in the `source_folders` of "
            f"{image.address} (with `dst` the directory above), or set `root_dir` here to "
            f"{folder!r}, if imports start there."
        )
    return (
        f"{text}Make `root_dir` of the two agree, or change `dst` in the `source_folders` of "
        f"{image.address}, so that the root of imports is its working directory, {image.workdir}."
    )
