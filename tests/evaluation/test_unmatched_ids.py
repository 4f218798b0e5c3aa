"""Files joined by ids: nothing shared is an error that shows an id of each, some unmatched are counted and reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.files import write_json, write_jsonl
from embedsmith.data.load import load_collection
from embedsmith.data.qrels import read_exclusions, read_passage_ids
from embedsmith.errors import InputError
from embedsmith.evaluation.compare import compare
from embedsmith.evaluation.comparison_page import write_evaluation_report
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.scoring import score
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.verdicts import excluded_by
from embedsmith.runs.scores import read_scores
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.scored import write_evaluation, write_labelled


def write_beir(folder: Path, *, query: str = "q", passage: str = "d") -> Path:
    """Four queries and passages; the judgements may name others."""
    write_jsonl(folder / "corpus.jsonl", ({"_id": f"d{n}", "text": f"passage {n}"} for n in range(4)))
    write_jsonl(folder / "queries.jsonl", ({"_id": f"q{n}", "text": f"query {n}"} for n in range(4)))
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("".join(f"{query}{n}\t{passage}{n}\t1\n" for n in range(4)))
    return folder


def collection(folder: Path) -> Collection:
    return load_collection(write_beir(folder / "data"), split="test")


def write_run(path: Path, queries: list[str], passages: list[str]) -> Path:
    path.write_text("".join(f"{q} Q0 {p} 1 {0.5 - n / 8} x\n" for q in queries for n, p in enumerate(passages)))
    return path


def write_qrels(path: Path, queries: list[str], passages: list[str]) -> Path:
    path.write_text("".join(f"{q} 0 {p} 1\n" for q, p in zip(queries, passages, strict=True)))
    return path


def write_scores(run: Path, label: str, queries: list[str]) -> None:
    write_labelled(run, label, ({"query_id": query, "ndcg@10": 0.5} for query in queries))


OURS, THEIRS = [f"q{n}" for n in range(4)], [f"x{n}" for n in range(4)]
Notes = list[str]


def run_by_qrels(folder: Path, queries: list[str], passages: list[str], notes: Notes) -> None:
    """A run file and a file of judgements."""
    run, qrels = write_run(folder / "run", queries, passages), write_qrels(folder / "qrels", OURS, ["d0", "d1"] * 2)
    score(Contender(str(run)), qrels, ScoringSettings(), on_skip=notes.append)


def run_by_folder(folder: Path, queries: list[str], passages: list[str], notes: Notes) -> None:
    """A run file and a BEIR folder."""
    run, data = write_run(folder / "run", queries, passages), write_beir(folder / "data")
    score(Contender(str(run)), data, ScoringSettings(), on_skip=notes.append)


def judged(folder: Path, query: str, passage: str) -> None:
    """The judgements of a BEIR folder, its queries and its corpus, with bad rows left out."""
    load_collection(write_beir(folder / "data", query=query, passage=passage), split="test", skip_bad=True)


def scored_runs(folder: Path, a: list[str], b: list[str]) -> None:
    """The queries that two evaluations have scored."""
    for name, queries in (("a", a), ("b", b)):
        write_evaluation(folder / name, ({"query_id": q, "ndcg@10": 0.5} for q in queries))
    compare(folder / "a", folder / "b")


def reported(folder: Path, a: list[str], b: list[str]) -> None:
    """The queries that a recipe's run has scored before and after."""
    manifest = {
        "command": "train",
        "status": "finished",
        "content": {},
        "settings": {},
        "versions": {"embedsmith": "1"},
    }
    write_json(folder / "manifest.json", manifest)
    write_scores(folder, "before", a)
    write_scores(folder, "after", b)
    write_evaluation_report(folder)


def excluded_qrels(folder: Path, query: str, passage: str, notes: Notes) -> None:
    """Judgements that are no negatives, and a collection."""
    path = write_qrels(folder / "extra", [f"{query}{n}" for n in range(4)], [f"{passage}{n}" for n in range(4)])
    read_exclusions([path], collection(folder), on_skip=notes.append)


def excluded_ids(folder: Path, ids: list[str], notes: Notes) -> None:
    """Passages that are nobody's negatives, and a collection."""
    (folder / "ids").write_text("".join(f"{one}\n" for one in ids))
    read_passage_ids(folder / "ids", collection(folder), on_skip=notes.append)


def judged_pairs(folder: Path, pairs: list[tuple[str, str]]) -> Listed:
    """What a judge has said of candidates, and their collection."""
    return excluded_by(pairs, Listed.nothing(), collection(folder))


