"""How long does it take to select negatives again, by another method, when every vector and candidate is known?

Ours against sentence-transformers' `mine_hard_negatives` with its `cache_folder`, on the same texts and vectors: from
PercPos 0.95 to MarginPos 0.05, 4 negatives from 100 candidates. Vectors are random, near each query one positive. Ours
starts at the folder of candidates and ends at the written JSON lines; theirs starts at the cached vectors and ends at
the data set in memory, for it keeps vectors and no candidates. Reading the texts is timed on neither side.

Each side runs in a process of its own, the sides take turns, and medians are printed: seconds; seconds of processor
time, which other work on the machine moves less; and the process's peak memory, texts and imports included.

    python benchmarks/selection.py [--queries 100000] [--passages 100000] [--dimensions 384] [--rounds 3]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from alternate import Clock, alternate, peak_gib

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.load import load_collection
from embedsmith.mining.candidates import mine_candidates, read_candidates, write_candidates
from embedsmith.mining.settings import SelectionSettings
from embedsmith.teachers.dense import DenseTeacher

DEPTH = 100
SIDES = ("ours", "sentence-transformers")
clock = Clock()


class Known:
    """A model whose vectors are known: of passage `p7 …` row 7, of query `q7 …` row 7 of the queries."""

    device = "cpu"
    model_card_data = SimpleNamespace(base_model="known")
    prompts: dict[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self._vectors = {"p": np.load(folder / "passages.npy"), "q": np.load(folder / "queries.npy")}

    def embed(self, texts: Any, role: str, **_: Any) -> np.ndarray:
        return self._vectors[role[0]][[int(text.split()[0][1:]) for text in texts]]

    def embed_each(self, lists: Any, role: str, **_: Any) -> Any:
        return (self.embed(texts, role) for texts in lists)

    def contracts(self) -> dict[str, dict[str, Any]]:
        return {role: {"known": role} for role in ("query", "passage")}

    def spread(self, devices: Any) -> Any:
        raise NotImplementedError

    def encode_query(self, texts: Any, **_: Any) -> np.ndarray:
        return self.embed(texts, "query")

    def encode_document(self, texts: Any, **_: Any) -> np.ndarray:
        return self.embed(texts, "passage")

    def similarity(self, one: Any, other: Any) -> Any:
        from sentence_transformers.util import dot_score

        return dot_score(one, other)

    def similarity_pairwise(self, one: Any, other: Any) -> Any:
        from sentence_transformers.util import pairwise_dot_score

        return pairwise_dot_score(one, other)


def write_data(folder: Path, queries: int, passages: int, dimensions: int) -> None:
    """Write texts of about 100 characters, and their vectors."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    collection = Collection.of(
        name="known",
        passage_ids=[f"p{row}" for row in range(passages)],
        passages=[f"p{row} " + " ".join(words[rng.integers(5000, size=12)]) for row in range(passages)],
        query_ids=[f"q{row}" for row in range(queries)],
        queries=[f"q{row} " + " ".join(words[rng.integers(5000, size=12)]) for row in range(queries)],
        qrels={f"q{row}": {f"p{row % passages}": 1} for row in range(queries)},
    )
    write_beir(folder / "data", {"train": collection})
    vectors = rng.standard_normal((passages, dimensions), np.float32)
    near = vectors[np.arange(queries) % passages] + 2 * rng.standard_normal((queries, dimensions), np.float32)
    for name, table in (("passages", vectors), ("queries", near)):
        np.save(folder / f"{name}.npy", table / np.linalg.norm(table, axis=1, keepdims=True))


def prepare_ours(folder: Path, collection: Collection) -> None:
    model: Any = Known(folder)
    teacher = DenseTeacher(model, collection.passages, name="known", folder=folder / "vectors")
    write_candidates(folder / "candidates", mine_candidates([teacher], collection, depth=DEPTH))


def ours(folder: Path, collection: Collection) -> int:
    from embedsmith.data.examples import write_examples
    from embedsmith.mining.rows import examples
    from embedsmith.mining.selection import select

    settings = SelectionSettings(method="marginpos", margin=0.05, negatives=4)
    clock.start()
    candidates = read_candidates(folder / "candidates")
    selection = select(candidates, settings)
    write_examples(folder / "negatives.jsonl", examples(selection, candidates, collection))
    clock.stop()
    return selection.counts["negatives"]


def theirs(folder: Path, collection: Collection, **method: float) -> int:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    rows = collection.positive_pairs()
    pairs = {"query": collection.queries.take(rows[0]), "positive": collection.passages.take(rows[1])}
    dataset, corpus, model = Dataset.from_dict(pairs), list(collection.passages), Known(folder)
    clock.start()
    mined = mine_hard_negatives(
        dataset,
        model,
        corpus=corpus,
        **method,
        num_negatives=4,
        range_max=DEPTH,
        output_format="triplet",
        output_scores=True,
        cache_folder=str(folder / "cache"),
        verbose=False,
    )
    clock.stop()
    return len(mined)


def run_side(side: str, folder: Path, threads: int) -> None:
    """Run a side in this process; print its figures."""
    import torch

    torch.set_num_threads(threads)
    collection = load_collection(folder / "data", split="train")
    gc.freeze()  # as our commands do once libraries are imported; here for both sides
    negatives = ours(folder, collection) if side == "ours" else theirs(folder, collection, absolute_margin=0.05)
    peak = peak_gib()
    print(json.dumps({**clock.figures, "gib": peak, "negatives": negatives}))


def main() -> None:
    """Mine once, then run both sides, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.folder, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder, arguments.queries, arguments.passages, arguments.dimensions)
        collection = load_collection(folder / "data", split="train")
        prepare_ours(folder, collection)
        theirs(folder, collection, relative_margin=0.05)  # fills its cache
        options = ["--folder", folder]
        middle = alternate(__file__, SIDES, options, rounds=arguments.rounds, threads=arguments.threads)
        print("\n| side | seconds | processor seconds | peak GiB |\n| --- | --- | --- | --- |")
        for side, found in middle.items():
            print(f"| {side} | {found['wall']:.2f} | {found['processor']:.2f} | {found['gib']:.2f} |")
        for key, what in (("wall", "seconds"), ("processor", "processor seconds")):
            print(f"\nBy {what}: ours is {middle[SIDES[1]][key] / middle['ours'][key]:.1f} times as fast.")


if __name__ == "__main__":
    main()
