"""Recipes of several data sets: ready-made examples, columns and corpora of one's own, stages that mine again."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.columns import ColumnSettings
from embedsmith.data.examples import Example, Passage, read_examples, write_examples
from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.opening import load
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes.plan import plan_of_recipe, plan_of_run
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.training import memory
from embedsmith.training.settings import StageSettings
from embedsmith.training.train import TrainingSettings, train

STAGE = {"steps": 2, "batch_size": 4, "dtype": "float32", "report_to": "none", "learning_rate": 5e-3, "warmup": 0.0}


@pytest.fixture(scope="module")
def recipe(tiny_bert: Path, tmp_path_factory) -> Recipe:
    """Pairs with columns of their own and a corpus beside them, and examples that have their negatives."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"ask": f"where is the cat {n}", "reply": f"the cat sat on the mat {n}"} for n in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    more = [{"id": f"m{n}", "text": f"a dog on the log {n}"} for n in range(6)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    write_examples(
        folder / "labelled.jsonl",
        [
            Example(f"l{n}", f"red apple {n}", [Passage(f"p{n}", f"fruit {n}")], [Passage(f"n{n}", f"colour {n}")])
            for n in range(8)
        ],
    )
    return Recipe(
        data={
            "pairs": DataSettings(
                path=str(folder / "pairs.jsonl"),
                columns=ColumnSettings(query="ask", positive="reply"),
                corpus=str(folder / "more.jsonl"),
                instruction="Find it",
            ),
            "labelled": DataSettings(
                path=str(folder / "labelled.jsonl"), format="examples", symmetric=True, instruction="", in_batch=False
            ),
        },
        mining=MiningSettings(teachers=[str(tiny_bert)], method="naive", negatives=3, depth=10),
        student=StudentSettings(name=str(tiny_bert), instruction="Read"),
        stages=[
            StageSettings(name="one", **STAGE),
            StageSettings(name="two", remine=True, data=["pairs"], **STAGE),
        ],
        evaluation=EvaluationSettings(before=False, baselines=[]),
    )


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory) -> Path:
    return run_recipe(recipe, out=tmp_path_factory.mktemp("run") / "run").folder


def test_the_corpus_beside_the_pairs_is_mined_too(run: Path):
    negatives = {p.id for row in read_examples(run / "mined" / "pairs" / "negatives.jsonl") for p in row.negatives}
    assert any(passage.startswith("m") for passage in negatives)
    assert not (run / "mined" / "labelled").exists()


def test_a_stage_that_mines_again_ranks_by_the_student_as_the_stage_before_left_it(run: Path):
    rows = read_examples(run / "remined" / "two" / "pairs" / "negatives.jsonl")
    student = load(str(run / "stages" / "one"))
    student.set_prompt("query", "Instruct: Find it\nQuery: ")
    texts = sorted({p.text for row in rows for p in (*row.positives, *row.negatives)})
    passages = dict(zip(texts, student.embed(texts, "passage"), strict=True))
    for row, query in zip(rows, student.embed([row.query for row in rows], "query"), strict=True):
        for passage in (*row.positives, *row.negatives):
            assert passage.score == pytest.approx(float(query @ passages[passage.text]), abs=0.02)
        assert [p.score for p in row.negatives] == sorted((p.score for p in row.negatives), reverse=True)
    assert not (run / "remined" / "two" / "labelled").exists()


