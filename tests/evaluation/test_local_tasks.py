"""Local data scored by us, and by mteb alone: a task that is written out, a model that sentence-transformers opened."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

import embedsmith
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.errors import InputError, ModelError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.evaluate import evaluate_all, evaluate_into
from embedsmith.evaluation.scoring import score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import load
from embedsmith.teachers.settings import TeacherSettings

mteb = pytest.importorskip("mteb")

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
PLACES = ["mat", "log", "tree", "lake", "road"]
WORDS = ["read", "sort", "find", "parse", "sat", "red apple", "green pear", "file of numbers"]
FLOAT32 = TeacherSettings(dtype="float32")


def text(rng: random.Random) -> str:
    return f"the {rng.choice(ANIMALS)} {rng.choice(WORDS)} on the {rng.choice(PLACES)} and {rng.choice(WORDS)}"


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.parent


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tmp_path_factory) -> dict[str, Path]:
    """A model whose vectors have any length, and one whose vectors have length 1."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    folder = tmp_path_factory.mktemp("normalised") / "model"
    plain = load(str(tiny_bert))
    EmbeddingModel(modules=[*plain, Normalize()]).save(str(folder), create_model_card=False)
    return {"any length": tiny_bert, "length 1": folder}


def main_score(model: Path, base, kind: str, score: str, dataset, **attributes) -> float:
    """What mteb alone gives a task that is written out here."""
    metadata = mteb.TaskMetadata(
        name=f"WrittenOut{kind}",
        description="",
        dataset={"path": "local/none", "revision": "1"},
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
    )

    def load_data(self, **_):
        self.dataset, self.data_loaded = dataset, True

    task = type("WrittenOut", (base,), {"metadata": metadata, "load_data": load_data, **attributes})()
    opened = load(str(model))
    found = mteb.evaluate(opened, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0].get_score()


