"""Two runs on the same queries: how far one is above the other, whether that is chance, and which queries tell.

What is compared was written by a recipe's run (RUN/scores/DATA/LABEL.jsonl) or by an evaluation into a folder
(FOLDER/per_query.jsonl, and one for each data set where there were several).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.files import visible
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.trec import rows_of_ranking
from embedsmith.errors import EmbedsmithError, InputError, RunError, did_you_mean
from embedsmith.evaluation.evaluate import read_scores
from embedsmith.evaluation.per_query import labels_of, per_query_path, read_per_query
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.evaluation.significance import Difference, compare_paired
from embedsmith.recipes.data import evaluation_side
from embedsmith.recipes.recipe import DataSettings
from embedsmith.runs.named import named_data
from embedsmith.runs.run import read_manifest

METRIC = "ndcg@10"
SHOWN = 5
"""Queries that are shown, of those lost and of those won."""

_AFTER, _BEFORE = "after", "before"


@dataclass(frozen=True)
class Ranked:
    """A passage to read."""

    id: str
    text: str | None
    """None where the data cannot be read any more."""


@dataclass(frozen=True)
class QueryDifference:
    """A query that two runs answer differently well."""

    query_id: str
    query: str | None
    a: float
    b: float
    first_a: Ranked | None
    """What A ranked first, where that was kept."""
    first_b: Ranked | None
    answer: Ranked | None
    """A passage that answers the query."""


@dataclass(frozen=True)
class Comparison:
    """Two runs on one data set by one metric."""

    data: str
    metric: str
    a: str
    b: str
    difference: Difference
    losses: list[QueryDifference]
    """Queries on which B is worse than A, the worst first."""
    wins: list[QueryDifference]


@dataclass(frozen=True)
class Side:
    """What a run kept of one data set."""

    run: Path
    data: str
    label: str
    """What was scored: `after`, `before`, a baseline; nothing for an evaluation, which has one model."""
    path: Path

    @property
    def name(self) -> str:
        """How it is called where two are shown."""
        return f"{self.run} ({self.label})" if self.label else str(self.run)


def compare(
    run_a: str | Path,
    run_b: str | Path | None = None,
    *,
    metric: str = METRIC,
    against: str = _BEFORE,
    shown: int = SHOWN,
    seed: int = 0,
) -> list[Comparison]:
    """Return how far B is above A on every data set that both were scored on.

    Args:
        run_a: a recipe's run, of which the trained model is compared, or an evaluation's folder.
        run_b: another; without it the trained model of `run_a` is B, and A what else that run scored.
        metric: one that was measured.
        against: what the trained model is compared with when there is one run: `before`, `teacher`, `bm25`, …
        shown: queries to read, of those lost and of those won.
        seed: of the bootstrap and the randomisation test.

    Raises:
        RunError: a folder holds no scores of single queries.
        InputError: the runs were scored on different data or queries.
        SettingsError: the metric was not measured.
    """
    if run_b is None:
        pairs = [(_labelled(side, against), side) for side in sides_of(run_a)]
    else:
        pairs = _matched(sides_of(run_a), sides_of(run_b))
    return [compare_sides(a, b, metric=metric, shown=shown, seed=seed) for a, b in pairs]


def compare_sides(a: Side, b: Side, *, metric: str, shown: int = SHOWN, seed: int = 0) -> Comparison:
    """Return how far B is above A on one data set.

    Raises:
        InputError, SettingsError: see `compare`.
    """
    scores_a, scores_b = read_per_query(a.path), read_per_query(b.path)
    rows_b = scores_b.rows_of(scores_a)
    _check_content(a, b)
    values_a, values_b = scores_a.values(metric), scores_b.values(metric)[rows_b]
    order = np.argsort(values_b - values_a, kind="stable")
    losses = [int(row) for row in order[:shown] if values_b[row] < values_a[row]]
    wins = [int(row) for row in order[::-1][:shown] if values_b[row] > values_a[row]]
    firsts = [scores.first or first_of_ranking(side.path.parent) for side, scores in ((a, scores_a), (b, scores_b))]
    texts = _collection_of(a) or _collection_of(b)

    def told(row: int) -> QueryDifference:
        query = scores_a.query_ids[row]
        return _told(query, float(values_a[row]), float(values_b[row]), firsts, texts)

    return Comparison(
        data=a.data or b.data,
        metric=metric,
        a=a.name,
        b=b.name,
        difference=compare_paired(values_a, values_b, seed=seed),
        losses=[told(row) for row in losses],
        wins=[told(row) for row in wins],
    )


def sides_of(folder: str | Path, label: str = _AFTER) -> list[Side]:
    """Return what a run kept of each data set that it was scored on.

    Raises:
        RunError: the folder is missing or holds no scores of single queries.
    """
    run = Path(folder)
    manifest = read_manifest(run)
    if (run / "scores").is_dir():
        names = [path.name for path in visible(run / "scores") if path.is_dir()]
        return [_labelled(Side(run, name, label, per_query_path(run, name, label)), label) for name in names]
    inner = visible(run, "*/per_query.jsonl")
    if (run / "per_query.jsonl").is_file():
        return [Side(run, "", "", run / "per_query.jsonl")]
    if inner:
        return [Side(run, path.parent.name, "", path) for path in inner]
    raise RunError(
        f"{run}: a run of `{manifest['command']}` without scores of single queries",
        hint=f"score it into a folder: embedsmith evaluate {run} DATA --out FOLDER",
    )


def first_of_ranking(folder: Path) -> dict[str, list[str]]:
    """Return the passage that a TREC run file in a folder ranks first for each query; nothing where there is none."""
    path = folder / "ranking.trec"
    first: dict[str, list[str]] = {}
    for _, query, passage, _ in rows_of_ranking(path) if path.is_file() else ():
        first.setdefault(query, [passage])
    return first


def _labelled(side: Side, label: str) -> Side:
    """Return what else the run of a side scored on its data.

    Raises:
        RunError: it did not score that.
    """
    known = labels_of(side.run, side.data)
    if label not in known:
        what = (
            "the run was cut short" if label == _AFTER else f'nothing is called "{label}"{did_you_mean(label, known)}'
        )
        raise RunError(
            f"{side.run}: {what}; on {side.data or 'its data'} it scored {', '.join(known) or 'one model alone'}",
            hint="give its command again; it goes on where it stopped" if label == _AFTER else "name a second run",
        )
    return Side(side.run, side.data, label, per_query_path(side.run, side.data, label))


def _matched(a: list[Side], b: list[Side]) -> list[tuple[Side, Side]]:
    """Return the sides of two runs by data set; one each belong together whatever they are called."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    pairs = [(side, partner) for side in a if (partner := _partner(side, b))]
    if not pairs:
        names = [", ".join(side.data or "one data set" for side in sides) for sides in (a, b)]
        raise InputError(
            f"{a[0].run} and {b[0].run} have no data set in common: {names[0]}; {names[1]}",
            hint="compare runs that were scored on the same data",
        )
    return pairs


