"""What a run that mined keeps, as far as the runs that are made from it ask.

RUN/candidates/teachers.json    what is no array of the candidates, and their hash
RUN/judged.jsonl                of a run of `select`: the pairs that it excluded because of a judge
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.arrays import hash_of_arrays, read_arrays
from embedsmith.data.bad_rows import kind
from embedsmith.data.files import read_json, read_jsonl
from embedsmith.errors import InputError


def content_of_candidates(folder: Path) -> str:
    """Return a hash of the candidates of a folder.

    Raises:
        InputError: the folder is missing or damaged.
    """
    # Older versions have not noted it.
    return str(described_candidates(folder).get("content") or hash_of_arrays(read_arrays(folder)))


def described_candidates(folder: Path) -> dict[str, Any]:
    """Return the teachers of a folder of candidates, and what else is no array.

    Raises:
        InputError: there are no candidates, or the file is damaged.
    """
    path = folder / "teachers.json"
    if not path.is_file():
        raise InputError(f"{folder}: no candidates", hint="mine first: embedsmith mine DATA --out RUN")
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise InputError(f"{path}: not a description of candidates", hint="mine again")
    return plain


def read_false_negatives(folder: Path) -> list[tuple[str, str]]:
    """Return the (query id, passage id) that a run of `select` excluded because of a judge.

    Raises:
        InputError: the file is damaged.
    """
    rows = rows_of_texts(folder / "judged.jsonl", ("query_id", "passage_id"))
    return [(row["query_id"], row["passage_id"]) for row in rows]


def rows_of_texts(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a file, each with texts under some names; none where there is no file.

    Raises:
        InputError: a row has none.
    """
    rows: list[dict[str, Any]] = []
    for number, row in read_jsonl(path) if path.is_file() else ():
        if wrong := [name for name in names if not isinstance(row.get(name), str)]:
            raise InputError(
                f'{path}:{number}: "{wrong[0]}" is {kind(row.get(wrong[0]))}, wanted a text',
                hint="remove the line; what it held is asked again",
            )
        rows.append(row)
    return rows
