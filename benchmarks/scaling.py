"""Are two workers of a cluster twice as fast as one, and what does a cluster on one machine cost?

encode       texts a second of one worker of one core, and of two; each has opened the model before the clock runs
mine DATA    seconds of the whole command, without a cluster and with `--cluster local:2`, as a user gives it
search       seconds of 1,000 queries in random vectors over eight shards: one process of two threads, two workers

Each measurement runs in a process of its own, the sides in turns; the best time of each counts, for other work on the
machine can only add to it. Bytes must be the same on both sides.

    python benchmarks/scaling.py encode [--texts 8192] [--rounds 1]
    python benchmarks/scaling.py mine nl2bash [--rounds 1]
    python benchmarks/scaling.py search [--passages 1000000] [--rounds 1]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSIONS, SHARDS, QUERIES, K = 384, 8, 1000, 100


def words_of(count: int, seed: int) -> list[str]:
    """Return texts of 3 to 40 random words."""
    draw = random.Random(seed)
    words = [f"{one}{other}" for one in ("data", "list", "word", "time", "tar") for other in ("", "s", " set", " file")]
    return [" ".join(draw.choices(words, k=draw.randint(3, 40))) for _ in range(count)]


def encode(asked: argparse.Namespace) -> dict[str, object]:
    """Encode texts into a store by some workers."""
    from embedsmith.cluster.running import on_cluster, running_cluster
    from embedsmith.models.opening import load
    from embedsmith.vectors.store import VectorStore

    model = load(MODEL, dtype="float32")
    with tempfile.TemporaryDirectory() as folder, on_cluster(asked.side):
        cluster = running_cluster()

        def filled(texts: list[str], rows: int) -> VectorStore:
            store = VectorStore.open_or_create(
                Path(folder), contract=model.contract("passage"), texts=texts, shard_size=rows
            )
            return cluster.fill(store, model, "passage")

        filled(words_of(64, 1), 4)  # every worker opens the model
        started = time.perf_counter()
        store = filled(words_of(asked.texts, 0), max(1, asked.texts // 32))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "hash": hashlib.sha256(store.matrix().tobytes()).hexdigest()}


def mine(asked: argparse.Namespace) -> dict[str, object]:
    """Mine by the command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mine", asked.data, "--out", f"{folder}/run", "--teacher", MODEL, "--teacher-dtype", "float32", "-q"]
        words += [] if asked.side == "none" else ["--cluster", asked.side]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "embedsmith", *words], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        found = Path(folder, "run", "negatives.jsonl").read_bytes()
        return {"seconds": seconds, "hash": hashlib.sha256(found).hexdigest()}


def search(asked: argparse.Namespace) -> dict[str, object]:
    """Search random vectors."""
    from embedsmith.cluster.running import on_cluster, running_cluster
    from embedsmith.topk.exact import top_k
    from embedsmith.vectors.store import VectorStore

    def random_vectors(lists):
        for number, texts in enumerate(lists):
            vectors = np.random.default_rng(number).standard_normal((len(texts), DIMENSIONS), np.float32)
            yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    texts = [str(number) for number in range(asked.passages)]
    folder = Path(asked.folder)
    rows = -(-asked.passages // SHARDS)
    store = VectorStore.open_or_create(folder, contract={}, texts=texts, dimensions=DIMENSIONS, shard_size=rows)
    store.fill_each(random_vectors)
    queries = np.random.default_rng(99).standard_normal((QUERIES, DIMENSIONS), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    store.matrix()  # in the system's cache, for both sides
    with on_cluster(None if asked.side == "none" else asked.side):
        cluster = running_cluster()
        if cluster:
            cluster.top_k(queries[:8], store, k=K)  # every worker has started
        started = time.perf_counter()
        found = cluster.top_k(queries, store, k=K) if cluster else top_k(queries, store.shards(), k=K)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "hash": hashlib.sha256(b"".join(one.tobytes() for one in found)).hexdigest()}


WORK = {
    "encode": (encode, "local:1", "local:2"),
    "mine": (mine, "none", "local:2"),
    "search": (search, "none", "local:2"),
}


def main() -> None:
    """Run both sides in turns, and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("data", nargs="?", default="nl2bash")
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    work, *sides = WORK[asked.work]
    if asked.side:
        print(json.dumps(work(asked)))
        return
    best: dict[str, float] = {}
    hashes = set()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for side in sides:
                # Of one worker of one core the driver has one thread, too: the last bits may depend on it.
                threads = "1" if asked.work == "encode" else "2"
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder],
                    check=True,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "OMP_NUM_THREADS": threads},
                )
                found = json.loads(done.stdout.splitlines()[-1])
                best[side] = min(best.get(side, np.inf), found["seconds"])
                hashes.add(found["hash"])
    assert len(hashes) == 1, "the sides differ"
    first, second = sides
    print(f"| {asked.work} | seconds |\n| --- | --- |")
    for side in sides:
        print(f"| {'one process' if side == 'none' else side} | {best[side]:.1f} |")
    print(f"{second} takes {best[second] / best[first]:.2f} of the time of the other, with the same bytes")


if __name__ == "__main__":
    main()
