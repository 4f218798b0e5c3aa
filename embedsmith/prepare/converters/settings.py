"""Settings of conversion."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from embedsmith.settings import Seed, Settings
from embedsmith.variables import Place

Task = Literal["classification", "clustering", "sts", "nli", "reranking", "pairs"]
TASKS: tuple[Task, ...] = get_args(Task)

_ONLY_FOR: dict[str, tuple[Task, ...]] = {
    "style": ("classification", "clustering"),
    "labels": ("classification", "clustering", "nli", "pairs"),
    "max_per_label": ("classification", "clustering"),
    "threshold": ("sts",),
    "exclude_above": ("sts",),
    "positive_labels": ("pairs",),
}


class ConvertSettings(Settings):
    """How labelled data becomes (query, positive, negatives)."""

    task: Task
    """What the labels say. classification, clustering: a text's class; sts: how similar two texts are; nli: whether
    the second follows from the first; pairs: whether two texts belong together; reranking: which passages answer a
    query."""
    style: Literal["auto", "example", "label"] = "auto"
    """classification, clustering: what stands for a class. example: another text of it (NV-Embed v2); label: the text
    of the label (v1). auto: label where there are two classes to classify, as in the paper, else example."""
    labels: Place | None = None
    """What the labels mean: LABEL=MEANING with commas between, or a YAML or JSON file with a mapping, or with a list
    for the labels 0, 1, 2... nli and pairs: entailment, neutral or contradiction (or positive, negative), as in
    0=entailment,1=neutral,2=contradiction; `*` is every other label. classification, clustering: the labels' texts, by
    default their names with spaces for `_`, `.`, `:`, `/` and `-`."""
    threshold: float = 4.0
    """sts: score from which on two texts are a positive pair (NV-Embed: 4 of 5)."""
    exclude_above: float = 2.5
    """sts: texts of a pair with a higher score are never each other's negatives (NV-Embed v1: 2.5); those of a pair
    with this score or less are."""
    positive_labels: list[str] = []
    """pairs: label of texts that belong together; every other label says that they do not. By default 1 and true, and
    words such as duplicate."""
    symmetric: bool | None = None
    """Whether both sides are texts of the same kind: both get the instruction, and a pair is converted in both
    directions. By default for sts and pairs, and for classes by example; a label and a passage are bare."""
    negatives: int = Field(7, ge=0)
    """Negatives of each example: all that the data gives, then mined or random ones up to this number."""
    trust_labels: bool | None = None
    """Mine without a ceiling (method naive): what the labels do not call an answer is a negative, however much it is
    like one. By default for classification and clustering; else the method of mining decides."""
    max_per_label: int | None = Field(None, gt=1)
    """classification, clustering: texts of a class, at most; which ones is drawn at random. For unbalanced data."""
    max_examples: int | None = Field(None, gt=0)
    """Examples, at most; whose rows is drawn at random."""
    instruction: str | None = None
    """What the task is, put before every query by the model's template; empty for none. By default the papers' for the
    task."""
    instruction_for: str | None = None
    """Take the papers' instruction for this data set, such as banking77."""
    convert_seed: Seed = 0
    """Seed of everything that is drawn at random."""

    def model_post_init(self, context: Any) -> None:
        """Refuse what says nothing for the task."""
        for name, tasks in _ONLY_FOR.items():
            # By value, not by what was written: a run's recipe names every setting.
            if getattr(self, name) != type(self).model_fields[name].default and self.task not in tasks:
                raise ValueError(f"{name} is for {' and '.join(tasks)}, the task is {self.task}")
        if self.threshold <= self.exclude_above:
            raise ValueError(f"exclude_above is {self.exclude_above:g}, wanted less than threshold, {self.threshold:g}")
        if self.labels is not None and self.positive_labels:
            raise ValueError("labels and positive_labels are both given")
        if self.instruction is not None and self.instruction_for is not None:
            raise ValueError("instruction and instruction_for are both given")
