"""A training run that is killed, without a word of warning, at the worst moments ends as one that was not."""

import json
import os
import signal
import traceback
from pathlib import Path

import pytest

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.settings import StudentSettings
from embedsmith.pipeline import train as training
from embedsmith.pipeline.forge import forge
from embedsmith.pipeline.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.training import checkpoints
from embedsmith.training.grad_cache import GradCache
from embedsmith.training.settings import StageSettings

EXAMPLES = [
    Example(f"q{i}", f"where is the {i}", [Passage(f"p{i}", f"the cat {i} sat")], [Passage(f"n{i}", f"a dog {i * i}")])
    for i in range(16)
]

# Where a run is killed, one after the other: function, call of it since the run went on, before or after its work.
IN_THE_MIDDLE_OF_ACCUMULATION = (GradCache, "run", 6, "after")
IN_THE_FIRST_STAGE = (GradCache, "run", 3, "before")
WHILE_A_CHECKPOINT_IS_WRITTEN = (checkpoints, "save_optimizer", 1, "before")
BEFORE_A_CHECKPOINT_HAS_ITS_NAME = (checkpoints, "write_json", 1, "after")
BETWEEN_STAGES = (training, "_add_steps", 1, "after")
WHEN_THE_FIRST_STAGE_IS_SAVED = (EmbeddingModel, "save", 1, "after")
WHILE_THE_BEST_MODEL_IS_KEPT = (checkpoints, "save_weights", 1, "after")
IN_THE_SECOND_STAGE = (GradCache, "run", 3, "before")
WHEN_ALL_IS_TRAINED = (training, "write_card", 1, "before")


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


def killed(recipe: Recipe, out: Path, point) -> int:
    """Carry out a recipe in a process that kills itself; return the signal that ended it."""
    owner, name, at_call, when = point
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    work, left = getattr(owner, name), at_call

    def counted(*arguments, **keywords):
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = work(*arguments, **keywords)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, counted)
    try:
        forge(recipe, out=out)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def steps_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_killed_at_the_worst_moments_has_the_losses_and_the_weights_of_one_never_killed(recipe, tmp_path):
    whole = forge(recipe, out=tmp_path / "whole").folder
    assert [row["step"] for row in steps_of(whole)] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    moments = [
        IN_THE_MIDDLE_OF_ACCUMULATION,
        WHILE_A_CHECKPOINT_IS_WRITTEN,
        BEFORE_A_CHECKPOINT_HAS_ITS_NAME,
        IN_THE_FIRST_STAGE,
        BETWEEN_STAGES,
        WHEN_THE_FIRST_STAGE_IS_SAVED,
        IN_THE_SECOND_STAGE,
        WHILE_THE_BEST_MODEL_IS_KEPT,
        WHEN_ALL_IS_TRAINED,
    ]
    ends = []
    for moment in moments:
        ends.append(killed(recipe, tmp_path / "cut", moment))
        kinds = {path.suffix for path in (tmp_path / "cut" / "checkpoints").rglob("*") if path.is_file()}
        assert kinds <= {".safetensors", ".json"}, "no file of a checkpoint is a pickle"
    assert ends == [signal.SIGKILL] * len(moments)
    cut = forge(recipe, out=tmp_path / "cut").folder
    assert steps_of(cut) == steps_of(whole)
    for name in (
        "model/model.safetensors",
        "model/1_LatentAttentionPooling/model.safetensors",
        "stages/one/model.safetensors",
    ):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not list(cut.rglob("*.partial"))
    assert not (cut / "checkpoints").exists()
