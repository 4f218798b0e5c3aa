"""Dialects: what is written is what the other libraries make of the same mining, and what they train on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

from embedsmith.data.examples import Example, Passage
from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import DIALECTS, write_dialect

EXAMPLES = [
    Example(
        query_id="q1",
        query="where is the parser?",
        positives=[Passage("d1", "def parse(): …", 0.75), Passage("d2", "🙂\nparse", 0.7)],
        negatives=[Passage("d3", "a log", 0.5, "bm25", 3), Passage("d4", "a cat", -0.25, "bm25", 7)],
    ),
    Example("q2", "a tie", [Passage("d3", "a log", 0.5)], [Passage("d1", "def parse(): …", 0.25, "bm25", 1)], "short"),
    Example("q3", "nothing to contrast", [Passage("d4", "a cat", 1.0)], [], "none"),
    Example(
        query_id="q4",
        query='"quoted", \\ and a\u2028separator',
        positives=[Passage("d5", "where\tis it?", 0.9)],
        negatives=[Passage("d3", "a log", 0.125, "bm25", 1), Passage("d2", "🙂\nparse", 0.0625, "bm25", 2)],
    ),
]
PARQUET = [name for name, dialect in DIALECTS.items() if dialect.suffix == ".parquet"]
WITH_SCORES = [(name, scores) for name, dialect in DIALECTS.items() for scores in sorted({False, dialect.scores})]

ERRORS = [
    ([Example("q", "q", [], [Passage("d", "d")])], r"example 1 \(query \'q\'\): no positives"),
    (
        [*EXAMPLES, Example("q5", "q", [Passage("d", "half \ud83d")], [Passage("e", "e")])],
        r"example 5 \(query 'q5'\): half of a surrogate pair",
    ),
    (
        [*EXAMPLES, Example("q5", "q", [Passage("d", "d")], [Passage("e", "e", float("nan"))])],
        r"example 5 \(query 'q5'\): the score of passage 'e' is nan",
    ),
]


def place(tmp_path: Path, name: str) -> Path:
    """Return where a dialect is written to."""
    return tmp_path / "written" / f"{name}{DIALECTS[name].suffix}"


def parquet(path: Path) -> datasets.Dataset:
    """Return a Parquet file as `datasets` reads it."""
    return datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(path.parent.parent / "cache")
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


# sentence-transformers


@pytest.fixture(scope="module")
def mined(tiny_bert) -> Callable[..., datasets.Dataset]:
    """Mine with sentence-transformers itself; the margin leaves some queries with fewer than 3 negatives."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    words = ["apple", "banana", "cat", "dog", "file", "list", "log", "mat", "number", "parser", "pear", "plum"]
    pairs = [
        (f"find the {word}", f"the {word} sat on the {other}") for word, other in zip(words, words[3:], strict=False)
    ]
    pairs += [("find the cat", "a cat, not a dog"), ("find the log", "read the log of the file")]
    model = SentenceTransformer(str(tiny_bert), device="cpu")

    def mine(document: str, **options) -> datasets.Dataset:
        pairs_set = datasets.Dataset.from_dict(
            {"anchor": [query for query, _ in pairs], document: [positive for _, positive in pairs]}
        )
        return mine_hard_negatives(
            pairs_set, model, num_negatives=3, range_max=8, absolute_margin=0.0, verbose=False, **options
        )

    return mine


@pytest.fixture(scope="module")
def same_mining(mined) -> list[Example]:
    """The outcome of that mining as examples."""
    scored = mined("document", output_format="labeled-pair", output_scores=True)
    labeled = mined("document", output_format="labeled-pair")
    found: dict[str, tuple[list[Passage], list[Passage]]] = {}
    for row, label in zip(scored, labeled["label"], strict=True):
        passages = found.setdefault(row["anchor"], ([], []))[0 if label else 1]
        passages.append(Passage(row["document"], row["document"], row["score"]))
    return [
        Example(query, query, positives, negatives, "full" if len(negatives) == 3 else "short" if negatives else "none")
        for query, (positives, negatives) in found.items()
    ]


