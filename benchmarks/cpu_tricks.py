"""What is each way of being fast on a CPU worth? The whole, and the whole without one of them.

Each side runs in a process of its own, the sides take turns, and medians are printed with the ratio to `all`: seconds
and processor seconds of encoding (texts to vectors, without opening and a first small batch) and of a training step
(the mean of all steps but the first two).

    activations   matmul and activation fused, found by running the model once (encoding)
    packing       the texts of a batch in one row, without padding (encoding)
    matmul        float32 by oneDNN where MKL is slower (encoding, training)
    attention     plain matmuls in place of flash attention (training)
    rows          gradients of token embeddings for the rows that were read (training)

    python benchmarks/cpu_tricks.py --data FOLDER [--model NAME] [--layers 6] [--texts 400] [--steps 8]
        [--dtype bfloat16] [--without NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from alternate import Clock, alternate

from embedsmith.data.examples import Example, Passage, write_examples
from embedsmith.data.files import read_json, read_jsonl, write_json
from embedsmith.data.load import known_splits, load_collection
from embedsmith.models.settings import SMOLLM2, StudentSettings

TRICKS = {"encode": ("activations", "packing", "matmul"), "train": ("matmul", "attention", "rows")}
"""Work -> what it uses."""
ALL = "all"


def without(trick: str) -> None:
    """Turn one of them off in this process."""
    from embedsmith.models import remembered
    from embedsmith.models.attention import steady_attention
    from embedsmith.models.cpu import matmul, trained_embeddings, trained_matmul, training

    def off(*_: Any, **__: Any) -> bool:
        return False

    if trick == "activations":
        remembered.Remembered.fused = lambda *_: None
    elif trick == "packing":
        remembered.Remembered.packs = off
    elif trick == "matmul":
        matmul.multiplies_wide = trained_matmul.multiplies_wide = off
    elif trick == "attention":
        training.training_attention = steady_attention
    elif trick == "rows":
        trained_embeddings._is_worth_it = off


def encode(folder: Path) -> dict[str, float]:
    """Return how long the texts take."""
    from embedsmith.models.opening import load

    model = load(str(folder / "model"), dtype="float32", device="cpu")
    texts = read_json(folder / "texts.json")
    model.embed(texts[:2], "passage")
    clock = Clock()
    clock.start()
    model.embed(texts, "passage")
    clock.stop()
    return clock.figures


def train(folder: Path, steps: int, dtype: str) -> dict[str, float]:
    """Return how long a step takes, in seconds and in processor seconds of the whole run for each step."""
    import embedsmith

    stage = embedsmith.StageSettings(steps=steps, batch_size=16, hard_negatives=1, dtype=dtype)
    with tempfile.TemporaryDirectory() as out:
        clock = Clock()
        clock.start()
        run = embedsmith.train(folder / "examples.jsonl", student=folder / "model", out=Path(out) / "run", stage=stage)
        clock.stop()
        taken = [row["seconds"] for _, row in read_jsonl(run.folder / "steps.jsonl")]
    return {"wall": mean(taken[2:]), "processor": clock.figures["processor"] / steps}


def prepare(folder: Path, data: Path, arguments: argparse.Namespace) -> None:
    """Write the model, the texts and the examples."""
    from embedsmith.models.opening import build_student

    split = "train" if "train" in known_splits(data) else "test"
    found = load_collection(data, split=split)
    model = build_student(StudentSettings(name=arguments.model, layers=arguments.layers, pooling="mean"))
    model.save(str(folder / "model"))
    write_json(folder / "texts.json", list(found.passages)[: arguments.texts])
    passages = list(found.passages)

    def passage(row: int) -> Passage:
        return Passage(found.passage_ids[row], passages[row])

    rows = list(zip(found.query_ids, found.queries, strict=True))[: 16 * arguments.steps]
    examples = [
        Example(one, query, [passage(found.passage_index[found.positives(one)[0]])], [passage(number % len(passages))])
        for number, (one, query) in enumerate(rows)
    ]
    write_examples(folder / "examples.jsonl", examples)


def main() -> None:
    """Run every side, in turns, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--layers", type=int, help="the first of the model; all of them when not given")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", choices=[*TRICKS], action="append", help="by default both")
    parser.add_argument("--without", action="append", metavar="NAME", help="only these; by default each")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        work, _, trick = arguments.side.partition(":")
        without(trick)
        folder = arguments.folder
        figures = encode(folder) if work == "encode" else train(folder, arguments.steps, arguments.dtype)
        print(json.dumps(figures))
        return
    if not arguments.data:
        parser.error("name a data set with --data or EMBEDSMITH_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, Path(arguments.data), arguments)
        options = ["--folder", folder, "--steps", arguments.steps, "--dtype", arguments.dtype]
        for work in arguments.work or TRICKS:
            left_out = [trick for trick in TRICKS[work] if trick in (arguments.without or TRICKS[work])]
            sides = [f"{work}:{trick}" for trick in (ALL, *left_out)]
            found = alternate(__file__, sides, options, rounds=arguments.rounds, threads=arguments.threads)
            base = found[sides[0]]
            print(f"\n| {work} | seconds | processor seconds | times as long, by seconds | by processor |")
            print("| --- | --- | --- | --- | --- |")
            for side, row in found.items():
                ratios = [row[key] / base[key] for key in ("wall", "processor")]
                notes = side.partition(":")[2]
                label = notes if notes == ALL else f"without {notes}"
                figures = f"{row['wall']:.2f} | {row['processor']:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f}"
                print(f"| {label} | {figures} |")


if __name__ == "__main__":
    main()
