"""Labelled texts and pairs: the data of task types besides retrieval.

    sts                    sentence1, sentence2, score: a number
    pair-classification    sentence1, sentence2, label: 0 or 1, or entailment, contradiction and neutral (left out)
    classification         text, label, and a split called `train` beside the one that is scored
    clustering             text, label, without such a split
    reranking              query, positive and negative: lists of texts

A data set is a folder with a file for each split (`train.jsonl`, `test.jsonl`), one such file, or a folder that
`save_to_disk` of `datasets` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, kind, refuse
from embedsmith.data.columns import quoted
from embedsmith.data.tables import HUB, SUFFIXES, Table, check_exists, hub_tables, is_saved, open_table, saved_tables
from embedsmith.errors import InputError, did_you_mean
from embedsmith.settings import fingerprint

TaskType = Literal["retrieval", "reranking", "sts", "pair-classification", "classification", "clustering"]

_ENTAILS = {"1": 1, "0": 0, "entailment": 1, "contradiction": 0, "not_entailment": 0, "neutral": None}
"""What a label of two texts says; neutral pairs are neither, and mteb leaves them out too."""


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

    def __len__(self) -> int:
        """Return the number of rows that are scored."""
        return len(next(iter(self.columns.values())))

    def content_hash(self) -> str:
        """Return a hash of all that the scores depend on."""
        return fingerprint([self.task, self.columns, self.train])


def task_of(path: str | Path) -> TaskType:
    """Return what a data set asks of a model, as its columns say.

    Raises:
        InputError: there is no such path, or the file is broken.
    """
    if _is_beir(path):
        return "retrieval"
    tables = _tables(path)
    if not tables:
        return "retrieval"
    row = _first_row(next(iter(tables.values())))
    if {"sentence1", "sentence2"} <= row.keys() and {"score", "label"} & row.keys():
        return "sts" if "score" in row else "pair-classification"
    if {"text", "label"} <= row.keys():
        return "classification" if "train" in tables and len(tables) > 1 else "clustering"
    lists = all(isinstance(row.get(key), list) for key in ("positive", "negative"))
    return "reranking" if lists and "query" in row else "retrieval"


def read_labelled(
    path: str | Path,
    task: TaskType,
    *,
    split: str | None = None,
    text: str | None = None,
    label: str | None = None,
    on_bad: OnBad = refuse,
) -> Labelled:
    """Return one split of a data set.

    Args:
        path: see above.
        task: what it asks of a model; not retrieval.
        split: which one; by default that of the file that the path names, `test`, or the only one.
        text: column of the text to classify or to cluster; by default `text`.
        label: column of its label; by default `label`.
        on_bad: called with each row that cannot be used.

    Raises:
        InputError: there is no such path or split, a row is bad, or the rows have one label or score for all.
    """
    assert task != "retrieval", "read with load_collection"
    tables = _tables(path)
    split = _chosen(path, tables, split)
    read = {
        "sts": _scored_pair,
        "pair-classification": _labelled_pair,
        "reranking": _candidates,
    }.get(task) or _reader_of_texts(text or "text", label or "label")
    columns, left_out = _read(tables[split], read, on_bad)
    train: dict[str, list[Any]] = {}
    if task == "classification":
        if "train" not in tables:
            raise InputError(
                f"{path}: no split `train` to learn the labels from",
                hint="put train.jsonl beside it, or --task clustering",
            )
        train, _ = _read(tables["train"], read, on_bad)
        _check_varied(path, train["label"], "label")
    for key in ("score", "labels", "label"):
        if key in columns:
            _check_varied(path, columns[key], key.rstrip("s"))
    name = Path(path).parent.name if Path(path).is_file() else Path(str(path).removeprefix(HUB)).name
    return Labelled(name, task, split, columns, train, left_out)


def _is_beir(path: str | Path) -> bool:
    """Return whether a path is that of a BEIR folder, whole or not."""
    return (Path(path) / "qrels").is_dir() or (Path(path) / "corpus.jsonl").is_file()


def _tables(path: str | Path) -> dict[str, Table]:
    """Return the splits of a data set by name; of a file those beside it too, its own first."""
    if str(path).startswith(HUB):
        return hub_tables(str(path), None)
    path = Path(path)
    check_exists(path)
    if path.is_dir() and is_saved(path):
        return saved_tables(path)
    folder, suffixes = (path, SUFFIXES) if path.is_dir() else (path.parent, (path.suffix,))
    files = sorted(file for file in folder.iterdir() if file.suffix in suffixes and file.is_file())
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


def _read(table: Table, reader: Any, on_bad: OnBad) -> tuple[dict[str, list[Any]], int]:
    """Return the columns that a reader makes of a table's rows, and how many rows say nothing."""
    columns: dict[str, list[Any]] = {}
    left_out = 0
    for number, row in table.rows(on_bad):
        try:
            values = reader(row)
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        if values is None:
            left_out += 1
            continue
        for key, value in values.items():
            columns.setdefault(key, []).append(value)
    if not columns:
        raise InputError(f"{table.name}: no row to score", hint="check the file and the columns")
    return columns, left_out


def _scored_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return two texts and the score of their similarity."""
    score = _value(row, "score")
    try:
        number = float(score)
    except (TypeError, ValueError):
        raise _wrong("score", score, "a number") from None
    return {"sentence1": _string(row, "sentence1"), "sentence2": _string(row, "sentence2"), "score": number}


def _labelled_pair(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return two texts and whether they belong together; None for a neutral pair."""
    label = _value(row, "label")
    word = str(int(label) if isinstance(label, bool | float) else label).lower()
    if word not in _ENTAILS:
        raise _wrong("label", label, f"one of {', '.join(_ENTAILS)}")
    pair = {"sentence1": _string(row, "sentence1"), "sentence2": _string(row, "sentence2")}
    entails = _ENTAILS[word]
    return None if entails is None else {**pair, "labels": entails}


def _reader_of_texts(text: str, label: str) -> Any:
    """Return what reads a text and its label out of a row."""

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": _string(row, text), "label": str(_value(row, label))}

    return read


def _candidates(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a query and the texts to order; None where any order is as good."""
    found: dict[str, Any] = {"query": _string(row, "query")}
    for key in ("positive", "negative"):
        texts = _value(row, key)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _wrong(key, texts, "a list of strings")
        found[key] = texts
    return found if found["positive"] and found["negative"] else None


def _value(row: Mapping[str, Any], key: str) -> Any:
    """Return what a row has under a key."""
    if row.get(key) is None:
        raise Unusable(
            f'no "{key}"; the row has {quoted(row)}{did_you_mean(key, row)}',
            reason=f'no "{key}"',
            hint="see the columns of each task type in the README, or name the column",
        )
    return row[key]


def _string(row: Mapping[str, Any], key: str) -> str:
    """Return the text that a row has under a key."""
    value = _value(row, key)
    if not isinstance(value, str):
        raise _wrong(key, value, "a string")
    return value


def _wrong(key: str, value: Any, wanted: str) -> Unusable:
    got = f'"{value}"' if isinstance(value, str | int | float) else kind(value)
    return Unusable(f'"{key}" is {got}, wanted {wanted}', reason=f'"{key}" is not {wanted}', hint="mend the row")


def _check_varied(path: str | Path, values: Sequence[Any], what: str) -> None:
    """Raise InputError where all rows have one label or score: nothing could be told apart."""
    if len(set(values)) < 2:
        raise InputError(f'{path}: every row has the {what} "{values[0]}"', hint="give rows of several kinds")
