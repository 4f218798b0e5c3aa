"""Tables of results: nothing in them is markup, or moves a cursor."""

from __future__ import annotations

from embedsmith.pages.tables import Figures

HOSTILE = "<script>alert(1)</script>\x1b[2J\n\u202e&"


def test_html_holds_no_markup_and_no_control_characters_of_what_is_shown():
    html = Figures(HOSTILE, ["", HOSTILE], [[HOSTILE, HOSTILE]]).as_html()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J \\u202e&amp;") == 4


def test_text_has_one_line_a_row_and_no_control_characters():
    text = Figures(HOSTILE, ["", HOSTILE], [[HOSTILE, "1"], ["a", "22"]]).as_text()
    assert len(text.split("\n")) == 4
    assert "\x1b" not in text
    assert "\u202e" not in text
