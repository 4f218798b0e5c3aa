"""What a folder takes in memory grows by less than its text does."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from embedsmith.prepare.documents.blocks import Block, Document
from embedsmith.prepare.documents.harvest import harvest_of
from embedsmith.prepare.documents.settings import DocumentSettings
from embedsmith.prepare.documents.sides import split_documents

MOST = 1.5
"""Bytes at the peak for each byte of text."""


def pages(count: int) -> Iterator[Document]:
    """Yield pages of prose, terms and code with headings, anchors and links; every fifth section has a near copy."""
    drawn = random.Random(0)
    words = ["".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=drawn.randrange(3, 9))) for _ in range(5000)]

    def said(length: int) -> str:
        return " ".join(drawn.choices(words, k=length)).capitalize()

    for number in range(count):
        blocks = [Block("heading", said(3), 1, anchors=("top",))]
        for part in range(12):
            blocks.append(Block("heading", said(4), 2, anchors=(f"part-{part}",)))
            prose = " ".join(f"{said(12)}." for _ in range(5))
            links = ((said(3), f"{drawn.randrange(count)}.html#part-{drawn.randrange(12)}"),) * (part % 2)
            blocks.append(Block("paragraph", prose, links=links))
            if part % 5 == 0:
                blocks += [Block("heading", said(4), 2), Block("paragraph", f"{prose} {said(2)}.")]
            term = said(2)
            blocks.append(Block("item", f"{term}: {said(20)}.", label=term))
            blocks.append(Block("code", f"def f():\n    return '{said(12)}'", label=said(6)))
        yield Document.of(f"{number}.html", blocks)


def peak(count: int, folder: Path) -> tuple[int, int]:
    """Return the bytes of text of some pages, and the most that they took while their sides were written."""
    text = sum(len(one.text) for one in pages(count))
    settings = DocumentSettings(max_tokens=80)
    tracemalloc.start()
    try:
        found = harvest_of(pages(count), settings, lambda text: text.count(" ") + 1, folder=folder)
        sides = split_documents(found, settings)
        sides.write(folder)
        return text, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_less_than_the_text_does(tmp_path: Path):
    for name in ("warm", "few", "many"):
        (tmp_path / name).mkdir()
    peak(8, tmp_path / "warm")  # what is imported and remembered once
    few, less = peak(40, tmp_path / "few")
    many, more = peak(160, tmp_path / "many")
    assert (more - less) / (many - few) < MOST, (more - less) / (many - few)
    written = sum(path.stat().st_size for path in (tmp_path / "many").rglob("*.jsonl"))
    assert written > many, "both sides are there"