def test_each_data_set_is_mined_again_behind_its_own_instruction(recipe: Recipe, tmp_path: Path, tiny_bert: Path):
    other = [{"ask": f"where is the dog {n}", "reply": f"the dog sat on the log {n}"} for n in range(8)]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    pairs = recipe.data["pairs"]
    update = {"path": str(tmp_path / "other.jsonl"), "instruction": "how to sort the banana", "symmetric": True}
    stages = [
        StageSettings(name="one", **STAGE),
        *(StageSettings(name=n, remine=True, **STAGE) for n in ("two", "three")),
    ]
    data = {**recipe.data, "other": pairs.model_copy(update=update)}
    run = run_recipe(recipe.model_copy(update={"data": data, "stages": stages}), out=tmp_path / "run").folder
    prompts = {"pairs": ("Instruct: Find it\nQuery: ", ""), "other": ("Instruct: how to sort the banana\nQuery: ",) * 2}
    for stage, before in (("two", "one"), ("three", "two")):
        for name, (query_prompt, passage_prompt) in prompts.items():
            student = load(str(run / "stages" / before))
            student.set_prompt("query", query_prompt)
            student.set_prompt("passage", passage_prompt)
            rows = read_examples(run / "remined" / stage / name / "negatives.jsonl")
            for row in rows:
                (query,) = student.embed([row.query], "query")
                passages = [*row.positives, *row.negatives]
                scores = student.embed([passage.text for passage in passages], "passage") @ query
                assert [passage.score for passage in passages] == pytest.approx(scores.tolist(), abs=0.02)


def test_the_plan_counts_data_steps_and_parameters_and_writes_nothing(recipe: Recipe, run: Path, tiny_bert: Path):
    before = sorted(Path(recipe.data["pairs"].path).parent.iterdir())
    plan = plan_of_recipe(recipe)
    assert sorted(Path(recipe.data["pairs"].path).parent.iterdir()) == before
    assert [(data.name, data.queries, data.to_be_mined) for data in plan.data] == [
        ("pairs", 12, True),
        ("labelled", 8, False),
    ]
    assert plan.data[0].passages == 18
    weights = sum(parameter.numel() for parameter in load(str(tiny_bert)).parameters())
    assert plan.parameters == weights
    for stage in plan.stages:
        assert (stage.steps, stage.queries_a_step, stage.trained_parameters) == (2, 4, weights)
        assert stage.seconds > 0
        # Weights, gradients and two means of AdamW in float32, and activations.
        assert stage.memory_gib > 16 * weights / 2**30
    logged = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    seen = np.mean([row["tokens"] for row in logged if row["stage"] == "two"])
    assert plan.stages[1].tokens_a_step == pytest.approx(seen, rel=0.35)  # other passages stand for the negatives


def test_the_plan_of_a_run_counts_adapters(run: Path, recipe: Recipe):
    pytest.importorskip("peft")
    stage = StageSettings(epochs=2, batch_size=5, lora_rank=2, report_to="none", memory_gib=0.0)
    settings = TrainingSettings(student=recipe.student, stage=stage)
    plan = plan_of_run(run / "mined" / "pairs" / "negatives.jsonl", settings)
    assert plan.stages[0].steps == 5
    assert plan.data[0].negatives == 36
    assert 0 < plan.stages[0].trained_parameters < plan.parameters / 2


def test_a_run_does_not_mine_again(run: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="remine needs a recipe"):
        train(run, out=tmp_path / "again", stage=StageSettings(remine=True))


def test_examples_that_are_not_there_are_named(recipe: Recipe, tmp_path: Path):
    data = {"gone": DataSettings(path=str(tmp_path / "gone.jsonl"), format="examples")}
    stages = [StageSettings(name="one", **STAGE)]
    with pytest.raises(InputError, match=r"gone\.jsonl: no such file of examples"):
        run_recipe(recipe.model_copy(update={"data": data, "stages": stages}), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"report_to": "wndb"}, 'report_to: unknown "wndb"'),
        ({"matryoshka": [16, 4096]}, "matryoshka 4096, but the model has 32 dimensions"),
        ({}, "stage two: not enough memory on"),
    ],
    ids=["tracker", "width", "memory"],
)
def test_a_stage_that_cannot_be_trained_is_refused_before_anything_is_mined(
    recipe, tmp_path, monkeypatch, change, said
):
    one, two = recipe.stages
    if not change:
        monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
        one = one.model_copy(update={"lora_rank": 1, "lora_targets": ["no-such-layer"]})  # which trains nothing
    wrong = recipe.model_copy(update={"stages": [one, two.model_copy(update=change)]})
    with pytest.raises(SettingsError, match=said):
        run_recipe(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run" / "mined").exists()
