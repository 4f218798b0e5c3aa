"""The table of an ablation: each row's mean and spread over seeds, and whether it differs from the first."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import mean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float64

from embedsmith.data.plain_values import is_number
from embedsmith.errors import RunError
from embedsmith.evaluation.per_query import PerQuery, read_per_query
from embedsmith.evaluation.significance import SeededDifference, compare_seeds, holm
from embedsmith.pages.markdown import inline
from embedsmith.recipes.ablation.grid import Ablation, Cell, Changes, cells_of
from embedsmith.recipes.ablation.grid import in_words as in_few_letters
from embedsmith.recipes.ablation.mining import read_mining, teacher_of_hardness
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import read_scores, scores_path

LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """What one row of an ablation scored."""

    name: str
    folder: str
    """Where its cells lie in the ablation's folder."""
    changes: Changes
    seeds: list[float]
    """The metric with each seed, averaged over data sets."""
    data: dict[str, float]
    """Data set -> mean over seeds."""
    before: float | None
    """The same before training, where that was scored."""
    metrics: dict[str, float]
    """Every metric that was measured, averaged over seeds and data sets."""
    labelled: dict[str, float]
    """Labelled data set and its main metric -> mean over seeds; beside the table's metric, which is of retrieval."""
    mined: dict[str, float | None]
    """Figures of the mined negatives, averaged over data sets: their number and the share of full rows over all seeds,
    hardness and false negatives with the first."""
    seconds: float
    """Of one cell, where nothing was taken from another one."""
    difference: SeededDifference | None
    """From the first row; None for the first row itself."""
    p: float | None
    """Of the difference, corrected for the number of rows (Holm)."""
    is_paired: bool = True
    """Whether it was scored on the test queries and passages of the first row; a row that was not has no difference."""

    @property
    def mean(self) -> float:
        """The mean over seeds and data sets."""
        return mean(self.seeds)

    @property
    def deviation(self) -> float:
        """The standard deviation between seeds; 0 for one seed."""
        return stdev(self.seeds) if len(self.seeds) > 1 else 0.0

    @property
    def is_significant(self) -> bool:
        """Whether the row differs from the first by more than chance."""
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Table:
    """The rows of an ablation, in their order."""

    name: str
    metric: str
    seeds: int
    queries: dict[str, int]
    """Data set -> queries that were scored."""
    rows: list[Row]
    baselines: dict[str, float]
    """What else was scored in the first cell, such as the teacher and BM25."""
    versions: dict[str, str]
    hardness_by: str | None
    """The teacher whose scores say how hard negatives are; None where all rows mine alike."""

    @property
    def detectable(self) -> float | None:
        """The smallest true difference from the first row that this set-up finds four times in five, at the median.

        None where no row is compared with the first.
        """
        found = [row.difference.detectable for row in self.rows if row.difference]
        return float(np.median(found)) if found else None

    def plain(self) -> dict[str, Any]:
        """Return the table as plain values."""
        rows = [{**asdict(row), "mean": row.mean, "deviation": row.deviation} for row in self.rows]
        return {**asdict(self), "detectable": self.detectable, "rows": rows}