def test_the_mining_to_compare_with_has_every_kind_of_query(same_mining):
    assert {example.outcome for example in same_mining} == {"full", "short", "none"}
    assert {len(example.positives) for example in same_mining} == {1, 2}


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("st-triplet", "positive"),
        ("st-n-tuple", "positive"),
        ("st-labeled-pair", "document"),
        ("st-labeled-list", "documents"),
    ],
)
def test_the_rows_are_those_that_sentence_transformers_makes(tmp_path, mined, same_mining, name, document, scores):
    theirs = mined(document, output_format=name.removeprefix("st-"), output_scores=scores)
    settings = DialectSettings(scores=scores, negatives=3)
    written = write_dialect(name, place(tmp_path, name), same_mining, settings)
    ours = parquet(written.path)
    assert ours.features == theirs.features
    assert ours.column_names == theirs.column_names
    assert written.rows == len(ours) == len(theirs)
    for our_row, their_row in zip(ours, theirs, strict=True):
        for column, value in their_row.items():
            if column in ("score", "scores"):
                assert our_row[column] == pytest.approx(value, abs=1e-6)
            else:
                assert our_row[column] == value


@pytest.mark.parametrize(
    ("name", "scores", "loss"),
    [
        ("st-triplet", False, "MultipleNegativesRankingLoss"),
        ("st-triplet", True, "MarginMSELoss"),
        ("st-n-tuple", False, "MultipleNegativesRankingLoss"),
        ("st-n-tuple", True, "MarginMSELoss"),
        ("st-labeled-pair", False, "ContrastiveLoss"),
        ("st-labeled-pair", True, "CoSENTLoss"),
    ],
)
def test_sentence_transformers_trains_on_it(tmp_path, tiny_bert, name, scores, loss):
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses

    written = write_dialect(name, place(tmp_path, name), EXAMPLES, DialectSettings(scores=scores))
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments(tmp_path)),
        train_dataset=parquet(written.path),
        loss=getattr(losses, loss)(model),
    )
    assert moved(trainer, model)


@pytest.mark.parametrize("scores", [False, True])
def test_a_cross_encoder_trains_on_labeled_lists(tmp_path, tiny_bert, scores):
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import LambdaLoss

    name = "st-labeled-list"
    written = write_dialect(name, place(tmp_path, name), EXAMPLES, DialectSettings(scores=scores))
    model = CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**arguments(tmp_path)),
        train_dataset=parquet(written.path),
        loss=LambdaLoss(model),
    )
    assert moved(trainer, model)


