"""Evaluating: models, baselines and run files, on BEIR folders and pairs, and what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest

import embedsmith
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.evaluate import evaluate_into
from embedsmith.evaluation.scoring import score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.vectors.cache import user_cache

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
PLACES = ["mat", "log", "tree"]
THINGS = [(animal, place) for animal in ANIMALS for place in PLACES]


@pytest.fixture(scope="module")
def beir(tmp_path_factory) -> Path:
    """24 passages, 8 test queries with graded judgements, one judged query without a relevant passage."""
    folder = tmp_path_factory.mktemp("beir") / "animals"
    ids = [f"p{row}" for row in range(len(THINGS))]
    collection = Collection.of(
        name="animals",
        passage_ids=ids,
        passages=[f"the {animal} sat on the {place} and read the file" for animal, place in THINGS],
        query_ids=[f"q{n}" for n in range(8)],
        queries=[f"where is the {animal} of the mat" for animal in ANIMALS],
        qrels={f"q{n}": {ids[3 * n]: 2, ids[3 * n + 1]: 1, ids[3 * n + 2]: 0} for n in range(8)},
    )
    write_beir(folder, {"test": collection, "dev": collection})
    with open(folder / "queries.jsonl", "a") as file:
        file.write('{"_id": "q9", "text": "nothing answers this"}\n')
    with open(folder / "qrels" / "test.tsv", "a") as file:
        file.write("q9\tp0\t0\nq9\tp1\t0\n")
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory, tiny_bert: Path) -> Path:
    """A random cross-encoder with the tokenizer of the tiny encoder."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross-encoder")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, num_labels=1)).save_pretrained(folder)
    return folder


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_can_be_checked_and_scored_again(beir: Path, tiny_bert: Path, tmp_path: Path):
    out, notes = tmp_path / "out", []
    contender = Contender(str(tiny_bert), reading=TeacherSettings(dtype="float32"), vectors=tmp_path / "vectors")
    evaluate_into(out, contender, [str(beir)], ScoringSettings(), command="embedsmith evaluate …", on_skip=notes.append)
    board = read_scores(out)
    score_of_model = board.scores[str(beir)]["model"]
    scores = score_of_model.metrics
    assert (board.command, score_of_model.model) == ("embedsmith evaluate …", str(tiny_bert))
    assert score_of_model.model_hash == contender.fingerprint
    assert board.versions.keys() >= {"embedsmith", "torch", "ir-measures", "pytrec-eval-terrier"}
    about = board.data[str(beir)]
    assert (about.path, about.task, about.split, about.passages) == (str(beir), "retrieval", "test", 24)
    assert (about.queries, about.left_out) == (8, 1)
    assert notes == [f"{beir}: 1 judged query without a relevant passage is left out"]
    rows = rows_of(out / "per_query.jsonl")
    assert [row["query_id"] for row in rows] == [f"q{n}" for n in range(8)]
    assert np.mean([row["ndcg@10"] for row in rows]) == pytest.approx(scores["ndcg@10"])
    # The two files that any evaluation tool reads give the same scores.
    again = embedsmith.evaluate(out / "ranking.trec", out / "judgements.qrels")
    assert again.mean == pytest.approx(scores, abs=1e-9)
    assert embedsmith.evaluate(out / "ranking.trec", beir).mean == again.mean


def test_fingerprints_tell_models_prompts_and_data_apart(beir: Path, tiny_bert: Path, tiny_llama: Path, tmp_path: Path):
    def of(name: str, **reading) -> str:
        return Contender(name, reading=TeacherSettings(**reading), vectors=tmp_path).fingerprint

    prints = [
        of(str(tiny_bert)),
        of(str(tiny_bert), query_prompt="find: "),
        of(str(tiny_llama)),
        of("bm25"),
        of("bm25", bm25_stop_words="none"),
        of("random"),
        of("random", seed=1),
    ]
    assert len({*prints}) == len(prints)
    assert of(str(tiny_bert)) == prints[0]
    assert of("bm25", seed=3) == of("bm25")
    data = [score(Contender("bm25"), beir, ScoringSettings(split=split)).about for split in ("test", "dev")]
    assert data[0].content_hash == data[1].content_hash  # the same queries under two names
    assert data[1].left_out == 0


