"""Mining, training and evaluating a user's own data, and what happens when any of them is cut short."""

import gc
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.errors import InputError, ModelError, RunError, SettingsError
from embedsmith.mining import mine as mining
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.settings import TeacherSettings

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_pairs.py"
ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]
PLACES = ["mat", "log", "tree", "lake", "road"]
THINGS = [(animal, place) for animal in ANIMALS for place in PLACES]
METRICS = {"ndcg@10", "recall@10", "mrr@10"}
STAGE = StageSettings(steps=5, batch_size=6, learning_rate=5e-3, dtype="float32", save_steps=2, report_to="none")


@pytest.fixture(scope="module")
def beir(tmp_path_factory) -> Path:
    """40 passages; 24 queries to train on and 6 to test."""
    passages = [f"the {animal} sat on the {place} and read the file" for animal, place in THINGS]
    ids = [f"p{row}" for row in range(len(passages))]

    def split(rows: range) -> Collection:
        return Collection.of(
            name="animals",
            passage_ids=ids,
            passages=passages,
            query_ids=[f"q{row}" for row in rows],
            queries=["where is the {} of the {}".format(*THINGS[row]) for row in rows],
            qrels={f"q{row}": {ids[row]: 1} for row in rows},
            metadata=[{"url": f"animals/{row}"} for row in range(len(passages))],
        )

    folder = tmp_path_factory.mktemp("beir")
    write_beir(folder, {"train": split(range(24)), "test": split(range(30, 36))})
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"query": f"find the {a} of the {p}", "positive": f"the {a} is on the {p}"} for a, p in THINGS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Once:
    """A progress that interrupts at every piece of work that it has not heard of before."""

    def __init__(self, *, only: str = "") -> None:
        self.only = only
        self.heard: list[tuple[str, int]] = []

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith(self.only) and (what, done) not in self.heard:
            self.heard.append((what, done))
            raise KeyboardInterrupt(what)


def until_finished(call, progress: Once, *, attempts: int = 60) -> int:
    """Call again and again until nothing interrupts; return how often something did."""
    for attempt in range(attempts):
        try:
            call(on_progress=progress)
        except KeyboardInterrupt:
            continue
        return attempt
    raise AssertionError(f"not finished after {attempts} attempts, at {progress.heard[-1]}")


def is_frozen() -> bool:
    return gc.get_freeze_count() > 0


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mining_settings(model: Path) -> MiningSettings:
    return MiningSettings(
        teachers=[str(model)],
        method="naive",
        negatives=3,
        depth=10,
        teacher_settings=TeacherSettings(dtype="float32"),
    )


@pytest.fixture(scope="module")
def mined(beir: Path, tiny_bert: Path, tmp_path_factory) -> Path:
    """A mining run that was not interrupted."""
    folder = tmp_path_factory.mktemp("mined") / "run"
    embedsmith.mine(beir, out=folder, settings=mining_settings(tiny_bert))
    return folder


