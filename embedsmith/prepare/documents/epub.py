"""EPUB: a zip of pages in the order of their spine; each page is read as HTML."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from embedsmith.prepare.documents.blocks import Block, heading, line_of
from embedsmith.prepare.documents.decoding import decoded
from embedsmith.prepare.documents.html import read_html
from embedsmith.prepare.documents.limits import MAX_TEXT, Packed, Unreadable
from embedsmith.prepare.documents.xml import xml_of

_OPF = "{http://www.idpf.org/2007/opf}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_PAGES = {"application/xhtml+xml", "text/html"}


def read_epub(content: bytes) -> list[Block]:
    """Return the blocks of a book under its title."""
    packed = Packed(content)
    rootfile = next(
        (one for one in xml_of(packed.read("META-INF/container.xml")).iter() if one.tag.endswith("}rootfile")), None
    )
    if rootfile is None:
        raise Unreadable("META-INF/container.xml names no book")
    opf = rootfile.get("full-path", "")
    root = xml_of(packed.read(opf))
    pages = {
        item.get("id"): item.get("href", "")
        for item in root.iter(f"{_OPF}item")
        if item.get("media-type") in _PAGES and "nav" not in (item.get("properties") or "").split()
    }
    title = next((line_of(one.text or "") for one in root.iter(f"{_DC}title")), "")
    blocks: list[Block] = []
    chars = 0
    for entry in root.iter(f"{_OPF}itemref"):
        href = pages.get(entry.get("idref"))
        if href is None or chars > MAX_TEXT:
            continue
        page = decoded(packed.read(posixpath.normpath(posixpath.join(posixpath.dirname(opf), unquote(href)))))
        own = [_deeper(block) for block in read_html(page)]
        chars += sum(len(block.text) for block in own)
        blocks += own
    return [heading(title, 1), *blocks] if title and blocks else blocks


def _deeper(block: Block) -> Block:
    """Return a page's block as one of a book, whose title stands above."""
    if block.kind != "heading":
        return block
    return Block("heading", block.text, block.level + 1, links=block.links, anchors=block.anchors)
