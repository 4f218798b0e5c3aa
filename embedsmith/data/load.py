"""A path in, a collection out: which reader is it for?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from embedsmith.data.bad_rows import OnBad, Tally, refuse
from embedsmith.data.beir import read_beir, splits
from embedsmith.data.collection import Collection
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.files import visible
from embedsmith.data.hub import hub_tables
from embedsmith.data.in_memory import Rows, is_in_memory, splits_in_memory, table_in_memory
from embedsmith.data.pairs import read_pairs
from embedsmith.data.tables import HUB, SUFFIXES, Table, check_exists, is_saved, open_table, saved_tables
from embedsmith.errors import InputError, did_you_mean

_WANTED = f"a BEIR folder, a folder of `datasets`, a file of pairs ({', '.join(SUFFIXES)}) or hf:OWNER/NAME"


def load_collection(
    path: str | Path | Rows | Table,
    *,
    split: str | None = None,
    columns: ColumnSettings | None = None,
    corpus: str | Path | None = None,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Collection:
    """Return the collection at a path.

    Args:
        path: a BEIR folder; a file of pairs (JSON lines, Parquet, CSV with commas or tabs); a folder that
            `save_to_disk` of `datasets` wrote; a data set of pairs on the hub, `hf:OWNER/NAME` or
            `hf:OWNER/NAME/CONFIG`; or pairs in memory: a `Dataset` or `DatasetDict` of `datasets`, or a list of dicts.
        split: which one; several with commas between, or `all`. None stands for the only one there is. A file of pairs
            is one split, whatever it is called: `split` is not looked at.
        columns: names of the columns of pairs that are not the conventional ones.
        corpus: a file of passages that join the corpus: JSON lines (as BEIR's), Parquet or CSV.
        skip_bad: leave out what cannot be used.
        on_skip: called when all is read, with how many rows were left out for each reason, and with what a column of
            relevance beside pairs was taken for.

    Raises:
        InputError: there is no such path, it is none of these, its splits leave a choice, or a row is bad.
        OSError: the hub cannot be reached.
        TypeError: what is in memory is none of these.
    """
    tally = Tally()
    try:
        extra = None if corpus is None else open_table(Path(corpus))
        if is_in_memory(path):
            path = table_in_memory(path, split)
        if isinstance(path, Table):
            on_bad = tally if skip_bad else refuse
            return read_pairs([path], columns or ColumnSettings(), on_bad, corpus=extra, on_note=on_skip)
        return _load(path, split, columns or ColumnSettings(), extra, tally if skip_bad else refuse, on_skip)
    finally:
        if on_skip:
            for line in tally.lines():
                on_skip(line)


def load_tables(path: str | Path, split: str | None = None, *, preferred: str = "train") -> list[Table]:
    """Return the tables of rows of any kind at a path.

    Args:
        path: a file, a folder with a file for each split, a folder of `datasets`, or hf:OWNER/NAME.
        split: which one; several with commas between, or `all`. None stands for the preferred one where it is there,
            for train, or for the only one there is. A single file is one split, whatever it is called: `split` is not
            looked at.
        preferred: which one where none is asked for.

    Raises:
        InputError: there is no such path, it holds no table, or its splits leave a choice.
        OSError: the hub cannot be reached.
    """
    if Path(path).is_file():
        return [open_table(Path(path))]
    tables = _tables_by_split(path)
    if "" in tables:
        return [tables[""]]
    if split is None:
        split = next((name for name in (preferred, "train") if name in tables), None)
    return [tables[name] for name in _chosen(str(path), list(tables), split)]


def table_splits(path: str | Path) -> list[str]:
    """Return the names of the splits that `load_tables` can choose from; a single file has none.

    Raises:
        InputError: there is no such path, or it holds no table.
        OSError: the hub cannot be reached.
    """
    return [] if Path(path).is_file() else [name for name in _tables_by_split(path) if name]


def _tables_by_split(path: str | Path) -> dict[str, Table]:
    """Return the tables of a folder or of a data set on the hub by split; one without a name is all there is."""
    if str(path).startswith(HUB):
        return hub_tables(str(path), None)
    path = Path(path)
    check_exists(path)
    if is_saved(path):
        return saved_tables(path)
    files = [file for file in visible(path) if file.suffix in SUFFIXES and file.is_file()]
    if not files:
        raise InputError(f"{path}: no file that ends in {', '.join(SUFFIXES)}", hint="name a file")
    return {file.stem: open_table(file) for file in files}


def known_splits(path: str | Path | Rows) -> list[str]:
    """Return the splits of a folder, of a data set on the hub or of a `DatasetDict`; a file of pairs has none."""
    if is_in_memory(path):
        return splits_in_memory(path)
    if str(path).startswith(HUB):
        return [name for name in hub_tables(str(path), None) if name]
    path = Path(path)
    if path.is_dir() and is_saved(path):
        return [name for name in saved_tables(path) if name]
    return splits(path) if (path / "qrels").is_dir() else []


def usual_split(path: str | Path | Rows, split: str) -> str | None:
    """Return a split if the data has it; None leaves the choice to `load_collection`."""
    return split if split in known_splits(path) else None


def _load(
    path: str | Path,
    split: str | None,
    columns: ColumnSettings,
    corpus: Table | None,
    on_bad: OnBad,
    on_note: Callable[[str], None] | None,
) -> Collection:
    if str(path).startswith(HUB):
        tables = hub_tables(str(path), None)
        return _of_tables(str(path), tables, split, columns, corpus, on_bad, on_note)
    path = Path(path)
    check_exists(path)
    if path.is_file():
        return read_pairs([open_table(path)], columns, on_bad, corpus=corpus, on_note=on_note)
    if not any(path.iterdir()):
        raise InputError(f"{path}: an empty folder", hint=f"wanted {_WANTED}")
    if is_saved(path):
        return _of_tables(str(path), saved_tables(path), split, columns, corpus, on_bad, on_note)
    if columns != ColumnSettings():
        raise InputError(f"{path}: a BEIR folder has no columns to name", hint="name columns for files of pairs only")
    return read_beir(path, _chosen(str(path), splits(path), split), on_bad, corpus=corpus)


def _of_tables(
    name: str,
    tables: dict[str, Table],
    split: str | None,
    columns: ColumnSettings,
    corpus: Table | None,
    on_bad: OnBad,
    on_note: Callable[[str], None] | None,
) -> Collection:
    """Return the collection of the chosen tables; a table without a name is all there is, whatever the split."""
    chosen = [""] if "" in tables else _chosen(name, list(tables), split)
    return read_pairs([tables[split] for split in chosen], columns, on_bad, corpus=corpus, on_note=on_note)


def _chosen(name: str, known: Sequence[str], split: str | None) -> list[str]:
    """Return the names of the splits that are asked for.

    >>> _chosen("data", ["dev", "train"], "all"), _chosen("data", ["dev", "train"], "train,dev")
    (['dev', 'train'], ['train', 'dev'])
    """
    if split is None:
        if len(known) > 1:
            raise InputError(
                f"{name}: there are {len(known)} splits, and none was chosen", hint=f"choose {', '.join(known)} or all"
            )
        return list(known)
    if split in known:
        return [split]
    chosen = list(known) if split == "all" else [part.strip() for part in split.split(",")]
    for part in chosen:
        if part not in known:
            raise InputError(
                f'{name}: no split "{part}"{did_you_mean(part, known)}', hint=f"its splits: {', '.join(known)}"
            )
    return list(dict.fromkeys(chosen))
