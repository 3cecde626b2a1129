"""The contributor's map is true: what it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
MAPS = ("CONTRIBUTING.md", "docs/ARCHITECTURE.md")
# Where the paths in the maps start: at the top, in the sources, or beside the path before them.
STARTS = (TOP, TOP / "src/python")

_CODE = re.compile(r"`([^`\n]+)`|<code>([^<]+)</code>")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"\.?[\w.-]+(/[\w.-]+)*(/|\.(?:py|md|sh|toml|yml))|[\w.-]+(/[\w.-]+)+")
# A running Pants makes this one.
_LATER = {"examples/monorepo/.pids"}


def missing(text: str, page: Path) -> list[str]:
    """The paths that a page names and the repository does not have."""
    found = [link for link in _LINK.findall(text) if not (page.parent / link).exists()]
    for line in text.splitlines():
        beside = TOP
        for code in ("".join(groups) for groups in _CODE.findall(line)):
            name = code.removeprefix("./")
            if not _PATH.fullmatch(name) or name in _LATER:
                continue
            paths = [start / name for start in (*STARTS, beside) if (start / name).exists()]
            if paths:
                beside = paths[0] if paths[0].is_dir() else paths[0].parent
            else:
                found.append(name)
    return found


@pytest.mark.parametrize("page", MAPS)
def test_every_path_on_the_map_exists(page: str) -> None:
    assert missing((TOP / page).read_text(), TOP / page) == []


def _texts(path: Path) -> Iterator[str]:
    """The constant strings of a module; those with values in them are whole, without the values."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) for v in node.values if isinstance(v, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_messages_that_troubleshooting_explains_are_ours() -> None:
    page = (TOP / "docs" / "troubleshooting.md").read_text()
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    quoted = [
        message
        for cell in cells
        if not cell.endswith((" (Pants)", " (Python)", " (pip)"))
        # One message may hold backticks of its own.
        for message in cell[3:].removesuffix("`").split("`, `")
    ]
    assert len(quoted) >= 20
    sources = "\n".join(
        text for path in (TOP / "src" / "python").rglob("*.py") for text in _texts(path)
    )
    assert [message for message in quoted if message not in sources] == []


def test_the_map_names_a_file_for_each_question() -> None:
    questions = (TOP / "CONTRIBUTING.md").read_text().partition("## Where would I add")[2]
    table = questions.partition("\n## ")[0].split("|---|---|\n")[1].strip().splitlines()
    for row in table:
        assert re.fullmatch(r"\| [^|`]+ \| `[\w./]+\.py` \|", row), row
    assert len(table) >= 5


def test_the_readme_leads_to_the_maps() -> None:
    readme = (TOP / "README.md").read_text()
    assert all(f"({page})" in readme for page in MAPS)
    assert "(docs/ARCHITECTURE.md)" in (TOP / "CONTRIBUTING.md").read_text()


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}


def test_links_between_pages_lead_somewhere() -> None:
    pages = [TOP / "README.md", TOP / "CHANGELOG.md", *(TOP / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link
    ]
    broken = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        to = page.parent / path if path else page
        if not to.exists() or (anchor and anchor not in _anchors(to)):
            broken.append(f"{page.name}: {link}")
    assert broken == []
    assert len(links) > 100


def test_each_row_of_flytes_guide_names_tests_that_there_are() -> None:
    page = TOP / "docs/flyte-guide.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.endswith("| test |")]
    for row in rows:
        section, _, proof = row.strip("| ").rpartition(" | ")
        tests = proof.split(", ")
        for test in tests:
            found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", test)
            assert found, f"{section}: {test}"
            path, name = found.groups()
            assert (TOP / path).is_file(), f"{section}: {test}"
            assert re.search(rf"^def {name}\(", (TOP / path).read_text(), re.MULTILINE), test
    assert len(rows) > 50
    assert "(docs/flyte-guide.md)" in (TOP / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`flyte_pack/bundle.py`, `tar.py`", []),
        ("`flyte_pack/bundle.py`, `no_such.py`", ["no_such.py"]),
        ("`tar.py`", ["tar.py"]),
        ("`flyte_pack/no_such/`", ["flyte_pack/no_such/"]),
        ("<code>flyte_pack/oci/</code>: `model.py`", []),
        ("`./pants run x:y`, `--dry-run`, `copy_style`, `CI=true`", []),
        ("[there](docs/shim.md#variables), [not](docs/no_such.md), [out](https://flyte.org)",
         ["docs/no_such.md"]),
    ],
)  # fmt: skip
def test_what_the_check_finds(text: str, expected: list[str]) -> None:
    assert missing(text, TOP / "README.md") == expected
