"""A folder of documents read, cut into passages, and made into pairs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedsmith.data.sentences import Tokens
from embedsmith.errors import InputError
from embedsmith.prepare.documents.blocks import Document, Unread
from embedsmith.prepare.documents.pairs import pairs_of
from embedsmith.prepare.documents.reading import read_documents
from embedsmith.prepare.documents.recurring import Recurring, without_recurring
from embedsmith.prepare.documents.settings import SOURCES, DocumentSettings
from embedsmith.prepare.documents.spooled import Documents, Pairs, Passages
from embedsmith.prepare.documents.walking import walk


@dataclass(frozen=True)
class DocumentHarvest:
    """What a folder holds; passages and pairs in the order of files and of reading."""

    read: list[str]
    """Files that were read."""
    read_in_part: list[str]
    """Those of them of which only the beginning was."""
    unread: list[Unread]
    passages: Passages
    pairs: Pairs
    folder: Path | None = None
    """On whose disk they lie."""

    def by_source(self) -> dict[str, int]:
        """Return how many pairs each source gave; those that gave none are there too."""
        counts = np.bincount(self.pairs.sources, minlength=len(SOURCES)).tolist()
        return dict(zip(SOURCES, counts, strict=True))


def harvest_documents(
    root: Path,
    settings: DocumentSettings,
    tokens: Tokens,
    *,
    folder: Path | None = None,
    on_file: Callable[[int, int], None] | None = None,
) -> DocumentHarvest:
    """Return the passages and pairs of a folder.

    Args:
        root: the folder.
        settings: how it is cut, and what pairs are made.
        tokens: a text in, how many tokens the student makes of it out.
        folder: on whose disk they lie until they are forgotten; by default where the system keeps temporary files.
        on_file: called with (files done, files in all) after each file.

    Raises:
        InputError: there is no such folder, nothing in it can be read, or a library is not installed.
    """
    found = harvest_of(read_documents(root, on_file=on_file), settings, tokens, folder=folder)
    if not found.read:
        unread = found.unread
        first = f", first {unread[0].path}: {unread[0].reason}" if unread else ""
        raise InputError(
            f"{root}: none of {len(unread):,} files could be read{first}",
            hint="name the folder that the documents lie in",
        )
    return found


def harvest_of(
    files: Iterable[Document | Unread], settings: DocumentSettings, tokens: Tokens, *, folder: Path | None = None
) -> DocumentHarvest:
    """Return the passages and pairs of files as they are read; no more than one of them is in memory at a time.

    Args:
        files: each as it was read, or why it was not.
        settings: see `harvest_documents`.
        tokens: see `harvest_documents`.
        folder: see `harvest_documents`.
    """
    documents, recurring = Documents(folder), Recurring()
    read: list[str] = []
    read_in_part: list[str] = []
    unread: list[Unread] = []
    for one in files:
        if isinstance(one, Unread):
            unread.append(one)
            continue
        documents.add(one)
        recurring.add(one)
        read.append(one.file)
        if not one.is_whole:
            read_in_part.append(one.file)
    keys = recurring.keys()
    own = (without_recurring(document, keys) for document in documents)
    passages, pairs = pairs_of(own, settings, tokens, folder=folder)
    return DocumentHarvest(read, read_in_part, unread, passages, pairs, folder)


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
