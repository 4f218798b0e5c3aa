"""What do 100 million passages cost, and a thousand million? From two rates that are measured here, and multiplied.

Tokens a second of one worker: a model reads 2,048 passages of random words. Products a second of one core in exact
search: 1,000 queries in 200,000 random vectors. Shards, bytes and memory follow from the formats. Both are done with
one thread. A rate of other hardware may be given in place of the first: `--tokens-per-second`.

    python benchmarks/scale_plan.py [MODEL] [--tokens 128] [--queries 1000000] [--workers 64] [--tokens-per-second R]
"""

from __future__ import annotations

import argparse
import math
import random
import time

import numpy as np

SIZES = (100_000_000, 1_000_000_000)
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEPTH = 100
MANY_SHARDS, LEAST_ROWS, MOST_ROWS = 100, 4096, 65_536
"""As `embedsmith.vectors.store` cuts a store."""


def encoding_rate(model: str, tokens: int) -> tuple[float, int]:
    """Return tokens a second of one thread, and the dimensions."""
    import torch

    from embedsmith.models.opening import load

    torch.set_num_threads(1)
    encoder = load(model, dtype="auto")
    draw = random.Random(0)
    words = [f"{one}{other}" for one in ("data", "list", "word", "time") for other in ("", "s", " set", " file")]
    texts = [" ".join(draw.choices(words, k=round(draw.gauss(0.7, 0.2) * tokens))) for _ in range(2048)]
    encoder.embed(texts[:64], "passage")
    some = texts[: max(64, min(2048, 200_000 // tokens))]
    started = time.perf_counter()
    vectors = encoder.embed(some, "passage")
    return encoder.count_tokens(some, "passage") / (time.perf_counter() - started), vectors.shape[1]


def search_rate(dimensions: int) -> float:
    """Return products of two numbers a second of one thread."""
    import torch

    from embedsmith.topk.exact import top_k

    torch.set_num_threads(1)
    passages, queries = 200_000, 1000
    vectors = np.random.default_rng(0).standard_normal((passages + queries, dimensions), np.float32)
    started = time.perf_counter()
    top_k(vectors[passages:], vectors[:passages], k=DEPTH)
    return passages * queries * dimensions / (time.perf_counter() - started)


def plan(
    passages: int, *, tokens: int, dimensions: int, queries: int, workers: int, read_rate: float, product_rate: float
) -> dict[str, float]:
    """Return what a size costs.

    Args:
        workers: that encode and search.
        read_rate: tokens a second of one worker.
        product_rate: products a second of one worker.
    """
    rows = max(LEAST_ROWS, min(math.ceil(passages / MANY_SHARDS), MOST_ROWS))
    shards = math.ceil(passages / rows)
    # A shard is one worker's: more workers than shards wait.
    rounds = math.ceil(shards / min(workers, shards))
    return {
        "tokens (thousand million)": passages * tokens / 1e9,
        "worker-hours to encode": passages * tokens / read_rate / 3600,
        "hours to encode, by these workers": rounds * rows * tokens / read_rate / 3600,
        "vectors on disk, GB": passages * dimensions * 4 / 1e9,
        "shards": shards,
        "a shard, GB": rows * dimensions * 4 / 1e9,
        "worker-hours to search": passages * queries * dimensions / product_rate / 3600,
        "hours to search, by these workers": rounds * rows * queries * dimensions / product_rate / 3600,
        "candidates, GB": queries * DEPTH * 12 / 1e9,
    }


def main() -> None:
    """Measure, and print the plan of each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=MODEL)
    parser.add_argument("--tokens", type=int, default=128, help="of a passage")
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--tokens-per-second", type=float, help="of one worker, in place of what is measured here")
    asked = parser.parse_args()
    measured, dimensions = encoding_rate(asked.model, asked.tokens)
    read_rate, product_rate = asked.tokens_per_second or measured, search_rate(dimensions)
    print(f"a worker reads {read_rate:,.0f} tokens/s and multiplies {product_rate / 1e9:,.0f} thousand million/s")
    plans = [
        plan(
            size,
            tokens=asked.tokens,
            dimensions=dimensions,
            queries=asked.queries,
            workers=asked.workers,
            read_rate=read_rate,
            product_rate=product_rate,
        )
        for size in SIZES
    ]
    print(f"| {asked.queries:,} queries, {asked.workers} workers | {' | '.join(f'{size:,}' for size in SIZES)} |")
    print("| --- | " + " | ".join("---" for _ in SIZES) + " |")
    for what in plans[0]:
        print(f"| {what} | " + " | ".join(f"{one[what]:,.1f}" for one in plans) + " |")


if __name__ == "__main__":
    main()
