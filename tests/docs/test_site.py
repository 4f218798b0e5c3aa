"""The site: its pages are linked, what is made from the code is up to date, and the pictures of the house are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import embedsmith
from docs.generate import METHODS, cli_reference, method_picture, notebook_page, python_reference
from tests.test_architecture import LEVELS, PACKAGE

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
MADE = {"reference/cli.md", "reference/python.md"} | {
    f"notebooks/{page.stem}.md" for page in (DOCS / "notebooks").glob("*.ipynb")
}
"""Pages that `docs/generate.py` writes."""


def pages() -> dict[str, str]:
    """Return the pages that are kept, by path."""
    found = (page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).as_posix() not in MADE)
    return {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in found}


def test_every_page_is_in_the_navigation_and_the_other_way_round():
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1].split("\nextra_css")[0]
    assert sorted(re.findall(r"[\w/-]+\.md", nav)) == sorted({*pages(), *MADE})


def test_links_between_pages_lead_somewhere():
    for page, text in {**pages(), "../README.md": (ROOT / "README.md").read_text(encoding="utf-8")}.items():
        plain = re.sub(r"```.*?```", "", text, flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", plain):
            if target.startswith(("http://", "https://", "mailto:")):
                assert "/blob/main/" not in target or (ROOT / target.split("/blob/main/")[1]).exists(), (page, target)
                continue
            found = (DOCS / page).parent / target
            assert found.exists() or found.resolve().relative_to(DOCS.resolve()).as_posix() in MADE, (page, target)


def test_headings_that_links_name_are_there():
    slugs = {
        page: {slug(line) for line in re.findall(r"^#+ (.+)$", text, re.M)}
        | set(re.findall(r'(?:\{ *#|id=")([\w-]+)', text))
        for page, text in pages().items()
    }
    for page, text in pages().items():
        for target, part in re.findall(r"\]\(([\w/-]*(?:\.md)?)#([\w-]+)\)", text):
            there = (Path(page).parent / target).as_posix() if target else page
            assert there in MADE or part in slugs[there], (page, target, part)


def slug(heading: str) -> str:
    """Return a heading as it stands in a link."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_of_a_method_is_up_to_date(method: str):
    kept = (DOCS / "images" / f"method-{method}.svg").read_text(encoding="utf-8")
    assert kept == method_picture(method), "python docs/generate.py"


def test_a_picture_shows_as_many_negatives_as_its_method_takes():
    taken = {method: method_picture(method).count('class="taken"') for method in METHODS}
    assert taken == dict.fromkeys(METHODS, 4)
    assert method_picture("naive").count('class="dropped"') == 0
    # 0.86 and 0.785 are in truth answers; both score above 90% of the positive's 0.80.
    assert method_picture("percpos").count('class="dropped"') == len([0.86, 0.81, 0.785, 0.765, 0.755, 0.74])


def test_the_reference_has_every_command_and_option():
    page = cli_reference()
    for flag in ("--margin", "--target-false-negatives", "--lora-rank", "--found-within", "--before-and-after"):
        assert f"| `{flag} " in page or f"| `{flag}/" in page or f"| `{flag}`" in page, flag
    assert "## embedsmith synthesize queries" in page
    assert "## embedsmith mine" in page


def test_the_reference_has_every_public_name():
    page = python_reference()
    for name in embedsmith.__all__:
        assert page.count(f"heading: embedsmith.{name}\n") == 1, name


def test_a_notebook_becomes_a_page():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": []},
    ]
    assert notebook_page({"cells": cells}, "own.ipynb") == (
        "# Title\ntext\n\n```python\n1 + 1\n```\n\n[The notebook](own.ipynb)\n"
    )


def test_no_cell_of_a_table_is_longer_than_two_lines():
    # On a screen of 1280 pixels a row of 150 letters, and its bars, fits into two lines.
    long = []
    for path in DOCS.glob("*.md"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line).replace("`", "")
            if line.startswith("| ") and len(shown) > 165:
                long.append(f"{path.name}:{number}: {len(shown)} letters")
    assert long == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_tree_of_the_house_names_every_module():
    tree = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## The house")[1].split("```")[1]
    named = set(re.findall(r"\b([\w-]+)\.py\b", tree))
    there = {path.stem for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert there - named == set(), "modules that docs/architecture.md does not name"
    assert named - there - {"__init__"} == set(), "names in docs/architecture.md that are no module"


def test_the_picture_of_the_levels_is_that_of_the_imports():
    shown = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## Imports run one way")[1].split("```")[1]
    rows = [line.replace("the package itself", "").split() for line in shown.splitlines()[1:]]
    assert [sorted(row) for row in rows if row] == [sorted(level) for level in LEVELS]
