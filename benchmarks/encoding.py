"""How fast are texts encoded with a decoder? Ours against sentence-transformers' `encode`, with the same folder.

A student is made of a decoder and saved once; both sides open that folder, read the same texts (the passages of a BEIR
folder, cut at the same length) in the same precision, with the same threads. Ours is the model's `embed`, which
`embedsmith encode`, mining and scoring use; theirs is `SentenceTransformer.encode` with its default batch size. Each
side runs in a process of its own, the sides take turns, and medians are printed: seconds and processor seconds from
texts to vectors, without imports, opening and a first small batch; the process's peak memory, imports included; the
share of the GEMM limit; the largest difference between a number of one side's vectors and the other's.

The GEMM limit: a text of T tokens costs 2 operations for each weight of a linear layer and token, and 4 T² for each
layer and dimension of its attention. A third process measures how many of them a second a product of the model's own
shapes makes, by the faster of the two libraries that torch brings. The share is the quotient of the seconds that the
matmuls would take, and the processor seconds that encoding took for each thread.

    python benchmarks/encoding.py --data FOLDER [--layers 6] [--pooling mean] [--texts 400] [--max-tokens 512]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from alternate import Clock, Figures, alternate, peak_gib

from embedsmith.data.files import read_json, write_json
from embedsmith.data.load import known_splits, load_collection
from embedsmith.models.settings import SMOLLM2, StudentSettings

SIDES = ("ours", "sentence-transformers", "matmuls")
ROWS = 1024
"""Of a product, for each thread: what a batch of ours has on a CPU."""


def prepare(folder: Path, texts: list[str], settings: StudentSettings) -> dict[str, float]:
    """Write the student and the texts; return the operations of the texts without padding, and their tokens."""
    from embedsmith.models.opening import build_student

    model = build_student(settings)
    model.save(str(folder / "model"))
    lengths = [model.count_tokens([text], "passage") for text in texts]
    write_json(folder / "texts.json", texts)
    write_json(folder / "shapes.json", [list(layer.weight.shape) for layer in linear_layers(model)])
    return {"operations": operations(model, lengths), "tokens": sum(lengths), "longest": max(lengths)}


def linear_layers(model: Any) -> list[Any]:
    """Return the linear layers of backbone and pooling that every token passes."""
    from torch.nn import Linear

    # The keys and values of a latent-attention head are those of its latents: the same for all tokens.
    named = (layer for module in model for layer in module.named_modules())
    return [layer for name, layer in named if isinstance(layer, Linear) and not name.endswith("to_kv")]


def operations(model: Any, lengths: list[int]) -> float:
    """Return the operations, a multiplication and an addition being two, of texts of so many tokens."""
    config = model.backbone.config
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    weights = sum(layer.weight.numel() for layer in linear_layers(model))
    attention = config.num_hidden_layers * width
    latents = getattr(model[1], "num_latents", 0) * getattr(model[1], "heads", 0) * getattr(model[1], "head_width", 0)
    return sum(2 * weights * n + 4 * attention * n**2 + 4 * latents * n for n in lengths)


def ours(folder: Path, dtype: str):
    from embedsmith.models.opening import load

    model = load(str(folder), dtype=dtype, device="cpu")
    return lambda texts: model.embed(texts, "passage")


def theirs(folder: Path, dtype: str):
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}, trust_remote_code=True
    )
    # A module of its own keeps its weights in float32 where only the backbone is opened in another precision.
    model.to(getattr(torch, dtype))
    return lambda texts: model.encode(texts, convert_to_tensor=True).float().numpy()


def rate(shapes: list[list[int]], dtype: str, threads: int) -> float:
    """Return the operations a second of matmuls of these shapes, by the faster library."""
    import torch

    rows = ROWS * threads
    best: dict[tuple[int, int], float] = {}
    for outputs, inputs in {tuple(shape) for shape in shapes}:
        states = torch.randn(rows, inputs, dtype=getattr(torch, dtype))
        weight = torch.randn(outputs, inputs, dtype=getattr(torch, dtype))
        matmuls = {"linear": lambda s=states, w=weight: torch.nn.functional.linear(s, w)}
        if torch.backends.mkldnn.is_available():
            matmuls["mkldnn"] = lambda s=states, w=weight: torch.ops.mkldnn._linear_pointwise(
                s, w, None, "none", [], ""
            )
        best[outputs, inputs] = min(shortest(matmul) for matmul in matmuls.values()) / threads
    seconds = sum(best[outputs, inputs] for outputs, inputs in shapes)
    return sum(2 * rows * outputs * inputs for outputs, inputs in shapes) / seconds


def shortest(matmul, times: int = 12) -> float:
    """Return the least processor seconds that a matmul takes: other work on the machine moves them little."""
    found = []
    for _ in range(times):
        start = time.process_time()
        matmul()
        found.append(time.process_time() - start)
    return min(found)


def run_side(arguments: argparse.Namespace) -> None:
    """Encode in this process, or multiply; print figures, leave the vectors in a file."""
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.side == "matmuls":
        shapes = read_json(arguments.folder / "shapes.json")
        print(json.dumps({"gflops": rate(shapes, arguments.dtype, arguments.threads) / 1e9}))
        return
    encode = (ours if arguments.side == "ours" else theirs)(arguments.folder / "model", arguments.dtype)
    texts = read_json(arguments.folder / "texts.json")
    encode(texts[:2])
    clock = Clock()
    clock.start()
    vectors = encode(texts)
    clock.stop()
    np.save(arguments.folder / f"{arguments.side}.npy", vectors)
    print(json.dumps({**clock.figures, "gib": peak_gib()}))


def report(middle: dict[str, Figures], work: dict[str, float], folder: Path, dtype: str, threads: int) -> None:
    """Print the table."""
    rate = middle["matmuls"]["gflops"] * 1e9
    print(f"\n{work['tokens']:,.0f} tokens without padding, the longest text has {work['longest']:,.0f}")
    print(
        f"{work['operations'] / 1e12:.2f} T operations, {rate / 1e9:.0f} G a second: {work['operations'] / rate:.1f} s"
    )
    print("\n| side | seconds | processor seconds | peak GiB | share of the GEMM limit |")
    print("| --- | --- | --- | --- | --- |")
    for side in SIDES[:2]:
        found = middle[side]
        share = work["operations"] / rate / (found["processor"] / threads)
        print(
            f"| {side}, {dtype} | {found['wall']:.1f} | {found['processor']:.1f} | {found['gib']:.2f} | {share:.0%} |"
        )
    ratios = [middle[SIDES[1]][key] / middle[SIDES[0]][key] for key in ("wall", "processor")]
    print(f"\n{ratios[0]:.2f} times as fast, {ratios[1]:.2f} by processor time")
    one, other = (np.load(folder / f"{side}.npy") for side in SIDES[:2])
    print(f"largest difference of a number of a vector of length 1: {np.abs(one - other).max():.1e}")


def main() -> None:
    """Run every side, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--layers", type=int, help="the first of the decoder; all of them when not given")
    parser.add_argument("--pooling", default="mean", choices=["mean", "latent"])
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    if not arguments.data:
        parser.error("name a data set with --data or EMBEDSMITH_DATA")
    texts = list(load_collection(arguments.data, split="all" if known_splits(arguments.data) else None).passages)
    # Spread over the folder: its beginning may be of one kind.
    texts = texts[:: max(1, len(texts) // arguments.texts)][: arguments.texts]
    settings = StudentSettings(
        name=arguments.model,
        layers=arguments.layers,
        pooling=arguments.pooling,
        query_max_tokens=arguments.max_tokens,
        passage_max_tokens=arguments.max_tokens,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        work = prepare(folder, texts, settings)
        options = ["--folder", folder, "--dtype", arguments.dtype]
        middle = alternate(__file__, SIDES, options, rounds=arguments.rounds, threads=arguments.threads)
        report(middle, work, folder, arguments.dtype, arguments.threads)


if __name__ == "__main__":
    main()
