"""How long does mining take? Ours against sentence-transformers' `mine_hard_negatives`, on the same pairs.

Same teacher, texts, lengths and threads; PercPos 0.95, 4 negatives, 100 candidates deep. Each side runs in a process
of its own, the sides take turns, and medians are printed: seconds from loading the model to the negatives, without
imports; seconds of processor time, which other work on the machine moves less; the process's peak memory, imports
included; and for how many queries the negatives are another side's, in whatever order.

Policies are equal but for four points. Candidates with the positive's words in other case, width or white space, and
candidates that are the query itself, are never our negatives, and of candidates with the same words only the first is;
queries where it took others are left out of "equal policies". A candidate exactly at the ceiling is dropped here and
kept there. Queries that are equal but for case and white space are one query here; the pairs are written so that there
are none.

    python benchmarks/mining.py --data FOLDER [--split train] [--rows 3000] [--rounds 3] [--sides ...]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

from alternate import Clock, Figures, alternate, peak_gib

from embedsmith.data.collection import Collection
from embedsmith.data.files import read_json, read_jsonl, write_json, write_jsonl
from embedsmith.data.load import load_collection
from embedsmith.data.normalised import normalised
from embedsmith.models.settings import MINILM

DEPTH = 100
clock = Clock()
SIDES = {
    "st-float32": ("sentence-transformers, float32 (its default)", "float32"),
    "st-bfloat16": ("sentence-transformers, bfloat16", "bfloat16"),
    "ours-auto": ("embedsmith, auto (our default)", "auto"),
    "ours-bfloat16": ("embedsmith, bfloat16", "bfloat16"),
    "ours-float32": ("embedsmith, float32", "float32"),
    "ours-int8": ("embedsmith, int8", "int8"),
}
RATIOS = [
    ("st-float32", "ours-auto"),
    ("st-bfloat16", "ours-auto"),
    ("st-bfloat16", "ours-bfloat16"),
    ("st-float32", "ours-float32"),
    ("ours-float32", "ours-auto"),
    ("ours-float32", "ours-int8"),
]
AGREEMENTS = [
    ("st-float32", "ours-float32"),
    ("ours-float32", "ours-auto"),
    ("ours-float32", "ours-bfloat16"),
    ("ours-float32", "ours-int8"),
    ("st-float32", "st-bfloat16"),
]

Negatives = dict[str, dict[str, float]]
"""Scores of the negatives of each query."""


def write_pairs(path: Path, collection: Collection, rows: int | None) -> None:
    """Write the first pairs of a collection; with all of them, passages that answer no query come along."""
    texts = dict(zip(collection.passage_ids, collection.passages, strict=True))
    first_text: dict[str, str] = {}
    pairs = [
        {"query": first_text.setdefault(normalised(query), query), "positive": texts[passage]}
        for query_id, query in zip(collection.query_ids, collection.queries, strict=True)
        for passage in collection.positives(query_id)
    ]
    if rows is None:
        pairs[0]["negatives"] = list(texts.values())
    write_jsonl(path, pairs[:rows])


def mine_theirs(pairs: Path, dtype: str) -> Negatives:
    """Return what `mine_hard_negatives` takes for each query."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    from embedsmith.models.names import find_model

    rows = [row for _, row in read_jsonl(pairs)]
    dataset = Dataset.from_dict({key: [row[key] for row in rows] for key in ("query", "positive")})
    most_positives = max(Counter(row["query"] for row in rows).values())
    clock.start()
    model = SentenceTransformer(find_model(MINILM).path, model_kwargs={"dtype": getattr(torch, dtype)}, device="cpu")
    mined = mine_hard_negatives(
        dataset,
        model,
        corpus=rows[0].get("negatives"),
        relative_margin=0.05,
        num_negatives=4,
        range_max=DEPTH - most_positives,  # it adds as many as the query with most positives has
        output_format="triplet",
        output_scores=True,
        verbose=False,
    )
    clock.stop()
    found: Negatives = {row["query"]: {} for row in rows}
    for query, negative, scores in zip(mined["query"], mined["negative"], mined["scores"], strict=True):
        found[query][negative] = scores[1]
    return found


def mine_ours(pairs: Path, dtype: str) -> Negatives:
    """Return what `embedsmith mine` takes for each query."""
    import embedsmith.teachers.dense  # noqa: F401  (imports are not timed)
    from embedsmith.mining.mine import mine
    from embedsmith.mining.settings import MiningSettings
    from embedsmith.teachers.settings import TeacherSettings

    with tempfile.TemporaryDirectory() as scratch:
        clock.start()
        mine(
            pairs,
            out=Path(scratch) / "run",
            settings=MiningSettings(teacher_settings=TeacherSettings(dtype=dtype), depth=DEPTH, negatives=4),
        )
        clock.stop()
        rows = [row for _, row in read_jsonl(Path(scratch) / "run" / "negatives.jsonl")]
    return {row["query"]: {passage["text"]: passage["score"] for passage in row["negatives"]} for row in rows}


