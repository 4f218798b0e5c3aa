"""A folder in which the commands of a page are run: the data that pages name, small, and models under their hub ids."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

SUBJECTS = [
    "key",
    "door",
    "lamp",
    "river",
    "train",
    "ticket",
    "garden",
    "window",
    "letter",
    "clock",
    "bridge",
    "ladder",
]
DEEDS = ["find", "open", "repair", "paint", "sell", "clean"]


def rows() -> list[tuple[str, str]]:
    """Return questions and their answers."""
    return [
        (
            f"how do I {deed} the {subject}",
            f"To {deed} a {subject}, look at number {number} of the list of the {subject}.",
        )
        for number, (subject, deed) in enumerate((subject, deed) for subject in SUBJECTS for deed in DEEDS)
    ]


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_beir(folder: Path, pairs: list[tuple[str, str]], splits: dict[str, slice]) -> None:
    """Write a BEIR folder."""
    write_lines(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": p} for n, (_, p) in enumerate(pairs)])
    write_lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": q} for n, (q, _) in enumerate(pairs)])
    (folder / "qrels").mkdir()
    for split, part in splits.items():
        judged = [f"q{n}\td{n}\t1" for n in range(len(pairs))[part]]
        # A second answer for some, so that an audit can hide one.
        judged += [f"q{n}\td{n + 1}\t1" for n in range(len(pairs))[part] if n % 3 == 0 and n + 1 < len(pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")


def write_manuals(folder: Path) -> None:
    """Write a folder of documents: for each subject one, with a section for each deed."""
    folder.mkdir()
    for subject in SUBJECTS:
        sections = (f"## How to {deed} a {subject}\n\nLook at the {subject}, and {deed} it.\n" for deed in DEEDS)
        text = "\n".join([f"# The book of the {subject}\n\nAll that a {subject} needs.\n", *sections])
        (folder / f"{subject}.md").write_text(text, encoding="utf-8")


def prepare(folder: Path) -> None:
    """Write the data that pages name."""
    pairs = rows()
    half, rest = slice(0, 48), slice(48, None)
    write_lines(folder / "pairs.jsonl", [{"query": q, "positive": p} for q, p in pairs[half]])
    write_lines(folder / "questions.jsonl", [{"query": q, "positive": p} for q, p in pairs[rest]])
    write_lines(folder / "passages.jsonl", [{"id": f"p{n}", "text": p} for n, (_, p) in enumerate(pairs)])
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "body"])
        writer.writerows([*pairs[half], ["a title without a body", ""]])
    write_lines(folder / "more.jsonl", [{"text": f"Another passage, number {n}."} for n in range(5)])
    write_manuals(folder / "manuals")
    write_beir(folder / "scifact", pairs, {"train": half, "test": rest})
    write_beir(folder / "fiqa", pairs, {"train": half, "test": rest})
    draw = random.Random(1)
    for split in ("train", "test"):
        classes = [{"text": f"{deed} the {subject}", "label": subject} for subject in SUBJECTS[:4] for deed in DEEDS]
        write_lines(folder / "banking77" / f"{split}.jsonl", draw.sample(classes, len(classes)))
        sts = [
            {"sentence1": a[1], "sentence2": b[1], "score": draw.choice([0.0, 1.5, 3.0, 5.0])}
            for a, b in zip(pairs[half], pairs[1:49], strict=True)
        ]
        write_lines(folder / "stsb" / f"{split}.jsonl", sts)


def save_models(hub: Path, encoder: Path, decoder: Path) -> None:
    """Put tiny models into a folder as huggingface_hub keeps what it downloaded."""
    minilm = SentenceTransformer(modules=[Transformer(str(encoder)), Pooling(32), Normalize()], device="cpu")
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-small-en-v1.5"):
        minilm.save(str(snapshot(hub, name)))
    for name in ("HuggingFaceTB/SmolLM2-135M", "mistralai/Mistral-7B-v0.1"):
        shutil.copytree(decoder, snapshot(hub, name), dirs_exist_ok=True)


def snapshot(hub: Path, name: str) -> Path:
    """Return the folder of a model's files in the hub's cache."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    kept = hub / f"models--{name.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True, exist_ok=True)
    (kept / "refs" / "main").write_text(commit)
    found = kept / "snapshots" / commit
    found.mkdir(parents=True, exist_ok=True)
    return found


def chat_model() -> Callable[[str], str]:
    """Return a chat model that answers each of our prompts in the form that it asks for."""
    number = itertools.count()

    def say(prompt: str) -> str:
        unlike = " ".join(random.Random(next(number)).sample(SUBJECTS, 6))
        if "yes or no" in prompt:
            asked, passage = re.findall(r"(?:Query|Passage): (.*)", prompt)
            return "yes" if set(asked.split()[-3:]) <= set(re.findall(r"\w+", passage)) else "no"
        if "JSON object" in prompt:
            words = {"query": f"how {unlike}", "positive": f"so {unlike}", "negative": f"not {unlike[::-1]}"}
            return json.dumps(words)
        if "JSON list" in prompt:
            return json.dumps([f"Given a question about a {one}, find {unlike}" for one in unlike.split()])
        return "\n".join(" ".join(re.findall(r"\w+", prompt.split("---")[0])[first::2]) for first in (0, 1))

    return say
