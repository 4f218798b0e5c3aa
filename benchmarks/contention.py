"""What does another busy process cost a training step? Steps on a quiet machine, and beside processes that compute.

A fair share of two cores beside one busy process is three quarters of them: 1.33 times the time.

    python benchmarks/contention.py --data FOLDER [--model NAME] [--busy 1] [--steps 6] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from alternate import alternate
from cpu_tricks import prepare

from embedsmith.data.files import read_jsonl
from embedsmith.models.settings import MINILM

SIDES = ("quiet", "busy")


def steps_of(folder: Path, steps: int, dtype: str) -> list[float]:
    """Return the seconds of each step."""
    import embedsmith

    stage = embedsmith.StageSettings(steps=steps, batch_size=32, hard_negatives=1, dtype=dtype, report_to="none")
    with tempfile.TemporaryDirectory() as out:
        run = embedsmith.train(
            folder / "examples.jsonl", student=folder / "model", out=Path(out) / "run", stage=stage, progress=False
        )
        return [row["seconds"] for _, row in read_jsonl(run.folder / "steps.jsonl")]


def main() -> None:
    """Run both sides, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a core busy")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        count = arguments.busy if arguments.side == "busy" else 0
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            taken = steps_of(arguments.folder, arguments.steps, arguments.dtype)
        finally:
            for other in others:
                other.kill()
        print(json.dumps({"seconds a step": median(taken[1:])}))
        return
    if not arguments.data:
        parser.error("name a data set with --data or EMBEDSMITH_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments.texts = 1
        arguments.steps *= 2  # batches are twice as large as those that are prepared for
        prepare(folder, Path(arguments.data), arguments)
        options = ["--folder", folder, "--steps", arguments.steps // 2, "--busy", arguments.busy]
        options += ["--dtype", arguments.dtype]
        found = alternate(__file__, SIDES, options, rounds=arguments.rounds, threads=arguments.threads)
    quiet, busy = (found[side]["seconds a step"] for side in SIDES)
    print("\n| quiet | busy | times as long |\n| --- | --- | --- |")
    print(f"| {quiet:.2f} | {busy:.2f} | {busy / quiet:.2f} |")


if __name__ == "__main__":
    main()
