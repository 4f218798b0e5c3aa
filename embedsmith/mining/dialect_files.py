"""Training examples in the files of other libraries: a writer for each dialect."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from embedsmith.data.examples import (
    Example,
    Passage,
    rounded,
)
from embedsmith.data.files import atomic_write, whole_folder, write_json
from embedsmith.data.parquet import open_parquet, write_parquet
from embedsmith.errors import InputError
from embedsmith.settings import Settings


class DialectSettings(Settings):
    """What goes into another library's file."""

    negatives: int | None = Field(None, ge=1)
    """Negatives of a query, the first ones; None: all of them. `st-n-tuple` leaves out queries that have fewer; None
    stands there for the number with which most negatives are written."""
    scores: bool = False
    """Write the teacher's scores, and leave out a query with a passage that has none. Where the dialect has labels, the
    scores take their place. `jsonl` and `parquet` hold the scores that there are in any case."""
    instruction: str = ""
    """The instruction of the queries; empty: none is written."""


def write_triplets(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, positive, negative), each positive with each negative; `scores` is [positive's, negative's].

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "triplet".
    """
    groups = (
        (example.query, [positive, negative])
        for example in examples
        for positive in example.positives
        for negative in example.negatives
    )
    return write_tuples(path, ["anchor", "positive", "negative"], groups, settings)


def write_n_tuples(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, positive, negative_1, … negative_n), a row a positive; `scores` has n + 1, the positive's first.

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "n-tuple".
    """
    first = next(examples)
    negatives = [f"negative_{number}" for number in range(1, len(first.negatives) + 1)]
    groups = _positive_first(chain([first], examples))
    return write_tuples(path, ["anchor", "positive", *negatives], groups, settings)


def write_labeled_pairs(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, document, label), a row a passage, 1 for a positive; `score` in the place of `label`.

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "labeled-pair". Its
    documentation calls the second column `document`; its code, as the data set calls the positives.
    """
    import pyarrow as pa

    name, kind = ("score", pa.float64()) if settings.scores else ("label", pa.int64())
    rows = (
        {
            "anchor": example.query,
            "document": passage.text,
            name: rounded(passage.score) if settings.scores else label,
        }
        for example in examples
        for label, passages in ((1, example.positives), (0, example.negatives))
        for passage in passages
    )
    return write_parquet(path, pa.schema({"anchor": pa.string(), "document": pa.string(), name: kind}), rows)


def write_labeled_lists(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, documents, labels), a row a positive, which comes first; `scores` in the place of `labels`.

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "labeled-list". Its
    documentation calls the second column `documents`; its code, as the data set calls the positives.
    """
    import pyarrow as pa

    name, kind = ("scores", pa.float64()) if settings.scores else ("labels", pa.int64())
    rows = (
        {
            "anchor": query,
            "documents": [passage.text for passage in group],
            name: _scores(group) if settings.scores else [1] + [0] * (len(group) - 1),
        }
        for query, group in _positive_first(examples)
    )
    columns = {"anchor": pa.string(), "documents": pa.list_(pa.string()), name: pa.list_(kind)}
    return write_parquet(path, pa.schema(columns), rows)


