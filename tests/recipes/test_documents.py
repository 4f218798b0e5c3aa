"""A recipe on a folder of documents, with a tiny model: read, cut, paired, mined, trained and scored in one run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data.corpus import load_corpus
from embedsmith.data.load import load_collection
from embedsmith.errors import InputError, ModelError, SettingsError
from embedsmith.evaluation.significance import Difference
from embedsmith.mining.select import select_again
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes import harvested
from embedsmith.recipes.build import build_recipe
from embedsmith.recipes.by_source import scores_by_source
from embedsmith.recipes.minutes import fitted
from embedsmith.recipes.plan import plan_of_recipe
from embedsmith.recipes.recipe import Recipe, recipe_of
from embedsmith.recipes.shelf import Shelf
from embedsmith.recipes.speed import Speed
from embedsmith.recipes.verdict import Verdict, verdicts
from embedsmith.runs.scores import read_scores
from embedsmith.serving.search import corpus_of_run
from embedsmith.teachers.bm25 import BM25, BM25Settings

THINGS = ["red apple", "green pear", "yellow banana", "blue plum", "number list", "file parser", "cat mat", "dog log"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> Path:
    """Eight files with four sections each, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("documents")
    for number, thing in enumerate(THINGS):
        sections = "".join(
            f"## {verb} the {thing}\n\nTo {verb} it, look at {number} and {verb}. Then the {thing} is done. "
            f"The cat sat on the {thing} and the dog sat on it.\n\n"
            for verb in ("find", "sort", "read", "open")
        )
        (folder / f"{thing.replace(' ', '-')}.md").write_text(
            f"# All of the {thing}\n\nA page of the {thing}.\n\n{sections}"
        )
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def recipe(folder: Path, model: Path, **more) -> Recipe:
    values = {
        "data": {"own": {"path": str(folder), "format": "documents", "documents": {"max_tokens": 60}, **more}},
        "mining": {"teachers": ["bm25"], "depth": 10, "negatives": 1, "short": "random"},
        "student": {"name": str(model)},
        "stages": [{"steps": 1, "batch_size": 4, "guide": False}],
        "evaluation": {"baselines": [], "hybrid": True},
    }
    return recipe_of(values, where="recipe")


@pytest.fixture(scope="module")
def run(documents: Path, tiny_bert: Path, tmp_path_factory) -> Path:
    return embedsmith.run(recipe(documents, tiny_bert), out=tmp_path_factory.mktemp("forge") / "run").folder


def test_the_run_scores_the_student_before_and_after_on_files_never_seen(run: Path):
    assert read_scores(run).metrics()["own"].keys() == {"before", "after", "teacher", "hybrid"}
    train = load_collection(run / "data" / "own" / "train", split="train")
    done = json.loads((run / "data" / "own" / "done.json").read_text())
    assert done["test_files"]
    assert not {one["file"] for one in train.metadata} & set(done["test_files"])
    rows = [json.loads(line) for line in (run / "mined" / "own" / "negatives.jsonl").read_text().splitlines()]
    seen = {passage["text"] for row in rows for passage in [*row["positives"], *row["negatives"]]}
    assert seen <= set(train.passages)


def test_files_passages_and_pairs_are_counted(run: Path):
    manifest = json.loads((run / "manifest.json").read_text())
    counts = manifest["counts"]["data own"]
    assert (counts["files_read"], counts["files_skipped"]) == (8, 2)
    corpus = (run / "data" / "own" / "test" / "corpus.jsonl").read_text().splitlines()
    assert counts["passages"] == len(corpus) >= 40
    assert counts["pairs"].keys() == {"heading", "title", "cloze"} and counts["pairs"]["heading"] == 32
    skipped = json.loads((run / "data" / "own" / "done.json").read_text())["skipped"]
    assert [row["path"] for row in skipped] == ["picture.png", "broken.pdf"]
    assert "pairs (heading 32" in (run / "report.md").read_text()


def test_scores_are_told_apart_by_the_source_of_the_query(run: Path):
    test = load_collection(run / "data" / "own" / "test", split="test")
    found = scores_by_source(run, "own")
    assert {source: one.queries for source, one in found.items()} == Counter(q.split("-")[0] for q in test.query_ids)
    assert list(found) == ["heading", "title"]
    for label, scores in read_scores(run).metrics()["own"].items():
        mean = sum(one.queries * one.scores[label] for one in found.values()) / len(test.query_ids)
        assert mean == pytest.approx(scores["ndcg@10"], abs=1e-4)


