"""The documents, passages and pairs of a folder while they are worked on: on disk, but for some numbers of each.

A document that was read takes ten times its text in memory, a passage or a pair some hundred bytes beside its text.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int8, Int32, Int64

from embedsmith.data.normalised import normalised
from embedsmith.data.spool import JsonSpool
from embedsmith.data.texts import digest, numbered
from embedsmith.prepare.documents.blocks import Document, block_of
from embedsmith.prepare.documents.passages import Passage
from embedsmith.prepare.documents.settings import SOURCES, PairSource


class Documents:
    """Documents in their order, each read from the disk when it is asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the file.

        Args:
            folder: on whose disk it lies.
        """
        self._rows = JsonSpool(folder)

    def add(self, document: Document) -> None:
        """Add a document at the end."""
        self._rows.put([document.file, document.is_whole, [one.block.plain() for one in document.blocks]])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Document]:
        for file, is_whole, blocks in self._rows.values():
            yield Document.of(file, map(block_of, blocks), is_whole=is_whole)


class Passages(Sequence[Passage]):
    """Passages in their order, those of one file and one section one after the other; without their blocks."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the file.

        Args:
            folder: on whose disk it lies.
        """
        self._rows = JsonSpool(folder)
        self._numbers = array("i")
        """Of each passage, its number on the disk."""
        self.files: list[str] = []
        """Those that have passages."""
        self._number_of: dict[str, int] = {}
        self._files, self._sections, self._starts, self._ends = (array("i") for _ in range(4))
        self._digests = bytearray()

    def add(self, passage: Passage) -> int:
        """Add a passage at the end, and return its number."""
        if passage.file not in self._number_of:
            self._number_of[passage.file] = len(self.files)
            self.files.append(passage.file)
        assert self.files[-1] == passage.file, "passages of a file stand together"
        self._files.append(len(self.files) - 1)
        self._sections.append(passage.section)
        self._starts.append(passage.start)
        self._ends.append(passage.end)
        self._digests += digest(_key(passage.text))
        self._numbers.append(self._rows.put([passage.text, passage.path, passage.front, passage.page, passage.kind]))
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, number: int) -> Passage: ...
    @overload
    def __getitem__(self, number: slice) -> list[Passage]: ...
    def __getitem__(self, number: int | slice) -> Passage | list[Passage]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        text, path, front, page, kind = self._rows.value(self._numbers[number])
        file, start, end = self.place(number)
        section = self._sections[number]
        return Passage(file, text, tuple(path), tuple(front), start, end, page, section, kind)

    def place(self, number: int) -> tuple[str, int, int]:
        """Return the file of a passage, and where it begins and ends there."""
        return self.files[self._files[number]], self._starts[number], self._ends[number]

    def of_file(self, file: str) -> range:
        """Return the passages of a file."""
        number = self._number_of.get(file)
        if number is None:
            return range(0)
        return range(bisect_left(self._files, number), bisect_right(self._files, number))

    def of_section(self, file: str, section: int) -> range:
        """Return the passages of a section."""
        own = self.of_file(file)
        bounds = (own.start, own.stop)
        return range(bisect_left(self._sections, section, *bounds), bisect_right(self._sections, section, *bounds))

    def kept(self, numbers: Int64[np.ndarray, " n"]) -> Passages:
        """Return some of them, by their numbers, ascending."""
        some: Any = object.__new__(Passages)
        some._rows, some.files, some._number_of = self._rows, self.files, self._number_of
        for name in ("_numbers", "_files", "_sections", "_starts", "_ends"):
            setattr(some, name, array("i", np.array(getattr(self, name), np.int32)[numbers].tobytes()))
        some._digests = bytearray(np.frombuffer(self._digests, np.int64).reshape(-1, 2)[numbers].tobytes())
        return some

    def file_numbers(self) -> Int64[np.ndarray, " N"]:
        """Return for each passage the number of its file among `files`."""
        return np.array(self._files, np.int64)

    def first_alike(self) -> Int64[np.ndarray, " N"]:
        """Return for each passage the first one that says the same to the letter."""
        numbers, firsts = numbered(np.frombuffer(self._digests, np.int64).reshape(-1, 2))
        return firsts[numbers]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, and the passages that answer it, by their place among all."""

    source: PairSource
    query: str
    passages: tuple[int, ...]
    taken_out: str = ""
    """What is taken out of the passage before it is trained on."""


class Pairs(Sequence[Pair]):
    """Pairs in their order."""

    def __init__(self, pairs: Iterable[Pair] = (), *, folder: Path | None = None) -> None:
        """Write pairs down.

        Args:
            pairs: any number.
            folder: on whose disk they lie.
        """
        self._rows = JsonSpool(folder)
        sources, firsts, digests = array("b"), array("i"), bytearray()
        for pair in pairs:
            self._rows.put([pair.source, pair.query, pair.passages, pair.taken_out])
            sources.append(SOURCES.index(pair.source))
            firsts.append(pair.passages[0])
            digests += digest(_key(pair.query))
        self.sources: Int8[np.ndarray, " P"] = np.array(sources, np.int8)
        """Of each, its place in `SOURCES`."""
        self.firsts: Int32[np.ndarray, " P"] = np.array(firsts, np.int32)
        """Of each, the first of its passages."""
        self.queries: Int64[np.ndarray, " P"] = numbered(np.frombuffer(digests, np.int64).reshape(-1, 2))[0]
        """Of each, a number that those with the same query share."""
        self._numbers: Int64[np.ndarray, " P"] = np.arange(len(sources))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, row: int) -> Pair: ...
    @overload
    def __getitem__(self, row: slice) -> list[Pair]: ...
    def __getitem__(self, row: int | slice) -> Pair | list[Pair]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        source, query, passages, taken_out = self._rows.value(int(self._numbers[row]))
        return Pair(source, query, tuple(passages), taken_out)

    def kept(self, rows: Int64[np.ndarray, " p"]) -> Pairs:
        """Return some of them."""
        some: Any = object.__new__(Pairs)
        some._rows, some._numbers = self._rows, self._numbers[rows]
        some.sources, some.firsts, some.queries = self.sources[rows], self.firsts[rows], self.queries[rows]
        return some


def _key(text: str) -> bytes:
    return normalised(text).encode("utf-8", "surrogatepass")
