"""What other libraries' own loading code makes of the files that are written for them.

The libraries are installed by hand, without what they depend on: pip install --no-deps FlagEmbedding tevatron
nemo-automodel pillow. Tevatron of PyPI reads `tevatron-legacy`; the one of its repository reads `tevatron` too.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedsmith.data.examples import Example, Passage
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import write_dialect

TEXTS = {
    "1": "a cat",
    "0012": "zwei\nZeilen",
    "2020-01-01": "2021-02-03",
    "d/4 ü": 'quoted "text", with a comma \\',
    "null": "null",
    "d6": "🙂\u2028 tab\there ",
    "1e5": "{'text': 1}",
}


def passage(name: str, score: float) -> Passage:
    return Passage(name, TEXTS[name], score)


EXAMPLES = [
    Example("2020-01-01", "2020-01-01", [passage("1", 0.75), passage("0012", 0.7)], [passage("2020-01-01", 0.5)]),
    Example("7", "line\nbreak", [passage("2020-01-01", 0.5)], [passage("d/4 ü", 0.25), passage("null", 0.125)]),
    Example("q3", "none", [passage("1", 1.0)], [], "none"),
    Example("1e5", "[1, 2]", [passage("d6", 1.0)], [passage(name, 0.5) for name in ("1", "0012", "null", "1e5")]),
]
READABLE = [example for example in EXAMPLES if example.negatives]
GROUP = 4
"""Passages of a query, of which one is positive: some examples have fewer negatives, and one has as many."""
INSTRUCTION = "Find it: "


def check(query: str, passages: list[str], example: Example) -> None:
    """Assert that a row is a positive of an example and negatives of it."""
    assert query == example.query
    assert len(passages) == GROUP
    assert passages[0] in {positive.text for positive in example.positives}
    assert set(passages[1:]) <= {negative.text for negative in example.negatives}


@pytest.fixture
def tokenizer(tiny_bert) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_bert)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


# --- FlagEmbedding ----------------------------------------------------------------------------------------------------


@pytest.fixture
def flag_embedding() -> Any:
    return pytest.importorskip(
        "FlagEmbedding.abc.finetune.embedder", reason="needs pip install --no-deps FlagEmbedding"
    )


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("instruction", ["", INSTRUCTION])
@pytest.mark.parametrize("whole_batches", [False, True])
def test_flagembedding_reads_what_is_written(tmp_path, flag_embedding, tokenizer, scores, instruction, whole_batches):
    settings = DialectSettings(scores=scores, instruction=instruction)
    path = tmp_path / "train.jsonl"
    write_dialect("flagembedding", path, EXAMPLES, settings)
    arguments = flag_embedding.AbsEmbedderDataArguments(
        train_data=[str(path)],
        train_group_size=GROUP,
        knowledge_distillation=scores,
        query_instruction_for_retrieval="replaced" if instruction else None,
        query_instruction_format="{}{}",
        cache_path=str(tmp_path / "cache"),
        same_dataset_within_batch=whole_batches,
        small_threshold=0,
        drop_threshold=0,
    )
    if whole_batches:
        data = flag_embedding.AbsEmbedderSameDatasetTrainDataset(arguments, 1, 0, tokenizer)
        rows = []
        for number in range(len(data)):
            queries, passages, found, _ = data[number]
            rows.append((queries[0], passages, found))
    else:
        data = flag_embedding.AbsEmbedderTrainDataset(arguments, tokenizer)
        rows = [data[number] for number in range(len(data))]
        batch = flag_embedding.AbsEmbedderCollator(tokenizer)(rows[:2])
        assert batch["queries"]["input_ids"].shape[0] == 2
        assert batch["passages"]["input_ids"].shape[0] == 2 * GROUP
    assert len(rows) == len(READABLE)
    by_query = {example.query: example for example in READABLE}
    for query, passages, found in rows:
        example = by_query.pop(query.removeprefix(instruction if not whole_batches else instruction or "None"))
        check(example.query, passages, example)
        if scores:
            known = {item.text: item.score for item in [*example.negatives, *example.positives]}
            assert list(found) == [known[text] for text in passages]


# --- Tevatron ---------------------------------------------------------------------------------------------------------


def test_tevatron_of_pypi_reads_what_is_written(tmp_path, tokenizer):
    module = pytest.importorskip("tevatron.datasets.dataset", reason="needs pip install --no-deps tevatron")
    path = tmp_path / "train.jsonl"
    write_dialect("tevatron-legacy", path, EXAMPLES)
    arguments = SimpleNamespace(
        train_path=[str(path)],
        dataset_name="json",
        dataset_language="default",
        dataset_split="train",
        q_max_len=32,
        p_max_len=64,
        dataset_proc_num=1,
        train_n_passages=GROUP,
        passage_field_separator=" ",
        positive_passage_no_shuffle=False,
        negative_passage_no_shuffle=False,
    )
    loaded = module.HFTrainDataset(tokenizer, arguments, str(tmp_path / "cache"))
    from tevatron.datasets.preprocessor import TrainPreProcessor

    loaded.preprocessor = TrainPreProcessor
    rows = loaded.process()
    assert len(rows) == len(READABLE)
    plain = lambda text: decoded(tokenizer, tokenizer.encode(text))  # noqa: E731
    for row, example in zip(rows, READABLE, strict=True):
        assert decoded(tokenizer, row["query"]) == plain(example.query)
        assert [decoded(tokenizer, ids) for ids in row["positives"]] == [plain(p.text) for p in example.positives]
        assert [decoded(tokenizer, ids) for ids in row["negatives"]] == [plain(p.text) for p in example.negatives]


@pytest.mark.parametrize("dialect", ["tevatron", "tevatron-legacy"])
def test_tevatron_of_its_repository_reads_what_is_written(tmp_path, dialect):
    module = pytest.importorskip("tevatron.retriever.dataset", reason="needs Tevatron's repository")
    path = tmp_path / ("data" if dialect == "tevatron" else "train.jsonl")
    write_dialect(dialect, path, EXAMPLES)
    arguments = SimpleNamespace(
        dataset_name="json",
        dataset_config=None,
        dataset_path=str(path / "train.jsonl" if dialect == "tevatron" else path),
        dataset_split="train",
        dataset_cache_dir=str(tmp_path / "cache"),
        num_proc=None,
        corpus_name="json" if dialect == "tevatron" else None,
        corpus_config=None,
        corpus_path=str(path / "corpus.jsonl"),
        corpus_split="train",
        assets_path=None,
        train_group_size=GROUP,
        query_prefix="",
        passage_prefix="",
        encode_text=True,
        encode_image=False,
        encode_video=False,
        encode_audio=False,
    )
    trainer = SimpleNamespace(state=SimpleNamespace(epoch=0.0), args=SimpleNamespace(seed=0))
    data = module.TrainDataset(arguments, trainer)
    assert len(data) == len(READABLE)
    for number, example in enumerate(READABLE):
        query, passages = data[number]
        check(query[0], [item[0] for item in passages], example)


# --- NeMo Automodel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["bi_encoder", "cross_encoder"])
@pytest.mark.parametrize("instruction", ["", INSTRUCTION])
def test_nemo_automodel_reads_what_is_written(tmp_path: Path, monkeypatch, model_type, instruction):
    name = "nemo_automodel.components.datasets.llm.retrieval_dataset"
    module = pytest.importorskip(name, reason="needs pip install --no-deps nemo-automodel pillow")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_dialect("nemo", tmp_path / "written data", EXAMPLES, DialectSettings(instruction=instruction, scores=True))
    data = module.make_retrieval_dataset(
        str(tmp_path / "written data" / "train.json"),
        model_type=model_type,
        n_passages=GROUP,
        use_dataset_instruction=bool(instruction),
    )
    assert len(data) == len(READABLE)
    batch = data[:]
    for number, example in enumerate(READABLE):
        if model_type == "bi_encoder":
            check(batch["question"][number], batch["doc_text"][number], example)
            assert batch["query_instruction"][number] == instruction
        else:
            own = slice(number * GROUP, (number + 1) * GROUP)
            assert set(batch["question"][own]) == {example.query}
            check(example.query, batch["doc_text"][own], example)