def test_passages_keep_the_student_s_budget(documents: Path, tiny_bert: Path, tmp_path: Path):
    model = build_student(StudentSettings(name=str(tiny_bert)))
    from embedsmith.recipes.harvested import sides_of

    for limit in (24, 60):
        data = recipe(documents, tiny_bert, documents={"max_tokens": limit}).data["own"]
        for text in sides_of(data, StudentSettings(name=str(tiny_bert)), lambda *_, **__: None).test.passages:
            assert len(model.tokenizer(text)["input_ids"]) <= limit


def test_its_negatives_are_selected_again(run: Path, tmp_path: Path):
    again = select_again(run / "mined" / "own", out=tmp_path / "again", changes={"negatives": 2})
    assert (again.folder / "negatives.jsonl").is_file()


def test_what_a_run_finds_has_its_place(run: Path):
    hits = embedsmith.search(run, "sort the red apple", k=3)
    assert all({"file", "headings", "start", "end"} <= hit.metadata.keys() for hit in hits)


def test_a_hybrid_search_has_what_words_find_too(run: Path):
    test = load_collection(run / "data" / "own" / "test", split="test")
    query = test.queries[0]
    by_words = BM25(test.passages, BM25Settings(), ties=test.ties).search([query], 100)[0][0]
    by_model = [hit.id for hit in embedsmith.search(run, query, k=100)]
    ranks = [by_model, [test.passage_ids[row] for row in by_words if row >= 0]]
    together = [hit.id for hit in embedsmith.search(run, query, k=10, hybrid=True)]

    def together_score(passage: str) -> float:
        return sum(1 / (61 + ranking.index(passage)) for ranking in ranks if passage in ranking)

    best = sorted({*ranks[0], *ranks[1]}, key=together_score, reverse=True)[:10]
    assert [together_score(one) for one in together] == pytest.approx([together_score(one) for one in best])
    assert together != by_model[:10]


def test_the_report_says_whether_training_helped(run: Path):
    (verdict,) = verdicts(run)
    scores = read_scores(run).metrics()["own"]
    assert verdict.difference.mean == pytest.approx(scores["after"]["ndcg@10"] - scores["before"]["ndcg@10"], abs=1e-4)
    assert verdict.lines()[0] in (run / "report.md").read_text().replace("\\", "")


def test_a_second_run_takes_the_harvest_from_the_shelf(documents: Path, tiny_bert: Path, tmp_path: Path, monkeypatch):
    from embedsmith.recipes import harvested

    shelf = Shelf(tmp_path / "shelf")
    calls: list[object] = []
    real = harvested.sides_of
    monkeypatch.setattr(harvested, "sides_of", lambda *given, **named: calls.append(given) or real(*given, **named))
    from embedsmith.recipes.run import run_recipe

    first = run_recipe(recipe(documents, tiny_bert), out=tmp_path / "a", shelf=shelf)
    second = run_recipe(recipe(documents, tiny_bert), out=tmp_path / "b", shelf=shelf)
    assert len(calls) == 1
    name = "data/own/train/queries.jsonl"
    assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    run_recipe(recipe(documents, tiny_bert, documents={"max_tokens": 30}), out=tmp_path / "c", shelf=shelf)
    assert len(calls) == 2


def test_the_plan_counts_its_queries_and_passages(documents: Path, tiny_bert: Path, run: Path):
    (data,) = plan_of_recipe(recipe(documents, tiny_bert)).data
    train = load_collection(run / "data" / "own" / "train", split="train")
    assert (data.queries, data.passages, data.to_be_mined) == (len(train.queries), len(train.passages), True)


