"""The notebooks: stored without outputs, and every cell runs, in order."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import few_steps

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_both_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["own_pairs", "reading_an_audit"]


@by_name
def test_no_output_is_stored(path: Path):
    assert cells(path, "code")
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}


@by_name
def test_a_notebook_is_one_of_its_format(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")


@by_name
def test_links_lead_to_pages_of_the_site(path: Path):
    """A notebook's links are not rewritten when the site is built: they are those of the built pages."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = "".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    links = re.findall(r"\]\((\S+)\)", text)
    assert links
    for link in links:
        page = re.fullmatch(r"\.\./\.\./([\w-]+)/", link)
        other = re.fullmatch(r"\.\./([\w-]+)/", link)
        assert page or other, link
        assert (f": {page[1]}.md\n" if page else f": notebooks/{other[1]}.md\n") in nav, link


@by_name
def test_every_cell_runs(path: Path, workplace: Path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(workplace))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with chdir(workplace):
        for cell in cells(path, "code"):
            exec(compile(few_steps("".join(cell["source"])), f"{path.name}, {cell['id']}", "exec"), namespace)
    printed = capsys.readouterr().out
    expected = {"own_pairs": "questions won", "reading_an_audit": "questions have several answers"}
    assert expected[path.stem] in printed
