"""Training examples in the files that other training libraries read.

    jsonl, parquet                                              our own: ids, scores, teachers and ranks, all of it
    st-triplet, st-n-tuple, st-labeled-pair, st-labeled-list    sentence-transformers: a .parquet file
    flagembedding                                               FlagEmbedding: a .jsonl file
    tevatron-legacy                                             Tevatron, texts in the rows: a .jsonl file
    tevatron                                                    Tevatron, ids in the rows: a folder with a corpus
    nemo                                                        NeMo Automodel, ids in the rows: a folder with a corpus

Each is whole or absent. What a dialect cannot say is left out and counted, never filled up: an example without
negatives (a random passage is no hard negative), without a score where scores are asked for, or, in `st-n-tuple`, where
all rows have the same number of negatives, with fewer than that; and negatives beyond it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

from embedsmith.data.examples import (
    Example,
    Passage,
    iter_examples,
    rounded,
    writable,
    write_examples,
    write_examples_parquet,
)
from embedsmith.data.files import atomic_write, whole_folder, write_json
from embedsmith.data.parquet import open_parquet, write_parquet
from embedsmith.errors import InputError, SettingsError, did_you_mean
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


@dataclass(frozen=True)
class Written:
    """What became of the examples."""

    path: Path
    rows: int
    left_out: dict[str, int]
    """Examples that were left out, by reason."""
    negatives: int | None = None
    """Negatives of every row, where the dialect wants one number for all."""
    cut: int = 0
    """Negatives that were left out beyond that number, of examples that were written."""


@dataclass(frozen=True)
class Dialect:
    """A dialect, and what can be said in it."""

    write: Callable[[Path, Iterator[Example], DialectSettings], int]
    """Writes a file or a folder; returns the number of rows."""
    suffix: str = ""
    """How the file's name ends; empty: a folder."""
    scores: bool = True
    instruction: bool = False
    lone_positives: bool = False
    """Whether a query without negatives makes rows."""
    same_length: bool = False
    """Whether each row has the same number of negatives."""


def write_dialect(
    name: str, path: Path, examples: Iterable[Example], settings: DialectSettings | None = None
) -> Written:
    """Write examples in a dialect to a file, or to a folder that does not exist or is empty.

    Raises:
        SettingsError: there is no such dialect, or it cannot say what the settings ask for.
        InputError: an example that no file can hold, none is left to write, the folder is not empty, or, where there is
            a corpus, two passages have one id.
    """
    settings = settings or DialectSettings()
    dialect = _dialect(name, path, settings)
    if not dialect.same_length:
        return _written(dialect, path, examples, settings)
    with TemporaryDirectory() as scratch:
        # What can be read only once is read twice from a copy: the number is known when all have been seen.
        if iter(examples) is examples:
            copy = Path(scratch) / "examples.jsonl"
            write_examples(copy, writable(examples, path))
            examples = ExampleFile(copy)
        wanted = settings.negatives or _best_length(examples, settings)
        return _written(dialect, path, examples, settings.model_copy(update={"negatives": wanted}))


@dataclass(frozen=True)
class ExampleFile:
    """The examples of a file, which can be read again and again."""

    path: Path

    def __iter__(self) -> Iterator[Example]:
        return iter_examples(self.path)


def _best_length(examples: Iterable[Example], settings: DialectSettings) -> int:
    """Return the number of negatives with which most are written, where each row has as many; 0 where there are none.

    With one more negative in each row, rows that have fewer are left out.
    """
    rows: Counter[int] = Counter()
    for example in examples:
        usable = example.negatives
        if settings.scores:
            usable = list(takewhile(lambda passage: passage.score is not None, usable))
        rows[len(usable)] += len(example.positives)
    enough, best = 0, (0, 0)
    for length in sorted(rows, reverse=True):
        enough += rows[length]
        best = max(best, (length * enough, -length))  # with as many negatives rather more queries
    return -best[1]


def _written(dialect: Dialect, path: Path, examples: Iterable[Example], settings: DialectSettings) -> Written:
    """Write what can be said, and return what became of all."""
    left_out: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    rows = dialect.write(path, _usable(examples, path, dialect, settings, left_out, cut), settings)
    length = settings.negatives if dialect.same_length else None
    return Written(path, rows, dict(left_out), length, cut.total() if dialect.same_length else 0)


def _dialect(name: str, path: Path, settings: DialectSettings) -> Dialect:
    """Return the dialect of a name, which can say what the settings ask for."""
    if name not in DIALECTS:
        raise SettingsError(
            f'no dialect "{name}"{did_you_mean(name, DIALECTS)}', hint=f"dialects: {', '.join(DIALECTS)}"
        )
    dialect = DIALECTS[name]
    # FlagEmbedding skips a file of any other name without a word.
    if dialect.suffix and path.suffix != dialect.suffix:
        raise SettingsError(
            f'{path}: "{name}" is a {dialect.suffix} file', hint=f"write to {path.with_suffix(dialect.suffix)}"
        )
    for wish in ("scores", "instruction"):
        if getattr(settings, wish) and not getattr(dialect, wish):
            can = ", ".join(other for other, known in DIALECTS.items() if getattr(known, wish))
            raise SettingsError(f'"{name}" has no place for {wish}', hint=f"leave it unset, or choose from {can}")
    return dialect


