"""What are mined negatives worth? A quickstart's student trained with and without them, at equal work.

A query of an arm with M mined negatives costs 1 + M passages, one of the arm without them 1. The batch of the latter
is 1 + M times as large: all arms put the same number of passages through the model in a step, and take about the
same seconds, which are printed beside the scores. Arms take turns, seed by seed.

    python benchmarks/hard_negatives.py RUN --out runs/hard-negatives [--arms mined,in-batch] [--seeds 3] [--steps N]

RUN is a finished `embedsmith quickstart`: its code, its candidates and its scores before training are used by all arms.
A run that was cut short goes on; a finished one is read again.

    mined        PercPos .95, as the quickstart
    in-batch     no mined negatives, larger batches
    cleaner      PercPos 1.05, and nothing that is nearer to the positive than the query is
    safer        PercPos .8: further from the positive
    four         four mined negatives a query, smaller batches
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import embedsmith
from embedsmith.data.beir import splits
from embedsmith.data.examples import write_examples
from embedsmith.data.files import read_json
from embedsmith.data.load import load_collection
from embedsmith.mining.candidates import read_candidates
from embedsmith.mining.rows import examples
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.scores import read_scores
from embedsmith.training.settings import StageSettings

SELECTIONS = {
    "mined": SelectionSettings(),
    "in-batch": SelectionSettings(),
    "cleaner": SelectionSettings(ratio=1.05, neighbour_ratio=1.0),
    "safer": SelectionSettings(ratio=0.8),
    "four": SelectionSettings(),
}


def stage_of(arm: str, stage: StageSettings) -> StageSettings:
    """Return the quickstart's stage with an arm's negatives, at the same number of passages a step."""
    passages = stage.batch_size * (1 + stage.hard_negatives)
    negatives = {"in-batch": 0, "four": 4}.get(arm, stage.hard_negatives)
    return stage.model_copy(update={"hard_negatives": negatives, "batch_size": passages // (1 + negatives)})


def negatives_of(arm: str, run: Path, out: Path) -> Path:
    """Return an arm's examples, selected from the run's candidates."""
    path = out / f"{arm}.jsonl"
    if not path.is_file():
        folder = run / "data" / "code" / "train"
        collection = load_collection(folder, split=splits(folder)[0])
        candidates = read_candidates(run / "mined" / "code" / "candidates")
        write_examples(path, examples(select(candidates, SELECTIONS[arm]), candidates, collection))
    return path


def main() -> None:
    """Run every arm for every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", default="mined,in-batch", help=", ".join(SELECTIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the quickstart's own when not given")
    arguments = parser.parse_args()
    run, out = arguments.run, arguments.out
    recipe = Recipe.parse(read_json(run / "manifest.json")["settings"], where=str(run))
    (stage,) = recipe.stages
    if arguments.steps:
        stage = stage.model_copy(update={"steps": arguments.steps})
    before = read_scores(run).metrics_of("code")["before"]["ndcg@10"]
    found: dict[str, list[float]] = {}
    print(f"before training: {before:.4f}\n")
    print("| seed | arm | ndcg@10 | gain | seconds of training |\n| --- | --- | --- | --- | --- |")
    for seed in range(arguments.seeds):
        for arm in arguments.arms.split(","):
            folder = out / f"{arm}-{seed}-{stage.steps}"
            if not (folder / "manifest.json").is_file() or read_json(folder / "manifest.json")["status"] != "finished":
                path = negatives_of(arm, run, out)
                embedsmith.train(path, out=folder, student=recipe.student, stage=stage_of(arm, stage), seed=seed)
            seconds = read_json(folder / "manifest.json")["seconds"]["train"]
            after = embedsmith.evaluate(folder, run / "data" / "code" / "test").mean["ndcg@10"]
            found.setdefault(arm, []).append(after - before)
            print(f"| {seed} | {arm} | {after:.4f} | {after - before:+.4f} | {seconds:.0f} |", flush=True)
    for arm, gains in found.items():
        spread = f" ± {stdev(gains):.4f}" if len(gains) > 1 else ""
        print(f"\n{arm}: mean gain {mean(gains):+.4f}{spread} over {len(gains)} seeds")


if __name__ == "__main__":
    main()
