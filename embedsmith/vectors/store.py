"""A vector store: texts encoded once, in shards on disk, under the fingerprint of all that determines the numbers.

    vectors/0f3a…/store.json         the contract, the hash of the texts, their number
    vectors/0f3a…/texts.npy          the texts' hashes, by which a store of a grown corpus finds their vectors
    vectors/0f3a…/shard-00000.npy    float32, shape (rows, dimensions)
    vectors/0f3a…/.lock              while a process fills it; another one waits, and finds the vectors then

Shapes: n rows of a shard or of a batch of texts, D dimensions, N texts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.files import remove_partials, write_array, write_json
from embedsmith.data.locks import Lock, OnWait, waiting
from embedsmith.errors import InputError
from embedsmith.settings import fingerprint
from embedsmith.system import let_open
from embedsmith.vectors.filling import EncodeEach, Shard, other_dimensions, stores_beside
from embedsmith.vectors.known import HASHES, write_hashes
from embedsmith.vectors.shards import gather, open_shard, read_description, shard_path

FORMAT = 1

OnProgress = Callable[[int, int], None]
"""Called with what is done, and with what there is."""

_MANY_SHARDS = 100
"""An open memory map holds a file descriptor, and macOS grants a process 256 of them before it asks for more."""
_MOST_ROWS = 65_536
"""Of a shard whose size nobody has asked for: it is in memory while it is filled, and one worker's work."""


