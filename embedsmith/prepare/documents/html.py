"""HTML, by selectolax: the blocks of what is the page's own, without navigation, scripts and forms.

selectolax is MIT and kept well, parses as browsers do, takes 8 MB, and needs nothing else. trafilatura finds the text
of news pages better, and drops much of manuals, whose tables and code it takes for layout; what recurs on many pages of
a folder is left out later by its frequency (`embedsmith.prepare.documents.recurring`). Nothing that a page names is
fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from embedsmith.prepare.documents.blocks import Block, Kind, heading, line_of, lines_of_code
from embedsmith.prepare.documents.limits import MAX_DEPTH

_DROPPED = {
    *("script", "style", "template", "noscript", "head", "nav", "footer", "aside", "form", "button", "select"),
    *("svg", "math", "iframe", "object", "embed", "audio", "video", "canvas", "dialog", "menu", "textarea"),
}
_DROPPED_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "menu", "dialog"}
_DROPPED_CLASSES = {
    *("navigation", "navbar", "nav", "sidebar", "sphinxsidebar", "related", "breadcrumb", "breadcrumbs", "footer"),
    *("navheader", "navfooter", "docnav", "headerlink", "toc", "toctree-wrapper", "cookie", "skip-link"),
}
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_KINDS = {"p": "paragraph", "li": "item", "dt": "term", "dd": "definition", "tr": "row", "pre": "code"}
_ENDS = {
    *("div", "section", "article", "main", "header", "body", "html", "ul", "ol", "dl", "table", "tbody", "thead"),
    *("blockquote", "figure", "figcaption", "hr", "address", "center", "details", "summary", "caption", "tfoot"),
}
"""Elements that end what stands before them and say nothing of what stands in them."""


def read_html(text: str) -> list[Block]:
    """Return the blocks of a page; a page that is nothing but scripts has none."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    title = tree.css_first("head > title")
    own = tree.css_first("main, [role=main]") or _only(tree.css("article")) or tree.body
    if own is None:
        return []
    reading = _Reading()
    reading.walk(own)
    reading.close()
    return _titled(reading.blocks, line_of(title.text()) if title is not None else "")


def _only(nodes: list[Any]) -> Any:
    return nodes[0] if len(nodes) == 1 else None


def _titled(blocks: list[Block], title: str) -> list[Block]:
    """Return the blocks under the page's title, where no heading of the first level is there."""
    if not title or not blocks or any(block.kind == "heading" and block.level == 1 for block in blocks):
        return blocks
    # Behind a mark stands the name of the site, on every page.
    for mark in (" — ", " – ", " | ", " :: "):
        title = title.split(mark)[0]
    return [heading(title, 1), *blocks]


@dataclass
class _Open:
    """The block that is being read."""

    kind: str = "paragraph"
    level: int = 0
    pieces: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)


class _Reading:
    """Elements in, blocks out."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open = _Open()
        self._term = ""
        self._anchors: list[str] = []

    def walk(self, root: Any) -> None:
        """Read an element and all in it; a stack of our own, since nothing limits their depth."""
        stack: list[tuple[Any, Any]] = [(root, None)]
        while stack:
            node, then = stack.pop()
            if then is not None:
                then()
                continue
            tag = node.tag
            if tag == "-text":
                self._open.pieces.append(node.text_content or "")
                continue
            if tag is None or tag.startswith(("-", "_", "!")) or tag in _DROPPED or _is_dropped(node):
                continue
            stack += [(None, then) for then in self._enter(node, tag)]
            if tag != "pre" and len(stack) < 50 * MAX_DEPTH:
                stack += [(child, None) for child in reversed(list(_children(node)))]

    def _enter(self, node: Any, tag: str) -> list[Any]:
        """Begin an element; return what is to be done at its end."""
        attributes = node.attributes
        if name := attributes.get("id") or (tag == "a" and attributes.get("name")):
            self._anchors.append(str(name))
        if tag == "pre":
            self.close()
            self._open.kind = "code"
            self._open.pieces = [node.text()]
            return [self.close]
        if tag == "br":
            self._open.pieces.append("\n")
        elif tag in ("td", "th"):
            if self._open.pieces:
                self._open.pieces.append(" | ")
        elif tag == "a" and (href := attributes.get("href")):
            here, said = self._open, len(self._open.pieces)
            return [lambda: here.links.append((line_of("".join(here.pieces[said:])), href))]
        elif tag in _HEADINGS or (
            tag in _KINDS and not (tag == "p" and self._open.kind in ("item", "row", "definition"))
        ):
            if self._open.kind != "row" or tag == "tr":
                self.close()
                self._open.kind = "heading" if tag in _HEADINGS else _KINDS[tag]
                self._open.level = _HEADINGS.get(tag, 0)
                return [self.close]
        elif tag == "p":
            if self._open.pieces and any(piece.strip() for piece in self._open.pieces):
                kind = self._open.kind
                if kind != "row":
                    self.close()
                    self._open.kind = kind
        elif tag in _ENDS and self._open.kind != "row":
            kind = self._open.kind if tag == "div" and self._open.kind in ("item", "definition") else "paragraph"
            self.close()
            self._open.kind = kind
            return [self.close]
        return []

    def close(self) -> None:
        """End the block that is being read."""
        one, self._open = self._open, _Open()
        said = "".join(one.pieces)
        text = lines_of_code(said) if one.kind == "code" else line_of(said).strip("| ")
        if not text:
            return
        anchors, self._anchors = tuple(self._anchors), []
        links = tuple(one.links)
        if one.kind == "heading":
            self.blocks.append(heading(text, one.level, links=links, anchors=anchors))
            return
        if one.kind == "term":
            self._term = f"{self._term}, {text}" if self._term else text
            self._anchors = list(anchors)
            return
        if one.kind == "code":
            self.blocks.append(Block("code", text, label="", anchors=anchors))
            return
        label, self._term = self._term.rstrip("¶ :"), ""
        text = f"{label}: {text}" if label else text
        kind: Kind = "row" if one.kind == "row" else "paragraph" if one.kind == "paragraph" else "item"
        self.blocks.append(Block(kind, text, label=label, links=links, anchors=anchors))


def _children(node: Any) -> Iterator[Any]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _is_dropped(node: Any) -> bool:
    """Tell whether an element is no text of the page's own."""
    attributes = node.attributes
    if not attributes:
        return False
    classes = set((attributes.get("class") or "").lower().split())
    return (
        (attributes.get("role") or "") in _DROPPED_ROLES
        or "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or bool(classes & _DROPPED_CLASSES)
    )
