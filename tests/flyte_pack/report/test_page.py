"""The report in a browser, used as a person would: pointer, keyboard, a phone, a screen reader."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from flyte_pack.explain import Artifact, Graph, Need, ShippedFile
from flyte_pack.explain_json import found_brought
from flyte_pack.locked import Locked
from tests.flyte_pack.report.conftest import OpenPage
from tests.support import reports
from tests.support.browser import PHONE

WEIGHTS = "libs/models/weights/encoder.bin"
WAY = [
    "services/forecast/workflows.py",
    "libs/models/__init__.py",
    "libs/models/boosting.py",
    WEIGHTS,
]


@pytest.fixture
def document() -> dict[str, Any]:
    return reports.content(reports.forecast())


def view(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def way(page: Page) -> list[str]:
    return page.locator("#way .name").all_inner_texts()


def marked(page: Page) -> set[str]:
    """What the graph shows as the way, by its label."""
    return set(page.locator(".node.way .n").all_text_contents())


def test_it_says_what_ships(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    expect(page).to_have_title("services/forecast:train: what ships, and why")
    expect(page.get_by_role("heading", level=1)).to_have_text("services/forecast:train")
    expect(page.locator("#summary")).to_contain_text("53 files, 1.9 MB, 6 third-party requirements")


def test_a_click_on_a_file_shows_its_way(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    page.get_by_role("button", name=f"encoder.bin 604.0 kB, resource {WEIGHTS}").click()
    assert way(page) == WAY
    expect(page.get_by_role("status")).to_have_text(f"{WEIGHTS}: 4 steps from the entry point")
    view(page, "Imports")
    assert marked(page) == {"services/forecast:train", "services/forecast/workflows.py", "__init__.py", "boosting.py", "encoder.bin"}  # fmt: skip
    assert page.locator(".edge.way").count() == 4


def test_the_way_is_a_list_of_links(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    page.get_by_role("button", name=f"resource {WEIGHTS},").click()
    page.locator("#way").get_by_role("link", name="libs/models/boosting.py").click()
    assert way(page) == WAY[:3]
    page.go_back()
    assert way(page) == WAY


def test_a_folder_fills_the_picture_and_gives_it_back(
    open_page: OpenPage, document: dict[str, Any]
):
    page = open_page(document)
    page.get_by_role("button", name="folder libs/plots,").click()
    crumbs = page.get_by_role("navigation", name="Folder shown")
    expect(crumbs).to_contain_text("392.3 kB, 8 files")
    expect(page.get_by_role("button", name=f"resource {WEIGHTS},")).to_have_count(0)
    crumbs.get_by_role("button", name="services/forecast:train").click()
    expect(page.get_by_role("button", name=f"resource {WEIGHTS},")).to_be_visible()


def test_boxes_are_by_folder_or_target_and_by_bytes_or_files(open_page: OpenPage, document: dict[str, Any]):  # fmt: skip
    page = open_page(document)
    page.get_by_role("radio", name="target").check()
    expect(page.get_by_role("button", name="folder libs/models:data, 986.9 kB in 3 files")).to_be_visible()  # fmt: skip

    def width(name: str) -> float:
        box = page.get_by_role("button", name=name).bounding_box()
        assert box
        return box["width"]

    page.get_by_role("radio", name="folder").check()
    before = width("folder libs/models,")
    page.get_by_role("radio", name="files").check()
    assert width("folder libs/models,") < before * 0.9  # heavy files, but not so many


def test_a_search_marks_what_it_finds_everywhere(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    page.keyboard.press("/")
    page.keyboard.type("WEIGHTS coder")
    expect(page.get_by_role("status")).to_have_text("2 of 53 files match, 984.0 kB")
    hit = page.locator(".cell.file.hit")
    assert sorted(hit.evaluate_all("all => all.map(one => one.textContent)")) == ["decoder.bin 380.0 kB", "encoder.bin 604.0 kB"]  # fmt: skip
    page.keyboard.press("Escape")
    view(page, "Files")
    assert page.locator("tbody tr:visible th").all_inner_texts() == [WEIGHTS, "libs/models/weights/decoder.bin"]  # fmt: skip
    view(page, "Imports")
    assert "encoder.bin" in page.locator(".node.hit .n").all_text_contents()


def test_a_search_finds_requirements(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    page.get_by_role("combobox", name="Search").fill("torch")
    page.get_by_role("option").first.click()
    expect(page.get_by_role("complementary")).to_contain_text("third-party requirement")
    assert way(page)[0] == "services/forecast/workflows.py"
    assert way(page)[-1] == "torch==2.9.0"


def test_the_graph_opens_and_closes_folders(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    view(page, "Imports")
    closed = page.get_by_role("button", name="Open libs/plots")
    closed.click()
    expect(page.locator(".node .n").filter(has_text="charts.py")).to_be_visible()
    page.get_by_role("button", name="Close libs/plots").click()
    expect(closed).to_be_visible()
    page.get_by_role("button", name="Collapse all").click()
    assert set(page.locator(".node .n").all_text_contents()) == {"services/forecast:train", "services/forecast/", "libs/", "third-party/"}  # fmt: skip


def test_the_table_sorts(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    view(page, "Files")
    first = page.locator("tbody tr").first
    expect(first).to_contain_text(WEIGHTS)
    size = page.get_by_role("columnheader", name="Size")
    expect(size).to_have_attribute("aria-sort", "descending")
    size.get_by_role("button").click()
    expect(size).to_have_attribute("aria-sort", "ascending")
    expect(first).not_to_contain_text(WEIGHTS)
    page.get_by_role("columnheader", name="File").get_by_role("button").click()
    names = page.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert len(names) == 53


def test_what_a_dependency_costs(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    view(page, "Dependencies")
    costs = page.get_by_role("tabpanel")
    expect(costs).to_contain_text("libs/plots")
    expect(costs).to_contain_text("the need of matplotlib")
    costs.get_by_role("link", name="torch==2.9.0").click()
    assert way(page)[-1] == "torch==2.9.0"


def test_the_keyboard_is_enough(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    focused = page.locator(":focus")

    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if focused.count() and focused.evaluate("(one, s) => one.matches(s)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#search")
    page.keyboard.type("encoder.bin")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert way(page) == WAY
    tab_to("[role=tab]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Imports")).to_be_focused()
    tab_to("[data-node]")
    before = focused.get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    assert focused.get_attribute("aria-label") != before
    page.keyboard.press("Enter")
    tab_to("#way a")
    page.keyboard.press("Enter")
    assert way(page) == WAY[:1]


def test_the_keyboard_moves_in_the_treemap(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    page.locator(".cell[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    crumbs = page.get_by_role("navigation", name="Folder shown")
    expect(crumbs).to_contain_text("models")
    page.keyboard.press("Backspace")
    expect(crumbs).not_to_contain_text("models")
    expect(page.locator(":focus")).to_have_attribute(
        "aria-label", re.compile("folder libs/models,")
    )


@pytest.mark.parametrize("name", ["Sizes", "Imports", "Files", "Dependencies"])
def test_a_phone_shows_it_all(open_page: OpenPage, document: dict[str, Any], name: str):
    page = open_page(document, PHONE, has_touch=True, is_mobile=True)
    view(page, name)
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    page.get_by_role("combobox", name="Search").fill("encoder.bin")
    page.get_by_role("option").first.tap()
    assert way(page) == WAY
    expect(page.get_by_role("complementary")).to_be_in_viewport()
    page.get_by_role("button", name="Close the details").tap()
    expect(page.locator("#way")).to_have_count(0)


def test_requirements_have_sizes_where_they_are_known(open_page: OpenPage):
    lock = Locked(frozenset({"torch"}), {}, {}, sizes={"torch": 800_000_000})
    page = open_page(reports.content(Graph(replace(reports.forecast().artifact, lock=lock))))
    view(page, "Dependencies")
    expect(page.get_by_role("row", name=re.compile("^torch==2.9.0 800.0 MB"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^numpy unknown"))).to_be_visible()
    expect(page.get_by_text("With all that they bring: 800.0 MB, 5 unknown")).to_be_visible()
    expect(page.get_by_text("the need of torch==2.9.0").first).to_contain_text("as wheels")


def test_on_a_phone_a_path_has_the_room_that_is_there(
    open_page: OpenPage, document: dict[str, Any]
):
    page = open_page(document, PHONE)
    view(page, "Files")
    row, path, size = (
        page.locator(f"tbody tr:first-child {one}").evaluate("it => it.clientWidth")
        for one in ("", ".path", ".size")
    )
    assert path + size > 0.85 * row


def test_what_was_packed_has_sizes_in_the_archive_too(open_page: OpenPage):
    graph = reports.packed(reports.forecast())
    page = open_page(reports.content(graph))
    expect(page.locator("#summary")).to_contain_text("53 files, 1.9 MB, packed 645.3 kB, 6 third")
    page.get_by_role("radio", name="packed bytes").check()
    weights = page.get_by_role("button", name=f"encoder.bin 201.4 kB, resource {WEIGHTS}")
    weights.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("packed 201.4 kB")
    weights.click()
    expect(page.get_by_role("complementary")).to_contain_text("Packed201.4 kB")
    view(page, "Files")
    page.get_by_role("button", name="Packed").click()
    row = page.get_by_role("row").filter(has_text="encoder.bin")
    expect(row).to_contain_text("604.0 kB201.4 kB")
    view(page, "Dependencies")
    packed = next(one.packed for one in graph.exclusive() if one.name == "libs/models")
    assert packed is not None
    said = f"(packed {packed / 1000:.1f} kB)"
    expect(page.locator("#view-costs")).to_contain_text(said)
    expect(page.get_by_role("tab", name="Layers")).to_have_count(0)


def test_what_was_not_packed_offers_no_such_sizes(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    expect(page.get_by_text("packed bytes")).to_be_hidden()
    expect(page.get_by_text("layer", exact=True)).to_be_hidden()
    view(page, "Files")
    expect(page.get_by_role("button", name="Packed")).to_have_count(0)


CODE = ShippedFile("app/w.py", "app/w.py", 900, "app/w.py", "app", "module", "")


def test_an_image_has_its_layers_with_what_is_in_each(open_page: OpenPage):
    page = open_page(reports.content(reports.packed(reports.forecast()), reports.image(CODE)))
    view(page, "Layers")
    expect(page.get_by_text("It is no image, and has no layers.")).to_be_visible()
    page.get_by_role("combobox", name="Show").select_option("services/forecast:image")
    expect(page.locator("#summary")).to_contain_text("1 file, 900 B, packed 52.1 MB")
    rows = page.locator("#view-layers tbody tr").all_inner_texts()
    assert [row.replace("\n", "").strip() for row in rows] == [
        "base\t30.0 MB",
        "numpy 2.1.0, compiled by CPython 3.12.8\t21.0 MB\t62.0 MB\t1,282",
        "2 smaller distributions\t900.0 kB\t2.4 MB\t92",
        "click 8.5.1\t380.0 kB\t1.0 MB\t40",
        "packaging 26.3\t500.0 kB\t1.4 MB\t52",
        "flyte-shim\t220.0 kB\t510.0 kB\t60",
        "2 files of code\t5.0 kB\t900 B\t1",
        "app\t300 B\t900 B\t1",
    ]
    view(page, "Sizes")
    page.get_by_role("radio", name="layer").check()
    expect(page.get_by_role("button", name=re.compile("^numpy .* 62.0 MB"))).to_be_visible()
    page.get_by_role("combobox", name="Show").select_option("services/forecast:train")
    expect(page.get_by_text("layer", exact=True)).to_be_hidden()
    expect(page.get_by_role("button", name=f"resource {WEIGHTS},")).to_be_visible()


def test_an_image_without_code_is_its_layers(open_page: OpenPage):
    page = open_page(reports.content(reports.image()))
    base = page.get_by_role("button", name=re.compile("^base 30.0 MB, layer"))
    expect(base).to_be_visible()
    page.get_by_role("radio", name="bytes", exact=True).check()
    expect(base).to_be_hidden()  # nobody has looked into it
    page.get_by_role("button", name=re.compile("^numpy")).click()
    expect(page.get_by_role("tab", name="Layers")).to_have_attribute("aria-selected", "true")


def test_dark_is_dark(open_page: OpenPage, document: dict[str, Any]):
    def ground(scheme: str) -> int:
        page = open_page(document, color_scheme=scheme)
        said = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", said)[:3]))

    assert ground("dark") < 150 < 600 < ground("light")


def test_several_artifacts_have_a_selector(open_page: OpenPage, document: dict[str, Any]):
    other = reports.large(30)
    page = open_page(reports.content(reports.forecast(), other, deployment="services:deploy"))
    choice = page.get_by_role("combobox", name="Show")
    assert choice.locator("optgroup").get_attribute("label") == "services:deploy"
    choice.select_option("services/big:train")
    expect(page.get_by_role("heading", level=1)).to_have_text("services/big:train")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("services/forecast:train")


def test_what_was_asked_for_is_selected(open_page: OpenPage):
    graph = reports.forecast()
    answer = reports.found(graph, WEIGHTS)
    page = open_page(reports.content(graph, asked=WEIGHTS, why=[answer]))
    assert way(page) == WAY


def test_what_was_asked_for_and_is_not_there_is_said(open_page: OpenPage):
    graph = reports.forecast()
    answer = {**reports.found(graph, "libs/billing.py"), "why_not": "no target owns it."}
    page = open_page(reports.content(graph, asked="libs/billing.py", why=[answer]))
    expect(page.locator("#answer")).to_have_text(
        "services/forecast:train does not have libs/billing.py: no target owns it."
    )


def test_what_only_another_distribution_needs_is_said_and_that_is_selected(open_page: OpenPage):
    graph = reports.forecast()
    answer = found_brought(graph, ["matplotlib", "pillow"], "3rdparty/python#matplotlib")
    page = open_page(reports.content(graph, asked="pillow", why=[answer]))
    expect(page.locator("#answer")).to_contain_text("services/forecast:train needs pillow: ")
    expect(page.locator("#answer")).to_contain_text("3rdparty/python#matplotlib -> pillow")
    expect(page.get_by_role("complementary").get_by_role("heading").first).to_have_text(
        "matplotlib"
    )


def test_nothing_is_said_too(open_page: OpenPage):
    page = open_page(reports.content())
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing that ships")


def test_an_artifact_without_files_says_so_in_each_view(open_page: OpenPage):
    page = open_page(reports.content(Graph(Artifact("app:t", (), (), (), ()))))
    expect(page.get_by_text("It has no files of its own.")).to_be_visible()
    view(page, "Imports")
    expect(page.get_by_text("Nothing here needs anything.")).to_be_visible()
    page = open_page(reports.content(reports.forecast()))
    view(page, "Imports")
    expect(page.get_by_text("Nothing here needs anything.")).to_be_hidden()


def test_what_changed_has_a_view_where_it_is_known(open_page: OpenPage, document: dict[str, Any]):
    page = open_page(document)
    expect(page.get_by_role("tab", name="Changes")).to_have_count(0)
    page = open_page(reports.changed(reports.forecast()))
    view(page, "Changes")
    told = page.get_by_role("tabpanel")
    expect(told).to_contain_text("1 file added (3.0 kB), 1 removed (9.1 kB), 1 changed")
    expect(told).to_contain_text("Added by libs/io/parquet.py \u2192 libs/io/arrow_tables.py")
    expect(told).to_contain_text("2.0.1 \u2192 2.1.0")
    expect(told.get_by_role("link", name="libs/plots/maps.py")).to_have_count(0)
    told.get_by_role("link", name="libs/io/arrow_tables.py").click()
    assert way(page)[-1] == "libs/io/arrow_tables.py"


HOSTILE = [
    "</script><script>document.title='lost'</script>.py",
    "<img src=x onerror=document.title='lost'>.py",
    "<!--.py",
    "'\"`${document.title='lost'}&amp;.py",
    "\u202egnp.exe.py",
    "\u2028\u0000\u001b[31m.py",
    "\U0001f600 Zo\u00eb \u65e5\u672c.py",
    "__proto__",
    "constructor/toString.py",
]


def test_names_are_texts_and_nothing_else(open_page: OpenPage):
    files = tuple(ShippedFile(n, n, 10 + at, n, n, "module", "") for at, n in enumerate(HOSTILE))
    needs = (("<b>t", tuple(Need(name, "imported") for name in HOSTILE)),)
    page = open_page(reports.content(Graph(Artifact("<b>t", (), needs, (), files))))
    expect(page).to_have_title("<b>t: what ships, and why")
    for name in ("Sizes", "Imports", "Files"):
        view(page, name)
    names = page.locator("tbody th bdi").all_inner_texts()
    assert len(names) == len(HOSTILE)
    assert "\\u{202e}gnp.exe.py" in names
    assert "\\u{2028}\\u{0}\\u{1b}[31m.py" in names
    assert HOSTILE[0] in names
    assert HOSTILE[6] in names
    page.get_by_role("link", name=HOSTILE[0]).first.click()
    assert way(page) == [HOSTILE[0]]
    expect(page).to_have_title("<b>t: what ships, and why")
    assert page.locator("img").count() == 0


def test_ten_thousand_files(open_page: OpenPage):
    page = open_page(reports.content(reports.large(10_000)))
    expect(page.locator("#summary")).to_contain_text("10,001 files")
    page.get_by_role("combobox", name="Search").fill("team_03/package_10/mod_12")
    expect(page.get_by_role("status")).to_contain_text("1 of 10,001 files match")
    page.keyboard.press("Enter")
    assert way(page)[0] == "services/big/workflows.py"
    view(page, "Imports")
    assert page.locator(".node").count() < 60
    expect(page.locator(".node.selected")).to_be_in_viewport()
