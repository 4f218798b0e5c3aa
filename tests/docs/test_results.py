"""`benchmarks/RESULTS.md` has a contents list of its headings, and what pages link to in it is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^( *)- \[(.*)\]\(#([\w-]+)\)$", RESULTS, re.M)
HEADINGS = re.findall(r"^##(#*) (.*)$", RESULTS, re.M)
LINKS = re.compile(r"benchmarks/RESULTS\.md#([\w-]+)")


def slug(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-")


def test_the_contents_list_is_that_of_the_headings():
    assert [(len(indent) // 2, title) for indent, title, _ in LISTED] == [
        (len(deep), title) for deep, title in HEADINGS
    ]
    assert [anchor for *_, anchor in LISTED] == [slug(title) for _, title in HEADINGS]


def test_the_summary_has_ten_lines_before_the_contents():
    top = RESULTS[: RESULTS.index("\n- [")]
    assert [int(number) for number in re.findall(r"^(\d+)\. \S", top, re.M)] == list(range(1, 11))


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_into_the_results_lead_somewhere(page: Path):
    assert set(LINKS.findall(page.read_text(encoding="utf-8"))) <= {anchor for *_, anchor in LISTED}


def test_the_scripts_of_the_page_are_there():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.py)`|benchmarks/(\w+\.py)", page))
    assert len(named) >= 8
    assert {a or b for a, b in named} <= {path.name for path in (ROOT / "benchmarks").glob("*.py")}


def test_the_figures_of_the_page_are_those_of_the_results():
    """Both figures of a row stand in the section of the results that it links to, and the ratio is theirs."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \| ([\d.,]+) and ([\d.,]+) .* \| ([\d.]+) \| \w+ \| .*#([\w-]+)\) \|$", page, re.M)
    assert len(rows) == 10
    for what, ours, theirs, times, anchor in rows:
        title = next(title for _, title, at in LISTED if at == anchor)
        section = re.split(r"^##+ ", RESULTS.partition(f"# {title}\n")[2], flags=re.M)[0]
        for figure in (ours, theirs):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", section), f"{what}: {figure}"
        one, other = (float(figure.replace(",", "")) for figure in (ours, theirs))
        assert max(one, other) / min(one, other) == pytest.approx(float(times), rel=0.04), what
