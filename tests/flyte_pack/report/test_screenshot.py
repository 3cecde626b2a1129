"""The picture in README.md and docs/explain.md. With UPDATE_SCREENSHOT=DIRECTORY it is written there:

    UPDATE_SCREENSHOT=$PWD/docs ./pants test tests/flyte_pack/report/test_screenshot.py

Fonts differ between machines, so pictures are not compared pixel by pixel.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from playwright.sync_api import Page

from tests.flyte_pack.report.conftest import OpenPage
from tests.support import reports
from tests.support.browser import DESKTOP

NAME = "report.png"
COMMITTED = Path(__file__).parents[3] / "docs" / NAME
WEIGHTS = "libs/models/weights/encoder.bin"


def test_the_picture_is_of_the_page(open_page: OpenPage):
    page: Page = open_page(reports.content(reports.forecast()))
    page.get_by_role("button", name=f"resource {WEIGHTS},").click()
    page.mouse.move(5, 5)
    shot = page.screenshot(animations="disabled")
    directory = os.environ.get("UPDATE_SCREENSHOT")
    if directory:
        Path(directory, NAME).write_bytes(shot)
    committed = Path(directory, NAME).read_bytes() if directory else COMMITTED.read_bytes()
    assert size(shot) == size(committed) == DESKTOP
    assert len(committed) < 200_000
    colours = page.evaluate(COLOURS, committed.hex())
    assert page.evaluate(COLOURS, shot.hex()) == colours


def size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


# The colours of a few places that no text covers: the page, the boxes of the treemap, the details.
COLOURS = """async (hex) => {
  const bytes = Uint8Array.from(hex.match(/../g), (two) => parseInt(two, 16));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(picture, 0, 0);
  return [[5, 5], [300, 450], [300, 680], [700, 420], [1300, 770]].map(([x, y]) => [...canvas.getImageData(x, y, 1, 1).data]);
}"""
