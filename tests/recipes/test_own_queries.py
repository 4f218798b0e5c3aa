"""A user's own queries on documents: read from what people write, answered by files or passages, scored apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedsmith
from embedsmith.data.collection import Collection
from embedsmith.errors import InputError, RunError, SettingsError
from embedsmith.models.opening import load
from embedsmith.progress import silent
from embedsmith.recipes import speed
from embedsmith.recipes.build import build_recipe
from embedsmith.recipes.data import Prepared
from embedsmith.recipes.own_queries import own_collection, own_queries, read_own_queries
from embedsmith.recipes.plan import read_data
from embedsmith.recipes.preconditions import Preconditions
from embedsmith.recipes.recipe import DataSettings, Recipe, recipe_of
from embedsmith.runs.run import Run
from embedsmith.runs.scores import read_scores
from tests.recipes.test_documents import documents, recipe

__all__ = ["documents"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("asked.txt", "how do I sort\tguide.md\n\nwhat is an owl\nHow do I  sort\tother.md\n"),
        (
            "asked.jsonl",
            '{"query": "how do I sort", "answer": ["guide.md", "other.md"]}\n'
            '{"query": "what is an owl", "answer": null}\n',
        ),
        ("asked.csv", "query,answer\nhow do I sort,guide.md\nwhat is an owl,\nhow do I sort,other.md\n"),
    ],
)
def test_queries_are_read_with_what_answers_them(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    found = [(one.text, one.answers) for one in read_own_queries(tmp_path / name)]
    assert found == [("how do I sort", ("guide.md", "other.md")), ("what is an owl", ())]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("asked.txt", " \n", "no query in it"),
        ("asked.txt", b"\xff\xfe\xe9", "not UTF-8"),
        ("asked.jsonl", '{"query": ""}\n', "asked.jsonl:1: no query"),
        ("asked.jsonl", '{"query": "a", "answer": 7}\n', "asked.jsonl:1: answer is 7"),
        ("asked.doc", "a", 'ends in ".doc"'),
        ("missing.txt", None, "no such file"),
    ],
)
def test_what_is_no_query_is_one_line(tmp_path: Path, name: str, content: str | bytes | None, said: str):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=said) as caught:
        read_own_queries(tmp_path / name)
    assert caught.value.hint


def side(*files: str) -> Collection:
    return Collection.of(
        name="test",
        passage_ids=[f"{file}:{number}" for number, file in enumerate(files)],
        passages=[f"text {number}" for number in range(len(files))],
        query_ids=[],
        queries=[],
        qrels={},
        metadata=[{"file": file} for file in files],
    )


def test_a_file_is_answered_by_each_of_its_passages(tmp_path: Path):
    (tmp_path / "asked.txt").write_text("one\ta.md\ntwo\tb.md:2\nthree\n")
    found = own_collection(read_own_queries(tmp_path / "asked.txt"), side("a.md", "a.md", "b.md", "b.md"))
    assert found and list(found.queries) == ["one", "two"]
    assert found.qrels == {"own-1": {"a.md:0": 1, "a.md:1": 1}, "own-2": {"b.md:2": 1}}


def test_an_answer_that_was_not_read_is_named(tmp_path: Path):
    (tmp_path / "asked.txt").write_text("one\ta.md\ntwo\tc.md\n")
    with pytest.raises(InputError, match=r'asked.txt:2: the answer "c.md" is no file that was read'):
        own_collection(read_own_queries(tmp_path / "asked.txt"), side("a.md"))


def test_they_are_scored_apart_from_what_the_folder_gives(documents: Path, tiny_bert: Path, tmp_path: Path):
    (tmp_path / "asked.txt").write_text("how is a pear opened\tgreen-pear.md\nwhere is the cat\tcat-mat.md\nunknown\n")
    notes: list[str] = []
    asked = recipe(documents, tiny_bert, queries=str(tmp_path / "asked.txt"))
    run = embedsmith.run(asked, out=tmp_path / "run", on_skip=notes.append)
    assert any("1 of 3 queries have no answer" in line for line in notes)
    board = read_scores(run.folder)
    assert board.scores["own-own"].keys() == board.scores["own"].keys()
    assert board.data["own-own"].queries == 2 and board.data["own-own"].path == "own/own-own"
    rows = [json.loads(line) for line in (run.folder / "own/own-own/queries.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["how is a pear opened", "where is the cat"]
    again = embedsmith.evaluate(run.folder, run.folder / "own" / "own-own")
    assert again.mean["ndcg@10"] == pytest.approx(board.metrics()["own-own"]["after"]["ndcg@10"], abs=1e-3)


def test_they_are_for_documents_only():
    with pytest.raises(SettingsError, match="queries is for documents"):
        recipe_of({"data": {"code": {"path": "x", "format": "code", "queries": "a.txt"}}}, where="recipe")


def test_build_names_them_where_they_lie(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert build_recipe(str(documents), queries="asked.txt").data["documents"].queries == str(tmp_path / "asked.txt")


def test_other_queries_are_refused_before_they_are_written(tmp_path: Path):
    asked = tmp_path / "asked.txt"
    settings = DataSettings(path=str(tmp_path), format="documents", queries=str(asked))
    prepared = [Prepared("own", settings, train=None, test=side("cats.md", "dogs.md"))]
    asked.write_text("where is the cat\tcats.md\n")
    with Run.open(tmp_path / "run", command="a test", settings=settings, inputs={}) as run:
        own_queries(run, prepared)
    written = {path: path.read_bytes() for path in (tmp_path / "run" / "own").rglob("*") if path.is_file()}
    assert written
    asked.write_text("where is the dog\tdogs.md\n")
    with (
        pytest.raises(RunError, match=r"own-own \(test\) has changed"),
        Run.open(tmp_path / "run", command="a test", settings=settings, inputs={}) as run,
    ):
        own_queries(run, prepared)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "own").rglob("*") if path.is_file()} == written


def test_the_plan_counts_the_scoring_of_own_queries_and_of_hybrid_search(
    documents: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speed.Speed, "_measured", lambda self, model, sample: 1000.0)
    monkeypatch.setattr(speed, "_OPERATIONS_A_SECOND", 1e6)
    (tmp_path / "asked.txt").write_text("how is a pear opened\tgreen-pear.md\nwhere is the cat\tcat-mat.md\n")

    def scoring(*, own: bool, hybrid: bool) -> float:
        base = recipe(documents, tiny_bert, **({"queries": str(tmp_path / "asked.txt")} if own else {}))
        asked: Recipe = base.model_copy(update={"evaluation": base.evaluation.model_copy(update={"hybrid": hybrid})})
        read = read_data(asked, Preconditions(None).check(asked, Run.follow(tmp_path)), silent)
        passages.update({name: (len(test.queries), len(test.passages)) for name, test in read.tests.items()})
        return speed.Speed(asked, read, reading_s=0.0).estimate(asked).scoring

    passages: dict[str, tuple[int, int]] = {}
    plain, with_hybrid, with_both = (
        scoring(own=False, hybrid=False),
        scoring(own=False, hybrid=True),
        scoring(own=True, hybrid=True),
    )
    queries, count = passages["own"]
    search = 2 * count * 1024 / 1e6  # of one query
    assert with_hybrid - plain == pytest.approx((queries + count) * 5e-4 + queries * search)
    words = 2 * (2 + count) * 5e-4  # as the teacher, and in the hybrid search
    # Scored are the model before and after, the teacher's and the baselines' rankings, and the hybrid search.
    tokens = 2 * sum(len(text) for text in tokenized(tiny_bert))
    assert with_both - with_hybrid == pytest.approx(words + tokens / 1000 + (2 + 2 + 1) * 2 * search)


def tokenized(model: Path) -> list[list[int]]:
    tokenizer = load(str(model)).tokenizer
    return [tokenizer(text)["input_ids"] for text in ("how is a pear opened", "where is the cat")]
