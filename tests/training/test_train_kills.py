"""A training run that is killed, without a word of warning, at the worst moments ends as one that was not."""

import json
import signal
from pathlib import Path

import pytest

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.training.settings import StageSettings
from tests import forks
from tests.training.killed_training import MOMENTS

EXAMPLES = [
    Example(f"q{i}", f"where is the {i}", [Passage(f"p{i}", f"the cat {i} sat")], [Passage(f"n{i}", f"a dog {i * i}")])
    for i in range(16)
]


@pytest.fixture(scope="module")
def recipe(tiny_llama: Path, tmp_path_factory) -> Recipe:
    path = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    write_examples(path, EXAMPLES)
    stage = {"batch_size": 4, "learning_rate": 5e-3, "dtype": "float32", "dropout": 0.2, "report_to": "none"}
    return Recipe(
        data={"toy": DataSettings(path=str(path), format="examples")},
        student=StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="latent", latents=4, heads=2),
        stages=[
            StageSettings(name="one", steps=5, accumulation=2, save_steps=2, **stage),
            StageSettings(name="two", steps=4, save_steps=2, held_out=4, eval_steps=2, **stage).model_copy(
                update={"restart_optimizer": False}
            ),
        ],
        evaluation=EvaluationSettings(before=False, baselines=[]),
    )


def steps_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
def test_a_run_killed_at_the_worst_moments_has_the_losses_and_the_weights_of_one_never_killed(recipe, tmp_path):
    whole = run_recipe(recipe, out=tmp_path / "whole").folder
    assert [row["step"] for row in steps_of(whole)] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    done = forks.run_module("tests.training.killed_training", tmp_path / "recipe.json", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    attempts = json.loads(done.stdout.splitlines()[-1])
    assert [attempt["moment"] for attempt in attempts] == list(MOMENTS)
    for attempt in attempts:
        assert attempt["code"] == -signal.SIGKILL, (attempt, done.stderr)
        assert set(attempt["kept"]) <= {".safetensors", ".json"}, "no file of a checkpoint is a pickle"
    cut = run_recipe(recipe, out=tmp_path / "cut").folder
    assert steps_of(cut) == steps_of(whole)
    for name in (
        "model/model.safetensors",
        "model/1_LatentAttentionPooling/model.safetensors",
        "stages/one/model.safetensors",
    ):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not list(cut.rglob("*.partial"))
    assert not (cut / "checkpoints").exists()
