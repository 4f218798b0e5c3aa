"""Scores of open models and of data in memory are those of their names and files; results print as tables."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from sentence_transformers import SentenceTransformer

import embedsmith
from embedsmith.data.files import write_jsonl
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.settings import ScoringSettings

ROWS = [{"query": f"where is the {a}", "positive": f"the {a} sat on the mat"} for a in ("cat", "dog", "owl", "bat")]
STS = [{"sentence1": "a cat", "sentence2": f"a cat and {'a dog ' * n}", "score": float(5 - n)} for n in range(5)]


@pytest.fixture(autouse=True)
def no_vectors_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def in_all_forms(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Return rows as a file, a list, a data set, and one split of two."""
    write_jsonl(folder / "test.jsonl", rows)
    data = datasets.Dataset.from_list(rows)
    other = datasets.Dataset.from_list(rows[:2])
    return {
        "file": folder / "test.jsonl",
        "list": rows,
        "dataset": data,
        "splits": datasets.DatasetDict({"train": other, "test": data}),
    }


def test_pairs_in_memory_score_as_those_of_a_file_do(tiny_bert: Path, tmp_path: Path):
    for model in ("bm25", tiny_bert):
        found = {name: embedsmith.evaluate(model, data) for name, data in in_all_forms(ROWS, tmp_path).items()}
        assert len({json.dumps(one.mean) for one in found.values()}) == 1
        assert len(found["splits"].per_query) == len(ROWS)
        assert found["file"].per_query == found["dataset"].per_query


def test_labelled_rows_in_memory_score_as_those_of_a_file_do(tiny_bert: Path, tmp_path: Path):
    pytest.importorskip("mteb")
    found = [embedsmith.evaluate(tiny_bert, data).mean for data in in_all_forms(STS, tmp_path).values()]
    assert "cosine_spearman" in found[0]
    assert all(one == found[0] for one in found)


def test_a_split_in_memory_may_be_chosen(tmp_path: Path):
    splits = in_all_forms(ROWS, tmp_path)["splits"]
    assert len(embedsmith.evaluate("bm25", splits, split="train").per_query) == 2
    with pytest.raises(InputError, match=r'dataset: no split "tset" \(did you mean "test"\?\)'):
        embedsmith.evaluate("bm25", splits, split="tset")


def test_an_open_model_scores_as_its_folder_does_and_stays_as_it_was(tiny_bert: Path):
    by_name = embedsmith.evaluate(tiny_bert, ROWS, dtype="float32")
    model = SentenceTransformer(str(tiny_bert), device="cpu").train()
    assert embedsmith.evaluate(model, ROWS).per_query == by_name.per_query
    assert type(model) is SentenceTransformer
    assert model.training
    with pytest.raises(SettingsError, match="an open model is used as it stands"):
        embedsmith.evaluate(model, ROWS, dtype="bfloat16")


@pytest.mark.parametrize("wrong", [3, {"query": "a", "positive": "b"}, b"pairs"])
def test_other_data_is_refused(wrong):
    with pytest.raises(TypeError, match=r"dataset: .*wanted a path, a datasets.Dataset, or a list of dicts"):
        embedsmith.evaluate("bm25", wrong)


def test_another_model_is_refused():
    with pytest.raises(TypeError, match="model: int, wanted a name or an open SentenceTransformer"):
        embedsmith.evaluate(3, ROWS)


def test_what_is_left_out_is_logged(caplog):
    caplog.set_level("INFO", "embedsmith")
    embedsmith.evaluate("bm25", [*ROWS, {"query": "", "positive": "x"}], scoring=ScoringSettings(skip_bad=True))
    assert "1 row" in caplog.text


def test_results_print_as_tables(tmp_path: Path):
    scores = embedsmith.evaluate("bm25", ROWS, scoring=ScoringSettings(metrics=["ndcg@10", "mrr@10"]))
    assert str(scores).splitlines()[0] == "Scores, 4 queries"
    assert [line.split()[0] for line in str(scores).splitlines()[2:]] == ["ndcg@10", "mrr@10"]
    assert "<th>ndcg@10</th>" in scores._repr_html_()