def ours(model: Path, data: Path, tmp_path: Path) -> dict[str, float]:
    return embedsmith.evaluate(model, data, dtype="float32", vectors=tmp_path / "vectors").mean


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_sts_is_mtebs(models, length, tmp_path):
    rng = random.Random(0)
    rows = [{"sentence1": text(rng), "sentence2": text(rng), "score": rng.random() * 5} for _ in range(30)]
    dataset = DatasetDict(test=Dataset.from_list(rows))
    wanted = main_score(models[length], mteb.abstasks.AbsTaskSTS, "STS", "cosine_spearman", dataset)
    found = ours(models[length], write(tmp_path / "set" / "test.jsonl", rows), tmp_path)
    assert next(iter(found)) == "cosine_spearman"
    assert found["cosine_spearman"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_pair_classification_is_mtebs(models, length, tmp_path):
    rng = random.Random(1)
    rows = [{"sentence1": text(rng), "sentence2": text(rng), "label": rng.randint(0, 1)} for _ in range(40)]
    dataset = DatasetDict(test=Dataset.from_list(rows).rename_column("label", "labels"))
    base = mteb.abstasks.AbsTaskPairClassification
    wanted = main_score(models[length], base, "PairClassification", "max_ap", dataset)
    found = ours(models[length], write(tmp_path / "set" / "test.jsonl", rows), tmp_path)
    assert found["max_ap"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_classification_is_mtebs(models, length, tmp_path):
    rng = random.Random(2)
    texts = [text(rng) for _ in range(150)]
    rows = [{"text": t, "label": t.split()[1][0] if rng.random() < 0.8 else "c"} for t in texts]
    dataset = DatasetDict(train=Dataset.from_list(rows[:110]), test=Dataset.from_list(rows[110:]))
    base = mteb.abstasks.AbsTaskClassification
    wanted = main_score(models[length], base, "Classification", "accuracy", dataset)
    write(tmp_path / "set" / "train.jsonl", rows[:110])
    found = ours(models[length], write(tmp_path / "set" / "test.jsonl", rows[110:]), tmp_path)
    assert 0.1 < wanted < 1
    assert found["accuracy"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_clustering_is_mtebs(models, length, tmp_path):
    rng = random.Random(3)
    texts = [text(rng) for _ in range(80)]
    rows = [{"text": t, "label": t.split()[1]} for t in texts]
    dataset = DatasetDict(test=Dataset.from_list(rows).rename_columns({"text": "sentences", "label": "labels"}))
    base, all_of_them = mteb.abstasks.AbsTaskClustering, {"max_fraction_of_documents_to_embed": 1.0}
    wanted = main_score(models[length], base, "Clustering", "v_measure", dataset, **all_of_them)
    found = ours(models[length], write(tmp_path / "set" / "test.jsonl", rows), tmp_path)
    assert found["v_measure"] == pytest.approx(wanted, abs=0.02)  # the last bits of a vector move a border of k-means
    assert found["v_measure"] != pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_reranking_is_mtebs(models, length, tmp_path):
    rng = random.Random(4)
    rows = [
        {"query": text(rng), "positive": [text(rng) for _ in range(2)], "negative": [text(rng) for _ in range(6)]}
        for _ in range(12)
    ]
    corpus, top, qrels = [], {}, {}
    for q, row in enumerate(rows):
        texts = row["positive"] + row["negative"]
        top[f"q{q}"] = [f"q{q}-{i}" for i in range(8)]
        corpus += [{"id": f"q{q}-{i}", "text": t, "title": ""} for i, t in enumerate(texts)]
        qrels[f"q{q}"] = {f"q{q}-{i}": int(i < 2) for i in range(8)}
    queries = Dataset.from_list([{"id": f"q{q}", "text": row["query"]} for q, row in enumerate(rows)])
    parts = {"corpus": Dataset.from_list(corpus), "queries": queries, "relevant_docs": qrels, "top_ranked": top}
    base = mteb.abstasks.AbsTaskRetrieval
    wanted = main_score(models[length], base, "Reranking", "map_at_1000", {"default": {"test": parts}})
    found = ours(models[length], write(tmp_path / "set" / "test.jsonl", rows), tmp_path)
    assert found["map@1000"] == pytest.approx(wanted, abs=1e-5)


def test_words_rerank_too(tmp_path):
    rows = [
        {"query": "the cat", "positive": ["a cat sat"], "negative": ["a dog", "an owl"]},
        {"query": "the owl", "positive": ["an owl sat"], "negative": ["a dog"]},
    ]
    folder = write(tmp_path / "set" / "test.jsonl", rows)
    assert embedsmith.evaluate("bm25", folder).mean["map@1000"] == 1


def test_a_baseline_without_vectors_is_refused_where_they_are_needed(tmp_path):
    folder = write(tmp_path / "set" / "test.jsonl", [{"text": "a", "label": label} for label in "ab"])
    with pytest.raises(SettingsError, match="set: clustering needs an embedding model, bm25 has no vectors"):
        embedsmith.evaluate("bm25", folder)


def test_the_task_may_be_named(tmp_path, tiny_bert):
    rows = [{"text": f"the {animal} {n}", "label": animal} for animal in ANIMALS[:3] for n in range(6)]
    write(tmp_path / "set" / "train.jsonl", rows)
    folder = write(tmp_path / "set" / "test.jsonl", rows)
    contender = Contender(str(tiny_bert), reading=FLOAT32, vectors=tmp_path / "vectors")
    found = score(contender, folder, ScoringSettings(task="clustering"))
    about = found.about
    assert (about.task, about.split, about.rows, about.left_out) == ("clustering", "test", 18, 0)
    assert score(contender, folder, ScoringSettings()).about.task == "classification"


def test_two_classes_may_have_names(tmp_path, tiny_bert):
    rows = [{"text": f"the {animal} {n}", "label": f"a {animal}"} for animal in ANIMALS[:2] for n in range(10)]
    write(tmp_path / "set" / "train.jsonl", rows)
    folder = write(tmp_path / "set" / "test.jsonl", rows)
    contender = Contender(str(tiny_bert), reading=FLOAT32, vectors=tmp_path / "vectors")
    assert score(contender, folder, ScoringSettings()).scores.mean["accuracy"] > 0.5


def test_the_second_scoring_encodes_nothing(models, tmp_path, encoded):
    rng = random.Random(0)
    rows = [{"sentence1": text(rng), "sentence2": text(rng), "score": n} for n in range(6)]
    folder = write(tmp_path / "set" / "test.jsonl", rows)
    first = {name: ours(model, folder, tmp_path) for name, model in models.items()}
    assert encoded
    encoded.clear()
    assert {name: ours(model, folder, tmp_path) for name, model in models.items()} == first
    assert not encoded


@pytest.fixture(scope="module")
def beir(tmp_path_factory) -> Path:
    """Graded judgements of passages, each of which is there once: of two, mteb's last bits would choose one."""
    rng = random.Random(5)
    passages = list(dict.fromkeys(text(rng) for _ in range(100)))[:60]
    qrels = {f"q{q}": {f"p{p}": rng.randint(0, 2) for p in rng.sample(range(60), 8)} for q in range(12)}
    for grades in qrels.values():
        grades[f"p{rng.randrange(60)}"] = 1
    folder = tmp_path_factory.mktemp("beir") / "toy"
    ids, queries = [f"p{p}" for p in range(60)], [text(rng) for _ in qrels]
    write_beir(
        folder,
        {
            "test": Collection.of(
                name="toy", passage_ids=ids, passages=passages, query_ids=list(qrels), queries=queries, qrels=qrels
            )
        },
    )
    return folder


@pytest.mark.parametrize("length", ["any length", "length 1"])
def test_a_retrieval_folder_scores_the_same_through_mteb(models, length, beir: Path, tmp_path):
    found = mteb.evaluate(
        load(str(models[length])), embedsmith.mteb_task(beir), cache=None, co2_tracker=False, show_progress_bar=False
    )
    scores = found.task_results[0].scores["test"][0]
    own = ours(models[length], beir, tmp_path)
    assert own["ndcg@10"] == pytest.approx(scores["ndcg_at_10"], abs=1e-4)
    assert own["recall@100"] == pytest.approx(scores["recall_at_100"], abs=1e-4)
    assert 0 < own["ndcg@10"] < 1


def test_words_score_the_same_through_mteb(beir: Path, tmp_path):
    ranker = Contender("bm25", vectors=tmp_path).mteb_model()
    found = mteb.evaluate(ranker, embedsmith.mteb_task(beir), cache=None, co2_tracker=False, show_progress_bar=False)
    wanted = embedsmith.evaluate("bm25", beir).mean["ndcg@10"]
    assert found.task_results[0].get_score() == pytest.approx(wanted, abs=1e-4)


def test_vectors_keep_their_length_for_a_classifier(tiny_bert: Path, tmp_path):
    contender = Contender(str(tiny_bert), reading=FLOAT32, vectors=tmp_path)
    lengths = np.linalg.norm(contender._embed(["a cat", "a dog sat"], "", False), axis=1)
    assert np.ptp(lengths) > 1e-3


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_an_undefined_score_is_an_error(tmp_path, tiny_bert, monkeypatch):
    rows = [{"sentence1": f"cat {n}", "sentence2": f"dog {n}", "score": n} for n in range(6)]
    folder = write(tmp_path / "set" / "test.jsonl", rows)
    monkeypatch.setattr(Contender, "_embed", lambda self, texts, *_: np.ones((len(texts), 4), np.float32))
    with pytest.raises(
        ModelError, match="set: cosine_spearman is undefined: the model gives all texts or pairs the same"
    ):
        embedsmith.evaluate(tiny_bert, folder)


@pytest.mark.parametrize(
    ("rows", "scoring", "wanted"),
    [
        (["entailment", "neutral", "contradiction"], {}, {"entailment": 4, "neutral": 4, "contradiction": 4}),
        ([0, 1, 2], {"task": "nli"}, {"entailment": 4, "neutral": 4, "contradiction": 4}),
        ([0, 1], {"labels": "0=entailment,1=not_entailment"}, {"entailment": 6, "not_entailment": 6}),
        ([1, 0], {}, {"positive": 6, "negative": 6}),
        (["same", "other"], {"positive_labels": ["same"]}, {"positive": 6, "negative": 6}),
    ],
)
def test_what_labels_of_pairs_are_taken_for_is_told_and_kept(tmp_path, tiny_bert, rows, scoring, wanted):
    first, second = ("premise", "hypothesis") if scoring.get("task") or "labels" in scoring else ("text1", "text2")
    pairs = [{first: f"a cat {n}", second: f"a {'cat' if n % len(rows) == 0 else 'dog'} {n}"} for n in range(12)]
    folder = write(tmp_path / "set" / "test.jsonl", [{**p, "label": rows[n % len(rows)]} for n, p in enumerate(pairs)])
    notes: list[str] = []
    contender = Contender(str(tiny_bert), reading=FLOAT32, vectors=tmp_path / "vectors")
    found = score(contender, folder, ScoringSettings.parse(scoring, where="test"), on_skip=notes.append)
    assert {one["means"]: one["rows"] for one in found.about.labels.values()} == wanted
    assert found.about.rows + found.about.left_out == 12
    assert notes[0].startswith(f"{folder}: labels: {rows[0]} = ")
    # The first label is that of texts that belong together, which are alike: the other way round it would be far below.
    assert found.scores.mean["max_ap"] > 0.9


def test_what_is_wrong_with_the_last_data_set_is_known_before_the_first_is_scored(tmp_path, tiny_bert, monkeypatch):
    good = write(
        tmp_path / "good" / "test.jsonl", [{"text1": "a", "text2": f"b {n}", "label": n % 2} for n in range(4)]
    )
    bad = write(tmp_path / "bad" / "test.jsonl", [{"text1": "a", "text2": f"b {n}", "label": n / 4} for n in range(4)])
    monkeypatch.setattr(Contender, "_embed", lambda *_: pytest.fail("computed"))
    contender = Contender(str(tiny_bert))
    for way in (
        lambda: evaluate_all(contender, [str(good), str(bad)], ScoringSettings()),
        lambda: evaluate_into(tmp_path / "out", contender, [str(good), str(bad)], ScoringSettings()),
    ):
        with pytest.raises(InputError, match=r"test\.jsonl:2: the label is 0\.25, a fraction: is this a score\?"):
            way()


def test_labels_for_data_that_are_no_pairs_are_refused(tmp_path, tiny_bert):
    folder = write(tmp_path / "set" / "test.jsonl", [{"text": "a", "label": label} for label in "ab"])
    with pytest.raises(InputError, match="--labels and --positive-label say what labels of pairs mean, and this is"):
        score(Contender(str(tiny_bert)), folder, ScoringSettings(labels="a=positive"))
