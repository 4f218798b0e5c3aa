"""Settings of scoring; importing them loads no metric library."""

from __future__ import annotations

from embedsmith.data.labelled import TaskType
from embedsmith.settings import Settings


class ScoringSettings(Settings):
    """What is scored, and how."""

    split: str | None = None
    """Split of the data; `test` where there is one. Several splits of a BEIR folder with commas between, or `all`."""
    task: TaskType | None = None
    """What the data asks of a model; by default what its columns say."""
    metrics: list[str] = []
    """Metric of retrieval: ndcg, recall, precision, map or mrr, @ and a cut-off; by default ndcg@10, recall@10, mrr@10,
    map@100 and recall@100."""
    drop_identical_ids: bool = False
    """Leave out of a query's ranking the passage that has its id, as in ArguAna, where it is the query itself."""
    first_stage: str = "bm25"
    """What finds the passages that a cross-encoder rescores: any name of a model that searches."""
    text_column: str | None = None
    """Column of the text to classify or cluster; by default `text`."""
    label_column: str | None = None
    """Column of the label; by default `label`."""
    template: str | None = None
    """How a task's instruction stands before a text, as "Instruct: {instruction}\\nQuery: "; by default as in the
    model's own query prompt where that has this form, and no instruction else."""
    skip_bad: bool = False
    """Leave out rows and judgements that cannot be used, and count them."""