class VectorStore:
    """The vectors of a list of texts, on disk.

    Another model, prompt or text is another fingerprint, hence another folder: a cache that does not match is never
    used, and two prompts live side by side.
    """

    def __init__(self, folder: Path, texts: Sequence[str], shard_size: int, dimensions: int | None) -> None:
        """Use `open_or_create`."""
        self.folder = folder
        self._texts = texts
        self._shard_size = shard_size
        self._dimensions = dimensions

    @classmethod
    def open_or_create(
        cls,
        parent: Path,
        *,
        contract: dict[str, Any],
        texts: Sequence[str],
        dimensions: int | None = None,
        shard_size: int = 4096,
    ) -> VectorStore:
        """Return the store of these texts under this contract, in a folder below `parent` named by their fingerprint.

        Args:
            contract: a JSON-like object with all that determines the numbers beside the texts: the weights' hash,
                tokenizer, prompt, lengths, pooling, dtype.
            dimensions: D, if known before the first text is encoded.
            shard_size: rows of a shard of a new store (an old one keeps its own). If a hundredth of the texts is more,
                that, up to 65,536.

        Raises:
            InputError: there is no text, or the folder holds another store.
        """
        assert shard_size >= 1, f"shard_size is {shard_size}"
        if not len(texts):
            raise InputError("no texts to encode", hint="give at least one text")
        contract = as_stored(contract)
        texts_hash = hash_of_texts(texts)
        folder = parent / fingerprint({"contract": contract, "texts": texts_hash})
        wanted = {"format": FORMAT, "contract": contract, "texts": texts_hash, "count": len(texts)}
        path = folder / "store.json"
        if not (folder / HASHES).exists():
            write_hashes(folder, texts)
        if not path.exists():
            # Another process may be making it, with other shards: what it says of them holds for both.
            with waiting(Lock.in_folder(folder)):
                if not path.exists():
                    size = rows_of_a_shard(len(texts), shard_size)
                    write_json(path, {**wanted, "shard_size": size, "dimensions": dimensions})
        found = read_description(folder)
        _check_description(path, found, wanted, dimensions)
        return cls(folder, texts, found["shard_size"], found["dimensions"])

    def __len__(self) -> int:
        """Return N, whether or not all texts are encoded."""
        return len(self._texts)

    @property
    def dimensions(self) -> int:
        """D, known as soon as one text is encoded."""
        if self._dimensions is None:
            raise InputError(f"{self.folder}: no text is encoded yet", hint="fill the store first")
        return self._dimensions

    @property
    def is_complete(self) -> bool:
        """Whether every shard is whole."""
        return not self.missing()

    def fill_each(
        self, encode_each: EncodeEach, *, on_progress: OnProgress | None = None, on_wait: OnWait | None = None
    ) -> VectorStore:
        """Encode the shards that are missing or damaged, in order; return the store.

        One process at a time fills a store; another one waits for it, and finds the vectors then.

        Each shard appears whole or not at all, so a run that was killed resumes at its next shard. What encodes sees
        the distinct texts of each shard, without those that another store in the same folder holds under the same
        contract: their vectors are copied, bit for bit. Texts added to a corpus cost their own encoding and no other.

        The same texts in the same folder of stores give the same bytes, wherever a run was cut. A copied vector may
        differ in its last bits from one encoded anew, as any does that was encoded among other texts.

        Args:
            encode_each: yields the vectors of each list of texts, in order; of no text, no vector. It may begin with
                lists ahead, but what it makes of one must not depend on the others.
            on_progress: called with (texts done, N), first with what was there already.
            on_wait: called with the process that is waited for, where one is filling the store.

        Raises:
            InputError: a vector is not finite, or has another length than those of the store.
        """
        if self.is_complete:
            return self.fill_shards(None, encode_each, on_progress)
        with waiting(Lock.in_folder(self.folder), on_wait):
            remove_partials(self.folder)
            self._dimensions = read_description(self.folder)["dimensions"]  # another process may have settled them
            return self.fill_shards(None, encode_each, on_progress)

    def fill_shards(
        self, shards: Sequence[int] | None, encode_each: EncodeEach, on_progress: OnProgress | None = None
    ) -> VectorStore:
        """Encode those of some shards, or of all, that are missing, without a lock; return the store.

        Processes that fill other shards meanwhile have opened the store with its `dimensions`: none has to settle them.
        """
        shards = range(self.shard_count) if shards is None else shards
        missing = self.missing(shards)
        total = sum(map(self.rows_of, shards))
        done = total - sum(map(self.rows_of, missing))
        if on_progress:
            on_progress(done, total)
        others = stores_beside(self.folder) if missing else []
        begun: deque[tuple[int, Shard]] = deque()

        def lists() -> Iterator[Sequence[str]]:
            for number in missing:
                start, texts = self.part(number)
                begun.append((number, Shard.begun(start, texts, others)))
                yield begun[-1][1].new

        with closing(encode_each(lists())) as encoded:
            for vectors in encoded:
                number, shard = begun.popleft()
                whole = shard.whole(vectors, len(self))
                self.settle(whole.shape[1])
                write_array(shard_path(self.folder, number), whole)
                done += len(shard.texts)
                if on_progress:
                    on_progress(done, total)
        assert done == total, f"vectors for {done} of {total} texts"
        return self

    def files(self) -> list[tuple[Path, int]]:
        """Return the file of each shard, and how many rows it has."""
        return [(shard_path(self.folder.absolute(), n), self.rows_of(n)) for n in range(self.shard_count)]

    def shards(self) -> list[Float32[np.ndarray, "_ D"]]:
        """Return all vectors as memory maps, read-only and in the order of the texts.

        Raises:
            InputError: a shard is missing or damaged.
        """
        let_open(self.shard_count)
        shards = []
        for shard in range(self.shard_count):
            vectors = self._open(shard)
            if vectors is None:
                raise InputError(f"{shard_path(self.folder, shard)}: missing or damaged", hint="fill the store again")
            shards.append(vectors)
        return shards

    def matrix(self) -> Float32[np.ndarray, "N D"]:
        """Return all vectors in memory."""
        return np.concatenate(self.shards())

    def rows(self, indices: Int64[np.ndarray, "*shape"] | Sequence[int]) -> Float32[np.ndarray, "*shape D"]:
        """Return the vectors of some texts, in memory."""
        return gather(self.shards(), np.asarray(indices, np.int64))

    @property
    def shard_count(self) -> int:
        """How many shards there are when all is encoded."""
        return math.ceil(len(self) / self._shard_size)

    def part(self, shard: int) -> tuple[int, list[str]]:
        """Return the row of a shard's first text, and its texts."""
        start = shard * self._shard_size
        return start, list(self._texts[start : start + self._shard_size])

    def rows_of(self, shard: int) -> int:
        """Return how many rows a shard has."""
        return min(self._shard_size, len(self) - shard * self._shard_size)

    def missing(self, shards: Sequence[int] | None = None) -> list[int]:
        """Return those of some shards, by default of all, that are absent or damaged."""
        shards = range(self.shard_count) if shards is None else shards
        return [shard for shard in shards if self._open(shard) is None]

    def _open(self, shard: int) -> Float32[np.ndarray, "n D"] | None:
        """Return a shard as a memory map, or None if it is not there, not whole or not of this store."""
        if self._dimensions is None:
            return None
        return open_shard(shard_path(self.folder, shard), self.rows_of(shard), self._dimensions)

    def settle(self, dimensions: int) -> None:
        """Note D in store.json when it is known; hold vectors to it."""
        if self._dimensions is None:
            found = read_description(self.folder)  # another process may have settled them
            if found["dimensions"] is None:
                write_json(self.folder / "store.json", found | {"dimensions": dimensions})
            self._dimensions = found["dimensions"] or dimensions
        if dimensions != self._dimensions:
            raise other_dimensions(self.folder, dimensions, self._dimensions)


def as_stored(contract: dict[str, Any]) -> dict[str, Any]:
    """Return a contract as a file gives it back: tuples become lists."""
    found: dict[str, Any] = json.loads(json.dumps(contract))
    return found


def rows_of_a_shard(count: int, least: int) -> int:
    """Return how many of so many texts are a shard.

    >>> [rows_of_a_shard(count, 4096) for count in (1000, 1_000_000, 100_000_000)]
    [4096, 10000, 65536]
    """
    return max(least, min(math.ceil(count / _MANY_SHARDS), _MOST_ROWS))


def hash_of_texts(texts: Sequence[str]) -> str:
    """Return a hash of texts that depends on where each ends.

    >>> hash_of_texts(["ab", "c"]) == hash_of_texts(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def _check_description(path: Path, found: dict[str, Any], wanted: dict[str, Any], dimensions: int | None) -> None:
    """Raise InputError unless a store.json describes the store that is wanted."""
    hint = f"remove {path.parent}; it is written anew"
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(f"{path}: {key} is {found.get(key)!r:.200}, wanted {value!r:.200}", hint=hint)
    if dimensions is not None and found["dimensions"] not in (None, dimensions):
        raise InputError(f"{path}: dimensions is {found['dimensions']}, wanted {dimensions}", hint=hint)