def table_of(folder: Path, ablation: Ablation) -> Table:
    """Return the table of an ablation whose cells are finished.

    Raises:
        RunError: a cell was scored on nothing.
        SettingsError: the metric was not measured.
    """
    cells: dict[str, list[Cell]] = {}
    for cell in cells_of(ablation):
        cells.setdefault(cell.row, []).append(cell)
    tests = {row: _tests_of(folder / own[0].folder) for row, own in cells.items()}
    scores = {row: _scores(folder, own, list(tests[row]), ablation.metric) for row, own in cells.items()}
    start_row, first = next(iter(scores.items()))
    names = list(first)
    for row in cells:
        if tests[row] == tests[start_row]:
            for name in names:
                _check_queries(*(_after(folder / cells[one][0].folder, name) for one in (row, start_row)))
    # Scores of other queries may be of another number, and one by one they have nothing to do with each other.
    paired = [row for row in scores if tests[row] == tests[start_row]]
    differences = {
        row: compare_seeds([scores[row][name] - first[name] for name in names], comparisons=max(1, len(paired) - 1))
        for row in paired[1:]
        # One query says nothing about others.
        if all(first[name].shape[1] > 1 for name in names)
    }
    corrected = dict(zip(differences, holm([one.p for one in differences.values()]), strict=True))
    start = folder / next(iter(cells.values()))[0].folder
    return Table(
        name=ablation.recipe.name,
        metric=ablation.metric,
        seeds=ablation.seeds,
        queries={name: table.shape[1] for name, table in first.items()},
        rows=[
            replace(
                _row(
                    folder,
                    row,
                    ablation.rows[row],
                    own,
                    scores[row],
                    differences.get(row),
                    corrected.get(row),
                    ablation,
                ),
                is_paired=row in paired,
            )
            for row, own in cells.items()
        ],
        baselines={
            label: mean(_mean_of(start, name, label, ablation.metric) for name in names)
            for label in _labels_of(start, names[0])
            if label not in ("before", "after")
        },
        versions=read_manifest(start)["versions"],
        hardness_by=teacher_of_hardness(ablation) if read_mining(start) else None,
    )


def in_markdown(table: Table) -> str:
    """Return the table in Markdown, with what is needed to read it."""
    return "\n".join(_lines(table)) + "\n"


def unpaired(table: Table) -> list[str]:
    """Return the rows whose test data are not those of the first row."""
    return [row.name for row in table.rows if not row.is_paired]


def in_words(table: Table) -> list[str]:
    """Return what the table says and does not say, a sentence each."""
    seeds = f"{table.seeds} seeds" if table.seeds > 1 else "one seed"
    queries = ", ".join(f"{count:,} queries of {name}" for name, count in table.queries.items())
    others = ", ".join(f"{label} {value:.4f}" for label, value in table.baselines.items())
    better = [row.name for row in table.rows if row.is_significant and row.difference and row.difference.mean > 0]
    worse = [row.name for row in table.rows if row.is_significant and row.difference and row.difference.mean < 0]
    compared = sum(row.p is not None for row in table.rows)
    said = [
        f"{table.metric} of the trained model, the mean of {seeds}, on {queries}."
        + (f" Beside it: {others}." if others else ""),
        f"Differences are from the first row, {table.rows[0].name}. Intervals hold for other queries"
        + (" and other seeds" if table.seeds > 1 else "; with one seed they say nothing about another training run")
        + (f"; p is corrected for {compared} comparisons (Holm)" if compared > 1 else "")
        + ".",
    ]
    if table.detectable is None:
        said.append("Nothing is compared: no other row has the first one's test data, or a data set has one query.")
    else:
        said.append(
            f"A difference under {table.detectable:.4f} is likely to be missed by this set-up: "
            "rows nearer to each other than that stand in no order."
        )
    if table.hardness_by:
        said.append(
            f"Hardness is the negatives' mean score by {in_few_letters(table.hardness_by)}; false negatives are the "
            "hold-out audit's share of hidden positives among them, a lower bound; both with the first seed."
        )
    if apart := unpaired(table):
        said.append(
            f"Scored on other test queries or passages than {table.rows[0].name}, and so without difference, interval "
            f"and p: {'; '.join(apart)}."
        )
    if better:
        said.append(f"Better than {table.rows[0].name}: {'; '.join(better)}.")
    if worse:
        said.append(f"Worse than {table.rows[0].name}: {'; '.join(worse)}.")
    if compared and not better and not worse:
        said.append(f"No row differs from {table.rows[0].name} by more than chance.")
    return said


