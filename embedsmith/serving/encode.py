"""Encoding a file of texts: vectors with their ids, in one file that is whole or absent.

OUT.parquet         columns `id` and `vector`; of chunks `start` and `end` too, in characters of the text
OUT.npy             float32 [texts, dimensions]; OUT.ids.json has the ids in the same order
OUT/, s3://…        a folder of Parquet files, each a shard: see `embedsmith.serving.parts`
.OUT.vectors/       shards, while it works: a run that was cut short goes on at the next one

The shards may be shared out: over the workers of a cluster, or over jobs that know nothing of each other but K of N.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.cluster.running import on_cluster, running_cluster
from embedsmith.data.files import atomic_write, read_json, refuse_foreign, refuse_link, remove_below, write_json
from embedsmith.data.listed import read_listed
from embedsmith.data.locks import refuse_overwriting, writes_out
from embedsmith.data.places import Place, is_stored
from embedsmith.data.texts import Texts
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.models.chunks import chunks_of
from embedsmith.models.opening import load
from embedsmith.models.settings import ChunkSettings, Dtype, Role
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.serving.clearing import ids_beside
from embedsmith.serving.parts import Parts
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
    shards_left: int = 0
    """Where this was one of several jobs: what the others have not encoded yet. Until they have, there is no file."""


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
    shard: str | None = None,
    cluster: str | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Encoded:
    """Encode the texts of a file and write their vectors, each of length 1, in the file's order.

    Args:
        model: a run, a folder, a hub id or package:NAME/path.
        texts: JSON lines, Parquet or CSV with a column of texts and perhaps one of ids, or a file of plain lines.
        out: the file to write, .parquet or .npy; or a folder of Parquet files: a path that ends in `/`, or a URL in
            object storage, such as s3://BUCKET/FOLDER.
        role: which instruction and which length the model gives them.
        dtype: precision of the matmuls.
        dimensions: keep as many of the first numbers of each vector (Matryoshka).
        compile: compile the layers, on a GPU: half a minute at first, then a quarter faster where the model is large.
        chunks: how texts are cut into chunks with a vector each, whose ids are `ID#0`, `ID#1` and so on; by default
            each text has one vector.
        shard: `K/N`: encode this part of the texts alone, as the K-th of N jobs that share a file system. The last of
            them to end writes the file.
        cluster: `local`, `local:N`, `auto` or HOST:PORT: have the workers of a Ray cluster encode; same bytes.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`; other ids lie where these are to be written.
        RunError: the file is there already.
    """
    work: dict[str, Any] = {
        "role": role,
        "dtype": dtype,
        "dimensions": dimensions,
        "compile": compile,
        "chunks": chunks or ChunkSettings(),
        "on_progress": on_progress,
    }
    if shard is not None and cluster is not None:
        raise SettingsError(
            "shard and cluster: a cluster shares the shards out itself", hint="name one of them, not both"
        )
    part = None if shard is None else _part(shard)
    with on_cluster(cluster):
        if is_folder(str(out)):
            return _encode_parts(model, texts, out=out, part=part, **work)
        if part is None:
            return _encode_alone(model, texts, out=out, **work)
        refuse_overwriting(Path(out), [model, texts])
        return _encode(model, texts, out=out, part=part, **work)


def is_folder(out: str) -> bool:
    """Return whether vectors are to be written as a folder of files.

    >>> [is_folder(out) for out in ("s3://bucket/vectors", "vectors/", "vectors.parquet")]
    [True, True, False]
    """
    return is_stored(out) or out.endswith(("/", os.sep))


def _part(shard: str) -> tuple[int, int]:
    """Return the number of a job, from 0, and how many there are.

    >>> _part("2/8")
    (1, 8)

    Raises:
        SettingsError: it says neither.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", shard)
    if not found or int(found[1]) > int(found[2]):
        raise SettingsError(f"shard {shard}: wanted K/N", hint="K goes from 1 to N: 1/8, 2/8 and so on to 8/8")
    return int(found[1]) - 1, int(found[2])


def _encode(
    model: str | Path,
    texts: str | Path,
    *,
    out: str | Path,
    role: Role,
    dtype: Dtype,
    dimensions: int | None,
    compile: bool,
    chunks: ChunkSettings,
    on_progress: Progress,
    part: tuple[int, int] | None = None,
) -> Encoded:
    """Encode the texts of a file, or a part of them, and write what is whole then."""
    started = time.monotonic()
    target = Path(out)
    if target.suffix not in (".npy", ".parquet"):
        raise SettingsError(
            f"--out {target}: wanted .parquet or .npy, or a folder that ends in /",
            hint="the suffix says how vectors are written",
        )
    shards, beside = target.with_name(f".{target.name}.vectors"), ids_beside(target)
    refuse_link(target)
    refuse_link(shards)
    if target.exists():
        _remove_stores(shards)  # of a process that was killed when all was written
        raise RunError(f"{target}: there already", hint="choose another --out, or begin anew with --overwrite")
    ids, listed, spans, embedder, width = _opened(model, texts, role, dtype, dimensions, compile, chunks)
    if target.suffix == ".npy":
        refuse_foreign(beside, is_ours=lambda path: _holds(path, ids))  # of a process that was killed after it
    store = VectorStore.open_or_create(
        shards, contract=embedder.contracts()[role], texts=listed, dimensions=width, shard_size=_SHARD
    )

    def tell(done: int, total: int) -> None:
        on_progress(f"encode {texts}", done, total)

    cluster = running_cluster()
    if part:
        own = range(part[0], store.shard_count, part[1])
        store.fill_shards(own, lambda lists: embedder.embed_each(lists, role), tell)
        if left := len(store.missing()):
            return Encoded(str(target), str(beside), len(ids), store.dimensions, _seconds_since(started), left)
    elif cluster and cluster.encodes(embedder, len(store.missing())):
        cluster.fill(store, embedder, role, on_progress=tell)
    else:
        store.fill_each(lambda lists: embedder.embed_each(lists, role), on_progress=tell)
    try:
        if target.suffix == ".npy":
            write_json(beside, ids)
            _write_npy(target, store.shards(), len(ids), store.dimensions)
        else:
            _write_parquet(target, ids, store.shards(), store.dimensions, spans)
    except (InputError, OSError):
        # Two jobs may have seen the last shard. The other one has written the same bytes, and removed the shards.
        if not (part and target.exists()):
            raise
    _remove_stores(shards)
    return Encoded(str(target), str(beside), len(ids), store.dimensions, _seconds_since(started))


_encode_alone = writes_out(_encode)


def _encode_parts(
    model: str | Path,
    texts: str | Path,
    *,
    out: str | Path,
    role: Role,
    dtype: Dtype,
    dimensions: int | None,
    compile: bool,
    chunks: ChunkSettings,
    on_progress: Progress,
    part: tuple[int, int] | None = None,
) -> Encoded:
    """Encode the texts of a file, or a part of them, into a folder of files."""
    started = time.monotonic()
    place = Place(str(out))
    if not is_stored(place.name):
        refuse_link(Path(place.name))
    ids, listed, spans, embedder, width = _opened(model, texts, role, dtype, dimensions, compile, chunks)
    parts = Parts(place, contract=embedder.contracts()[role], ids=ids, texts=listed, spans=spans, least=_SHARD)
    first, step = part or (0, 1)
    own = range(first, parts.count, step)
    missing = parts.missing(own)
    total = sum(map(parts.rows_of, own))
    done = total - sum(map(parts.rows_of, missing))

    def tell(under_way: int = 0) -> None:
        on_progress(f"encode {texts}", min(done + under_way, total), total)

    tell()
    cluster = running_cluster()
    if cluster and cluster.encodes(embedder, len(missing)):
        written = cluster.encode(parts.tasks(missing), embedder, role, contract=parts.contract, running=tell)
    else:
        written = parts.written_here(missing, lambda lists: embedder.embed_each(lists, role))
    for number in written:
        done += parts.rows_of(number)
        tell()
    left = len(parts.missing(range(parts.count)))
    if not left:
        parts.finish(width)
    return Encoded(str(place), str(place), len(ids), width, _seconds_since(started), left)


def _opened(
    model: str | Path,
    texts: str | Path,
    role: Role,
    dtype: Dtype,
    dimensions: int | None,
    compile: bool,
    chunks: ChunkSettings,
) -> tuple[list[str], Texts, Int64[np.ndarray, "C 2"] | None, Any, int]:
    """Return the ids, the texts, the places of chunks, what encodes them, and the numbers of a vector."""
    ids, listed = read_listed(Path(texts))
    if chunks.chunk and role == "query":
        raise SettingsError("chunk: queries are not cut", hint="leave it out, or name --role passage")
    if chunks.late_chunks and running_cluster():
        raise SettingsError("late_chunks: not on a cluster", hint="leave --cluster out; --shard K/N does it on several")
    embedder: Any = load(str(model), dtype=dtype, dimensions=dimensions, compile=compile)
    width = dimensions or embedder.get_embedding_dimension()
    if not chunks.chunk:
        return ids, listed, None, embedder, width
    return *_in_chunks(embedder, ids, listed, chunks), width


def _seconds_since(started: float) -> float:
    """Return the time since a moment, as it is shown."""
    return round(time.monotonic() - started, 1)


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
