"""A real browser for tests: Debian's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.containers import need

VENDOR = Path(__file__).resolve().parents[2] / "build-support" / "report" / "vendor.py"
DESKTOP = (1360, 860)
PHONE = (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            # Root has no other way; and no GPU, so that pictures do not depend on the machine's.
            args=["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
        )
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that is open, and all that it complained of."""

    def __init__(self, browser: Browser, path: Path, size: tuple[int, int], **options: Any) -> None:
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


def vendor(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What makes the libraries of the report."""
    return subprocess.run(
        [sys.executable, str(VENDOR), *arguments], capture_output=True, text=True, check=False
    )


def node_packages() -> Path:
    """The packages of build-support/locks/report."""
    need("nodejs", "npm")
    done = vendor("--packages")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
