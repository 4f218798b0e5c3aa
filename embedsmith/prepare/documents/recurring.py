"""Blocks that recur on many pages of a folder: navigation, notices, signatures. They are no text of any of them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Container

import numpy as np

from embedsmith.prepare.documents.blocks import Document

_FEWEST, _SHARE = 5, 0.2
"""Files in which a block recurs, and their share of all."""


class Recurring:
    """Which blocks stand in at least five of some documents, and in a fifth of all."""

    def __init__(self) -> None:
        self._seen = array("Q")
        self._documents = 0

    def add(self, document: Document) -> None:
        """Count the blocks of a document, each once."""
        self._seen.extend({_key(one.block.text) for one in document.blocks})
        self._documents += 1

    def keys(self) -> frozenset[int]:
        """Return the keys of the blocks that recur among the documents that were added."""
        keys, counts = np.unique(np.array(self._seen, np.uint64), return_counts=True)
        return frozenset(keys[counts >= max(_FEWEST, _SHARE * self._documents)].tolist())


def without_recurring(document: Document, keys: Container[int]) -> Document:
    """Return a document without the blocks that recur.

    Headings stay, whose sections would be another's without them.
    """
    kept = [one.block for one in document.blocks if one.block.kind == "heading" or _key(one.block.text) not in keys]
    if len(kept) == len(document.blocks):
        return document
    return Document.of(document.file, kept, is_whole=document.is_whole)


def _key(text: str) -> int:
    """Return 64 bits of hash of a text; among ten million blocks two share theirs with a chance of one in 10^5."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
