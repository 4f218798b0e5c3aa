"""DOCX: a zip of XML, which needs no library; python-docx would bring lxml, and unpacks whatever a file says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code
from embedsmith.prepare.documents.limits import Packed
from embedsmith.prepare.documents.xml import xml_of

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_HEADING = re.compile(r"heading ?([1-9])|(title)$", re.IGNORECASE)


def read_docx(content: bytes) -> list[Block]:
    """Return the blocks of a document's body; headers, footers and what was deleted are left out."""
    packed = Packed(content)
    styles = _styles(packed)
    targets = _targets(packed)
    body = xml_of(packed.read("word/document.xml")).find(f"{_W}body")
    return [] if body is None else list(_blocks(body, styles, targets))


def _styles(packed: Packed) -> dict[str, str]:
    """Return the id of each style -> its name, which is English in every language of Word."""
    if "word/styles.xml" not in packed.names:
        return {}
    found = {}
    for style in xml_of(packed.read("word/styles.xml")).iter(f"{_W}style"):
        name = style.find(f"{_W}name")
        if name is not None:
            found[style.get(f"{_W}styleId", "")] = name.get(f"{_W}val", "")
    return found


def _targets(packed: Packed) -> dict[str, str]:
    """Return the id of each link -> where it leads."""
    path = "word/_rels/document.xml.rels"
    root = xml_of(packed.read(path)) if path in packed.names else Element("none")
    return {one.get("Id", ""): one.get("Target", "") for one in root}


def _blocks(parent: Element, styles: dict[str, str], targets: dict[str, str]) -> Iterator[Block]:
    for child in parent:
        if child.tag == f"{_W}p":
            yield _paragraph(child, styles, targets)
        elif child.tag == f"{_W}tbl":
            for row in child.iter(f"{_W}tr"):
                cells = (" ".join(_said(p) for p in cell.iter(f"{_W}p")) for cell in row.iter(f"{_W}tc"))
                yield Block("row", " | ".join(said for cell in cells if (said := line_of(cell))))
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent"):
            yield from _blocks(child, styles, targets)


def _paragraph(node: Element, styles: dict[str, str], targets: dict[str, str]) -> Block:
    properties = node.find(f"{_W}pPr")
    style, is_item = "", False
    if properties is not None:
        named = properties.find(f"{_W}pStyle")
        own = named.get(f"{_W}val", "") if named is not None else ""
        style = styles.get(own, own)
        is_item = properties.find(f"{_W}numPr") is not None or style.lower().startswith("list")
    text = _said(node)
    links = tuple(
        (line_of(_said(link)), targets.get(link.get(f"{_R}id", ""), "")) for link in node.iter(f"{_W}hyperlink")
    )
    if found := _HEADING.match(style):
        return heading(text, int(found[1] or 1), links=links)
    if "code" in style.lower() or "preformatted" in style.lower():
        return Block("code", lines_of_code(text))
    return Block("item" if is_item else "paragraph", line_of(text), links=links)


def _said(node: Element) -> str:
    """Return the text of all runs below a node."""
    pieces = []
    for one in node.iter():
        if one.tag == f"{_W}t":
            pieces.append(one.text or "")
        elif one.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr"):
            pieces.append("\t" if one.tag == f"{_W}tab" else "\n")
    return "".join(pieces)
