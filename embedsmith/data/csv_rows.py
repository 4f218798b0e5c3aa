"""Rows of CSV files, and quotes in them that were never closed.

A quote that is not closed takes the lines behind it into its cell, up to the next quote or to the end of the file. How
many rows are lost with it is not known: the file is refused, also where bad rows are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from embedsmith.data.bad_rows import BadRow, Misread, OnBad, Unusable

_LONGEST = 2**31 - 1
"""Characters of a cell: a C long on Windows holds no more. Python's own limit is 131,072, and passages are longer."""

_MANY = 8
"""Lines of one cell that, if each of them looks like a row, are rows."""


def csv_rows(path: Path, delimiter: str, on_bad: OnBad, *, width: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where it begins, cells) of each row that is not blank, the header first.

    Args:
        path: of the file.
        delimiter: what stands between two cells.
        on_bad: called with each row that cannot be used.
        width: how many cells a row has; None for any number.
    """
    limit = csv.field_size_limit(_LONGEST)
    try:
        with open(path, "rb") as file:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                begins = lines.forget()
                try:
                    cells, flaw = next(reader), None
                except StopIteration:
                    return
                except csv.Error as error:
                    cells, flaw = [], _broken(error)
                if flaw is None and cells and width is not None:
                    flaw = _misfit(cells, width)
                    if flaw is None and len(lines.row) > _MANY and _hold_rows(lines.row[1:-1], delimiter, width):
                        flaw = _ROWS
                if flaw is not None and (more := _more_lines(lines.row)):
                    on_bad(BadRow(f"{path}:{begins + _opened_at(lines.row, delimiter)}", _swallowed(flaw, more)))
                elif lines.undecoded is not None:
                    on_bad(BadRow(f"{path}:{lines.undecoded[0]}", lines.undecoded[1]))
                elif flaw is not None:
                    on_bad(BadRow(f"{path}:{begins}", flaw))
                elif cells:
                    yield begins, cells
    finally:
        csv.field_size_limit(limit)


class _Lines(Iterator[str]):
    """The lines of a file as text; those of the row that is read are remembered."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._number = 0
        self.row: list[str] = []
        self.undecoded: tuple[int, Unusable] | None = None
        """The first line of the row that is not UTF-8, and what is wrong with it."""

    def forget(self) -> int:
        """Begin a row, and return the line where it begins."""
        self.row, self.undecoded = [], None
        return self._number + 1

    def __next__(self) -> str:
        raw = next(self._file)
        self._number += 1
        try:
            line = raw.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            # The line may be one of several of a row, which is dropped as a whole.
            line = raw.decode("utf-8", "replace")
            what = f"not UTF-8 (byte {error.start + 1} of the line)"
            flaw = Unusable(what, reason="not UTF-8", hint="save the file as UTF-8")
            self.undecoded = self.undecoded or (self._number, flaw)
        self.row.append(line)
        return line


def _broken(error: csv.Error) -> Unusable:
    # What Python says of a carriage return advises programmers.
    what = "a carriage return outside quotes" if "new-line character" in str(error) else str(error)
    return Unusable(f"broken CSV: {what}", reason="broken CSV", hint='write a quote inside a cell twice: "a ""b"" c"')


def _misfit(cells: list[str], width: int) -> Unusable | None:
    if len(cells) == width:
        return None
    what = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}, wanted {width}"
    return Unusable(what, reason="wrong number of cells", hint='quote cells with commas or tabs: "a, b"')


_ROWS = Unusable("each line of a cell looks like a row", reason="rows in a cell", hint="")


def _swallowed(flaw: Unusable, more: int) -> Misread:
    """Return what is wrong with a row that takes in the lines behind it."""
    return Misread(
        f"{flaw}; the cell that begins here takes in {more:,} more {'line' if more == 1 else 'lines'}",
        reason=flaw.reason,
        hint="close its quote, or write the file as JSON lines; end lines in LF or CRLF",
    )


def _more_lines(row: list[str]) -> int:
    r"""Return how many lines a row takes in beside its first.

    >>> _more_lines(["a,b\r\n"]), _more_lines(['a,"b\n', 'c"\n']), _more_lines(["a,b\rc,d"])
    (0, 1, 1)
    """
    text = "".join(row).replace("\r\n", "\n").replace("\r", "\n")
    return text.rstrip("\n").count("\n")


def _opened_at(row: list[str], delimiter: str) -> int:
    r"""Return in which line of a row its last quoted cell begins, from 0.

    >>> _opened_at(['"a ""b\n', 'c","d\n', 'e'], ",")
    1
    """
    opened, state = 0, "begins"
    for number, line in enumerate(row):
        for character in line:
            if state == "quoted":
                state = "closed" if character == '"' else state
            elif character == '"' and state in ("begins", "closed"):  # one that stands twice closes and opens again
                opened, state = number if state == "begins" else opened, "quoted"
            elif character == delimiter:
                state = "begins"
            elif state == "closed" and character not in "\r\n":
                return opened  # what is broken is the cell that ends here
            else:
                state = "plain"
    return opened


def _hold_rows(lines: list[str], delimiter: str, width: int) -> bool:
    r"""Return whether each of the lines of a cell looks like a row.

    >>> _hold_rows(["a,b\n", "c,d\n"], ",", 2), _hold_rows(["Dear Sir,\n"], ",", 2), _hold_rows(["a\n"], ",", 1)
    (True, False, False)
    """
    return width > 1 and all(
        len(cells := line.rstrip("\r\n").split(delimiter)) == width and all(map(str.strip, cells)) for line in lines
    )
