"""Vectors in a folder of Parquet files, on this machine or in object storage: each file is one shard, whole or absent.

OUT/FINGERPRINT-00000.parquet   columns `id` and `vector`; of chunks `start` and `end` too
OUT/_vectors.json               what the numbers depend on, and how many files there are: written last

The name of a file holds the fingerprint of all that its numbers depend on. So commands that differ never write the same
file, and whoever finds one need not read it. No job waits for another: two that write a file write the same bytes.

Shapes: n texts of a part, D dimensions, C chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.places import Place
from embedsmith.errors import RunError
from embedsmith.settings import fingerprint
from embedsmith.vectors.filling import EncodeEach, encoded_shard
from embedsmith.vectors.store import as_stored, hash_of_texts, rows_of_a_shard

_DONE = "_vectors.json"
"""Readers of a folder of Parquet pass over what begins with `_`."""


@dataclass(frozen=True)
class PartTask:
    """One part, with all that its bytes depend on beside the model."""

    place: Place
    name: str
    number: int
    first_row: int
    ids: list[str]
    texts: list[str]
    spans: Int64[np.ndarray, "n 2"] | None
    count: int
    """Texts of all parts."""

    def fill(self, encode_each: EncodeEach) -> None:
        """Write the part.

        Raises:
            InputError: a vector is not finite.
        """
        vectors = encoded_shard(self.first_row, self.texts, self.count, encode_each, [])
        self.place.write(self.name, parquet_of(self.ids, vectors, self.spans))


class Parts:
    """The parts of some texts in a folder."""

    def __init__(
        self,
        place: Place,
        *,
        contract: dict[str, Any],
        ids: Sequence[str],
        texts: Sequence[str],
        spans: Int64[np.ndarray, "C 2"] | None,
        least: int,
    ) -> None:
        """Look at what there is.

        Args:
            contract: what determines the vectors beside the texts.
            ids: of the texts.
            texts: of one role.
            spans: where chunks stand.
            least: rows of a part, where the texts are not so many that they are more.

        Raises:
            RunError: the vectors are there already, or the folder holds others.
        """
        self.place, self._ids, self._texts, self._spans = place, ids, texts, spans
        self.contract = as_stored(contract)
        self._rows = rows_of_a_shard(len(texts), least)
        self._print = fingerprint([self.contract, hash_of_texts(texts), hash_of_texts(ids), self._rows])
        there = self.place.names()
        others = [name for name in there if re.fullmatch(r"[0-9a-f]{16}-\d{5,}\.parquet", name)]
        if others := [name for name in others if not name.startswith(self._print)]:
            raise RunError(
                f"{place}: holds vectors of another model or of other texts, such as {min(others)}",
                hint="choose another --out, or remove the folder",
            )
        if _DONE in there:
            raise RunError(f"{place}: there already", hint="choose another --out, or remove the folder")

    @property
    def count(self) -> int:
        """How many parts there are when all is done."""
        return -(-len(self._texts) // self._rows)

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Return those of some parts that are not there."""
        there = self.place.names()
        return [number for number in numbers if self._name(number) not in there]

    def rows_of(self, number: int) -> int:
        """Return how many texts a part has."""
        return min(self._rows, len(self._texts) - number * self._rows)

    def tasks(self, numbers: Sequence[int]) -> Iterator[PartTask]:
        """Yield parts, to be written here or elsewhere."""
        for number in numbers:
            some = slice(number * self._rows, (number + 1) * self._rows)
            yield PartTask(
                place=self.place,
                name=self._name(number),
                number=number,
                first_row=some.start,
                ids=list(self._ids[some]),
                texts=list(self._texts[some]),
                spans=None if self._spans is None else np.array(self._spans[some]),
                count=len(self._texts),
            )

    def written_here(self, numbers: Sequence[int], encode_each: EncodeEach) -> Iterator[int]:
        """Write some parts in this process; yield the number of each."""
        for task in self.tasks(numbers):
            task.fill(encode_each)
            yield task.number

    def finish(self, dimensions: int) -> None:
        """Say that all parts are there."""
        about = {"format": 1, "contract": self.contract, "count": len(self._texts), "dimensions": dimensions}
        about |= {"files": [self._name(number) for number in range(self.count)]}
        text = json.dumps(about, ensure_ascii=False, indent=2, allow_nan=False)
        self.place.write(_DONE, f"{text}\n".encode())

    def _name(self, number: int) -> str:
        return f"{self._print}-{number:05d}.parquet"


def parquet_of(
    ids: Sequence[str], vectors: Float32[np.ndarray, "n D"], spans: Int64[np.ndarray, "n 2"] | None
) -> bytes:
    """Return a Parquet file of ids and vectors, and where chunks stand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"id": pa.array(ids, pa.string())}
    if spans is not None:
        columns |= {"start": pa.array(spans[:, 0]), "end": pa.array(spans[:, 1])}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(vectors), pa.float32()), vectors.shape[1])
    file = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), file)
    content: bytes = file.getvalue().to_pybytes()
    return content
