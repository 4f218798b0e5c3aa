"""Encoding a file of texts: vectors with their ids, in one file that is whole or absent.

OUT.parquet         columns `id` and `vector`; of chunks `start` and `end` too, in characters of the text
OUT.npy             float32 [texts, dimensions]; OUT.ids.json has the ids in the same order
.OUT.vectors/       shards, while it works: a run that was cut short goes on at the next one
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.data.files import atomic_write, read_json, refuse_foreign, refuse_link, remove_below, write_json
from embedsmith.data.listed import read_listed
from embedsmith.data.locks import writes_out
from embedsmith.data.texts import Texts
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.models.chunks import chunks_of
from embedsmith.models.opening import load
from embedsmith.models.settings import ChunkSettings, Dtype, Role
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.serving.clearing import ids_beside
from embedsmith.vectors.known import HASHES
from embedsmith.vectors.store import VectorStore

_SHARD = 4096


@dataclass(frozen=True)
class Encoded:
    """What was written."""

    file: str
    ids: str
    """The file of the ids: the same for Parquet."""
    texts: int
    dimensions: int
    seconds: float


@writes_out
@draws_bars
def encode(
    model: str | Path,
    texts: str | Path,
    *,
    out: str | Path,
    role: Role = "passage",
    dtype: Dtype = "auto",
    dimensions: int | None = None,
    compile: bool = False,
    chunks: ChunkSettings | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Encoded:
    """Encode the texts of a file and write their vectors, each of length 1, in the file's order.

    Args:
        model: a run, a folder, a hub id or package:NAME/path.
        texts: JSON lines, Parquet or CSV with a column of texts and perhaps one of ids, or a file of plain lines.
        out: the file to write, .parquet or .npy.
        role: which instruction and which length the model gives them.
        dtype: precision of the matmuls.
        dimensions: keep as many of the first numbers of each vector (Matryoshka).
        compile: compile the layers, on a GPU: half a minute at first, then a quarter faster where the model is large.
        chunks: how texts are cut into chunks with a vector each, whose ids are `ID#0`, `ID#1` and so on; by default
            each text has one vector.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`; other ids lie where these are to be written.
        RunError: the file is there already.
    """
    started = time.monotonic()
    target = Path(out)
    if target.suffix not in (".npy", ".parquet"):
        raise SettingsError(f"--out {target}: wanted .parquet or .npy", hint="the suffix says how vectors are written")
    shards, beside = target.with_name(f".{target.name}.vectors"), ids_beside(target)
    refuse_link(shards)
    if target.exists():
        _remove_stores(shards)  # of a process that was killed when all was written
        raise RunError(f"{target}: there already", hint="choose another --out, or begin anew with --overwrite")
    ids, listed = read_listed(Path(texts))
    chunks = chunks or ChunkSettings()
    if chunks.chunk and role == "query":
        raise SettingsError("chunk: queries are not cut", hint="leave it out, or name --role passage")
    embedder: Any = load(str(model), dtype=dtype, dimensions=dimensions, compile=compile)
    spans = None
    if chunks.chunk:
        ids, listed, spans, embedder = _in_chunks(embedder, ids, listed, chunks)
    if target.suffix == ".npy":
        refuse_foreign(beside, is_ours=lambda path: _holds(path, ids))  # of a process that was killed after it
    store = VectorStore.open_or_create(shards, contract=embedder.contracts()[role], texts=listed, shard_size=_SHARD)
    store.fill_each(
        lambda lists: embedder.embed_each(lists, role),
        on_progress=lambda done, total: on_progress(f"encode {texts}", done, total),
    )
    if target.suffix == ".npy":
        write_json(beside, ids)
        _write_npy(target, store.shards(), len(ids), store.dimensions)
    else:
        _write_parquet(target, ids, store.shards(), store.dimensions, spans)
    _remove_stores(shards)
    seconds = round(time.monotonic() - started, 1)
    return Encoded(str(target), str(beside), len(ids), store.dimensions, seconds)


def _in_chunks(
    model: Any, ids: Sequence[str], texts: Sequence[str], settings: ChunkSettings
) -> tuple[list[str], Texts, Int64[np.ndarray, "C 2"], Any]:
    """Return the ids, the texts and the places of chunks, and what encodes them."""
    from embedsmith.models.late import LateModel, contexts_of

    cut = chunks_of(model, texts, settings)
    starts = cut.firsts[cut.owners]
    own = [f"{ids[row]}#{number}" for row, number in zip(cut.owners, np.arange(len(starts)) - starts, strict=True)]
    if settings.late_chunks:
        return own, Texts.of(contexts_of(model, texts, cut, settings)), cut.spans, LateModel(model)
    return own, cut.texts, cut.spans, model


def _holds(path: Path, ids: Sequence[str]) -> bool:
    """Return whether a file holds these ids and nothing else."""
    try:
        known = read_json(path)
    except InputError:
        return False
    return bool(known == list(ids))


def _remove_stores(folder: Path) -> None:
    """Remove the vectors that lie below a folder, and the folder if it held nothing else."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if (path / HASHES).is_file():
            remove_below(folder, path)
    if not any(folder.iterdir()):
        remove_below(folder.parent, folder)


def _write_npy(path: Path, shards: Sequence[np.ndarray], count: int, dimensions: int) -> None:
    """Write shards as one array, one after the other."""
    with atomic_write(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimensions)}
        np.lib.format.write_array_header_1_0(file, header)
        for shard in shards:
            file.write(np.ascontiguousarray(shard, "<f4").data)


def _write_parquet(
    path: Path,
    ids: Sequence[str],
    shards: Sequence[np.ndarray],
    dimensions: int,
    spans: Int64[np.ndarray, "C 2"] | None,
) -> None:
    """Write ids and vectors, and where chunks stand, a shard at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = {} if spans is None else {"start": pa.int64(), "end": pa.int64()}
    schema = pa.schema({"id": pa.string(), **places, "vector": pa.list_(pa.float32(), dimensions)})
    with atomic_write(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
        start = 0
        for shard in shards:
            own = pa.array(ids[start : start + len(shard)], pa.string())
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(shard), pa.float32()), dimensions)
            columns = [] if spans is None else [pa.array(spans[start : start + len(shard), end]) for end in (0, 1)]
            writer.write_table(pa.table([own, *columns, vectors], schema=schema))
            start += len(shard)
