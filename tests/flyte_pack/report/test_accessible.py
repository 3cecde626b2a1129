"""The report by the rules for accessibility that axe-core knows, in each view, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from flyte_pack.explain import Artifact, Graph, Need, ShippedFile
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


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_what_was_packed_breaks_none(open_page: OpenPage, axe: str, size: tuple[int, int]):
    for graph in (reports.packed(reports.forecast()), reports.image()):
        page = open_page(reports.content(graph), size)
        for view in page.get_by_role("tab").all_inner_texts():
            page.get_by_role("tab", name=view).click()
            assert violations(page, axe) == [], view


LONG = "very_long_name_" * 14
FEW = {
    "nothing": (),
    "no files": (Graph(Artifact("app:t", (), (), (), ())),),
    "one long name": (
        Graph(
            Artifact(
                "app:t",
                ("w.py",),
                (("app:t", (Need("w.py", "imported"),)), ("w.py", ())),
                (),
                (ShippedFile(f"{LONG}/{LONG}.py", f"{LONG}/{LONG}.py", 1, "w.py", LONG, "module"),),
            )
        ),
    ),
}


@pytest.mark.parametrize("what", FEW)
def test_little_breaks_no_rule_either(open_page: OpenPage, axe: str, what: str):
    page = open_page(reports.content(*FEW[what]), PHONE)
    assert violations(page, axe) == []
    for view in page.get_by_role("tab").all():
        view.click()
        assert violations(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_sees_what_is_wrong(open_page: OpenPage, axe: str):
    page = open_page(reports.content(reports.forecast()))
    page.evaluate("() => document.querySelector('#search').removeAttribute('aria-label')")
    page.evaluate("() => document.querySelector('#search').removeAttribute('placeholder')")
    assert any(one.startswith("label:") or "aria-input" in one for one in violations(page, axe))
