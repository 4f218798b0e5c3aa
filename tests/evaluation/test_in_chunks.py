"""A collection scored by the chunks of its passages."""

import json
from pathlib import Path

import pytest

from embedsmith.errors import SettingsError
from embedsmith.evaluation.evaluate import evaluate
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.opening import build_student
from embedsmith.models.settings import ChunkSettings, StudentSettings

FILLER = "Find the passage that answers the question of the reader. "
CHUNK = ChunkSettings(chunk=True, chunk_tokens=16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Passages whose answers stand behind what the model reads of them."""
    said = [f"The cat sat on {n} red apple and {n * 7} blue plum." for n in range(8)]
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": "", "text": FILLER * 4 + text} for n, text in enumerate(said)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": f"q{n}", "text": text.lower()} for n, text in enumerate(said)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(8))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> str:
    student = StudentSettings(name=str(tiny_bert), query_max_tokens=32, passage_max_tokens=32)
    build_student(student, device="cpu").save(str(tmp_path / "model"))
    return str(tmp_path / "model")


def test_what_a_model_cuts_off_is_found_by_a_chunk(model, data, tmp_path):
    whole = evaluate(model, data, vectors=tmp_path / "vectors", progress=False)
    chunks = evaluate(model, data, vectors=tmp_path / "vectors", scoring=ScoringSettings(chunks=CHUNK), progress=False)
    first = ScoringSettings(chunks=CHUNK, chunk_score="first")
    of_first = evaluate(model, data, vectors=tmp_path / "vectors", scoring=first, progress=False)
    assert chunks.mean["ndcg@10"] > 0.9 > whole.mean["ndcg@10"]  # every beginning is the same
    assert of_first.mean["ndcg@10"] == pytest.approx(whole.mean["ndcg@10"])


def test_words_are_not_cut(data, tmp_path):
    with pytest.raises(SettingsError, match="bm25 is no embedding model"):
        evaluate("bm25", data, vectors=tmp_path, scoring=ScoringSettings(chunks=CHUNK), progress=False)


def test_a_way_to_score_chunks_needs_chunks():
    with pytest.raises(SettingsError, match="chunk_score is mean without chunk"):
        ScoringSettings.parse({"chunk_score": "mean"}, where="options")
