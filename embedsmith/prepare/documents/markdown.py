"""Markdown, by markdown-it-py: CommonMark with tables. It is MIT, kept well, and rich brings it along."""

from __future__ import annotations

import re
from typing import Any

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.DOTALL)
_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)
_TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)


def read_markdown(text: str) -> list[Block]:
    """Return the blocks of a Markdown text; HTML in it is left out, but for what stands between its tags."""
    from markdown_it import MarkdownIt

    blocks: list[Block] = []
    if front := _FRONT_MATTER.match(text):
        text = text[front.end() :]
        if title := _TITLE.search(front[1]):
            blocks.append(heading(title[1], 1))
    reading = _Reading(blocks)
    for token in MarkdownIt("commonmark", {"maxNesting": 50}).enable("table").parse(text):
        reading.take(token)
    return blocks


class _Reading:
    """Tokens in, blocks out."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks
        self._level = 0
        self._items = 0
        self._cells: list[tuple[str, tuple[tuple[str, str], ...]]] | None = None

    def take(self, token: Any) -> None:
        """Add what a token brings."""
        match token.type:
            case "heading_open":
                self._level = int(token.tag[1:])
            case "heading_close":
                self._level = 0
            case "list_item_open":
                self._items += 1
            case "list_item_close":
                self._items -= 1
            case "tr_open":
                self._cells = []
            case "tr_close":
                self._close_row()
            case "fence" | "code_block":
                self._blocks.append(Block("code", lines_of_code(token.content)))
            case "html_block":
                if said := line_of(_TAG.sub(" ", token.content)):
                    self._blocks.append(Block("paragraph", said))
            case "inline":
                self._inline(token)
            case _:
                pass

    def _close_row(self) -> None:
        cells = self._cells or []
        links = tuple(link for _, own in cells for link in own)
        self._blocks.append(Block("row", " | ".join(said for said, _ in cells if said), links=links))
        self._cells = None

    def _inline(self, token: Any) -> None:
        """Add the text of a heading, a paragraph, an item or a cell."""
        text, links, label = _said(token.children or [])
        if self._cells is not None:
            self._cells.append((text, links))
        elif self._level:
            self._blocks.append(heading(text, self._level, links=links, anchors=(slug(text),)))
        else:
            self._blocks.append(Block("item" if self._items else "paragraph", text, label=label, links=links))


def _said(children: list[Any]) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Return the text of inline tokens, its links, and the term that is set off at its beginning: `**term**: what`."""
    pieces: list[str] = []
    links: list[tuple[str, str]] = []
    href, start, term = "", 0, ""
    for place, child in enumerate(children):
        if child.type in ("text", "code_inline"):
            pieces.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            pieces.append("\n")
        elif child.type == "image":
            pieces.append(child.content)
        elif child.type == "link_open":
            href, start = str(child.attrGet("href") or ""), len(pieces)
        elif child.type == "link_close":
            links.append((line_of("".join(pieces[start:])), href))
        elif child.type == "strong_close" and not term and _begins(children[:place]):
            term = line_of("".join(pieces))
    text = line_of("".join(pieces))
    label = term.rstrip(" :.—–-") if re.match(r"\s*[:—–-]", text[len(term) :]) or term.endswith(":") else ""
    return text, tuple(links), label


def _begins(children: list[Any]) -> bool:
    """Tell whether nothing but one strong text stands in some tokens."""
    kinds = [child.type for child in children if child.type != "text" or child.content]
    return kinds[:1] == ["strong_open"] and set(kinds[1:]) <= {"text", "code_inline"}


def slug(text: str) -> str:
    """Return a heading as links name it.

    >>> slug("What's new, in 3.12?")
    'whats-new-in-312'
    """
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip())
