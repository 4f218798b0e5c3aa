"""Labelled texts and pairs: the data of task types besides retrieval, as they are scored.

    sts                    two texts and their score: a number
    pair-classification    two texts and a label: 0 or 1, or a word such as entailment, contradiction and neutral (left
                           out); what it means is read as `convert` does
    nli                    the same of a premise and a hypothesis: 0, 1 and 2 are numbers as published
    classification         a text and its label, and a split called `train` beside the one that is scored
    clustering             a text and its label, without such a split
    reranking              a query, and positive and negative texts: two lists

Columns are called as in conversion: see `embedsmith.data.labelled_rows`. A data set is a folder with a file for each
split (`train.jsonl`, `test.jsonl`), one such file, a folder that `save_to_disk` of `datasets` wrote, or rows in memory:
a `Dataset` or `DatasetDict` of `datasets`, or a list of dicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embedsmith.data.bad_rows import OnBad, refuse
from embedsmith.data.columns import is_pair
from embedsmith.data.files import visible
from embedsmith.data.hub import hub_tables
from embedsmith.data.in_memory import NAME, Rows, is_in_memory, tables_in_memory
from embedsmith.data.labelled_rows import (
    LabelledColumns,
    Meanings,
    has_candidates,
    has_label,
    has_pairs,
    has_score,
    judged_queries,
    labelled_texts,
    pair_meanings,
    text_pairs,
)
from embedsmith.data.pair_labels import Relation
from embedsmith.data.tables import HUB, SUFFIXES, Table, check_exists, is_saved, open_table, saved_tables
from embedsmith.errors import InputError, did_you_mean
from embedsmith.settings import fingerprint

TaskType = Literal["retrieval", "reranking", "sts", "pair-classification", "nli", "classification", "clustering"]


@dataclass(frozen=True)
class Labelled:
    """One split of a data set, by columns, and what a classifier learns from."""

    name: str
    task: TaskType
    split: str
    columns: dict[str, list[Any]]
    """sts: sentence1, sentence2, score; pair-classification: sentence1, sentence2, labels; classification and
    clustering: text, label; reranking: query, positive, negative."""
    train: dict[str, list[Any]]
    """text and label of classification, else nothing."""
    left_out: int
    """Rows that say nothing: neutral pairs, queries without a positive or without a negative."""
    meanings: Meanings | None = None
    """What the labels of pairs mean."""
    notes: list[str] = field(default_factory=list)
    """What whoever reads the scores should know of the data."""

    def __len__(self) -> int:
        """Return the number of rows that are scored."""
        return len(next(iter(self.columns.values())))

    def content_hash(self) -> str:
        """Return a hash of all that the scores depend on."""
        return fingerprint([self.task, self.columns, self.train])


def task_of(data: str | Path | Rows, columns: LabelledColumns | None = None) -> TaskType:
    """Return what a data set asks of a model, as its columns say.

    Args:
        data: see above.
        columns: names of columns that are not the conventional ones.

    Raises:
        InputError: there is no such path, or the file is broken.
        TypeError: what is in memory holds no rows.
    """
    columns = columns or LabelledColumns()
    if not is_in_memory(data) and _is_beir(data):
        return "retrieval"
    tables = _tables(data)
    if not tables:
        return "retrieval"
    row = _first_row(next(iter(tables.values())))
    if has_pairs(row, columns):
        return "sts" if has_score(row, columns) else "pair-classification"
    if has_candidates(row, columns):
        return "reranking"
    if is_pair(row):
        return "retrieval"
    if has_label(row, columns):
        return "classification" if "train" in tables and len(tables) > 1 else "clustering"
    return "retrieval"


def read_labelled(
    data: str | Path | Rows,
    task: TaskType,
    *,
    split: str | None = None,
    columns: LabelledColumns | None = None,
    labels: str | None = None,
    positive_labels: Sequence[str] = (),
    on_bad: OnBad = refuse,
) -> Labelled:
    """Return one split of a data set.

    Args:
        data: see above.
        task: what it asks of a model; not retrieval.
        split: which one; by default that of the file that the path names, `test`, or the only one.
        columns: names of columns that are not the conventional ones.
        labels: what the labels of pairs mean, as `read_labels` takes it; by default what the labels say themselves.
        positive_labels: labels of pairs that belong together, where every other says that they do not.
        on_bad: called with each row that cannot be used.

    Raises:
        InputError: there is no such path or split, a row is bad, the rows have one label or score for all, or what a
            label means is not known.
    """
    assert task != "retrieval", "read with load_collection"
    path = NAME if is_in_memory(data) else data
    columns = columns or LabelledColumns()
    is_related = task in ("pair-classification", "nli")
    if (labels is not None or positive_labels) and not is_related:
        raise InputError(
            f"{path}: --labels and --positive-label say what labels of pairs mean, and this is {task}",
            hint="leave them out, or score it by itself with --task pair-classification",
        )
    tables = _tables(data)
    split = _chosen(path, tables, split)
    train: dict[str, list[Any]] = {}
    notes: list[str] = []
    meanings = None
    if is_related:
        meanings = pair_meanings(
            [tables[split]], columns, is_nli=task == "nli", labels=labels, positive=positive_labels
        )
        found, left_out = _gathered(tables[split], _related(tables[split], columns, meanings, on_bad))
        notes.append(f"{path}: labels: {meanings}")
    else:
        found, left_out = _gathered(tables[split], _rows(tables[split], task, columns, on_bad))
    if task == "classification":
        if "train" not in tables:
            raise InputError(
                f"{path}: no split `train` to learn the labels from",
                hint="put train.jsonl beside it, or --task clustering",
            )
        train, _ = _gathered(tables["train"], _rows(tables["train"], task, columns, on_bad))
        _check_varied(path, train["label"], "label")
        notes += _unlearned(path, split, found["label"], train["label"])
    for key in ("score", "labels", "label"):
        if key in found:
            _check_varied(path, found[key], key.rstrip("s"))
    if left_out:
        notes.append(f"{path}: {left_out:,} rows that cannot tell models apart are left out")
    name = Path(path).parent.name if Path(path).is_file() else Path(str(path).removeprefix(HUB)).name
    kind: TaskType = "pair-classification" if is_related else task
    return Labelled(name, kind, split, found, train, left_out, meanings, notes)


def _is_beir(path: str | Path) -> bool:
    """Return whether a path is that of a BEIR folder, whole or not."""
    return (Path(path) / "qrels").is_dir() or (Path(path) / "corpus.jsonl").is_file()


def _tables(path: str | Path | Rows) -> dict[str, Table]:
    """Return the splits of a data set by name; of a file those beside it too, its own first."""
    if is_in_memory(path):
        return tables_in_memory(path)
    if str(path).startswith(HUB):
        return hub_tables(str(path), None)
    path = Path(path)
    check_exists(path)
    if path.is_dir() and is_saved(path):
        return saved_tables(path)
    folder, suffixes = (path, SUFFIXES) if path.is_dir() else (path.parent, (path.suffix,))
    files = [file for file in visible(folder) if file.suffix in suffixes and file.is_file()]
    if path.is_file():
        # What is beside it may be anything; only a split to learn from is looked for.
        files = [path, *(file for file in files if file.stem == "train" and file != path)]
    return {file.stem: open_table(file) for file in files}


def _first_row(table: Table) -> Mapping[str, Any]:
    """Return a table's first row that can be read, or an empty one."""
    return next((row for _, row in table.rows(lambda row: None)), {})