def _partner(side: Side, others: Sequence[Side]) -> Side | None:
    """Return what another run scored on the same data: of the same content, else of the same name."""
    content = _content_of(side)
    same = [other for other in others if content and _content_of(other) == content]
    named = [other for other in same or others if other.data == side.data]
    return next(iter(named or same), None)


def _check_content(a: Side, b: Side) -> None:
    """Raise InputError if two sides are known to have been scored on different data."""
    contents = _content_of(a), _content_of(b)
    if all(contents) and contents[0] != contents[1]:
        raise InputError(
            f"{a.name} and {b.name} were scored on different data under the same query ids "
            f"(fingerprints {contents[0]} and {contents[1]})",
            hint="compare runs that were scored on the same split of the same data",
        )


def _content_of(side: Side) -> str | None:
    """Return the fingerprint of the data that a side was scored on, None where its run does not know it."""
    manifest = read_manifest(side.run)
    if side.label:
        return manifest["content"].get(f"{side.data} (test)")
    return _evaluated(side)[1].get("fingerprint")


def _evaluated(side: Side) -> tuple[str, dict[str, Any]]:
    """Return the path of the data that an evaluation's side is of, and what is known of it; nothing if nothing is."""
    for name, about in read_scores(side.run).get("data", {}).items():
        if about.get("task") == "retrieval" and about.get("files") == side.data:
            return name, about
    return "", {}


def _collection_of(side: Side) -> Collection | None:
    """Return the texts that a side was scored on; None where they are gone, or are others by now."""
    manifest = read_manifest(side.run)
    try:
        if side.label:
            settings = DataSettings.parse(named_data(side.run, manifest)[side.data], where=str(side.run))
            found = evaluation_side(side.run, side.data, settings)
        else:
            path, about = _evaluated(side)
            scoring = ScoringSettings.parse(manifest["settings"].get("scoring", {}), where=str(side.run))
            found = load_collection(
                path,
                split=about.get("split") or usual_split(path, "test"),
                columns=scoring.pair_columns,
                corpus=scoring.corpus,
                skip_bad=scoring.skip_bad,
            )
    except (EmbedsmithError, OSError, KeyError):
        return None
    return found if found and _content_of(side) in (None, found.content_hash()) else None


def _told(
    query: str, a: float, b: float, firsts: Sequence[dict[str, list[str]]], texts: Collection | None
) -> QueryDifference:
    """Return a query with what there is to read about it."""
    row = texts.query_index.get(query) if texts else None
    positives = texts.positives(query) if texts else []
    first_a, first_b = (_ranked(first.get(query, [])[:1], texts) for first in firsts)
    return QueryDifference(
        query_id=query,
        query=texts.queries[row] if texts and row is not None else None,
        a=a,
        b=b,
        first_a=first_a,
        first_b=first_b,
        answer=_ranked(positives[:1], texts),
    )


def _ranked(ids: Sequence[str], texts: Collection | None) -> Ranked | None:
    """Return the first passage of a list with its text."""
    if not ids:
        return None
    row = texts.passage_index.get(ids[0]) if texts else None
    return Ranked(ids[0], texts.passages[row] if texts and row is not None else None)
