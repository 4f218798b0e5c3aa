"""Carry out a recipe in a process per moment, each of which kills itself at its moment; print how each ended.

It is a program, not a part of the test's process: a fork of a process that has multiplied matrices on several threads
may wait for ever for threads that it does not have. This process computes nothing itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.recipes.recipe import Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.training import checkpoints
from embedsmith.training import train as training
from embedsmith.training.grad_cache import GradCache

# Where a run is killed, one after the other: function, call of it since the run went on, before or after its work.
MOMENTS = {
    "in the middle of accumulation": (GradCache, "run", 6, "after"),
    "while a checkpoint is written": (checkpoints, "save_optimizer", 1, "before"),
    "before a checkpoint has its name": (checkpoints, "write_json", 1, "after"),
    "in the first stage": (GradCache, "run", 3, "before"),
    "between stages": (training, "_add_steps", 1, "after"),
    "when the first stage is saved": (EmbeddingModel, "save", 1, "after"),
    "in the second stage": (GradCache, "run", 3, "before"),
    "while the best model is kept": (checkpoints, "save_weights", 1, "after"),
    "when all is trained": (training, "write_card", 1, "before"),
}


def attempt(recipe: Recipe, out: Path, moment: str) -> int:
    """Carry out a recipe in a process that kills itself; return its exit status, that of a signal negative."""
    owner, name, at_call, when = MOMENTS[moment]
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
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
        run_recipe(recipe, out=out)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests: the last digits of a sum depend on it
    asked, out = Recipe.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    notes = []
    for moment in MOMENTS:
        code = attempt(asked, out, moment)
        kept = {path.suffix for path in (out / "checkpoints").rglob("*") if path.is_file()}
        notes.append({"moment": moment, "code": code, "kept": sorted(kept)})
    print(json.dumps(notes))
