"""Results as tables: as text where they are printed, and as HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from embedsmith.data.shown import one_line


class Figures(NamedTuple):
    """A table of figures that are written out."""

    title: str
    columns: Sequence[str]
    """The first one names the rows, and may be empty."""
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """Return the table in lines of equal columns, numbers to the right.

        >>> print(Figures("Scores", ["", "ndcg@10"], [["bm25", "0.437"], ["after", "0.651"]]).as_text())
        Scores
               ndcg@10
        bm25     0.437
        after    0.651
        """
        lines = [[one_line(cell) for cell in row] for row in [self.columns, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        drawn = [
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
            for cells in (list(zip(line, widths, strict=True)) for line in lines)
        ]
        return "\n".join([one_line(self.title), *(line.rstrip() for line in drawn)])

    def as_html(self) -> str:
        """Return the table as HTML, with everything escaped that is in it.

        >>> Figures("<b>", ["", "n"], [["a", "1"]]).as_html()
        '<table><caption>&lt;b&gt;</caption><thead><tr><th></th><th>n</th></tr></thead><tbody><tr><th>a</th>\
<td>1</td></tr></tbody></table>'
        """
        head = "".join(f"<th>{_escaped(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td>{_escaped(cell)}</td>" if place else f"<th>{_escaped(cell)}</th>"
                for place, cell in enumerate(row)
            )
            + "</tr>"
            for row in self.rows
        )
        title = f"<caption>{_escaped(self.title)}</caption>"
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Tabular:
    """What prints as a table: `print` shows text, a notebook HTML."""

    def figures(self) -> Figures:
        """Return the table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.figures().as_text()

    def _repr_html_(self) -> str:
        return self.figures().as_html()


def _escaped(text: str) -> str:
    """Return a text as it stands in HTML: no markup of its own, no control characters."""
    return escape(one_line(text))