def run_side(side: str, pairs: Path, threads: int, out: Path) -> None:
    """Mine in this process; print figures, leave the negatives in a file."""
    import torch

    torch.set_num_threads(threads)
    mine = mine_theirs if side.startswith("st-") else mine_ours
    negatives = mine(pairs, SIDES[side][1])
    peak = peak_gib()
    write_json(out / f"{side}.json", negatives)
    print(json.dumps({**clock.figures, "gib": peak}))


def agreement(one: Negatives, other: Negatives, queries: set[str]) -> str:
    """Return the share of queries with the same negatives, that with ties aside, and the share that both have."""
    same = sum(one[query].keys() == other[query].keys() for query in queries)
    but_ties = sum(differ_by_ties(one[query], other[query]) for query in queries)
    shared = sum(len(one[query].keys() & other[query].keys()) for query in queries)
    most = sum(max(len(one[query]), len(other[query])) for query in queries)
    return f"{len(queries):,} | {same / len(queries):.2%} | {but_ties / len(queries):.2%} | {shared / most:.2%}"


def differ_by_ties(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether what only one side has scores as the last negative does, as `ls -a` and `ls -A` do uncased."""
    return len(one) == len(other) and all(
        abs(side[text] - min(side.values())) < 2e-6
        for side, against in ((one, other), (other, one))
        for text in side.keys() - against.keys()
    )


def with_equal_policies(pairs: Path, theirs: list[Negatives]) -> set[str]:
    """Return the queries where no side took a copy of the query, of a positive of it, or of another negative."""
    answers: dict[str, set[str]] = {}
    for _, row in read_jsonl(pairs):
        answers.setdefault(row["query"], {normalised(row["query"])}).add(normalised(row["positive"]))

    def is_equal(side: Negatives, query: str) -> bool:
        words = {normalised(text) for text in side[query]}
        return len(words) == len(side[query]) and not words & answers[query]

    return {query for query in answers if all(is_equal(side, query) for side in theirs)}


def report(middle: dict[str, Figures], negatives: dict[str, Negatives], pairs: Path) -> None:
    """Print the tables."""
    print("\n| side | seconds | processor seconds | peak GiB |\n| --- | --- | --- | --- |")
    for side, found in middle.items():
        print(f"| {SIDES[side][0]} | {found['wall']:.1f} | {found['processor']:.1f} | {found['gib']:.2f} |")
    print("\n| against | side | times faster | by processor time |\n| --- | --- | --- | --- |")
    for slow, fast in RATIOS:
        if {slow, fast} <= middle.keys():
            ratios = [middle[slow][key] / middle[fast][key] for key in ("wall", "processor")]
            print(f"| {SIDES[slow][0]} | {SIDES[fast][0]} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    equal = with_equal_policies(pairs, list(negatives.values()))
    print("\n| one | other | which queries | queries | same negatives | same but for ties | negatives of both |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one, other in AGREEMENTS:
        if {one, other} <= negatives.keys():
            pair = negatives[one], negatives[other]
            for which, queries in (("all", set(pair[0])), ("equal policies", equal)):
                print(f"| {SIDES[one][0]} | {SIDES[other][0]} | {which} | {agreement(*pair, queries)} |")


def main() -> None:
    """Run every side, in turns, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBEDSMITH_DATA"), help="or EMBEDSMITH_DATA")
    parser.add_argument("--split", help="of a BEIR folder that has several")
    parser.add_argument("--rows", type=int, help="pairs; all of them, with the whole corpus, when not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.pairs, arguments.threads, arguments.out)
        return
    if not arguments.data:
        parser.error("name a data set with --data or EMBEDSMITH_DATA")
    with tempfile.TemporaryDirectory() as scratch:
        pairs = Path(scratch) / "pairs.jsonl"
        write_pairs(pairs, load_collection(arguments.data, split=arguments.split), arguments.rows)
        options = ["--pairs", pairs, "--out", scratch]
        middle = alternate(__file__, arguments.sides, options, rounds=arguments.rounds, threads=arguments.threads)
        report(middle, {side: read_json(Path(scratch) / f"{side}.json") for side in arguments.sides}, pairs)


if __name__ == "__main__":
    main()