def write_flagembedding(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write {"query", "pos": [text], "neg": [text]} a line, and "pos_scores", "neg_scores" and "prompt" if asked for.

    A `prompt` replaces the trainer's `query_instruction_for_retrieval`, and is read only where that is given. `type` is
    read by bge-en-icl alone, and is not written.

    Source: FlagEmbedding, `examples/finetune/embedder/README.md`, "Data format", and
    `FlagEmbedding/abc/finetune/embedder/AbsDataset.py`.
    """

    def row(example: Example) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "query": example.query,
            "pos": [passage.text for passage in example.positives],
            "neg": [passage.text for passage in example.negatives],
        }
        if settings.scores:
            fields |= {"pos_scores": _scores(example.positives), "neg_scores": _scores(example.negatives)}
        if settings.instruction:
            fields["prompt"] = settings.instruction
        return fields

    return write_lines(path, map(row, examples))


def write_tevatron_legacy(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write {"query_id", "query", "positive_passages": [{"docid", "text"}], "negative_passages": […]} a line.

    The optional `title` is not written: our texts hold theirs, and an empty one would put a space before the text.
    `score` beside `text` is what Tevatron's distillation reads.

    Source: Tevatron, `README.md`, "Data Preparation", and `src/tevatron/retriever/dataset.py`, `TrainDataset` and
    `DistilTrainDataset`.
    """

    def fields(passage: Passage) -> dict[str, Any]:
        return {"docid": passage.id, "text": passage.text} | _score(passage, settings)

    rows = (
        {
            "query_id": example.query_id,
            "query": example.query,
            "positive_passages": [fields(passage) for passage in example.positives],
            "negative_passages": [fields(passage) for passage in example.negatives],
        }
        for example in examples
    )
    return write_lines(path, rows)


def write_tevatron(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write `train.jsonl`, and `corpus.jsonl` with each passage that occurs in it, once.

        train.jsonl     {"query_id", "query_text", "positive_document_ids": [id], "negative_document_ids": [id]} a line
        corpus.jsonl    {"docid", "text"} a line

    Scores have no place: Tevatron reads them from the corpus, where a passage has one score for all queries.

    Source: Tevatron, `src/tevatron/retriever/dataset.py`, `TrainDataset`, what follows "Handling the new format".
    """
    seen: dict[str, int] = {}
    rows = 0
    with (
        whole_folder(path, replaces=False) as folder,
        atomic_write(folder / "train.jsonl") as train,
        atomic_write(folder / "corpus.jsonl") as corpus,
    ):
        for example in examples:
            row = {
                "query_id": example.query_id,
                "query_text": example.query,
                "positive_document_ids": [passage.id for passage in example.positives],
                "negative_document_ids": [passage.id for passage in example.negatives],
            }
            train.write(_json(row) + "\n")
            for passage in _unseen(example, seen):
                corpus.write(_json({"docid": passage.id, "text": passage.text}) + "\n")
            rows += 1
    return rows


def write_nemo(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write `train.json`, and the folder `corpus` with each passage that occurs in it, once.

        train.json                    {"corpus": [{"path": "./corpus"}], "data": [{"question_id", "question",
                                      "corpus_id", "pos_doc": [{"id"}], "neg_doc": [{"id"}]}]}
        corpus/merlin_metadata.json   {"class": "TextQADataset", "corpus_id", "query_instruction" if there is one}
        corpus/train.parquet          (id, text)

    The corpus has the name of the folder for its id, so that files of several folders can be trained on together.
    `score` beside `id` is what NeMo's own miner writes; its loader passes over it.

    Source: NeMo Automodel, `docs/guides/llm/retrieval-dataset.md`,
    `nemo_automodel/components/datasets/llm/retrieval_dataset.py`, `load_datasets` and `CorpusInfo`,
    `nemo_automodel/recipes/retrieval/mine_hard_negatives.py`, `_write_output`, and
    `examples/retrieval/data_utils/materialize_hf_retrieval_subset.py` for the names of the files.
    """
    import pyarrow as pa

    def fields(passage: Passage) -> dict[str, Any]:
        return {"id": passage.id} | _score(passage, settings)

    corpus_id = os.path.basename(os.path.abspath(path))
    metadata = {"class": "TextQADataset", "corpus_id": corpus_id}
    if settings.instruction:
        metadata["query_instruction"] = settings.instruction
    seen: dict[str, int] = {}
    rows = 0
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    # By its name, `datasets` takes train.parquet alone for data, not the metadata beside it.
    with (
        whole_folder(path, replaces=False) as folder,
        open_parquet(folder / "corpus" / "train.parquet", schema) as append,
        atomic_write(folder / "train.json") as train,
    ):
        write_json(folder / "corpus" / "merlin_metadata.json", metadata)
        train.write('{"corpus": [{"path": "./corpus"}], "data": [')
        for rows, example in enumerate(examples, start=1):
            row = {
                "question_id": example.query_id,
                "question": example.query,
                "corpus_id": corpus_id,
                "pos_doc": [fields(passage) for passage in example.positives],
                "neg_doc": [fields(passage) for passage in example.negatives],
            }
            train.write(("\n" if rows == 1 else ",\n") + _json(row))
            for passage in _unseen(example, seen):
                append({"id": passage.id, "text": passage.text})
        train.write("\n]}\n")
    return rows


def write_tuples(
    path: Path, names: list[str], groups: Iterable[tuple[str, list[Passage]]], settings: DialectSettings
) -> int:
    """Write a query and its passages as one column each, and `scores` if asked for."""
    import pyarrow as pa

    columns = dict.fromkeys(names, pa.string())
    if settings.scores:
        columns["scores"] = pa.list_(pa.float64())
    rows = (
        dict(zip(names, [query, *(passage.text for passage in group)], strict=True)) | {"scores": _scores(group)}
        for query, group in groups
    )
    return write_parquet(path, pa.schema(columns), rows)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line; return how many."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(_json(row) + "\n")
            count += 1
    return count


def _positive_first(examples: Iterable[Example]) -> Iterator[tuple[str, list[Passage]]]:
    """Yield each positive of a query, followed by all its negatives."""
    for example in examples:
        for positive in example.positives:
            yield example.query, [positive, *example.negatives]


def _unseen(example: Example, seen: dict[str, int]) -> Iterator[Passage]:
    """Yield the passages of an example whose ids are not in `seen`, and put them there with a hash of their texts.

    The texts themselves would be the whole corpus in memory.

    Raises:
        InputError: an id is seen with another text.
    """
    for passage in all_passages(example):
        text = hash(passage.text)
        if passage.id not in seen:
            seen[passage.id] = text
            yield passage
        elif seen[passage.id] != text:
            raise InputError(
                f'query "{example.query_id}": passage "{passage.id}" has another text than before',
                hint="give different passages different ids, for one data set at a time",
            )


def all_passages(example: Example) -> list[Passage]:
    """Return the positives of an example, then its negatives."""
    return [*example.positives, *example.negatives]


def _scores(passages: Iterable[Passage]) -> list[float | None]:
    return [rounded(passage.score) for passage in passages]


def _score(passage: Passage, settings: DialectSettings) -> dict[str, float | None]:
    """Return the field of a passage's score, if asked for."""
    return {"score": rounded(passage.score)} if settings.scores else {}


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
