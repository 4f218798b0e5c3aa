"""Two runs on the same queries: how far one is above the other, whether that is chance, and which queries tell.

What is compared is the scores of single queries that a recipe's run or an evaluation has written: its scores.json
names their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.load import load_collection, usual_split
from embedsmith.data.trec import rows_of_ranking
from embedsmith.errors import EmbedsmithError, InputError, RunError, did_you_mean
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.evaluation.significance import Difference, compare_paired
from embedsmith.pages.tables import Figures, Tabular
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import MODEL, Scoreboard, path_of, read_scores
from embedsmith.variables import filled

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
class Comparison(Tabular):
    """Two runs on one data set by one metric. It prints as a table."""

    data: str
    metric: str
    a: str
    b: str
    difference: Difference
    losses: list[QueryDifference]
    """Queries on which B is worse than A, the worst first."""
    wins: list[QueryDifference]

    def figures(self) -> Figures:
        """Return the two means and their difference as a table."""
        found = self.difference
        rows = [
            ["A", f"{found.a:.4f}", self.a],
            ["B", f"{found.b:.4f}", self.b],
            ["B − A", f"{found.mean:+.4f}", f"95% interval {found.low:+.4f} to {found.high:+.4f}, p {found.p:.3f}"],
            ["queries", f"{found.queries:,}", f"B better on {found.wins:,}, worse on {found.losses:,}"],
        ]
        return Figures(f"{self.metric} on {self.data}" if self.data else self.metric, ["", "value", "what"], rows)


@dataclass(frozen=True)
class Side:
    """One model of a run on one data set."""

    run: Path
    board: Scoreboard
    data: str
    """Name of the data set in the run's scoreboard."""
    label: str
    """Which model: `after`, `before`, a baseline; `model` in an evaluation of one."""

    @property
    def name(self) -> str:
        """How it is called where two are shown."""
        return str(self.run) if self.label == MODEL else f"{self.run} ({self.label})"

    @property
    def short_data(self) -> str:
        """Name of the data set as it is shown; empty where an evaluation was of one path alone."""
        if self.board.data[self.data].path != self.data:
            return self.data
        return "" if len(self.board.data) == 1 else self.path.parent.name

    @property
    def path(self) -> Path:
        """The file with the scores of each query."""
        return self.run / self.board.per_query_files(self.data)[self.label]

    @property
    def labels(self) -> list[str]:
        """Labels of all models with scores of single queries on this data set, sorted."""
        return list(self.board.per_query_files(self.data))

    @property
    def content_hash(self) -> str | None:
        """Hash of the data, None where the run does not know it."""
        return self.board.data[self.data].content_hash

    def labelled(self, label: str) -> Side:
        """Return another model of the same run on the same data.

        Raises:
            RunError: the run has no scores of single queries for it.
        """
        if label not in self.labels:
            known = self.labels
            nothing = f'nothing is called "{label}"{did_you_mean(label, known)}'
            what = "the run was cut short" if label == _AFTER else nothing
            alone = not known or known == [MODEL]
            raise RunError(
                f"{self.run}: {what}; on {self.short_data or 'its data'} it scored "
                f"{'one model alone' if alone else ', '.join(known)}",
                hint="give its command again; it goes on where it stopped" if label == _AFTER else "name a second run",
            )
        return replace(self, label=label)


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
        run_a: a recipe's run, of which the trained model is compared, or an evaluation's folder. Of an evaluation with
            `--before-and-after` the model after training is compared.
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
        pairs = [(side.labelled(against), side) for side in sides_of(run_a)]
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

    def described(row: int) -> QueryDifference:
        query = scores_a.query_ids[row]
        return _described(query, float(values_a[row]), float(values_b[row]), firsts, texts)

    return Comparison(
        data=a.short_data or b.short_data,
        metric=metric,
        a=a.name,
        b=b.name,
        difference=compare_paired(values_a, values_b, seed=seed),
        losses=[described(row) for row in losses],
        wins=[described(row) for row in wins],
    )


def sides_of(folder: str | Path, label: str | None = None) -> list[Side]:
    """Return one side for each data set of which a run has scores of single queries.

    Args:
        folder: of the run.
        label: which model; by default the only one of an evaluation, and the trained one of a recipe's run.

    Raises:
        RunError: the folder is missing or holds no scores of single queries.
    """
    run = Path(folder)
    manifest = read_manifest(run)
    board = read_scores(run)
    sides = []
    for name in board.scores:
        if known := list(board.per_query_files(name)):
            first = MODEL if known == [MODEL] else _AFTER
            sides.append(Side(run, board, name, known[0]).labelled(label or first))
    if not sides:
        raise RunError(
            f"{run}: a run of `{manifest['command']}` without scores of single queries",
            hint=f"score it into a folder: embedsmith evaluate {run} DATA --out FOLDER",
        )
    return sides


def first_of_ranking(folder: Path) -> dict[str, list[str]]:
    """Return the passage that a TREC run file in a folder ranks first for each query; nothing where there is none."""
    path = folder / "ranking.trec"
    first: dict[str, list[str]] = {}
    for _, query, passage, _ in rows_of_ranking(path) if path.is_file() else ():
        first.setdefault(query, [passage])
    return first


def _matched(a: list[Side], b: list[Side]) -> list[tuple[Side, Side]]:
    """Return the sides of two runs by data set; where each has one, the two are compared whatever their names."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    pairs = [(side, partner) for side in a if (partner := _partner(side, b))]
    if not pairs:
        names = [", ".join(side.short_data or "one data set" for side in sides) for sides in (a, b)]
        raise InputError(
            f"{a[0].run} and {b[0].run} have no data set in common: {names[0]}; {names[1]}",
            hint="compare runs that were scored on the same data",
        )
    return pairs


def _partner(side: Side, others: Sequence[Side]) -> Side | None:
    """Return what another run scored on the same data: of the same content, else of the same name."""
    content = side.content_hash
    same = [other for other in others if content and other.content_hash == content]
    named = [other for other in same or others if other.short_data == side.short_data]
    return next(iter(named or same), None)


def _check_content(a: Side, b: Side) -> None:
    """Raise InputError if two sides are known to have been scored on different data."""
    contents = a.content_hash, b.content_hash
    if all(contents) and contents[0] != contents[1]:
        raise InputError(
            f"{a.name} and {b.name} were scored on different data under the same query ids "
            f"(fingerprints {contents[0]} and {contents[1]})",
            hint="compare runs that were scored on the same split of the same data",
        )


def _collection_of(side: Side) -> Collection | None:
    """Return the texts that a side was scored on; None where they are gone, or are others by now."""
    about = side.board.data[side.data]
    try:
        path = path_of(side.run, about)
        if path is None:
            return None
        found = load_collection(
            path,
            split=about.split or usual_split(path, "test"),
            columns=ColumnSettings.parse(about.columns, where=str(side.run)),
            corpus=filled(about).corpus,
            skip_bad=about.skip_bad,
        )
    except (EmbedsmithError, OSError):
        return None
    return found if about.content_hash in (None, found.content_hash()) else None


def _described(
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
