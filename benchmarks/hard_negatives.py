"""What are mined negatives worth? The quickstart's student with and without them, at equal work.

A query of the arm with M mined negatives costs 1 + M passages, one of the arm without them 1. The batch of the latter
is 1 + M times as large: both arms put the same number of passages through the model in a step, and take about the
same seconds, which are printed beside the scores.

    python benchmarks/hard_negatives.py --out runs/hard-negatives [--student minilm] [--seeds 3] [--steps N]

A run that was cut short goes on; a finished one is read again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from embedsmith.data.files import read_json
from embedsmith.pipeline.forge import forge
from embedsmith.pipeline.quickstart import quickstart_recipe
from embedsmith.pipeline.recipe import Recipe


def arms(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe with its mined negatives, and without them but in larger batches."""
    (stage,) = recipe.stages
    without = {"hard_negatives": 0, "batch_size": stage.batch_size * (1 + stage.hard_negatives)}
    return {"mined": recipe, "in-batch only": recipe.model_copy(update={"stages": [stage.model_copy(update=without)]})}


def run(recipe: Recipe, folder: Path) -> tuple[dict[str, dict[str, float]], float]:
    """Return the scores of a recipe's run and the seconds that it trained."""
    manifest = folder / "manifest.json"
    if not manifest.is_file() or read_json(manifest)["status"] != "finished":
        forge(recipe, out=folder)
    return read_json(folder / "scores.json")["code"], read_json(manifest)["seconds"]["train"]


def main() -> None:
    """Run both arms for every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", default="minilm", choices=["minilm", "smollm2"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the quickstart's own when not given")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    print("| seed | arm | before | after | gain | seconds of training |\n| --- | --- | --- | --- | --- | --- |")
    for seed in range(arguments.seeds):
        recipe = quickstart_recipe(student=arguments.student, seed=seed)
        if arguments.steps:
            stage = recipe.stages[0].model_copy(update={"steps": arguments.steps})
            recipe = recipe.model_copy(update={"stages": [stage]})
        for name, arm in arms(recipe).items():
            scores, seconds = run(arm, arguments.out / f"{arguments.student}-{seed}-{name.replace(' ', '-')}")
            before, after = (scores[label]["ndcg@10"] for label in ("before", "after"))
            found.setdefault(name, []).append(after - before)
            print(
                f"| {seed} | {name} | {before:.4f} | {after:.4f} | {after - before:+.4f} | {seconds:.0f} |", flush=True
            )
    for name, gains in found.items():
        spread = f" ± {stdev(gains):.4f}" if len(gains) > 1 else ""
        print(f"\n{name}: mean gain {mean(gains):+.4f}{spread} over {len(gains)} seeds")


if __name__ == "__main__":
    main()
