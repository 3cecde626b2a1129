#!/usr/bin/env python3
"""How quick the HTML report of a large bundle is, in a headless Chromium.

    report.py                 # 10,000 modules, five times
    report.py --files 50000

Opening is measured from the start of the navigation to the first frame with the treemap, and a search
from a keystroke to the frame that shows what it found, in each view. The peer is a page with nothing
but a table of the same files, which a browser draws by itself: the ratio says what the report costs
over the plainest thing. It needs Chromium and the packages of the resolve `pants-plugins`.
"""

from __future__ import annotations

import argparse
import html
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "src" / "python")]

from playwright.sync_api import Browser, Page  # noqa: E402

from flyte_pack.report.page import page  # noqa: E402
from tests.support import reports  # noqa: E402
from tests.support.browser import DESKTOP, chromium  # noqa: E402

# The second frame begins when the first is drawn.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
TYPED = """(text) => new Promise((done) => {
  const input = document.getElementById("search");
  const start = performance.now();
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""
QUERIES = ("m", "mod_1", "team_03 package_1", "libs/team_11/package_39/mod_02.py", "nothing")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the HTML report of flyte-explain.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        graph = reports.large(options.files)
        document = reports.content(graph)
        start = time.perf_counter()
        made = page(document, [graph])
        print(
            f"making the page of {options.files:,} files: {time.perf_counter() - start:.2f} s, {len(made) / 1e6:.1f} MB"
        )
        report, peer = Path(place, "report.html"), Path(place, "peer.html")
        report.write_text(made, "ascii")
        peer.write_text(plain(document), "utf-8")
        opened = repeated(options.times, lambda: opening(browser, report, "#treemap .cell"))
        plainly = repeated(options.times, lambda: opening(browser, peer, "td"))
        print(
            f"opening: {opened:.0f} ms; a plain table: {plainly:.0f} ms; ratio {opened / plainly:.2f}"
        )
        for view in ("sizes", "imports", "files"):
            wall, cpu = searching(browser, report, view, options.times)
            print(f"search, {view}: {wall:.0f} ms at worst, of CPU {cpu:.0f} ms")
    return 0


def repeated(times: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(times))


def opening(browser: Browser, path: Path, drawn: str) -> float:
    opened = at(browser, path.as_uri())
    opened.wait_for_selector(drawn)
    took: float = opened.evaluate(DRAWN)
    opened.context.close()
    return took


def searching(browser: Browser, path: Path, view: str, times: int) -> tuple[float, float]:
    """The slowest query, each by its median, in ms: until it is drawn, and the CPU of the page's
    thread, which a busy machine leaves as it is. Frames come every 16 ms; two are waited for.
    """
    opened = at(browser, f"{path.as_uri()}#/view={view}")
    opened.wait_for_selector(f"#view-{view}:not([hidden])")
    session = opened.context.new_cdp_session(opened)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(1e3 * one["value"] for one in metrics if one["name"] == "TaskDuration")

    worst = (0.0, 0.0)
    for query in QUERIES:
        took = []
        for _ in range(times):
            opened.evaluate(TYPED, "")
            before = cpu()
            took.append((opened.evaluate(TYPED, query), cpu() - before))
        walls, cpus = zip(*took)
        worst = (
            max(worst[0], statistics.median(walls)),
            max(worst[1], statistics.median(cpus)),
        )
    opened.context.close()
    return worst


def at(browser: Browser, address: str) -> Page:
    width, height = DESKTOP
    opened = browser.new_context(viewport={"width": width, "height": height}).new_page()
    opened.goto(address)
    return opened


def plain(document: Any) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(file['path'])}</td><td>{file['size']}</td><td>{html.escape(file['owner'])}</td></tr>"
        for file in document["artifacts"][0]["files"]
    )
    return f"<!doctype html><meta charset=utf-8><title>files</title><table>{rows}</table>"


if __name__ == "__main__":
    sys.exit(main())