def columns_of(table: Table) -> list[str]:
    """Return the heads of the table's columns, the first for the row's name."""
    several = list(table.queries) if len(table.queries) > 1 else []
    mined = [*table.rows[0].labelled, *table.rows[0].mined]
    before = ["before"] if any(row.before is not None for row in table.rows) else []
    return ["", table.metric, "± seeds", *several, *before, "difference", "95% interval", "p", *mined]


def cells_in_words(table: Table, row: Row) -> list[str]:
    """Return a row's figures in words, a string for each column."""
    difference = row.difference
    difference_cells = ["–", "–", "–"]
    if difference and row.p is not None:
        p = f"{row.p:.3f}" if row.p >= 0.001 else "< 0.001"
        difference_cells = [f"{difference.mean:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}", p]
    several = [f"{row.data[name]:.4f}" if name in row.data else "–" for name in table.queries]
    several = several if len(several) > 1 else []
    has_before = any(one.before is not None for one in table.rows)
    before = ["–" if row.before is None else f"{row.before:.4f}"] if has_before else []
    spread = f"{row.deviation:.4f}" if table.seeds > 1 else "–"
    beside = [f"{row.labelled[name]:.4f}" if name in row.labelled else "–" for name in table.rows[0].labelled]
    beside += ["–" if (value := row.mined.get(name)) is None else f"{value:.3g}" for name in table.rows[0].mined]
    return [row.name, f"{row.mean:.4f}", spread, *several, *before, *difference_cells, *beside]


def _lines(table: Table) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield from (f"# {inline(table.name)}", "")
    head = columns_of(table)
    yield f"| {' | '.join(map(inline, head))} |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in table.rows:
        cells = list(map(inline, cells_in_words(table, row)))
        name = f"**{cells[0]}**" if row.is_significant else cells[0]
        yield f"| {' | '.join([name, *cells[1:]])} |"
    yield from ("", "Bold: differs from the first row by more than chance.", "", *map(inline, in_words(table)), "")
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in table.versions.items()) + "."


def _row(
    folder: Path,
    name: str,
    changes: Changes,
    cells: Sequence[Cell],
    scores: dict[str, Float64[np.ndarray, "S _"]],
    difference: SeededDifference | None,
    p: float | None,
    ablation: Ablation,
) -> Row:
    """Return what one row scored."""
    folders = [folder / cell.folder for cell in cells]
    places = [(place, data) for place in folders for data in scores]
    has_before = all("before" in _labels_of(place, data) for place, data in places)
    first = _after(folders[0], next(iter(scores)))
    return Row(
        name=name,
        folder=str(PurePosixPath(cells[0].folder).parent),
        changes=changes,
        seeds=[mean(float(table[seed].mean()) for table in scores.values()) for seed in range(len(cells))],
        data={data: float(table.mean()) for data, table in scores.items()},
        before=mean(_mean_of(*place, "before", ablation.metric) for place in places) if has_before else None,
        metrics={metric: mean(_mean_of(*place, "after", metric) for place in places) for metric in first.metrics},
        labelled=_labelled(folders, scores),
        mined=_mined(folders),
        seconds=max(round(sum(read_manifest(place)["seconds"].values()), 1) for place in folders),
        difference=difference,
        p=p,
    )


def _scores(folder: Path, cells: Sequence[Cell], names: Sequence[str], metric: str) -> dict[str, Any]:
    """Return a row's scores by data set: a row for each seed, a column for each query."""
    tables: dict[str, Any] = {}
    for name in names:
        found = [_after(folder / cell.folder, name) for cell in cells]
        for one in found:
            _check_queries(one, found[0])
        tables[name] = np.stack([one.values(metric) for one in found])
    return tables


def _after(cell: Path, data: str) -> PerQuery:
    """Return what the trained model of a cell scored on a data set."""
    return _per_query(cell, data, "after")


