"""How fast is exact search? Ours against FAISS's IndexFlatIP, over the same vectors, with the same threads.

Both find the 100 best of N passages for Q queries, all random vectors of length 1: passages in a file, mapped by ours,
added to its index by FAISS (not timed). Each side runs in a process of its own, the sides take turns, and medians are
printed: seconds of the search, seconds of processor time, which other work on the machine moves less, and the peak of
memory that is not the mapped file (Linux only). Rows must be the same, ties within 1e-6 aside. The last line is the
share of FAISS's and of our time that a plain float32 product of the two matrices would take.

    python benchmarks/search.py [--passages 1000000] [--queries 10000] [--rounds 1] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from alternate import Clock, alternate

K = 100
BLOCK = 65_536


def random_vectors(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Return random vectors of length 1."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(folder: Path, passages: int, queries: int, dimensions: int) -> None:
    """Write queries and passages, a block at a time."""
    np.save(folder / "queries.npy", random_vectors(0, queries, dimensions))
    file = np.lib.format.open_memmap(folder / "passages.npy", "w+", np.float32, (passages, dimensions))
    for number, start in enumerate(range(0, passages, BLOCK), start=1):
        block = file[start : start + BLOCK]
        block[:] = random_vectors(number, len(block), dimensions)
    file.flush()


class Peak(threading.Thread):
    """Watches the memory of this process that no file backs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gib = 0.0

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()
            self.gib = max(self.gib, int(status[0]) / 2**20)
            time.sleep(0.02)


def ours(passages: np.ndarray, queries: np.ndarray, threads: int):
    import torch

    from embedsmith.topk.exact import top_k

    torch.set_num_threads(threads)
    top_k(queries[:2], passages[:2], k=1)
    return lambda: top_k(queries, passages, k=K)


def faiss(passages: np.ndarray, queries: np.ndarray, threads: int):
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(passages.shape[1])
    for start in range(0, len(passages), BLOCK):
        index.add(passages[start : start + BLOCK])
    return lambda: index.search(queries, K)[::-1]


def product(passages: np.ndarray, queries: np.ndarray, threads: int):
    import torch

    torch.set_num_threads(threads)
    left, room = torch.from_numpy(queries), torch.empty(512, 8192)

    def multiply() -> tuple[np.ndarray, np.ndarray]:
        for start in range(0, len(passages), 8192):
            block = torch.from_numpy(np.array(passages[start : start + 8192])).T
            for first in range(0, len(left), 512):
                some = left[first : first + 512]
                torch.mm(some, block, out=room[: len(some), : block.shape[1]].contiguous())
        return np.empty(0), np.empty(0)

    return multiply


SIDES = {"ours": ours, "faiss": faiss, "product": product}


def run_side(side: str, folder: Path, threads: int) -> None:
    """Search in this process; print figures, leave rows and scores in a file."""
    passages, queries = np.load(folder / "passages.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    search = SIDES[side](passages, queries, threads)
    peak = Peak()
    peak.start()
    clock = Clock()
    clock.start()
    rows, scores = search()
    clock.stop()
    np.savez(folder / f"{side}.npz", rows=rows, scores=scores)
    print(json.dumps({**clock.figures, "gib": peak.gib}))


def different_rows(folder: Path) -> int:
    """Return how many rows one side found and the other did not, leaving out those within 1e-6 of the last score."""
    one, other = np.load(folder / "ours.npz"), np.load(folder / "faiss.npz")
    different = 0
    for q in range(len(one["rows"])):
        for side, against in ((one, other), (other, one)):
            alone = ~np.isin(side["rows"][q], against["rows"][q])
            different += int((alone & (side["scores"][q] > against["scores"][q, -1] + 1e-6)).sum())
    return different


def main() -> None:
    """Run every side, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.folder, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_vectors(folder, arguments.passages, arguments.queries, arguments.dimensions)
        options = ["--folder", folder]
        middle = alternate(__file__, SIDES, options, rounds=arguments.rounds, threads=arguments.threads)
        print("\n| side | seconds | processor seconds | memory, GiB |\n| --- | --- | --- | --- |")
        for side, found in middle.items():
            print(f"| {side} | {found['wall']:.2f} | {found['processor']:.2f} | {found['gib']:.2f} |")
        for key, what in (("wall", "seconds"), ("processor", "processor seconds")):
            times = middle["faiss"][key] / middle["ours"][key]
            shares = ", ".join(f"{middle['product'][key] / middle[s][key]:.0%} of {s}'s" for s in ("faiss", "ours"))
            print(f"\nBy {what}: ours is {times:.2f} times as fast; the float32 product alone takes {shares}.")
        print(f"\nRows that only one side found, ties aside: {different_rows(folder)}")


if __name__ == "__main__":
    main()
