"""Candidates: for each query the passages that the teachers propose, with every score that selection needs.

A candidate is proposed by one teacher and scored by all of them. Everything that selection reads lies in one folder of
plain arrays; another method, sampler, ensemble or number of negatives loads no model.

    candidates/rows.npy, scores.npy …    one array a file, read as memory maps
    candidates/teachers.json             the teachers' names, and which array is whose; written last

Shapes: T teachers, Q queries, K candidates, S pairs of a query and its positive, P listed pairs, N
passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.data.arrays import hash_of_arrays, read_arrays
from embedsmith.data.collection import Collection
from embedsmith.data.files import whole_folder, write_array, write_json
from embedsmith.data.ties import NO_PASSAGE as NO_PASSAGE
from embedsmith.data.ties import Ties
from embedsmith.errors import InputError
from embedsmith.mining.deeper import Taken, search_deeper
from embedsmith.progress import Progress, silent
from embedsmith.runs.mined import described_candidates
from embedsmith.teachers.named import Teacher, matches_words

_BLOCK = 8192
"""Queries between two files: what a killed run loses, and enough for a fast matrix product."""


_POSITIVES = 64
"""Positives of each query that are scored at once."""

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Candidates:
    """What the teachers found for each query of a collection."""

    teachers: list[str]
    depth: int
    """Candidates that each teacher proposes for a query."""
    proposes: list[bool]
    """Whether each teacher proposes candidates, or scores those of the others only."""
    rows: Int64[np.ndarray, "Q K"]
    """Rows of the corpus, by the first teacher's score, best first, ties by draw; `NO_PASSAGE` fills up."""
    scores: Float32[np.ndarray, "T Q K"]
    """Each teacher's score of each candidate; NaN where there is no candidate."""
    mean: Float32[np.ndarray, "T Q"]
    """Mean of a teacher's scores over the corpus (of a teacher that proposes nothing: over the candidates)."""
    deviation: Float32[np.ndarray, "T Q"]
    """Their standard deviation."""
    pair_query: Int64[np.ndarray, " S"]
    """Query of each pair, ascending."""
    pair_passage: Int64[np.ndarray, " S"]
    """Positive of each pair."""
    pair_scores: Float32[np.ndarray, "T S"]
    """Each teacher's score of the positive."""
    passage_text: Int64[np.ndarray, " N"]
    """A number for each distinct normalised text."""
    query_text: Int64[np.ndarray, " Q"]
    """The same numbers: a query with the text of a passage has the passage's number."""
    neighbours: dict[str, Float32[np.ndarray, "S K"]] = field(default_factory=dict)
    """Teacher -> cosine of each candidate with the pair's positive, by its vectors."""

    def missed(self, teacher: int) -> Bool[np.ndarray, "Q K"]:
        """Return which candidates a teacher did not find, only others did: for BM25 those that share no word."""
        return _missed(self.teachers[teacher], self.scores[teacher])

    def pairs_missed(self, teacher: int) -> Bool[np.ndarray, " S"]:
        """Return which positives a teacher cannot find."""
        return _missed(self.teachers[teacher], self.pair_scores[teacher])

    def of_pairs(self, pairs: Int64[np.ndarray, " _"]) -> Candidates:
        """Return the candidates of some pairs' queries, as if no other positive were known.

        Args:
            pairs: rows of the pairs, ascending, at most one a query.
        """
        queries = self.pair_query[pairs]
        assert (np.diff(queries) > 0).all(), "one pair a query, in order"
        return replace(
            self,
            rows=self.rows[queries],
            scores=self.scores[:, queries],
            mean=self.mean[:, queries],
            deviation=self.deviation[:, queries],
            pair_query=np.arange(len(pairs)),
            pair_passage=self.pair_passage[pairs],
            pair_scores=self.pair_scores[:, pairs],
            query_text=self.query_text[queries],
            neighbours={name: cosines[pairs] for name, cosines in self.neighbours.items()},
        )