@pytest.fixture(scope="module")
def trained(mined: Path, tiny_bert: Path, tmp_path_factory) -> Path:
    """A training run that was not interrupted."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    embedsmith.train(mined, out=folder, student=StudentSettings(name=str(tiny_bert)), stage=STAGE)
    return folder


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def test_mined_rows_have_exactly_the_documented_fields(mined: Path):
    rows = rows_of(mined / "negatives.jsonl")
    assert len(rows) == 24
    for row in rows:
        assert list(row) == ["query_id", "query", "positives", "negatives", "outcome"]
        assert [list(passage) for passage in row["positives"]] == [["id", "text", "score"]]
        assert [list(passage) for passage in row["negatives"]] == [["id", "text", "score", "teacher", "rank"]] * 3
        assert row["positives"][0]["id"] not in {passage["id"] for passage in row["negatives"]}
        scores = [passage["score"] for passage in row["negatives"]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.usefixtures("unfrozen")
def test_mining_spares_the_collector_what_was_there_before(beir: Path, tiny_bert: Path, tmp_path: Path):
    frozen = []
    settings = mining_settings(tiny_bert)
    embedsmith.mine(beir, out=tmp_path / "run", settings=settings, on_progress=lambda *_: frozen.append(is_frozen()))
    assert all(frozen) and frozen
    assert not is_frozen()


def test_a_finished_run_holds_what_it_was_asked_for_and_what_came_of_it(mined: Path, trained: Path, tiny_bert: Path):
    manifest = read_manifest(mined)
    assert (manifest["status"], manifest["counts"]["mining"]["queries"]) == ("finished", 24)
    assert "method: naive" in (mined / "recipe.yaml").read_text()
    manifest = read_manifest(trained)
    assert (manifest["status"], manifest["inputs"]) == ("finished", {"mined": str(mined)})
    assert manifest["settings"]["student"]["name"] == str(tiny_bert)
    assert [row["step"] for row in rows_of(trained / "steps.jsonl")] == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in trained.iterdir()) == ["manifest.json", "model", "recipe.yaml", "steps.jsonl"]


def test_training_changes_the_students_weights_and_its_scores_are_measured(trained: Path, beir: Path, tiny_bert: Path):
    assert weights(trained) != (tiny_bert / "model.safetensors").read_bytes()
    for model in (trained, tiny_bert, "bm25"):
        scores = embedsmith.evaluate(model, beir).mean
        assert scores.keys() >= METRICS
        assert all(0 <= value <= 1 for value in scores.values())


def test_bm25_finds_passages_by_their_words(pairs: Path):
    assert embedsmith.evaluate("bm25", pairs).mean["recall@10"] > 0.9


def test_the_second_evaluation_of_a_run_encodes_nothing(trained: Path, beir: Path, encoded: list[str]):
    first = embedsmith.evaluate(trained, beir, split="train").mean
    encoded.clear()
    assert embedsmith.evaluate(trained, beir, split="train").mean == first
    assert encoded == []


def test_a_mining_run_is_not_a_model(mined: Path, beir: Path):
    with pytest.raises(ModelError, match="a run folder without a trained model"):
        embedsmith.evaluate(mined, beir)


def test_a_mining_run_that_is_interrupted_at_every_piece_of_work_ends_the_same(
    beir: Path, tiny_bert: Path, mined: Path, tmp_path: Path, encoded: list[str]
):
    def call(**keywords):
        embedsmith.mine(beir, out=tmp_path / "run", settings=mining_settings(tiny_bert), **keywords)

    assert until_finished(call, Once()) == 5
    assert (tmp_path / "run" / "negatives.jsonl").read_bytes() == (mined / "negatives.jsonl").read_bytes()
    # The first interruption falls within the only shard, which is then encoded again; no later one does.
    assert (encoded.count("passage"), encoded.count("query")) == (80, 48)


def test_a_training_run_that_is_interrupted_at_every_step_ends_with_the_same_weights(
    mined: Path, trained: Path, tiny_bert: Path, tmp_path: Path
):
    def call(**keywords):
        student = StudentSettings(name=str(tiny_bert))
        embedsmith.train(mined, out=tmp_path / "run", student=student, stage=STAGE, **keywords)

    progress = Once()
    assert until_finished(call, progress) == 6
    assert progress.heard == [("stage train", step) for step in (0, 1, 2, 3, 4, 5)]
    assert weights(tmp_path / "run") == weights(trained)
    assert [row["loss"] for row in rows_of(tmp_path / "run" / "steps.jsonl")] == [
        row["loss"] for row in rows_of(trained / "steps.jsonl")
    ]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_finished_training_run_is_refused_and_left_as_it_is(mined: Path, trained: Path, tiny_bert: Path):
    before = weights(trained)
    with pytest.raises(RunError, match="this run is finished already"):
        embedsmith.train(mined, out=trained, student=StudentSettings(name=str(tiny_bert)), stage=STAGE)
    with pytest.raises(RunError, match="holds another run"):
        embedsmith.train(mined, out=trained, student=StudentSettings(name=str(tiny_bert)), stage=STAGE, seed=1)
    assert weights(trained) == before


def test_a_mining_run_that_was_cut_short_is_not_trained_on(beir: Path, tiny_bert: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt, match="encode passages"):
        embedsmith.mine(beir, out=tmp_path / "cut", settings=mining_settings(tiny_bert), on_progress=Once())
    with pytest.raises(RunError, match="a run that was cut short"):
        embedsmith.train(tmp_path / "cut", out=tmp_path / "model")


def test_what_has_no_negatives_is_not_trained_on(trained: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"a run without negatives.jsonl"):
        embedsmith.train(trained, out=tmp_path / "model")
    with pytest.raises(InputError, match="no such run folder or file"):
        embedsmith.train(tmp_path / "none", out=tmp_path / "model")


def test_a_model_is_found_or_refused_before_anything_is_trained(mined: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="no such model folder"):
        embedsmith.train(mined, out=tmp_path / "model", student=StudentSettings(name="./none"))


def test_a_trained_run_searches_data_of_any_number_of_splits(trained: Path, beir: Path):
    hits = embedsmith.search(trained, "where is the owl", data=beir, k=3)
    assert [hit.metadata["url"] for hit in hits] == [f"animals/{hit.id[1:]}" for hit in hits]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_trained_run_searches_a_file_of_passages(trained: Path, beir: Path, tmp_path: Path):
    of_beir = embedsmith.search(trained, "where is the owl", data=beir, k=3)
    passages = shutil.copy(beir / "corpus.jsonl", tmp_path / "passages.jsonl")
    assert embedsmith.search(trained, "where is the owl", data=passages, k=3) == of_beir
    only_corpus = tmp_path / "corpus-only"
    only_corpus.mkdir()
    shutil.copy(passages, only_corpus / "corpus.jsonl")
    assert embedsmith.search(trained, "where is the owl", data=only_corpus, k=3) == of_beir


def test_a_search_says_what_it_lacks(trained: Path, mined: Path, tmp_path: Path):
    with pytest.raises(RunError, match="has no corpus of its own"):
        embedsmith.search(trained, "where is the owl")
    with pytest.raises(InputError, match="the query is empty"):
        embedsmith.search(trained, "  ")
    with pytest.raises(RunError, match="no such run folder"):
        embedsmith.search(tmp_path / "none", "where is the owl")
    several = shutil.copytree(trained, tmp_path / "several")
    for name in ("a", "b"):
        (several / "data" / name / "test").mkdir(parents=True)
    with pytest.raises(RunError, match="has several corpora"):
        embedsmith.search(several, "where is the owl")


@pytest.fixture(scope="module")
def recipe(beir: Path, pairs: Path, tiny_bert: Path) -> Recipe:
    """Two data sets and two stages."""
    return Recipe(
        data={
            "animals": DataSettings(path=str(beir)),
            "pairs": DataSettings(path=str(pairs), instruction="Find the animal"),
        },
        mining=mining_settings(tiny_bert),
        student=StudentSettings(name=str(tiny_bert)),
        stages=[
            STAGE.model_copy(update={"name": "first", "data": ["animals"], "steps": 3}),
            STAGE.model_copy(update={"name": "second", "in_batch": False, "steps": 2}),
        ],
        evaluation=EvaluationSettings(dtype="float32"),
    )


@pytest.fixture(scope="module")
def carried_out(recipe: Recipe, tmp_path_factory) -> Path:
    """A recipe's run that was not interrupted."""
    folder = tmp_path_factory.mktemp("carried_out") / "run"
    embedsmith.run(recipe, out=folder)
    return folder


