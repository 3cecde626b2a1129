from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from playwright.sync_api import Browser, Page

from tests.support import browser as browsers
from tests.support import reports
from tests.support.browser import DESKTOP, Opened

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens the report of a document; afterwards the page must have asked for nothing from anywhere,
    and complained of nothing.
    """
    opened = []

    def open_it(document: dict[str, Any], size: tuple[int, int] = DESKTOP, **options: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(reports.report(document), "ascii")
        opened.append(Opened(browser, file, size, **options))
        return opened[-1].page

    yield open_it
    for one in opened:
        one.context.close()
        assert one.complaints == []
        assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []
