"""Texts in the order of a file, each with its id, doubles and all: what is to be encoded, not searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable, refuse
from embedsmith.data.corpus import _passage
from embedsmith.data.files import check_regular, lines_of
from embedsmith.data.tables import SUFFIXES, check_exists, open_table
from embedsmith.data.texts import Texts, TextsBuilder
from embedsmith.errors import InputError


def read_listed(path: Path) -> tuple[list[str], Texts]:
    """Return the ids and the texts of a table (JSON lines, Parquet, CSV), or of the lines of any other file.

    A row without an id, and a line, is called by its number from 1; blank lines are passed over, and keep theirs. Where
    some row has one of these numbers for an id, all of them get as many `_` before them as sets them apart.

    Raises:
        InputError: there is no such file or no text in it, or a row cannot be used; names its place.
    """
    check_exists(path)
    ids: list[str] = []
    unnamed: dict[int, str] = {}
    builder = TextsBuilder()
    for own, number, text in _rows(path, refuse) if path.suffix in SUFFIXES else _lines(path):
        if not own:
            unnamed[len(ids)] = str(number)
        ids.append(own)
        builder.add(text)
    if not ids:
        raise InputError(f"{path}: no texts", hint="give at least one text")
    for place, name in _free(unnamed, set(ids)).items():
        ids[place] = name
    return ids, builder.texts()


def _free(names: dict[int, str], taken: set[str]) -> dict[int, str]:
    """Return names that are not taken, all with the same beginning.

    >>> _free({0: "1", 2: "3"}, {"3", "_1"})
    {0: '__1', 2: '__3'}
    """
    while not taken.isdisjoint(names.values()):
        names = {place: f"_{name}" for place, name in names.items()}
    return names


def _rows(path: Path, on_bad: OnBad) -> Iterator[tuple[str, int, str]]:
    """Yield the id, the number and the text of each row of a table; the id is empty where there is none."""
    table = open_table(path)
    for number, row in table.rows(on_bad):
        try:
            own, text, _ = _passage(row, needs_ids=False)
        except Unusable as flaw:
            on_bad(BadRow(table.place(number), flaw))
            continue
        yield own or "", number, text


def _lines(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield no id, the number and the text of each line that is not blank."""
    check_regular(path)
    with open(path, "rb") as file:
        for number, raw in enumerate(lines_of(file), start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise InputError(f"{path}:{number}: not UTF-8", hint="save the file as UTF-8") from None
            if text.strip():
                yield "", number, text
