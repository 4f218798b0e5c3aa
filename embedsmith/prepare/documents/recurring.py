"""Blocks that recur on many pages of a folder: navigation, notices, signatures. They are no text of any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from embedsmith.prepare.documents.blocks import Document

_FEWEST, _SHARE = 5, 0.2
"""Files in which a block recurs, and their share of all."""


def without_recurring(documents: Sequence[Document]) -> list[Document]:
    """Return documents without the blocks that stand in at least five of them, and in a fifth of all.

    Headings stay, whose sections would be another's without them.
    """
    seen = Counter(text for document in documents for text in {one.block.text for one in document.blocks})
    recurring = {text for text, count in seen.items() if count >= max(_FEWEST, _SHARE * len(documents))}
    return [_without(document, recurring) for document in documents]


def _without(document: Document, recurring: set[str]) -> Document:
    kept = [one.block for one in document.blocks if one.block.kind == "heading" or one.block.text not in recurring]
    if len(kept) == len(document.blocks):
        return document
    return Document.of(document.file, kept, is_whole=document.is_whole)