@pytest.mark.slow
def test_a_recipe_interrupted_everywhere_ends_the_same_and_mines_once(
    recipe: Recipe, carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mined: list[str] = []
    mine_candidates = mining.mine_candidates

    def counted(teacher, collection, **keywords):
        found = mine_candidates(teacher, collection, **keywords)
        mined.append(collection.name)
        return found

    monkeypatch.setattr(mining, "mine_candidates", counted)
    run = tmp_path / "run"
    progress = Once()
    interrupted = until_finished(lambda **keywords: embedsmith.run(recipe, out=run, **keywords), progress)
    assert interrupted == len(progress.heard)
    assert {("stage first", 3), ("stage second", 1), ("stage second", 2)} <= set(progress.heard)
    assert len(mined) == 2
    assert weights(run) == weights(carried_out)
    for name in ("mined/animals/negatives.jsonl", "mined/pairs/negatives.jsonl", "scores.json"):
        assert (run / name).read_bytes() == (carried_out / name).read_bytes()
    assert [(row["stage"], row["step"]) for row in rows_of(run / "steps.jsonl")] == [
        *(("first", step) for step in (1, 2, 3)),
        *(("second", step) for step in (1, 2)),
    ]


def test_a_recipes_run_scores_the_data_that_has_a_test_split(carried_out: Path):
    scores = read_scores(carried_out).metrics()
    assert scores.keys() == {"animals"}
    assert scores["animals"].keys() == {"bm25", "teacher", "before", "after first", "after"}
    assert scores["animals"]["before"] == scores["animals"]["teacher"]
    report = (carried_out / "report.md").read_text()
    for part in ("## Scores on animals", "| bm25 |", "| after |", "| first | 1-1 |", "## Mined negatives to read"):
        assert part in report


def test_a_run_is_finished_only_when_its_report_is_written(
    recipe: Recipe, carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args):
        raise OSError("No space left on device")

    small = recipe.model_copy(update={"stages": [STAGE.model_copy(update={"steps": 1})]})
    with monkeypatch.context() as patch:
        patch.setattr("embedsmith.recipes.run.write_report", full)
        with pytest.raises(OSError, match="No space left"):
            embedsmith.run(small, out=tmp_path / "run")
    embedsmith.run(small, out=tmp_path / "run")
    assert (tmp_path / "run" / "report.md").is_file()


def test_a_recipes_stage_on_unknown_data_names_the_nearest(mined: Path, tiny_bert: Path, tmp_path: Path):
    stage = STAGE.model_copy(update={"data": ["runn"]})
    with pytest.raises(SettingsError, match=r'stage train: unknown data set "runn" \(did you mean "run"\?\)'):
        embedsmith.train(mined, out=tmp_path / "run", student=StudentSettings(name=str(tiny_bert)), stage=stage)


def test_the_example_trains_a_model_on_pairs(
    pairs: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(pairs), str(tiny_bert)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == [str(tiny_bert), "runs/model", "(32,)"]
    assert read_manifest("runs/model")["status"] == "finished"
