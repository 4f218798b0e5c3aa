"""The metrics of a run file are those of trec_eval, whose C code pytrec_eval calls on the same scores."""

import random

import pytest
import pytrec_eval

from embedsmith.data.bad_rows import refuse
from embedsmith.data.qrels import read_judgements
from embedsmith.data.trec import read_ranking, write_ranking
from embedsmith.evaluation.metrics import score_run

NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "recall@100": "recall_100",
    "precision@5": "P_5",
    "map@100": "map_cut_100",
    "mrr@1000": "recip_rank",
}


def of_trec_eval(qrels, run):
    """What trec_eval gives each query, and the mean over the queries that have a relevant passage."""
    found = pytrec_eval.RelevanceEvaluator(qrels, set(NAMES.values())).evaluate(run)
    judged = [query for query, grades in qrels.items() if max(grades.values()) > 0]
    per_query = {q: {ours: found.get(q, {}).get(name, 0.0) for ours, name in NAMES.items()} for q in judged}
    mean = {name: sum(scores[name] for scores in per_query.values()) / len(per_query) for name in NAMES}
    return mean, per_query


def test_graded_tied_and_unjudged_rankings_score_as_in_trec_eval(tmp_path):
    rng = random.Random(3)
    passages = [f"d{i}" for i in range(60)]
    qrels = {f"q{q}": {p: rng.choice([0, 0, 1, 2, 3]) for p in rng.sample(passages, 9)} for q in range(40)}
    qrels["q0"] = dict.fromkeys(passages[:4], 0)
    # Few distinct scores, so many ties; q1 is not ranked, and unjudged queries are.
    ranked = [*(query for query in qrels if query != "q1"), "unjudged"]
    run = {q: {p: rng.choice([0.25, 0.5, 0.75]) for p in rng.sample(passages, 50)} for q in ranked}
    write_ranking(tmp_path / "run", {q: list(scores.items()) for q, scores in run.items()}, tag="x")
    scores = score_run(read_ranking(tmp_path / "run"), qrels, list(NAMES))
    mean, per_query = of_trec_eval(qrels, run)
    assert scores.per_query.keys() == per_query.keys()
    for query, wanted in per_query.items():
        assert scores.per_query[query] == pytest.approx(wanted, abs=1e-6)
    assert scores.mean == pytest.approx(mean, abs=1e-6)


def test_the_published_run_of_cacm_has_its_published_precision(real_data):
    judged = read_judgements(real_data / "cacm" / "qrels" / "test.tsv", refuse)
    qrels = {}
    for query, passage, grade in zip(judged.query_ids, judged.passage_ids, judged.grades.tolist(), strict=True):
        qrels.setdefault(query, {})[passage] = grade
    ranking = read_ranking(real_data / "_eval_reference" / "cacm-bm25.trec_run.txt")
    assert score_run(ranking, qrels, ["precision@30"]).mean["precision@30"] == pytest.approx(0.1942, abs=5e-5)
