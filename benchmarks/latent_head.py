"""Is the latent-attention head at work, or an ornament? A trained run's score with the head's two outputs set to zero.

With both outputs at zero the residual connections leave the plain mean of the token states. Beside the scores stand the
lengths of the head's gradient, before clipping, over the run's steps.

    python benchmarks/latent_head.py RUN          a run of `embedsmith quickstart --student smollm2`
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import torch

from embedsmith.data.files import read_jsonl
from embedsmith.data.load import load_collection
from embedsmith.evaluation.retrieval import evaluate_retrieval
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import load
from embedsmith.teachers.dense import DenseTeacher


def zero_head(model: EmbeddingModel) -> None:
    """Set the outputs of the head's cross-attention and of its feed-forward to zero, in place."""
    attend, feed_forward = model[1].cross_attend_blocks
    with torch.no_grad():
        for parameter in (*attend.fn.to_out.parameters(), *feed_forward.fn.net["2"].parameters()):
            parameter.zero_()


def main() -> None:
    """Print the scores with and without the head, and its gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    collection = load_collection(run / "data" / "code" / "test", split="test")
    print("| model | ndcg@10 | recall@10 | mrr@10 |\n| --- | --- | --- | --- |")
    for label in ("trained", "head's outputs zeroed"):
        model = load(str(run), dtype="auto")
        if label != "trained":
            zero_head(model)
        with tempfile.TemporaryDirectory() as scratch:
            folder = run / "vectors" if label == "trained" else Path(scratch)
            index = DenseTeacher(model, collection.passages, name=label, folder=folder)
            scores = evaluate_retrieval(index, collection).mean
        print(f"| {label} | " + " | ".join(f"{scores[m]:.4f}" for m in ("ndcg@10", "recall@10", "mrr@10")) + " |")
    steps = [row for _, row in read_jsonl(run / "steps.jsonl")]
    for start in range(0, len(steps), max(1, len(steps) // 4)):
        some = steps[start : start + max(1, len(steps) // 4)]
        head, whole = mean(s["pooling_gradient_norm"] for s in some), mean(s["gradient_norm"] for s in some)
        print(f"steps {some[0]['step']}-{some[-1]['step']}: gradient of the head {head:.3f}, of all {whole:.3f}")


if __name__ == "__main__":
    main()