def test_the_second_evaluation_of_a_bare_model_encodes_nothing(
    beir: Path, tiny_bert: Path, encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # other tests score the same passages
    first = embedsmith.evaluate(tiny_bert, beir).mean
    assert sorted(set(encoded)) == ["passage", "query"]
    assert list(user_cache().glob("*/store.json"))
    encoded.clear()
    assert embedsmith.evaluate(tiny_bert, beir).mean == first
    assert encoded == []


def test_one_model_is_opened_once_for_several_data_sets(beir: Path, tiny_bert: Path, tmp_path: Path, monkeypatch):
    from embedsmith.models import opening

    opened = []
    load = opening.load
    monkeypatch.setattr(opening, "load", lambda name, **keywords: opened.append(name) or load(name, **keywords))
    other = tmp_path / "animals.jsonl"
    other.write_text('{"query": "where is the cat", "positive": "the cat sat on the mat"}\n')
    contender = Contender(str(tiny_bert), vectors=tmp_path / "vectors")
    evaluate_into(tmp_path / "out", contender, [str(beir), str(other)], ScoringSettings())
    assert opened == [str(tiny_bert)]
    assert (tmp_path / "out" / "animals" / "per_query.jsonl").is_file()
    assert (tmp_path / "out" / "animals-2" / "ranking.trec").is_file()
    assert list(read_scores(tmp_path / "out").scores) == [str(beir), str(other)]


def test_an_evaluation_that_was_cut_short_goes_on_with_the_next_data_set(beir: Path, tmp_path: Path, monkeypatch):
    other = tmp_path / "pairs.jsonl"
    other.write_text('{"query": "the cat", "positive": "a cat"}\n{"query": "the dog", "positive": "a dog"}\n')
    data, out = [str(beir), str(other)], tmp_path / "out"
    scored = []

    def interrupted(contender, name, scoring, *, on_skip=None):
        scored.append(name)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return score(contender, name, scoring)

    monkeypatch.setattr("embedsmith.evaluation.evaluate.score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(out, Contender("bm25"), data, ScoringSettings())
    evaluate_into(out, Contender("bm25"), data, ScoringSettings())
    assert scored == [data[0], data[1], data[1]]
    with pytest.raises(RunError, match="finished already"):
        evaluate_into(out, Contender("bm25"), data, ScoringSettings())
    with pytest.raises(RunError, match="holds another run"):
        evaluate_into(out, Contender("bm25"), data, ScoringSettings(metrics=["ndcg@5"]))


def test_a_cross_encoder_rescores_what_the_first_stage_finds(beir: Path, cross_encoder: Path):
    scoring = ScoringSettings(first_stage="random", metrics=["recall@10"])
    found = score(Contender(f"cross-encoder:{cross_encoder}"), beir, scoring)
    assert {len(ranked) for ranked in found.ranking.values()} == {24}
    assert all(ranked == sorted(ranked, key=lambda pair: -pair[1]) for ranked in found.ranking.values())
    assert len(found.about.content_hash or "") == len(Contender(f"cross-encoder:{cross_encoder}").fingerprint) == 16
    with pytest.raises(SettingsError, match="first_stage: cross-encoder:x does not search"):
        score(Contender(f"cross-encoder:{cross_encoder}"), beir, ScoringSettings(first_stage="cross-encoder:x"))


def test_the_second_evaluation_of_a_cross_encoder_scores_nothing(beir, cross_encoder, tmp_path, monkeypatch):
    from embedsmith.teachers.cross_encoder import CrossEncoderTeacher

    contender = Contender(f"cross-encoder:{cross_encoder}", vectors=tmp_path)
    first = score(contender, beir, ScoringSettings()).ranking

    def forbidden(*args, **keywords):
        raise AssertionError("scored again")

    monkeypatch.setattr(CrossEncoderTeacher, "scores", forbidden)
    again = Contender(f"cross-encoder:{cross_encoder}", vectors=tmp_path)
    assert score(again, beir, ScoringSettings()).ranking == first
    assert again.fingerprint == contender.fingerprint


def test_metrics_are_those_that_are_asked_for(beir: Path):
    scores = embedsmith.evaluate("bm25", beir, scoring=ScoringSettings(metrics=["precision@3", "ndcg@1"]))
    assert list(scores.mean) == ["precision@3", "ndcg@1"]
    assert scores.mean["precision@3"] == pytest.approx(2 / 3)


def test_a_mistyped_metric_is_refused_before_any_work(beir: Path, encoded: list[str], tiny_bert: Path):
    with pytest.raises(SettingsError, match=r'unknown metric "ndgc@10" \(did you mean "ndcg@10"\?\)'):
        embedsmith.evaluate(tiny_bert, beir, scoring=ScoringSettings(metrics=["ndgc@10"]))
    assert encoded == []


def test_a_split_that_is_not_there_is_refused_with_those_that_are(beir: Path):
    with pytest.raises(InputError, match=r'no split "tset" \(did you mean "test"\?\)') as caught:
        embedsmith.evaluate("bm25", beir, split="tset")
    assert caught.value.hint == "its splits: dev, test"


def test_judgements_with_unknown_ids_are_refused_or_counted(beir: Path, tmp_path: Path):
    import shutil

    broken = tmp_path / "animals"
    shutil.copytree(beir, broken)
    with open(broken / "qrels" / "dev.tsv", "a") as file:
        file.write("q1\tp99\t1\n")
    with pytest.raises(InputError, match=r'dev\.tsv:26: unknown passage id "p99"; the corpus has 24 passages'):
        embedsmith.evaluate("bm25", broken, split="dev")
    notes = []
    found = score(Contender("bm25"), broken, ScoringSettings(split="dev", skip_bad=True), on_skip=notes.append)
    assert found.about.queries == 8
    assert len(notes) == 1
    assert notes[0].startswith('1 row skipped for "unknown passage id"')


def test_a_model_that_gives_no_number_is_refused(beir: Path, tiny_bert: Path, tmp_path: Path, monkeypatch):
    embed_each = EmbeddingModel.embed_each
    monkeypatch.setattr(
        EmbeddingModel, "embed_each", lambda *args, **keywords: (v * np.nan for v in embed_each(*args, **keywords))
    )
    with pytest.raises(InputError, match=r"text 1 of 24 .*: its vector is not finite"):
        embedsmith.evaluate(tiny_bert, beir, vectors=tmp_path)
    assert not list(tmp_path.rglob("shard*"))


def test_the_folder_of_an_evaluation_that_never_began_is_removed(beir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no split"):
        evaluate_into(tmp_path / "out", Contender("bm25"), [str(beir)], ScoringSettings(split="x"))
    assert not (tmp_path / "out").exists()


def test_graded_judgements_of_real_questions_score_as_in_trec_eval(real_data: Path):
    import pytrec_eval

    found = score(Contender("bm25"), real_data / "medquad", ScoringSettings(split="liveqa"))
    run = {query: dict(ranked) for query, ranked in found.ranking.items()}
    names = {"ndcg@10": "ndcg_cut_10", "recall@100": "recall_100", "map@100": "map_cut_100"}
    wanted = pytrec_eval.RelevanceEvaluator(found.qrels, set(names.values())).evaluate(run)
    assert {grade for grades in found.qrels.values() for grade in grades.values()} == {0, 1, 2, 3}
    for ours, theirs in names.items():
        assert found.scores.mean[ours] == pytest.approx(np.mean([row[theirs] for row in wanted.values()]), abs=1e-4)
