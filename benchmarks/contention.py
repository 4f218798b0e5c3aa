"""What does another busy process cost? Training steps or passes of encoding, quiet and beside processes that compute.

A fair share of two cores beside one busy process is three quarters of them: 1.33 times the time.

    python benchmarks/contention.py --data FOLDER [--work train] [--model NAME] [--busy 1] [--times 6] [--dtype auto]

    train          steps of 32 queries with one negative
    checkpointing  the same with gradient checkpointing
    encode         passes over `--texts` passages
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from alternate import alternate
from cpu_tricks import prepare

from embedsmith.data.files import read_json, read_jsonl
from embedsmith.models.settings import MINILM

SIDES = ("quiet", "busy")
WORKS = ("train", "checkpointing", "encode")


def steps_of(folder: Path, steps: int, dtype: str, *, checkpointing: bool) -> list[float]:
    """Return the seconds of each step but the first, which is slower."""
    import embedsmith

    stage = embedsmith.StageSettings(
        steps=steps + 1,
        batch_size=32,
        hard_negatives=1,
        dtype=dtype,
        gradient_checkpointing=checkpointing,
        report_to="none",
    )
    with tempfile.TemporaryDirectory() as out:
        run = embedsmith.train(
            folder / "examples.jsonl", student=folder / "model", out=Path(out) / "run", stage=stage, progress=False
        )
        return [row["seconds"] for _, row in read_jsonl(run.folder / "steps.jsonl")][1:]


def passes_of(folder: Path, times: int, dtype: str) -> list[float]:
    """Return the seconds of each pass over all texts, after one over a few."""
    from embedsmith.models.opening import load

    model, texts = load(str(folder / "model"), dtype=dtype, device="cpu"), read_json(folder / "texts.json")
    model.embed(texts[:200], "passage")
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        model.embed(texts, "passage")
        taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    """Run both sides, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--work", default="train", choices=WORKS)
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16", "int8"])
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a core busy")
    parser.add_argument("--times", type=int, default=6, help="steps, or passes")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        count = arguments.busy if arguments.side == "busy" else 0
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            if arguments.work == "encode":
                taken = passes_of(arguments.folder, arguments.times, arguments.dtype)
            else:
                is_frugal = arguments.work == "checkpointing"
                taken = steps_of(arguments.folder, arguments.times, arguments.dtype, checkpointing=is_frugal)
        finally:
            for other in others:
                other.kill()
        print(json.dumps({"seconds each": median(taken)}))
        return
    if not arguments.data:
        parser.error("name a data set with --data or EMBEDSMITH_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments.steps = 2 * (arguments.times + 1)  # batches are twice as large as those that are prepared for
        prepare(folder, Path(arguments.data), arguments)
        options = ["--folder", folder, "--times", arguments.times, "--busy", arguments.busy]
        options += ["--dtype", arguments.dtype, "--work", arguments.work]
        found = alternate(__file__, SIDES, options, rounds=arguments.rounds, threads=arguments.threads)
    quiet, busy = (found[side]["seconds each"] for side in SIDES)
    print("\n| quiet | busy | times as long |\n| --- | --- | --- |")
    print(f"| {quiet:.2f} | {busy:.2f} | {busy / quiet:.2f} |")


if __name__ == "__main__":
    main()