def test_what_is_missing_is_told_before_anything_is_made(tiny_bert: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"^data own: .*nowhere: no such folder"):
        embedsmith.run(recipe(tmp_path / "nowhere", tiny_bert), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_build_takes_changes(documents: Path):
    usual = build_recipe(str(documents)).stages[0]
    assert (usual.steps, usual.epochs, usual.least_steps) == (None, 2.0, 100)
    own = build_recipe(str(documents), student="bm25-like", seed=3, changes=["stages.0.steps=7"])
    assert (own.stages[0].epochs, own.stages[0].least_steps) == (None, None)
    assert (own.stages[0].steps, own.seed, own.mining.teachers) == (7, 3, ["bm25-like"])
    assert own.data["documents"].path == str(documents.resolve())
    with pytest.raises(SettingsError, match=r'"stepz"'):
        build_recipe(str(documents), changes=["stages.0.stepz=7"])
    with pytest.raises(InputError, match="no such folder"):
        build_recipe("no/such")


def test_queries_that_do_not_find_their_passage_are_not_trained_on(documents: Path, tiny_bert: Path, tmp_path: Path):
    own = {"max_tokens": 60, "found_within": 1}
    run = embedsmith.run(recipe(documents, tiny_bert, documents=own), out=tmp_path / "run")
    folder = run.folder / "data" / "own"
    train = load_collection(folder / "train", split="train")
    bm25 = BM25(train.passages, BM25Settings(), ties=train.ties)
    first = bm25.search(list(train.queries), 2)
    found = {
        query
        for query, rows, scores in zip(train.query_ids, *first, strict=True)
        if train.passage_ids[rows[0]] in train.positives(query) and scores[0] > scores[1]
    }
    lost = [json.loads(line)["_id"] for line in (folder / "not_found.jsonl").read_text().splitlines()]
    assert 0 < len(lost) < len(train.query_ids)
    assert lost == [query for query in train.query_ids if query not in found]
    mined = [
        json.loads(line)["query_id"] for line in (run.folder / "mined/own/negatives.jsonl").read_text().splitlines()
    ]
    assert set(mined) <= found
    counted = json.loads((run.folder / "manifest.json").read_text())["counts"]["not found own"]
    assert sum(counted.values()) == len(lost)
    test = load_collection(folder / "test", split="test")
    board = read_scores(run.folder)
    assert board.data["own"].queries == len(test.query_ids)


def test_a_teacher_that_only_rescores_cannot_find_passages_again(documents: Path, tiny_bert: Path, tmp_path: Path):
    asked = recipe(documents, tiny_bert, documents={"found_within": 1})
    mining = asked.mining.model_copy(update={"teachers": ["cross-encoder:x", "bm25"]})
    with pytest.raises(InputError, match="found_within: cross-encoder:x scores passages and finds none"):
        embedsmith.run(asked.model_copy(update={"mining": mining}), out=tmp_path / "run")


def test_models_write_queries_for_what_is_trained_on(
    documents: Path, tiny_bert: Path, tmp_path: Path, chat_server, monkeypatch: pytest.MonkeyPatch
):
    def says(prompt: str) -> str:
        thing = next(thing for thing in THINGS if thing in prompt)
        verb = next((verb for verb in ("find", "sort", "read", "open") if f"To {verb} it" in prompt), "page")
        return f"may I {verb} a {thing}\nAll of the {thing}"

    chat_server.say = says
    own = {"max_tokens": 60, "generators": [chat_server.name], "written_for": 10}
    asked = recipe(documents, tiny_bert, documents=own)
    run = embedsmith.run(asked, out=tmp_path / "run")
    folder = run.folder / "data" / "own"
    train = load_collection(folder / "train", split="train")
    rows = [json.loads(line) for line in (folder / "written.jsonl").read_text().splitlines()]
    assert rows and len(chat_server.requests) == 10
    # What is a query of the folder already, of either side, is left out.
    assert all(row["query"].startswith("may I ") for row in rows)
    assert {passage for row in rows for passage in row["passages"]} <= set(train.passage_ids)
    mined = [json.loads(line) for line in (run.folder / "mined/own/negatives.jsonl").read_text().splitlines()]
    assert {row["query"] for row in mined if row["query_id"].startswith("written-")} == {row["query"] for row in rows}
    test = load_collection(folder / "test", split="test")
    assert not any(query.startswith("written-") for query in test.query_ids)
    counts = run.manifest["counts"]["written own"]
    assert (counts["asked"], counts["answered"], counts["queries"]) == (10, 10, len(rows))


def test_what_writers_ask_of_a_recipe_is_looked_at_first(documents: Path, tiny_bert: Path, tmp_path: Path):
    asked = recipe(documents, tiny_bert, documents={"generators": ["nowhere/there/model"]})
    with pytest.raises(ModelError, match="nowhere/there/model: no such model folder"):
        embedsmith.run(asked, out=tmp_path / "run")
    with pytest.raises(SettingsError, match="how long generators write is not known"):
        fitted(asked, 5)


def test_a_model_in_this_process_writes_them_too(documents: Path, tiny_bert: Path, tiny_writer: Path, tmp_path: Path):
    writer = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    config = json.loads((writer / "config.json").read_text())
    (writer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    asked = recipe(documents, tiny_bert, documents={"max_tokens": 60, "generators": [str(writer)], "written_for": 2})
    run = embedsmith.run(asked, out=tmp_path / "run")
    answers = (run.folder / "data" / "own" / "answers.jsonl").read_text().splitlines()
    counts = run.manifest["counts"]["written own"]
    assert counts["asked"] == counts["answered"] == len(answers) == 2


def test_what_is_lost_elsewhere_is_scored_before_and_after(
    documents: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(harvested, "_ELSEWHERE", 40)
    base = recipe(documents, tiny_bert)
    evaluation = base.evaluation.model_copy(update={"elsewhere": "stdlib"})
    run = embedsmith.run(base.model_copy(update={"evaluation": evaluation}), out=tmp_path / "run")
    board = read_scores(run.folder)
    assert board.scores["elsewhere"].keys() == {"before", "after"}
    assert board.scores["own"].keys() == {"before", "after", "teacher", "hybrid"}
    passages = load_collection(run.folder / "data" / "elsewhere" / "test", split="test")
    assert 40 <= len(passages.passages) < 400 and len(passages.queries) >= 10
    mined = (run.folder / "mined").iterdir()
    assert [path.name for path in mined] == ["own"]  # nothing of it is trained on
    (verdict,) = [one for one in verdicts(run.folder) if one.data == "elsewhere"]
    change = board.metrics()["elsewhere"]
    assert verdict.difference.mean == pytest.approx(change["after"]["ndcg@10"] - change["before"]["ndcg@10"], abs=2e-4)
    assert verdict.lines()[0].startswith("elsewhere (functions of the standard library, not trained on): ")
    assert "elsewhere (functions of the standard library" in (run.folder / "report.md").read_text()


def test_a_loss_elsewhere_is_said_and_a_chance_difference_is_no_loss():
    def said(low: float, high: float) -> str:
        return Verdict("elsewhere", Difference(90, 0.5, 0.5, (low + high) / 2, low, high, 0.5, 1, 1, 88), {}).lines()[0]

    assert "worse than before training" in said(-0.05, -0.01)
    assert "no loss beyond chance" in said(-0.05, 0.01)
    assert "better than before training" in said(0.01, 0.05)


def test_elsewhere_needs_the_scores_before_and_its_name(documents: Path):
    data = {"path": str(documents), "format": "documents"}
    with pytest.raises(SettingsError, match=r"set evaluation\.before"):
        recipe_of({"data": {"a": data}, "evaluation": {"elsewhere": "stdlib", "before": False}}, where="recipe")
    with pytest.raises(SettingsError, match="elsewhere is what the scores"):
        recipe_of({"data": {"elsewhere": data}, "evaluation": {"elsewhere": "stdlib"}}, where="recipe")


@pytest.mark.parametrize(("rate", "looks"), [(1e6, True), (200.0, False)])
def test_a_plan_leaves_out_what_takes_more_than_a_minute_elsewhere(
    documents: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, rate: float, looks: bool
):
    monkeypatch.setattr(harvested, "_ELSEWHERE", 200)
    monkeypatch.setattr(Speed, "_measured", lambda self, model, sample: rate)
    base = recipe(documents, tiny_bert)
    evaluation = base.evaluation.model_copy(update={"elsewhere": "stdlib"})
    plan = fitted(base.model_copy(update={"evaluation": evaluation}), 60)
    assert (plan.recipe.evaluation.elsewhere is not None) == looks
    assert ("evaluation.elsewhere" in plan.changes) == (not looks)


def test_of_a_large_folder_some_files_are_mined_and_scored_and_all_is_searched(
    documents: Path, tiny_bert: Path, tmp_path: Path
):
    whole = recipe(documents, tiny_bert)
    values = whole.model_dump(mode="json")
    values["data"]["own"]["documents"]["max_passages"] = 25
    part = embedsmith.run(recipe_of(values, where="part"), out=tmp_path / "part").folder
    sides = {name: load_collection(part / "data" / "own" / name, split=name) for name in ("train", "test")}
    assert 0 < len(sides["test"].passages) <= 25
    assert set(sides["train"].passage_ids) < set(sides["test"].passage_ids)
    # Whole units: so few files are drawn by their headings, of which each has one passage or all of its file's.
    everything = load_corpus(part / "data" / "own" / "all")
    assert set(sides["test"].passage_ids) < set(everything.ids)
    assert len({one.split(":")[0] for one in everything.ids}) == len(THINGS)
    assert set(corpus_of_run(part, None).ids) == set(everything.ids)
    assert json.loads((part / "manifest.json").read_text())["counts"]["data own"]["all_passages"] == len(everything.ids)


def test_a_part_that_leaves_too_few_pairs_says_what_left_them(documents: Path, tiny_bert: Path, tmp_path: Path):
    values = recipe(documents, tiny_bert).model_dump(mode="json")
    values["data"]["own"]["documents"]["max_passages"] = 2
    with pytest.raises(InputError, match="max_passages leaves"):
        embedsmith.run(recipe_of(values, where="part"), out=tmp_path / "run")


def test_own_queries_may_be_for_any_passage_so_none_is_left_out(documents: Path, tiny_bert: Path, tmp_path: Path):
    asked = tmp_path / "asked.txt"
    asked.write_text("open the red apple\tred-apple.md\n")
    with pytest.raises(SettingsError, match="max_passages"):
        recipe(documents, tiny_bert, queries=str(asked), documents={"max_tokens": 60, "max_passages": 25})