def _per_query(cell: Path, data: str, label: str) -> PerQuery:
    """Return what a model of a cell scored on each query of a data set.

    Raises:
        RunError: it was not scored there.
    """
    files = read_scores(cell).per_query_files(data)
    if label not in files:
        raise RunError(
            f"{scores_path(cell)}: no scores of single queries of {label} on {data}, which other cells have",
            hint="remove the cell's folder, and give the ablation's command again",
        )
    return read_per_query(cell / files[label])


def _labels_of(cell: Path, data: str) -> list[str]:
    """Return which models of a cell have scores of single queries on a data set."""
    return list(read_scores(cell).per_query_files(data))


def _check_queries(one: PerQuery, other: PerQuery) -> None:
    """Refuse scores of other queries than those of another cell on the same data, which has them in the same order.

    Raises:
        RunError: names the file.
    """
    if one.query_ids != other.query_ids:
        raise RunError(
            f"{one.place}: of other queries than {other.place}, though the data are the same",
            hint="remove the folder of the cell whose file was changed, and give the ablation's command again",
        )


def _data_of(cell: Path) -> list[str]:
    """Return the retrieval sets that a cell was scored on."""
    board = read_scores(cell)
    names = sorted(name for name in board.scores if "after" in board.per_query_files(name))
    if not names:
        raise RunError(
            f"{cell}: scored on no retrieval set", hint="give the recipe data with queries, passages and a test split"
        )
    return names


def _tests_of(cell: Path) -> dict[str, str | None]:
    """Return the fingerprint of each retrieval set that a cell was scored on."""
    data = read_scores(cell).data
    return {name: data[name].content_hash for name in _data_of(cell)}


def _labelled(cells: Sequence[Path], retrieval: Container[str]) -> dict[str, float]:
    """Return the main score on each labelled data set."""
    scores = [read_scores(cell).metrics() for cell in cells]
    names = [name for name, labels in scores[0].items() if name not in retrieval and "after" in labels]
    mains = {name: next(iter(scores[0][name]["after"])) for name in names}
    for cell, one in zip(cells, scores, strict=True):
        if missing := [name for name, main in mains.items() if main not in one.get(name, {}).get("after", {})]:
            raise RunError(
                f"{scores_path(cell)}: no {mains[missing[0]]} of the trained model on {missing[0]}, which others have",
                hint="remove the cell's folder, and give the ablation's command again",
            )
    return {f"{name} {main}": mean(one[name]["after"][main] for one in scores) for name, main in mains.items()}


def _mean_of(cell: Path, data: str, label: str, metric: str) -> float:
    return float(_per_query(cell, data, label).values(metric).mean())


def _counts_of_mining(cell: Path) -> list[dict[str, int]]:
    """Return what a cell has counted of the negatives of each data set.

    Raises:
        RunError: it is nothing to count with.
    """
    found = [counts for name, counts in read_manifest(cell)["counts"].items() if name.startswith("mining ")]
    if not all(is_number(own.get(name)) for own in found for name in ("queries", "negatives", "full")):
        raise RunError(
            f"{cell / 'manifest.json'}: no numbers of mined negatives under counts",
            hint="remove the cell's folder, and give the ablation's command again",
        )
    return [own for own in found if own["queries"] > 0]


def _mined(cells: Sequence[Path]) -> dict[str, float | None]:
    """Return figures of the mined negatives of a row: a row with few negatives is not mistaken for a bad one."""
    counts = [own for cell in cells for own in _counts_of_mining(cell)]
    if not counts:
        return {}
    found: dict[str, float | None] = {"negatives": mean(own["negatives"] / own["queries"] for own in counts)}
    if figures := list(read_mining(cells[0]).values()):
        found["full rows"] = mean(own["full"] / own["queries"] for own in counts)
        for name in ("hardness", "false_negatives"):
            known = [value for one in figures if (value := getattr(one, name)) is not None]
            found[name.replace("_", " ")] = mean(known) if known else None
    return found