def arguments(tmp_path: Path) -> dict:
    return {
        "output_dir": str(tmp_path / "run"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "warmup_steps": 0,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def moved(trainer, model: torch.nn.Module) -> bool:
    """Return whether a step of training has a finite loss and changes the weights."""
    before = torch.cat([weight.detach().clone().flatten() for weight in model.parameters()])
    loss = trainer.train().training_loss
    after = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return bool(loss == loss and loss < float("inf") and after.isfinite().all() and not torch.equal(before, after))


def of_lengths(outcomes: list[tuple[str, int]]) -> list[Example]:
    """Return examples with so many negatives each."""
    return [
        Example(
            f"q{number}",
            f"query {number}",
            [Passage("d", "p", 1.0)],
            [Passage(f"n{n}", f"negative {n}", 0.5) for n in range(count)],
            outcome,
        )
        for number, (outcome, count) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "length", "left_out", "cut"),
    [
        ([("filled", 4)] * 5, 4, 0, 0),
        ([("filled", 4), ("full", 4), ("filled", 4)], 4, 0, 0),
        ([("short", 3)] * 5, 3, 0, 0),
        ([("short", 1), ("full", 4), ("full", 4), ("filled", 4)], 4, 1, 0),
        ([("full", 4), *[("short", 3)] * 5], 3, 0, 1),
        ([("full", 6), ("full", 5), ("full", 5)], 5, 0, 1),
        ([("full", 1), *[("full", 10)] * 5], 10, 1, 0),
        ([("filled", 4), ("none", 0), ("short", 2)], 2, 0, 2),
        ([("full", 2), ("full", 1)], 1, 0, 1),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_n_tuple_is_as_long_as_writes_most_negatives(tmp_path, outcomes, length, left_out, cut, is_stream):
    examples = of_lengths(outcomes)
    path = place(tmp_path, "st-n-tuple")
    written = write_dialect("st-n-tuple", path, iter(examples) if is_stream else examples)
    lone = sum(count == 0 for _, count in outcomes)
    kept = [example for example in examples if len(example.negatives) >= length]
    assert written.negatives == length
    assert written.left_out.get(f"fewer than {length} negatives", 0) == left_out
    assert written.left_out.get("no negatives", 0) == lone
    assert written.rows + left_out + lone == len(examples)
    assert written.cut == cut == sum(len(example.negatives) - length for example in kept)
    assert [list(row.values()) for row in parquet(path)] == [
        [example.query, "p", *(f"negative {n}" for n in range(length))] for example in kept
    ]
    # No other number writes more negatives.
    for other in range(1, 11):
        assert other * sum(len(example.negatives) >= other for example in examples) <= length * len(kept)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("negatives", [None, 1, 3])
@pytest.mark.parametrize("outcome", ["filled", "short", "full", "none"])
def test_every_example_is_written_or_told(tmp_path, name, negatives, outcome):
    examples = of_lengths([(outcome if count else "none", count) for count in (0, 2, 4, 4, 1, 3, 4)])
    written = write_dialect(name, place(tmp_path, name), examples, DialectSettings(negatives=negatives))
    path = written.path
    if name in ("tevatron", "nemo"):
        file = path / ("train.jsonl" if name == "tevatron" else "train.json")
        rows = lines(file) if name == "tevatron" else json.loads(file.read_text())["data"]
        queries = [row["query_id" if name == "tevatron" else "question_id"] for row in rows]
    else:
        rows = lines(path) if path.suffix == ".jsonl" else list(parquet(path))
        queries = [row.get("query_id") or row.get("anchor") or row["query"] for row in rows]
    assert len(rows) == written.rows
    assert len(set(queries)) + sum(written.left_out.values()) == len(examples)


def test_an_n_tuple_with_scores_does_without_the_random_passages_that_filled_up(tmp_path):
    filled = [
        replace(example, negatives=[*example.negatives, Passage("r", "random", None, "random passage")])
        for example in of_lengths([("filled", 3)] * 2)
    ]
    path = place(tmp_path, "st-n-tuple")
    written = write_dialect("st-n-tuple", path, filled, DialectSettings(scores=True))
    assert (written.rows, written.negatives, written.cut, written.left_out) == (2, 3, 2, {})


def test_who_asks_for_more_negatives_than_there_are_is_told_how_many_there_are(tmp_path):
    with pytest.raises(InputError, match="no examples to write: 5 with fewer than 5 negatives") as caught:
        write_dialect(
            "st-n-tuple", place(tmp_path, "st-n-tuple"), of_lengths([("filled", 4)] * 5), DialectSettings(negatives=5)
        )
    assert caught.value.hint == "ask for 4 negatives: no query has more"


def test_an_n_tuple_of_a_chosen_length_takes_the_first_negatives(tmp_path):
    path = place(tmp_path, "st-n-tuple")
    written = write_dialect("st-n-tuple", path, EXAMPLES, DialectSettings(negatives=1, scores=True))
    assert list(parquet(path))[-2:] == [
        {"anchor": "a tie", "positive": "a log", "negative_1": "def parse(): …", "scores": [0.5, 0.25]},
        {"anchor": EXAMPLES[3].query, "positive": "where\tis it?", "negative_1": "a log", "scores": [0.9, 0.125]},
    ]
    assert (written.rows, written.left_out) == (4, {"no negatives": 1})


# FlagEmbedding


def test_flagembedding_lines_have_the_documented_fields(tmp_path):
    path = place(tmp_path, "flagembedding")
    write_dialect("flagembedding", path, EXAMPLES)
    first = {"query": "where is the parser?", "pos": ["def parse(): …", "🙂\nparse"], "neg": ["a log", "a cat"]}
    assert lines(path)[0] == first
    write_dialect("flagembedding", path, EXAMPLES, DialectSettings(scores=True, instruction="Find it: ", negatives=1))
    assert lines(path)[0] == first | {
        "neg": ["a log"],
        "pos_scores": [0.75, 0.7],
        "neg_scores": [0.5],
        "prompt": "Find it: ",
    }


# Tevatron


@pytest.mark.parametrize("scores", [False, True])
def test_tevatron_legacy_rows_have_what_its_data_set_reads(tmp_path, scores):
    path = place(tmp_path, "tevatron-legacy")
    write_dialect("tevatron-legacy", path, EXAMPLES, DialectSettings(scores=scores))
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["query_id", "query", "positive_passages", "negative_passages"]
    for row, example in zip(rows, [EXAMPLES[0], EXAMPLES[1], EXAMPLES[3]], strict=True):
        assert (row["query_id"], row["query"]) == (example.query_id, example.query)
        for key, passages in (("positive_passages", example.positives), ("negative_passages", example.negatives)):
            # TrainDataset puts "title" and a space before the text wherever there is a title, be it empty.
            assert all("title" not in passage for passage in row[key])
            assert [(passage["docid"], passage["text"]) for passage in row[key]] == [
                (passage.id, passage.text) for passage in passages
            ]
            if scores:
                assert [passage["score"] for passage in row[key]] == [passage.score for passage in passages]
            else:
                assert all("score" not in passage for passage in row[key])


def test_tevatron_ids_lead_to_the_texts_of_the_corpus(tmp_path):
    folder = place(tmp_path, "tevatron")
    assert write_dialect("tevatron", folder, EXAMPLES).rows == 3
    train, corpus = (
        datasets.load_dataset("json", data_files=str(folder / name), split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("train.jsonl", "corpus.jsonl")
    )
    assert train.column_names == ["query_id", "query_text", "positive_document_ids", "negative_document_ids"]
    assert corpus.column_names == ["docid", "text"]
    # As TrainDataset maps them.
    index = {docid: number for number, docid in enumerate(corpus["docid"])}
    assert len(index) == len(corpus) == 5
    for row, example in zip(train, [EXAMPLES[0], EXAMPLES[1], EXAMPLES[3]], strict=True):
        assert (row["query_id"], row["query_text"]) == (example.query_id, example.query)
        for key, passages in (
            ("positive_document_ids", example.positives),
            ("negative_document_ids", example.negatives),
        ):
            assert [corpus[index[docid]]["text"] for docid in row[key]] == [passage.text for passage in passages]


# NeMo Automodel


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("folder_name", ["nemo", "test-run.1"])
def test_nemo_ids_lead_to_the_texts_of_the_corpus(tmp_path, scores, folder_name):
    folder = tmp_path / folder_name
    settings = DialectSettings(scores=scores, instruction="Find it: ")
    assert write_dialect("nemo", folder, EXAMPLES, settings).rows == 3
    train = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    # As load_datasets resolves it.
    corpus_folder = os.path.normpath(folder / train["corpus"][0]["path"])
    metadata = json.loads(Path(corpus_folder, "merlin_metadata.json").read_text())
    assert metadata == {"class": "TextQADataset", "corpus_id": folder_name, "query_instruction": "Find it: "}
    # As TextQADataset opens it.
    corpus = datasets.load_dataset(corpus_folder, cache_dir=str(tmp_path / "cache"))["train"]
    assert corpus.column_names == ["id", "text"]
    texts = dict(zip(corpus["id"], corpus["text"], strict=True))
    assert len(texts) == len(corpus) == 5
    for row, example in zip(train["data"], [EXAMPLES[0], EXAMPLES[1], EXAMPLES[3]], strict=True):
        assert list(row) == ["question_id", "question", "corpus_id", "pos_doc", "neg_doc"]
        assert (row["question_id"], row["question"]) == (example.query_id, example.query)
        assert row["corpus_id"] == metadata["corpus_id"]
        for key, passages in (("pos_doc", example.positives), ("neg_doc", example.negatives)):
            assert [texts[document["id"]] for document in row[key]] == [passage.text for passage in passages]
            assert [document.get("score") for document in row[key]] == [
                passage.score if scores else None for passage in passages
            ]


@pytest.mark.parametrize("name", ["tevatron", "nemo"])
def test_two_passages_of_one_id_are_refused(tmp_path, name):
    clash = Example("q9", "q", [Passage("d1", "another text", 0.5)], [Passage("d2", "🙂\nparse", 0.25)])
    with pytest.raises(InputError, match='query "q9": passage "d1" has another text than before'):
        write_dialect(name, place(tmp_path, name), [*EXAMPLES, clash])
    assert list((tmp_path / "written").iterdir()) == []


# All of them


@pytest.mark.parametrize(("name", "scores"), WITH_SCORES)
def test_a_passage_without_a_score_leaves_its_query_out_where_scores_are_asked_for(tmp_path, name, scores):
    unscored = Example("q5", "unscored", [Passage("d6", "p", None)], EXAMPLES[0].negatives)
    written = write_dialect(name, place(tmp_path, name), [*EXAMPLES, unscored], DialectSettings(scores=scores))
    assert written.left_out.get("a passage without a score", 0) == int(scores)


@pytest.mark.parametrize(("name", "scores"), WITH_SCORES)
def test_the_same_examples_make_the_same_bytes(tmp_path, name, scores):
    files = []
    for run in ("first", "second"):
        path = place(tmp_path / run, name)
        write_dialect(name, path, EXAMPLES, DialectSettings(scores=scores))
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        files.append([file.read_bytes() for file in found])
    assert files[0] == files[1]


@pytest.mark.parametrize("name", DIALECTS)
def test_examples_are_read_once_and_one_at_a_time(tmp_path, name):
    alive = 0
    most = 0

    class Counted(Example):
        __slots__ = ()

        def __init__(self, number: int):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            super().__init__(f"q{number}", f"query {number}", EXAMPLES[0].positives, EXAMPLES[0].negatives)

        def __del__(self):
            nonlocal alive
            alive -= 1

    written = write_dialect(name, place(tmp_path, name), (Counted(number) for number in range(2500)))
    assert written.rows >= 2500
    assert most <= 4


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, name, error):
    def interrupted():
        yield from EXAMPLES * 600
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_dialect(name, place(tmp_path, name), interrupted())
    assert list(tmp_path.glob("written/*")) == []


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(("examples", "message"), ERRORS)
def test_an_example_that_no_file_can_hold_is_named(tmp_path, name, examples, message):
    with pytest.raises(InputError, match=message):
        write_dialect(name, place(tmp_path, name), examples)
    assert not place(tmp_path, name).exists()


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if not dialect.lone_positives])
def test_when_nothing_is_left_to_write_the_reasons_are_told(tmp_path, name):
    with pytest.raises(InputError, match="no examples to write: 2 with no negatives"):
        write_dialect(name, place(tmp_path, name), [EXAMPLES[2]] * 2)
    with pytest.raises(InputError, match="no examples to write: there are none"):
        write_dialect(name, place(tmp_path, name), [])
    assert not place(tmp_path, name).exists()


def test_an_unknown_dialect_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(SettingsError, match=r'no dialect "st-triplets" \(did you mean "st-triplet"\?\)') as caught:
        write_dialect("st-triplets", tmp_path / "x.parquet", EXAMPLES)
    assert caught.value.hint == f"dialects: {', '.join(DIALECTS)}"


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if dialect.suffix])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match=rf'x\.txt: "{name}" is a {DIALECTS[name].suffix} file'):
        write_dialect(name, tmp_path / "x.txt", EXAMPLES)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tevatron", DialectSettings(scores=True), '"tevatron" has no place for scores'),
        ("st-triplet", DialectSettings(instruction="Find it"), '"st-triplet" has no place for instruction'),
    ],
)
def test_what_a_dialect_cannot_say_is_refused(tmp_path, name, settings, message):
    with pytest.raises(SettingsError, match=message):
        write_dialect(name, place(tmp_path, name), EXAMPLES, settings)


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if not dialect.suffix])
def test_a_folder_that_holds_something_is_not_touched(tmp_path, name):
    folder = place(tmp_path, name)
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_dialect(name, folder, EXAMPLES)
    assert [file.name for file in folder.iterdir()] == ["note.txt"]
    (folder / "note.txt").unlink()
    assert write_dialect(name, folder, EXAMPLES).rows == 3
