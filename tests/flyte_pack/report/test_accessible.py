"""The report by the rules for accessibility that axe-core knows, in each view, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.flyte_pack.report.conftest import OpenPage
from tests.support import reports
from tests.support.browser import DESKTOP, PHONE, node_packages


@pytest.fixture(scope="module")
def axe() -> str:
    return (node_packages() / "axe-core" / "axe.min.js").read_text()


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_breaks_the_rules(open_page: OpenPage, axe: str, scheme: str, size: tuple[int, int]):  # fmt: skip
    page = open_page(reports.changed(reports.forecast()), size, color_scheme=scheme)
    for view in page.get_by_role("tab").all_inner_texts():
        page.get_by_role("tab", name=view).click()
        assert violations(page, axe) == [], view
    page.get_by_role("combobox", name="Search").fill("encoder")
    assert violations(page, axe) == []
    page.keyboard.press("Enter")
    assert violations(page, axe) == []


def test_axe_sees_what_is_wrong(open_page: OpenPage, axe: str):
    page = open_page(reports.content(reports.forecast()))
    page.evaluate("() => document.querySelector('#search').removeAttribute('aria-label')")
    page.evaluate("() => document.querySelector('#search').removeAttribute('placeholder')")
    assert any(one.startswith("label:") or "aria-input" in one for one in violations(page, axe))
