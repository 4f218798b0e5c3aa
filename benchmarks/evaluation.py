"""How fast is a BEIR folder scored? Ours against mteb, with the same model, on the same machine.

    same dtype    float32 on both sides, mteb's default batch size
    defaults      ours in `auto` (bfloat16 where the hardware has it), mteb as it opens the model
    second time   ours again, with the vectors of the first time; mteb encodes again

Each side runs in a process of its own, the sides take turns, and medians are printed: seconds from the folder to the
scores (reading, encoding, search, metrics; importing libraries and opening the model are not in it), seconds of
processor time, which other work on the machine moves less, and nDCG@10, which must be the same to 1e-4 in float32.
The last lines are the ratios.

    python benchmarks/evaluation.py DATA [--split test] [--model MODEL] [--rounds 3] [--threads 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from embedsmith.models.settings import MINILM

SIDES = ("ours-float32", "mteb-float32", "ours-default", "mteb-default")


def ours(args: argparse.Namespace, dtype: str) -> Callable[[], float]:
    """Return what scores with our command's own functions; the model is open already."""
    from embedsmith.evaluation.contender import Contender
    from embedsmith.evaluation.scoring import score
    from embedsmith.evaluation.settings import ScoringSettings
    from embedsmith.teachers.settings import TeacherSettings

    contender = Contender(args.model, reading=TeacherSettings(dtype=dtype), vectors=Path(args.vectors))
    contender.encoder.embed(["warm up"], "query")
    settings = ScoringSettings(split=args.split)
    return lambda: score(contender, args.data, settings).scores.mean["ndcg@10"]


def mtebs(args: argparse.Namespace, dtype: str) -> Callable[[], float]:
    """Return what scores with mteb alone: a task that reads the folder, a model that sentence-transformers opened."""
    import mteb
    import torch
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from sentence_transformers import SentenceTransformer

    from embedsmith.models.names import find_model

    folder, split = Path(args.data), args.split

    class Folder(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name="Folder",
            description="a BEIR folder",
            dataset={"path": "local/folder", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=[split],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_) -> None:
            names = ("corpus", "queries")
            lines = {name: (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[:-1] for name in names}
            rows = {name: [json.loads(line) for line in lines[name]] for name in names}
            qrels: dict[str, dict[str, int]] = {}
            for line in (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
                query, passage, grade = line.split("\t")
                qrels.setdefault(query, {})[passage] = int(grade)
            qrels = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
            corpus = [{"id": r["_id"], "title": r.get("title", ""), "text": r["text"]} for r in rows["corpus"]]
            queries = [{"id": r["_id"], "text": r["text"]} for r in rows["queries"] if r["_id"] in qrels]
            parts = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries)}
            self.dataset = {"default": {split: {**parts, "relevant_docs": qrels, "top_ranked": None}}}
            self.data_loaded = True

    kwargs = {"dtype": getattr(torch, dtype)} if dtype != "auto" else {}
    model = SentenceTransformer(find_model(args.model).path, model_kwargs=kwargs)
    model.encode(["warm up"])

    def run() -> float:
        found = mteb.evaluate(model, Folder(), cache=None, co2_tracker=False, show_progress_bar=False)
        return found.task_results[0].get_score()

    return run


def measured(run: Callable[[], float]) -> dict[str, float]:
    """Return the seconds that a call takes, of the clock and of the processor, and what it returns."""
    clock, processor = time.perf_counter(), time.process_time()
    score = run()
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - processor,
        "ndcg@10": score,
    }


def one_side(args: argparse.Namespace) -> None:
    """Print one side's figures: the first time, and for ours the second."""
    import torch

    torch.set_num_threads(args.threads)
    who, dtype = args.side.split("-")
    dtype = {"float32": "float32", "default": "auto"}[dtype]
    if who == "mteb":
        print(json.dumps({"first": measured(mtebs(args, dtype))}))
        return
    first = measured(ours(args, dtype))
    # Opened anew: nothing of the first time is left but what lies on the disk.
    print(json.dumps({"first": first, "second": measured(ours(args, dtype))}))


def take_turns(args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return every side's figures: side -> first or second -> one row a round."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {side: {} for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES[number % 2 :] + SIDES[: number % 2]:
            with tempfile.TemporaryDirectory() as vectors:
                words = [sys.executable, __file__, args.data, "--split", args.split, "--model", args.model]
                words += ["--threads", str(args.threads), "--side", side, "--vectors", vectors]
                done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-2000:])
            for which, figures in json.loads(done.stdout.splitlines()[-1]).items():
                found[side].setdefault(which, []).append(figures)
                print(f"round {number + 1} {side} {which}: {figures['seconds']:.2f} s", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="BEIR folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="also write all figures here, as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--vectors", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        one_side(args)
        return
    found = take_turns(args)
    middle = {
        (side, which): {key: median(row[key] for row in rows) for key in rows[0]}
        for side, times in found.items()
        for which, rows in times.items()
    }
    print(
        f"{args.data}, {args.split}, {args.model}, {args.threads} threads, {args.rounds} rounds, {platform.machine()}"
    )
    print(f"{'':14} {'time':8} {'seconds':>9} {'processor':>10} {'nDCG@10':>9}")
    for (side, which), row in middle.items():
        print(f"{side:14} {which:8} {row['seconds']:9.2f} {row['cpu_seconds']:10.2f} {row['ndcg@10']:9.4f}")
    ratios = {
        f"{label} {kind}": middle[f"mteb-{kind}", "first"]["seconds"] / middle[f"ours-{kind}", which]["seconds"]
        for kind in ("float32", "default")
        for label, which in (("first time", "first"), ("second time", "second"))
    }
    for label, ratio in ratios.items():
        print(f"{label}: {ratio:.1f} times as fast")
    if args.out:
        args.out.write_text(json.dumps({"rounds": found, "ratios": ratios, "arguments": vars(args)}, default=str))


if __name__ == "__main__":
    main()