def _missed(teacher: str, scores: Float32[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return which scores say that there is nothing to say."""
    return scores <= 0 if matches_words(teacher) else np.zeros(scores.shape, bool)


def mine_candidates(
    teachers: Sequence[Teacher],
    collection: Collection,
    *,
    depth: int,
    listed: tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]] = (_NONE, _NONE),
    parts: Path | None = None,
    block: int = _BLOCK,
    on_progress: Progress = silent,
) -> Candidates:
    """Return the union of the teachers' best `depth` passages of every query, scored by every teacher.

    Args:
        teachers: at least one of them proposes.
        depth: passages that each teacher proposes; positives may be among them, where there are others to half of them.
        listed: query rows and passage rows of pairs that are no negatives, beside the positives.
        parts: a folder for blocks of queries that are done; a run that was cut short goes on after the last one.
        block: queries of a block.

    Raises:
        InputError: no teacher proposes candidates, or a block's file is damaged.
    """
    proposers = [teacher for teacher in teachers if teacher.proposes]
    if not proposers:
        raise InputError(
            f"{teachers[0].name} scores candidates and proposes none", hint="name a teacher that searches before it"
        )
    pair_query, pair_passage = collection.positive_pairs()
    passage_text, query_text = collection.text_groups()
    taken = Taken(passage_text=passage_text, query_text=query_text, pairs=(pair_query, pair_passage), listed=listed)
    edges = [*range(0, len(collection.queries), block), len(collection.queries)]
    found: list[dict[str, np.ndarray]] = []
    for number, (start, end) in enumerate(pairwise(edges)):
        path = parts and parts / f"block-{number:05d}"
        if path and (path / "teachers.json").is_file():
            arrays = read_arrays(path)
        else:
            pairs = slice(*np.searchsorted(pair_query, [start, end]))
            arrays = _block_of(
                teachers,
                list(collection.queries[start:end]),
                pair_query[pairs] - start,
                pair_passage[pairs],
                depth,
                collection.ties,
                taken,
                start,
            )
            if path:
                _write_arrays(path, arrays, {})
        found.append(arrays)
        on_progress("queries with their candidates", end, len(collection.queries))
    arrays = _joined(found)
    return Candidates(
        teachers=[teacher.name for teacher in teachers],
        depth=depth,
        proposes=[teacher.proposes for teacher in teachers],
        rows=arrays.pop("rows"),
        scores=arrays.pop("scores"),
        mean=arrays.pop("mean"),
        deviation=arrays.pop("deviation"),
        pair_query=pair_query,
        pair_passage=pair_passage,
        pair_scores=arrays.pop("pair_scores"),
        passage_text=passage_text,
        query_text=query_text,
        neighbours={teachers[int(key.removeprefix("neighbours-"))].name: table for key, table in arrays.items()},
    )


def _block_of(
    teachers: Sequence[Teacher],
    queries: list[str],
    pair_query: Int64[np.ndarray, " s"],
    pair_passage: Int64[np.ndarray, " s"],
    depth: int,
    ties: Ties,
    taken: Taken,
    first_query: int,
) -> dict[str, np.ndarray]:
    """Return the arrays of a block of queries."""
    proposed = [
        search_deeper(teacher.search, queries, teacher.search(queries, depth), taken, first=first_query, depth=depth)
        for teacher in teachers
        if teacher.proposes
    ]
    if len(teachers) == 1:
        rows, first = proposed[0]
        scores = np.where(rows == NO_PASSAGE, np.float32(np.nan), first)[None]
    else:
        rows = _union([rows for rows, _ in proposed])
        scores = np.stack([_scores(teacher, queries, rows) for teacher in teachers])
    order = ties.order(queries, rows, scores[0])
    rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order[None], axis=2)
    arrays = {"rows": rows, "scores": scores}
    arrays["mean"], arrays["deviation"] = _moments(teachers, queries, scores)
    arrays["pair_scores"] = np.stack([_pair_scores(teacher, queries, pair_query, pair_passage) for teacher in teachers])
    for number, teacher in enumerate(teachers):
        cosines = teacher.similarities(pair_passage, np.maximum(rows[pair_query], 0))
        if cosines is not None:
            arrays[f"neighbours-{number}"] = np.where(rows[pair_query] == NO_PASSAGE, np.float32(np.nan), cosines)
    return arrays


def _union(tables: list[Int64[np.ndarray, "q _"]]) -> Int64[np.ndarray, "q K"]:
    """Return each query's distinct rows, ascending, filled up with `NO_PASSAGE`.

    >>> _union([np.array([[3, 1], [2, 0]]), np.array([[1, 2], [0, 2]])])
    array([[ 1,  2,  3],
           [ 0,  2, -1]])
    """
    last = np.iinfo(np.int64).max
    rows = np.concatenate(tables, axis=1)
    # A search may find fewer than it was asked for.
    rows = np.sort(np.where(rows == NO_PASSAGE, last, rows), axis=1)
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = last
    rows.sort(axis=1)
    rows = rows[:, : max(1, int((rows != last).sum(axis=1).max()))]
    return np.where(rows == last, NO_PASSAGE, rows)


def _scores(teacher: Teacher, queries: list[str], rows: Int64[np.ndarray, "q K"]) -> Float32[np.ndarray, "q K"]:
    """Return a teacher's scores of candidates, NaN where there is none."""
    return np.where(rows == NO_PASSAGE, np.float32(np.nan), teacher.scores(queries, np.maximum(rows, 0)))


def _moments(
    teachers: Sequence[Teacher], queries: list[str], scores: Float32[np.ndarray, "T q K"]
) -> tuple[Float32[np.ndarray, "T q"], Float32[np.ndarray, "T q"]]:
    """Return mean and deviation of each teacher's scores."""
    moments = [
        teacher.moments(queries) if teacher.proposes else _moments_of(own)
        for teacher, own in zip(teachers, scores, strict=True)
    ]
    mean, deviation = zip(*moments, strict=True)
    return np.stack(mean).astype(np.float32), np.stack(deviation).astype(np.float32)


def _moments_of(scores: Float32[np.ndarray, "q K"]) -> tuple[Float32[np.ndarray, " q"], Float32[np.ndarray, " q"]]:
    """Return mean and deviation of each query's candidates; 0 where it has none.

    >>> _moments_of(np.array([[1, 3, np.nan], [np.nan, np.nan, np.nan]], np.float32))
    (array([2., 0.], dtype=float32), array([1., 0.], dtype=float32))
    """
    mean, deviation = np.zeros((2, len(scores)), np.float32)
    some = np.flatnonzero(~np.isnan(scores).all(axis=1))
    mean[some], deviation[some] = np.nanmean(scores[some], axis=1), np.nanstd(scores[some], axis=1)
    return mean, deviation


def _pair_scores(
    teacher: Teacher, queries: list[str], pair_query: Int64[np.ndarray, " s"], pair_passage: Int64[np.ndarray, " s"]
) -> Float32[np.ndarray, " s"]:
    """Return a teacher's score of each pair."""
    counts = np.bincount(pair_query, minlength=len(queries))
    first = np.cumsum(counts) - counts
    scores = np.empty(len(pair_query), np.float32)
    # A slice of the positives at a time: one query with a thousand must not make a thousand columns for all at once.
    for column in range(0, int(counts.max(initial=0)), _POSITIVES):
        number = np.arange(column, min(column + _POSITIVES, int(counts.max())))
        there = number < counts[:, None]
        places = np.where(there, first[:, None] + number, 0)
        scores[places[there]] = teacher.scores(queries, pair_passage[places])[there]
    return scores


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of all blocks as one, candidates filled up to the widest block's number."""
    width = max(block["rows"].shape[1] for block in blocks)
    joined = {}
    for name, array in blocks[0].items():
        axis = 1 if name in ("scores", "mean", "deviation", "pair_scores") else 0
        wide = name in ("rows", "scores") or name.startswith("neighbours-")
        fill = float(NO_PASSAGE) if name == "rows" else np.nan
        arrays = [_widened(block[name], width, fill) if wide else block[name] for block in blocks]
        joined[name] = np.concatenate(arrays, axis=axis) if len(arrays) > 1 else array
    return joined


def _widened(table: np.ndarray, width: int, fill: float) -> np.ndarray:
    """Return a table with more columns."""
    missing = [(0, 0)] * (table.ndim - 1) + [(0, width - table.shape[-1])]
    return np.pad(table, missing, constant_values=fill) if width > table.shape[-1] else table


def write_candidates(folder: Path, candidates: Candidates) -> None:
    """Write candidates into a folder, which appears whole or not at all."""
    arrays = {f.name: value for f in fields(candidates) if isinstance(value := getattr(candidates, f.name), np.ndarray)}
    names = list(candidates.neighbours)
    arrays |= {f"neighbours-{number}": candidates.neighbours[name] for number, name in enumerate(names)}
    plain = {"teachers": candidates.teachers, "depth": candidates.depth, "proposes": candidates.proposes}
    _write_arrays(folder, arrays, {**plain, "neighbours": names, "content": hash_of_arrays(arrays)})


def read_candidates(folder: Path) -> Candidates:
    """Return the candidates of a folder, as memory maps.

    Raises:
        InputError: the folder is missing, damaged or of another kind.
    """
    plain = described_candidates(folder)
    arrays: dict[str, Any] = read_arrays(folder)
    try:
        names = plain.pop("neighbours")
        plain.pop("content", None)
        neighbours = {name: arrays.pop(f"neighbours-{number}") for number, name in enumerate(names)}
        found = Candidates(**plain, **arrays, neighbours=neighbours)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: not a whole folder of candidates: {error}", hint=_MINE_AGAIN) from None
    if flaw := _flaw(found):
        raise InputError(f"{folder}: not a whole folder of candidates: {flaw}", hint=_MINE_AGAIN)
    return found


_MINE_AGAIN = "mine again"
_ARRAY = re.compile(r"(Int64|Float32)\[np\.ndarray, ['\"]([TQKSN ]+)['\"]\]")
"""The annotation of an array: its type and its shape."""


def _flaw(found: Candidates) -> str | None:
    """Return what does not fit in candidates from a file: a type, a shape, or a row that is not there."""
    names = found.teachers
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return "no teachers"
    flags = found.proposes
    if not isinstance(flags, list) or len(flags) != len(names) or not all(isinstance(flag, bool) for flag in flags):
        return "proposes is not yes or no for each teacher"
    if type(found.depth) is not int or found.depth < 1:
        return f"depth is {found.depth!r:.40}"
    if found.rows.ndim != 2 or found.pair_query.ndim != 1 or found.passage_text.ndim != 1:
        return "arrays of other shapes"
    sizes = dict(zip("QK", found.rows.shape, strict=True))
    sizes |= {"T": len(names), "S": len(found.pair_query), "N": len(found.passage_text)}
    wanted = {f.name: match for f in fields(Candidates) if (match := _ARRAY.fullmatch(str(f.type)))}
    arrays = {name: (getattr(found, name), *match.groups()) for name, match in wanted.items()}
    arrays |= {f"the neighbours of {name:.40}": (table, "Float32", "S K") for name, table in found.neighbours.items()}
    for name, (array, kind, letters) in arrays.items():
        shape = tuple(sizes[letter] for letter in letters.split())
        if array.dtype != np.dtype(kind.lower()) or array.shape != shape:
            return f"{name} is {array.dtype} of shape {array.shape}, wanted {kind.lower()} of shape {shape}"
    places = {
        "rows": (found.rows, NO_PASSAGE, sizes["N"]),
        "pair_query": (found.pair_query, 0, sizes["Q"]),
        "pair_passage": (found.pair_passage, 0, sizes["N"]),
    }
    for name, (array, low, high) in places.items():
        if array.size and not (low <= int(array.min()) and int(array.max()) < high):
            return f"{name} holds {int(array.min())} to {int(array.max())}, wanted {low} to {high - 1}"
    return None if (np.diff(found.pair_query) >= 0).all() else "pair_query is not in order"


def _write_arrays(folder: Path, arrays: dict[str, np.ndarray], plain: dict[str, object]) -> None:
    """Write arrays and plain values into a folder that appears whole."""
    with whole_folder(folder) as partial:
        for name, array in arrays.items():
            write_array(partial / f"{name}.npy", array)
        write_json(partial / "teachers.json", plain)