@pytest.mark.parametrize(
    ("join", "ids"),
    [
        (lambda folder: run_by_qrels(folder, THEIRS, ["d0", "d1"], []), ("x0", "q0")),
        (lambda folder: run_by_qrels(folder, OURS, ["y8", "y9"], []), ("y8", "d0")),
        (lambda folder: run_by_folder(folder, THEIRS, ["d0", "d1"], []), ("x0", "q0")),
        (lambda folder: run_by_folder(folder, OURS, ["y8", "y9"], []), ("y8", "d0")),
        (lambda folder: judged(folder, "x", "d"), ("x0", "q0")),
        (lambda folder: judged(folder, "q", "y"), ("y0", "d0")),
        (lambda folder: scored_runs(folder, THEIRS, OURS), ("x0", "q0")),
        (lambda folder: reported(folder, THEIRS, OURS), ("x0", "q0")),
        (lambda folder: excluded_qrels(folder, "q", "y", []), ("y0", "d0")),
        (lambda folder: excluded_ids(folder, ["y8", "y9"], []), ("y8", "d0")),
        (lambda folder: judged_pairs(folder, [("x0", "d0")]), ("x0", "q0")),
        (lambda folder: judged_pairs(folder, [("q0", "y0")]), ("y0", "d0")),
    ],
)
def test_nothing_in_common_is_an_error_that_shows_an_id_of_each(join: Callable, ids, tmp_path):
    with pytest.raises(InputError, match=rf'(?s)"{ids[0]}".*"{ids[1]}"|"{ids[1]}".*"{ids[0]}"') as caught:
        join(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("join", "messages"),
    [
        (
            lambda folder, notes: run_by_qrels(folder, ["q0", "q1", "q2", "x0", "x1"], ["d0", "y"], notes),
            ["1 of 4 judged queries are not in the run", "2 of its 5 queries are not judged"],
        ),
        (
            lambda folder, notes: run_by_folder(folder, ["q0", "x0"], ["d0", "y"], notes),
            ["3 of 4 judged queries are not in the run", "1 of its 2 queries are not judged", "1 of the 2 passages"],
        ),
        (lambda folder, notes: excluded_qrels(folder, "x", "d", notes), ["4 of 4 judgements name a query or passage"]),
        (lambda folder, notes: excluded_ids(folder, ["d0", "y"], notes), ["1 of 2 ids name a passage"]),
    ],
)
def test_what_one_side_alone_has_is_counted_and_told(join: Callable, messages, tmp_path):
    notes: Notes = []
    join(tmp_path, notes)
    assert len(notes) == len(messages)
    for note, wanted in zip(notes, messages, strict=True):
        assert wanted in note


@pytest.mark.parametrize("join", [scored_runs, reported])
def test_scores_of_other_queries_are_not_compared_query_by_query(join, tmp_path):
    with pytest.raises(
        InputError, match=r'different queries: 3 in common, (1 and 0|0 and 1) of their own, such as "q3"'
    ):
        join(tmp_path, OURS, OURS[:3])


def test_scores_are_paired_by_query_whatever_their_order(tmp_path):
    values = {"q0": 0.0, "q1": 0.25, "q2": 0.5, "q3": 1.0}
    manifest = {
        "command": "train",
        "status": "finished",
        "content": {},
        "settings": {},
        "versions": {"embedsmith": "1"},
    }
    write_json(tmp_path / "manifest.json", manifest)
    for label, queries in (("before", OURS), ("after", OURS[::-1])):
        write_labelled(tmp_path, label, ({"query_id": query, "ndcg@10": values[query]} for query in queries))
    _, numbers = write_evaluation_report(tmp_path)
    difference = numbers["data"]["toy"]["scores"]["before"]["difference"]
    assert (difference["ties"], difference["wins"], difference["losses"]) == (4, 0, 0)


def test_verdicts_of_the_data_at_hand_are_excluded_pair_by_pair(tmp_path):
    listed = judged_pairs(tmp_path, [("q0", "d1"), ("q3", "d0")])
    assert [rows.tolist() for rows in listed.pairs] == [[0, 3], [1, 0]]


def test_the_command_tells_and_counts_what_a_run_file_lacks(tmp_path, embedsmith_command):
    run = write_run(tmp_path / "run", ["q0", "q1"], ["d0", "d1"])
    qrels = write_qrels(tmp_path / "qrels", OURS, ["d0", "d1"] * 2)
    done = embedsmith_command("evaluate", run, qrels, "--out", tmp_path / "out")
    assert done.code == 0 and "2 of 4 judged queries are not in the run, and score 0" in done.err
    assert read_scores(tmp_path / "out").scores[str(qrels)]["model"].not_in_run == 2
    done = embedsmith_command("evaluate", write_run(tmp_path / "other", THEIRS, ["d0"]), qrels)
    assert (done.code, "none of its 4 queries is judged" in done.error) == (2, True)


@pytest.mark.parametrize("form", ["beir", "trec"])
def test_two_grades_of_one_pair_are_refused_or_counted_in_either_form(form, tmp_path):
    data, notes = write_beir(tmp_path / "data"), []
    path = tmp_path / "run.qrels" if form == "trec" else data / "qrels" / "test.tsv"
    rows = ["q0\td0\t1", "q1\td1\t1", "q0\td0\t1", "q0\td0\t0"]
    path.write_text("".join(f"{row}\n".replace("\t", " 0 ", 1) if form == "trec" else f"{row}\n" for row in rows))
    run = write_run(tmp_path / "run", ["q0", "q1"], ["d0", "d1"])
    judged_by = path if form == "trec" else data
    with pytest.raises(
        InputError, match=r'qrels:4|test\.tsv:4: query "q0" and passage "d0" have the grade 0 here and 1'
    ):
        score(Contender(str(run)), judged_by, ScoringSettings())
    found = score(Contender(str(run)), judged_by, ScoringSettings(skip_bad=True), on_skip=notes.append)
    assert found.qrels == {"q0": {"d0": 1}, "q1": {"d1": 1}}
    assert len(notes) == 1 and "two grades" in notes[0]