def _usable(
    examples: Iterable[Example],
    path: Path,
    dialect: Dialect,
    settings: DialectSettings,
    left_out: Counter[str],
    cut: Counter[str],
) -> Iterator[Example]:
    """Yield the examples that make rows, with as many negatives as are wanted; count what is left out."""
    wanted, kept, most = settings.negatives, False, 0
    for example in writable(examples, path):
        has = len(example.negatives)
        most = max(most, has)
        if wanted is not None and has > wanted:
            example = replace(example, negatives=example.negatives[:wanted])
        if not has and not dialect.lone_positives:
            left_out["no negatives"] += 1
        elif dialect.same_length and has < (wanted or 0):
            left_out[f"fewer than {wanted} negatives"] += 1
        elif settings.scores and any(passage.score is None for passage in _passages(example)):
            left_out["a passage without a score"] += 1
        else:
            kept = True
            cut["negatives"] += has - len(example.negatives)
            yield example
    if not kept:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items()) or "there are none"
        hint = "mine negatives first: embedsmith mine DATA --out RUN"
        if most and wanted and most < wanted:
            hint = f"ask for {most} negatives: no query has more"
        elif most and settings.scores:
            hint = "write without scores, or mine with a teacher that scores all passages"
        raise InputError(f"{path}: no examples to write: {reasons}", hint=hint)


def _write_triplets(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, positive, negative), each positive with each negative; `scores` is [positive's, negative's].

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "triplet".
    """
    groups = (
        (example.query, [positive, negative])
        for example in examples
        for positive in example.positives
        for negative in example.negatives
    )
    return _write_tuples(path, ["anchor", "positive", "negative"], groups, settings)


def _write_n_tuples(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
    """Write (anchor, positive, negative_1, … negative_n), a row a positive; `scores` has n + 1, the positive's first.

    Source: sentence-transformers, `sentence_transformers/util/hard_negatives.py`, output_format "n-tuple".
    """
    first = next(examples)
    negatives = [f"negative_{number}" for number in range(1, len(first.negatives) + 1)]
    groups = _positive_first(chain([first], examples))
    return _write_tuples(path, ["anchor", "positive", *negatives], groups, settings)


def _write_labeled_pairs(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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


def _write_labeled_lists(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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


def _write_flagembedding(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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

    return _write_lines(path, map(row, examples))


def _write_tevatron_legacy(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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
    return _write_lines(path, rows)


def _write_tevatron(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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


def _write_nemo(path: Path, examples: Iterator[Example], settings: DialectSettings) -> int:
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


def _write_tuples(
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


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
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
    for passage in _passages(example):
        text = hash(passage.text)
        if passage.id not in seen:
            seen[passage.id] = text
            yield passage
        elif seen[passage.id] != text:
            raise InputError(
                f'query "{example.query_id}": passage "{passage.id}" has another text than before',
                hint="give different passages different ids, for one data set at a time",
            )


def _passages(example: Example) -> list[Passage]:
    return [*example.positives, *example.negatives]


def _scores(passages: Iterable[Passage]) -> list[float | None]:
    return [rounded(passage.score) for passage in passages]


def _score(passage: Passage, settings: DialectSettings) -> dict[str, float | None]:
    """Return the field of a passage's score, if asked for."""
    return {"score": rounded(passage.score)} if settings.scores else {}


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


DIALECTS: dict[str, Dialect] = {
    "jsonl": Dialect(lambda path, examples, _: write_examples(path, examples), ".jsonl", lone_positives=True),
    "parquet": Dialect(
        lambda path, examples, _: write_examples_parquet(path, examples), ".parquet", lone_positives=True
    ),
    "st-triplet": Dialect(_write_triplets, ".parquet"),
    "st-n-tuple": Dialect(_write_n_tuples, ".parquet", same_length=True),
    "st-labeled-pair": Dialect(_write_labeled_pairs, ".parquet", lone_positives=True),
    "st-labeled-list": Dialect(_write_labeled_lists, ".parquet"),
    "flagembedding": Dialect(_write_flagembedding, ".jsonl", instruction=True),
    "tevatron-legacy": Dialect(_write_tevatron_legacy, ".jsonl"),
    "tevatron": Dialect(_write_tevatron, scores=False),
    "nemo": Dialect(_write_nemo, instruction=True),
}
"""The dialects by name."""
