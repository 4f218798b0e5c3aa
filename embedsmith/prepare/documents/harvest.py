"""A folder of documents read, cut into passages, and made into pairs."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.sentences import Tokens
from embedsmith.errors import InputError
from embedsmith.prepare.documents.blocks import Document, Unread
from embedsmith.prepare.documents.pairs import Pair, pairs_of
from embedsmith.prepare.documents.passages import Passage, passages_of
from embedsmith.prepare.documents.reading import read_documents
from embedsmith.prepare.documents.recurring import without_recurring
from embedsmith.prepare.documents.settings import SOURCES, DocumentSettings
from embedsmith.prepare.documents.walking import walk


@dataclass(frozen=True)
class DocumentHarvest:
    """What a folder holds; passages and pairs in the order of files and of reading."""

    read: list[str]
    """Files that were read."""
    read_in_part: list[str]
    """Those of them of which only the beginning was."""
    unread: list[Unread]
    passages: list[Passage]
    pairs: list[Pair]

    def by_source(self) -> dict[str, int]:
        """Return how many pairs each source gave; those that gave none are there too."""
        counts = Counter(pair.source for pair in self.pairs)
        return {source: counts[source] for source in SOURCES}


def harvest_documents(
    root: Path, settings: DocumentSettings, tokens: Tokens, *, on_file: Callable[[int, int], None] | None = None
) -> DocumentHarvest:
    """Return the passages and pairs of a folder.

    Args:
        root: the folder.
        settings: how it is cut, and what pairs are made.
        tokens: a text in, how many tokens the student makes of it out.
        on_file: called with (files done, files in all) after each file.

    Raises:
        InputError: there is no such folder, nothing in it can be read, or a library is not installed.
    """
    documents: list[Document] = []
    unread: list[Unread] = []
    for one in read_documents(root, on_file=on_file):
        if isinstance(one, Document):
            documents.append(one)
        else:
            unread.append(one)
    if not documents:
        first = f", first {unread[0].path}: {unread[0].reason}" if unread else ""
        raise InputError(
            f"{root}: none of {len(unread):,} files could be read{first}",
            hint="name the folder that the documents lie in",
        )
    own = without_recurring(documents)
    passages = [passage for document in own for passage in passages_of(document, settings, tokens)]
    return DocumentHarvest(
        read=[document.file for document in documents],
        read_in_part=[document.file for document in documents if not document.is_whole],
        unread=unread,
        passages=passages,
        pairs=pairs_of(own, passages, settings),
    )


def documents_hash(root: Path) -> str:
    """Return a hash of every file that a harvest reads, by its name, size and content."""
    digest = hashlib.sha256()
    for file in walk(root).files:
        path = root / file
        own = hashlib.sha256()
        if os.access(path, os.R_OK):
            with open(path, "rb") as content:
                while part := content.read(1 << 20):
                    own.update(part)
        digest.update(f"{file}\n{own.hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
