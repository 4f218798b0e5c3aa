"""Settings of what is read; importing them loads no table library."""

from __future__ import annotations

from embedsmith.data.columns import ColumnSettings
from embedsmith.settings import Settings


class SourceSettings(Settings):
    """Which part of the data is mined, and how it is read."""

    split: str | None = None
    """Split to mine; several with commas between, or `all`. By default train where there is one."""
    corpus: str | None = None
    """File of passages that join the corpus: JSON lines, Parquet or CSV."""
    exclude_qrels: list[str] = []
    """File of judgements (BEIR's or TREC's) that are no negatives either, such as another split's."""
    exclude_ids: str | None = None
    """File of passage ids, one a line, that are never negatives."""
    skip_bad: bool = False
    """Leave out rows that cannot be used, and count them."""
    columns: ColumnSettings = ColumnSettings()
    """Names of the columns of pairs."""