def _chosen(path: str | Path, tables: Mapping[str, Table], split: str | None) -> str:
    """Return the name of the split that is scored."""
    if split is None:
        if Path(path).is_file() or len(tables) == 1:
            return next(iter(tables))
        split = "test"
    if split not in tables:
        raise InputError(
            f'{path}: no split "{split}"{did_you_mean(split, tables)}', hint=f"its splits: {', '.join(tables)}"
        )
    return split


_Columns = dict[str, Any]


def _gathered(table: Table, rows: Iterator[_Columns | None]) -> tuple[dict[str, list[Any]], int]:
    """Return rows by column, and how many say nothing."""
    columns: dict[str, list[Any]] = {}
    left_out = 0
    for row in rows:
        if row is None:
            left_out += 1
            continue
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    if not columns:
        raise InputError(f"{table.name}: no row to score", hint="check the file and the columns")
    return columns, left_out


def _rows(table: Table, task: TaskType, columns: LabelledColumns, on_bad: OnBad) -> Iterator[_Columns | None]:
    """Yield what is scored of each row; None where any order is as good."""
    if task == "sts":
        for pair in text_pairs(table, columns, on_bad, scores=True):
            yield {"sentence1": pair.first, "sentence2": pair.second, "score": pair.value}
    elif task == "reranking":
        for query in judged_queries(table, columns, on_bad):
            sides = {"positive": query.positives, "negative": query.negatives}
            yield {"query": query.query, **sides} if all(sides.values()) else None
    else:
        for item in labelled_texts(table, columns, on_bad):
            yield {"text": item.text, "label": item.label}


def _related(table: Table, columns: LabelledColumns, meanings: Meanings, on_bad: OnBad) -> Iterator[_Columns | None]:
    """Yield two texts and whether they belong together, of each row; None where the row does not say."""
    for pair in text_pairs(table, columns, on_bad, scores=False):
        relation = meanings.meanings[str(pair.value)].relation
        if relation is Relation.MIGHT:
            yield None
        else:
            yield {"sentence1": pair.first, "sentence2": pair.second, "labels": int(relation is Relation.ANSWERS)}


def _unlearned(path: str | Path, split: str, labels: Sequence[str], train: Sequence[str]) -> list[str]:
    """Return the message about labels that nothing can be learned from.

    Raises:
        InputError: there is no other label.
    """
    known = set(train)
    counts = Counter(label for label in labels if label not in known)
    if not counts:
        return []
    some = ", ".join(f'"{label}"' for label, _ in counts.most_common(5)) + (", ..." if len(counts) > 5 else "")
    if len(counts) == len(set(labels)):
        raise InputError(
            f"{path}: no label of {split} is in train: {some}; train has {len(known):,} others",
            hint="write the labels of both splits in the same way, or name their column with --label-column",
        )
    what = "1 label" if len(counts) == 1 else f"{len(counts):,} labels"
    rows = f"{counts.total():,} of {len(labels):,} rows"
    return [f"{path}: train has no row with {what} of {split} ({some}): {rows} cannot be predicted correctly"]


def _check_varied(path: str | Path, values: Sequence[Any], what: str) -> None:
    """Raise InputError where all rows have one label or score: there would be nothing to distinguish."""
    if len(set(values)) < 2:
        raise InputError(f'{path}: every row has the {what} "{values[0]}"', hint="give rows of several kinds")
