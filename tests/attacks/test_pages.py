"""Pages load nothing: neither what their templates name nor what a text in them does."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import embedsmith
from embedsmith.pages.page import render

TEMPLATES = sorted(path for kind in ("html", "css") for path in Path(embedsmith.__file__).parent.rglob(f"*.{kind}"))
LOADS = re.compile(
    r"<(script|link|img|iframe|object|embed|base|form)\b|\bsrc\s*=|\burl\(|@import|https?://", re.IGNORECASE
)
EVIL = '</p><script src="https://a.org/x"></script><img src=https://a.org/y onerror=z()><style>@import "//a.org"'


class Elements(HTMLParser):
    """The names of a page's elements, and of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attrs)}


def test_there_are_pages():
    assert len(TEMPLATES) > 3


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_names_anything_to_load(path: Path):
    # The page of a server is no file that is sent around: it asks its own server, and its policy allows no other.
    own = ["form", "script"] if path.name == "try.html" else []
    assert LOADS.findall(path.read_text()) == own


@pytest.mark.parametrize("place", ["<p>{{ text }}</p>", '<p title="{{ text }}">a</p>', "<p title='{{ text }}'>a</p>"])
def test_no_text_in_a_page_loads_anything(tmp_path: Path, place: str):
    (tmp_path / "page.html").write_text(place)
    elements = Elements()
    elements.feed(render(tmp_path / "page.html", text=f"\"' {EVIL}"))
    assert elements.names <= {"p", "title"}
