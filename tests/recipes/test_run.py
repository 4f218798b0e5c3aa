"""A code-search recipe on a small tree of sources, with the real MiniLM: from files to scores and a search."""

import json
from pathlib import Path

import pytest
import yaml

import embedsmith
from embedsmith import MiningSettings, StageSettings, StudentSettings
from embedsmith.data.load import load_collection
from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.models.settings import MINILM
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe, read_recipe
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.settings import TeacherSettings

pytestmark = pytest.mark.slow

MODULES = {
    "geometry": ["circle", "square", "triangle", "polygon", "sphere"],
    "kitchen": ["soup", "bread", "salad", "pizza", "cake"],
    "library": ["novel", "poem", "journal", "atlas", "comic"],
    "harbour": ["ferry", "tanker", "sailboat", "canoe", "tugboat"],
    "orchestra": ["violin", "trumpet", "piano", "cello", "flute"],
    "garden": ["tulip", "rose", "cactus", "fern", "orchid"],
}
VERBS = {
    "Measure the size": "return {0}.width * {0}.height",
    "Count the copies": "return sum(1 for it in all_of({0}) if it == {0})",
}
REPEATED = '''

def is_empty(values):
    """Tell whether there is nothing in a list."""
    return len(values) == 0
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """66 functions in 6 modules, one of them repeated in each."""
    folder = tmp_path_factory.mktemp("source")
    for module, things in MODULES.items():
        text = "".join(
            f'def {verb.split()[0].lower()}_{thing}({thing}):\n    """{verb} of a {thing} in the {module}.\n\n'
            f'    Not part of the query.\n    """\n    {body.format(thing)}\n\n\n'
            for thing in things
            for verb, body in VERBS.items()
        )
        (folder / f"{module}.py").write_text(text.rstrip("\n") + "\n" + REPEATED)
    (folder / "broken.py").write_text("def (:\n")
    return folder


@pytest.fixture(scope="module")
def recipe(source: Path) -> Recipe:
    return Recipe(
        name="small",
        data={"code": DataSettings(path=str(source), format="code")},
        mining=MiningSettings(
            teachers=[MINILM], depth=20, negatives=2, teacher_settings=TeacherSettings(max_tokens=48)
        ),
        student=StudentSettings(name=MINILM, query_max_tokens=24, passage_max_tokens=48),
        stages=[StageSettings(steps=2, batch_size=8)],
        evaluation=EvaluationSettings(dtype="float32"),
    )


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory) -> Path:
    return embedsmith.run(recipe, out=tmp_path_factory.mktemp("forge") / "run").folder


def test_the_run_scores_the_student_before_and_after_beside_its_teacher_and_bm25(run: Path):
    scores = read_scores(run).metrics()
    assert scores.keys() == {"code"}
    assert scores["code"].keys() == {"before", "after", "bm25", "teacher"}
    assert all(0 <= row["ndcg@10"] <= 1 for row in scores["code"].values())
    # The queries name what the functions are about: a real model must find most of them.
    assert scores["code"]["teacher"]["ndcg@10"] > 0.5


def test_the_report_mentions_every_score(run: Path):
    report = (run / "report.md").read_text()
    for label, row in read_scores(run).metrics_of("code").items():
        assert f"| {label} | {row['ndcg@10']:.3f} | {row['recall@10']:.3f} | {row['mrr@10']:.3f} |" in report
    for heading in ("# small", "## Counts", "## Time", "## Training", "## Mined negatives to read"):
        assert heading in report


def test_the_runs_recipe_is_the_recipe(run: Path, recipe: Recipe):
    assert read_recipe(run / "recipe.yaml") == recipe
    assert list(yaml.safe_load((run / "recipe.yaml").read_text())) == [
        name for name in Recipe.model_fields if name != "cluster"
    ]


def test_what_could_not_be_read_is_named(run: Path):
    skipped = json.loads((run / "data" / "code" / "done.json").read_text())["skipped"]
    assert [(row["path"], row["line"]) for row in skipped] == [("broken.py", 1)]


def test_nothing_of_the_test_modules_is_trained_on(run: Path):
    train = load_collection(run / "data" / "code" / "train", split="train")
    test = load_collection(run / "data" / "code" / "test", split="test")
    modules = set(json.loads((run / "data" / "code" / "done.json").read_text())["test_modules"])
    assert modules
    tested = [text for text, where in zip(test.passages, test.metadata, strict=True) if where["module"] in modules]
    for passage in tested:
        assert normalised(passage) not in {normalised(text) for text in train.passages}
    assert {normalised(query) for query in test.queries} & {normalised(query) for query in train.queries} == set()
    repeated = normalised("Tell whether there is nothing in a list")
    assert repeated in {normalised(query) for query in test.queries}

    rows = [json.loads(line) for line in (run / "mined" / "code" / "negatives.jsonl").read_text().splitlines()]
    seen = {normalised(passage["text"]) for row in rows for passage in [*row["positives"], *row["negatives"]]}
    assert seen <= {normalised(text) for text in train.passages}
    assert {normalised(row["query"]) for row in rows} == {normalised(query) for query in train.queries}


def test_a_function_is_found_by_what_it_does(run: Path, source: Path, encoded: list[str]):
    hits = embedsmith.search(run, "how large is a trumpet", k=4, dtype="float32")
    assert encoded == ["query"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.id for hit in hits}) == 4
    assert hits[0].metadata["name"] == "measure_trumpet"
    for hit in hits:
        line = (source / hit.metadata["file"]).read_text().splitlines()[hit.metadata["line"] - 1]
        assert line.startswith(f"def {hit.metadata['name']}(")
        assert hit.text.startswith(f"# {hit.metadata['module']}.{hit.metadata['name']}\n{line}")


def test_a_search_in_another_corpus_encodes_it_once(run: Path, tmp_path: Path, encoded: list[str]):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "a", "positive": "the moon is full"}\n{"query": "b", "positive": "bread is baked"}\n')
    for _ in range(2):
        hits = embedsmith.search(run, "night sky", data=pairs)
        assert [hit.text for hit in hits] == ["the moon is full", "bread is baked"]
    assert encoded == ["passage", "passage", "query", "query"]


def test_a_tree_without_python_is_refused(recipe: Recipe, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    data = {"code": DataSettings(path=str(tmp_path / "empty"), format="code")}
    with pytest.raises(InputError, match="no Python file"):
        embedsmith.run(recipe.model_copy(update={"data": data}), out=tmp_path / "run")
