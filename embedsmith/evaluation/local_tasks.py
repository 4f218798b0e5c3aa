"""Tasks of mteb made of local data: mteb's own evaluators compute their scores. Needs mteb (extra `mteb`)."""

from __future__ import annotations

import math
from typing import Any

from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)

from embedsmith.data.collection import Collection
from embedsmith.data.labelled import Labelled, TaskType
from embedsmith.errors import ModelError

_CLUSTERED = 16_384
"""Texts that are embedded for clustering at most: as many as mteb draws for each of its ten clusterings."""

_KINDS: dict[TaskType, tuple[type[AbsTask], str, str]] = {
    "retrieval": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10"),
    "reranking": (AbsTaskRetrieval, "Reranking", "map_at_1000"),
    "sts": (AbsTaskSTS, "STS", "cosine_spearman"),
    "pair-classification": (AbsTaskPairClassification, "PairClassification", "max_ap"),
    "classification": (AbsTaskClassification, "Classification", "accuracy"),
    "clustering": (AbsTaskClustering, "Clustering", "v_measure"),
}
"""Task type -> mteb's class, its name there, and the main score that MTEB's own tasks of the type have."""

_BESIDE = {
    "retrieval": ("recall_at_10", "mrr_at_10", "map_at_100", "recall_at_100"),
    "reranking": ("ndcg_at_10", "mrr_at_10"),
    "sts": ("cosine_pearson",),
    "pair-classification": ("cosine_ap", "max_f1"),
    "classification": ("f1",),
    "clustering": ("ami",),
}
"""What is reported beside the main score."""


def task_of_labelled(data: Labelled) -> AbsTask:
    """Return the task of labelled texts or pairs."""
    if data.task == "reranking":
        return _task(data.name, "reranking", data.split, data.content_hash(), _candidates(data))
    dataset = DatasetDict({data.split: Dataset.from_dict(data.columns)})
    extra: dict[str, Any] = {}
    if data.task == "classification":
        # Numbers: of two classes, mteb's further metrics take the one called 1.
        labels = sorted({*data.train["label"], *data.columns["label"]}, key=str)
        number_of = {label: number for number, label in enumerate(labels)}
        # A test split of the name `train` is what it learns from as well.
        for split, columns in (("train", data.train), (data.split, data.columns)):
            dataset[split] = Dataset.from_dict({**columns, "label": [number_of[label] for label in columns["label"]]})
    if data.task == "clustering":
        dataset = dataset.rename_columns({"text": "sentences", "label": "labels"})
        extra = {"max_fraction_of_documents_to_embed": None, "max_document_to_embed": _CLUSTERED}
    return _task(data.name, data.task, data.split, data.content_hash(), dataset, **extra)


def task_of_collection(collection: Collection, split: str = "test") -> AbsTask:
    """Return the task of a collection, such as a BEIR folder's."""
    corpus = Dataset.from_dict(
        {"id": list(collection.passage_ids), "text": list(collection.passages)}
        # mteb joins a title as BEIR does; a collection's passages hold theirs.
        | {"title": [""] * len(collection.passages)}
    )
    queries = Dataset.from_dict({"id": list(collection.query_ids), "text": list(collection.queries)})
    parts = {"corpus": corpus, "queries": queries, "relevant_docs": collection.qrels, "top_ranked": None}
    return _task(collection.name, "retrieval", split, collection.content_hash(), {"default": {split: parts}})


def scores_of(task: AbsTask, model: Any, split: str, kind: TaskType) -> dict[str, float]:
    """Return a task's scores of a model, the main one first.

    Raises:
        ModelError: one is undefined.
    """
    found = task.evaluate(model, split, encode_kwargs={"batch_size": 256})["default"]
    names = [_KINDS[kind][2], *_BESIDE[kind]]
    scores = {name.replace("_at_", "@"): float(found[name]) for name in names}
    for name, value in scores.items():
        if not math.isfinite(value):
            raise undefined(task.metadata.dataset["path"].removeprefix("local/"), name)
    return scores


def undefined(data: str, metric: str) -> ModelError:
    """Return what is wrong with a model whose score is no number, such as the correlation of what does not vary."""
    return ModelError(
        f"{data}: {metric} is undefined: the model gives all texts or pairs the same score, or none",
        hint="check that the model is whole, and that its vectors differ",
    )


def _candidates(data: Labelled) -> dict[str, Any]:
    """Return what mteb reranks: each row's texts are a corpus of its own."""
    ids: list[str] = []
    texts: list[str] = []
    qrels: dict[str, dict[str, int]] = {}
    top: dict[str, list[str]] = {}
    for number, (positive, negative) in enumerate(zip(data.columns["positive"], data.columns["negative"], strict=True)):
        # Under these names mteb has its own tasks: they decide how texts with one score are ordered.
        own = [f"apositive_{data.split}_query{number}_{i:05}" for i in range(len(positive))]
        others = [f"negative_{data.split}_query{number}_{i:05}" for i in range(len(negative))]
        ids += own + others
        texts += positive + negative
        qrels[f"{data.split}_query{number}"] = dict.fromkeys(own, 1) | dict.fromkeys(others, 0)
        top[f"{data.split}_query{number}"] = own + others
    parts = {
        "corpus": Dataset.from_dict({"id": ids, "text": texts, "title": [""] * len(ids)}),
        "queries": Dataset.from_dict({"id": list(top), "text": data.columns["query"]}),
        "relevant_docs": qrels,
        "top_ranked": top,
    }
    return {"default": {data.split: parts}}


def _task(name: str, kind: TaskType, split: str, revision: str, dataset: Any, **attributes: Any) -> AbsTask:
    """Return a task of mteb that has its data already; by its name mteb tells it from all others in its cache.

    Args:
        revision: a hash of the data. mteb looks at names alone: two data sets of one name would share their results.
    """
    base, type_, main_score = _KINDS[kind]
    metadata = TaskMetadata(
        name=f"{name}-{revision}",
        description=f"{name}, a data set on this machine",
        # The name alone, as a model's prompts may have it.
        dataset={"path": f"local/{name}", "revision": revision},
        type=type_,
        category="t2t",
        modalities=["text"],
        eval_splits=[split],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )

    def load_data(self: Any, **_: Any) -> None:
        self.dataset, self.data_loaded = dataset, True

    return type(metadata.name, (base,), {"metadata": metadata, "load_data": load_data, **attributes})()
