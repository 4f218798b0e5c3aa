"""Settings of scoring; importing them loads no metric library."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from embedsmith.data.columns import ColumnSettings
from embedsmith.data.labelled import TaskType
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.models.settings import ChunkScore, ChunkSettings
from embedsmith.settings import Settings, checked_template


class ScoringSettings(Settings):
    """What is scored, and how."""

    split: str | None = None
    """Split of the data; `test` where there is one. Several splits of a BEIR folder with commas between, or `all`."""
    corpus: str | None = None
    """Retrieval: file of passages that join the corpus: JSON lines, Parquet or CSV."""
    pair_columns: ColumnSettings = ColumnSettings()
    """Retrieval: names of the columns of pairs; those of the query, the positive and the negative in reranking too."""
    task: TaskType | None = None
    """What the data asks of a model; by default what its columns say."""
    metrics: list[str] = []
    """Metric of retrieval: ndcg, recall, precision, map or mrr, @ and a cut-off; by default ndcg@10, recall@10, mrr@10,
    map@100 and recall@100."""
    drop_identical_ids: bool = False
    """Leave out of a query's ranking the passage that has its id, as in ArguAna, where it is the query itself."""
    first_stage: str = "bm25"
    """What finds the passages that a cross-encoder rescores: any name of a model that searches."""
    chunks: ChunkSettings = ChunkSettings()
    """Retrieval: how an embedding model reads passages that are longer than it reads at once."""
    chunk_score: ChunkScore = "max"
    """Retrieval in chunks: a passage has the score of its best chunk, the mean of all, or that of its first."""
    columns: LabelledColumns = LabelledColumns()
    """Names of the columns of labelled texts and pairs, where they are not the conventional ones."""
    labels: str | None = None
    """pair-classification and nli: what the labels mean, as in 0=entailment,1=neutral,2=contradiction, or a YAML or
    JSON file; `*` is every other label, positive and negative are words too. By default what the labels say."""
    positive_labels: list[str] = []
    """pair-classification: label of texts that belong together; every other label says that they do not."""
    template: str | None = None
    """How a task's instruction stands before a text, as "Instruct: {instruction}\\nQuery: "; by default as in the
    model's own query prompt where that has this form, and no instruction else."""
    skip_bad: bool = False
    """Leave out rows and judgements that cannot be used, and count them."""

    def model_post_init(self, context: Any) -> None:
        """Refuse a way to score chunks without chunks."""
        self.chunks.check_score(self.chunk_score)

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str | None) -> str | None:
        """Refuse a template that has no place for the instruction, or one for something else."""
        return None if value is None else checked_template(value)

    @property
    def labelled_columns(self) -> LabelledColumns:
        """Names of the columns of labelled data, those among them that pairs have too."""
        shared = {name: getattr(self.pair_columns, name) for name in ("query", "positive", "negative")}
        return self.columns.model_copy(update={name: column for name, column in shared.items() if column is not None})
