"""Every reader of foreign files, with files that it reads well: what is fuzzed, and whose seeds the suite reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.attacks.document_readers import DOCUMENT_READERS
from tests.attacks.model_readers import MODEL_READERS
from tests.attacks.reading import SEEDS, Base, Reader, answering, each, only
from tests.attacks.run_readers import RUN_READERS

# Data.


def _pairs(folder: Path) -> None:
    from embedsmith.data.load import load_collection

    path = only(folder)
    notes: list[str] = []
    each(
        lambda: load_collection(path),
        lambda: load_collection(path, skip_bad=True, on_skip=notes.append).content_hash(),
    )


ROWS = [
    {"query": "where is the cat", "positive": ["the cat is on the mat", "a cat"], "negative": ["a dog", "an owl"]},
    {"query": "who ate the plum", "positive": ["the bat ate it", "a plum"], "negative": None},
]
PASSAGES = [
    {"_id": "d1", "title": "Cat", "text": "a cat on a mat", "metadata": {"line": 3}},
    {"_id": "d2", "title": "", "text": "a dog", "metadata": {"line": 7}},
]
FLAT = [
    {"query": "where is the cat", "positive": "the cat is on the mat", "label": 1},
    {"query": "who ate the plum", "positive": "the bat, it ate", "label": 0},
    {"query": "which fig is ripe", "positive": "the fig of the tree is", "label": 1},
]


def _parquet_of(rows: list[dict[str, Any]], name: str) -> Base:
    def base(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), folder / name)

    return base


def _saved(folder: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    kinds = {"query": Value("string"), "positive": Value("string")}
    features = Features({**kinds, "label": ClassLabel(names=["negative", "positive"])})
    DatasetDict({split: Dataset.from_list(FLAT, features=features) for split in ("train", "test")}).save_to_disk(
        str(folder / "saved")
    )


def _read_saved(folder: Path) -> None:
    from embedsmith.data.labelled import task_of
    from embedsmith.data.load import known_splits, load_collection, load_tables

    path = folder / "saved"
    each(
        lambda: known_splits(path),
        lambda: task_of(path),
        lambda: load_collection(path, split="all"),
        lambda: load_collection(path, split="train", skip_bad=True),
        lambda: [_rows_of(table) for table in load_tables(path, "train")],
    )


def _rows_of(table: Any) -> list[Any]:
    from embedsmith.data.bad_rows import refuse

    return list(table.rows(refuse))


def _beir(folder: Path) -> None:
    from embedsmith.data.load import known_splits, load_collection
    from embedsmith.prepare.contamination import ContaminationSettings
    from embedsmith.prepare.decontaminate import check_evaluation_set

    each(
        lambda: known_splits(folder),
        lambda: load_collection(folder, split="all"),
        lambda: load_collection(folder, split="all", skip_bad=True).content_hash(),
        lambda: load_collection(folder),
        lambda: check_evaluation_set(folder, ContaminationSettings(), skip_bad=True),
    )


def _judgements(folder: Path) -> None:
    from embedsmith.data.bad_rows import Tally, refuse
    from embedsmith.data.collection import Collection
    from embedsmith.data.qrels import look_up, read_exclusions, read_judgements, read_passage_ids
    from embedsmith.data.trec import read_ranking

    path = only(folder)
    collection: Collection = _collection()

    def looked_up(trec: bool) -> None:
        tally = Tally()
        look_up(read_judgements(path, tally, trec=trec), collection.query_ids, collection.passage_ids, tally)
        list(tally.lines())

    each(
        lambda: read_judgements(path, refuse),
        lambda: read_judgements(path, refuse, trec=True),
        lambda: looked_up(trec=False),
        lambda: looked_up(trec=True),
        lambda: read_exclusions([path], collection),
        lambda: read_passage_ids(path, collection),
        lambda: read_ranking(path),
    )


_COLLECTIONS: list[Any] = []


def _collection() -> Any:
    """Return a small collection of pairs with ids that the seeds name."""
    import tempfile

    from embedsmith.data.load import load_collection

    if not _COLLECTIONS:
        rows = [{**row, "query_id": f"q{n}", "positive_id": f"p{n}"} for n, row in enumerate(FLAT, start=1)]
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "pairs.jsonl"
            path.write_text("".join(json.dumps({**row, "label": 1}) + "\n" for row in rows))
            _COLLECTIONS.append(load_collection(path))
    return _COLLECTIONS[0]


def _labelled(folder: Path) -> None:
    from embedsmith.data.labelled import read_labelled, task_of
    from embedsmith.data.labelled_rows import LabelledColumns
    from embedsmith.data.load import load_tables, table_splits

    path = only(folder)
    each(
        lambda: task_of(path),
        lambda: table_splits(path),
        lambda: [_rows_of(table) for table in load_tables(path)],
        *(
            lambda task=task: read_labelled(path, task, columns=LabelledColumns()).content_hash()  # type: ignore[misc]
            for task in ("classification", "clustering", "sts", "pair-classification", "nli", "reranking")
        ),
    )


def _labels(folder: Path) -> None:
    from embedsmith.data.pair_labels import read_labels
    from embedsmith.prepare.converters.classes import read_label_texts

    path = only(folder)
    each(lambda: read_labels(str(path)), lambda: read_label_texts(path))


def _examples(folder: Path) -> None:
    from embedsmith.data.examples import read_examples
    from embedsmith.models.settings import StudentSettings
    from embedsmith.runs.origin import hash_of_examples
    from embedsmith.training.train import mined_sources

    path = only(folder)
    each(
        lambda: read_examples(path),
        lambda: hash_of_examples(path),
        lambda: mined_sources(path, StudentSettings()),
        lambda: _written(path, folder / "out"),
    )


def _examples_parquet(folder: Path) -> None:
    from embedsmith.data.examples import iter_examples, write_examples_parquet

    write_examples_parquet(folder / "examples.parquet", iter_examples(SEEDS / "examples/usual/negatives.jsonl"))


def _written(path: Path, out: Path) -> None:
    from embedsmith.mining.dialect_files import DialectSettings
    from embedsmith.mining.dialects import DIALECTS, ExampleFile, write_dialect

    for dialect in ("jsonl", "st-n-tuple", "st-labeled-list", "flagembedding", "tevatron-legacy", "tevatron", "nemo"):
        suffix = DIALECTS[dialect].suffix
        write_dialect(dialect, out / f"{dialect}{suffix}", ExampleFile(path), DialectSettings())


def _texts(folder: Path) -> None:
    from embedsmith.data.corpus import load_corpus
    from embedsmith.data.listed import read_listed

    path = only(folder)
    each(lambda: load_corpus(path), lambda: load_corpus(path, skip_bad=True), lambda: read_listed(path))


def _converted(folder: Path) -> None:
    from embedsmith.mining.settings import MiningSettings
    from embedsmith.prepare.convert import convert
    from embedsmith.prepare.converters.settings import ConvertSettings

    path = only(folder)
    mining = MiningSettings(teachers=["random"], negatives=1)
    each(
        *(
            lambda task=task: convert(  # type: ignore[misc]
                path, out=folder / f"out-{task}", settings=ConvertSettings(task=task), mining=mining
            )
            for task in ("classification", "clustering", "sts", "pairs", "reranking")
        )
    )


# Recipes.


def _recipe(folder: Path) -> None:
    from embedsmith.recipes.ablation.grid import cells_of, read_ablation
    from embedsmith.recipes.recipe import read_recipe

    path = only(folder)
    each(
        lambda: read_recipe(path).fingerprint(),
        lambda: read_recipe(path, changes=["stages.0.steps=3"]),
        lambda: cells_of(read_ablation(path)),
        lambda: cells_of(read_ablation(path, vary=["mining.method=naive,abs"])),
    )


# Runs.


def _mined(folder: Path) -> None:
    from embedsmith.generation.settings import JudgeSettings
    from embedsmith.mining.judge import judge
    from embedsmith.mining.mine import mine
    from embedsmith.mining.select import select_again
    from embedsmith.mining.settings import MiningSettings
    from embedsmith.vectors.guide import write_guide

    path = folder / "pairs.jsonl"
    rows = [
        {"query": f"where is the {a} of the {b}", "positive": [f"the {a} is on the {b}", f"a {b} holds the {a}"]}
        for a in ("cat", "dog", "owl")
        for b in ("fig", "plum")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = MiningSettings(teachers=["bm25", "random"], method="naive", depth=6, negatives=2)
    run = mine(path, out=folder / "mined", settings=settings).folder
    with answering(b'{"choices": [{"message": {"content": "yes"}}]}'):
        judge(run, settings=JudgeSettings(url="http://localhost/v1#toy", queries=2, positives=1))
    select_again(run, out=folder / "selected", changes={"negatives": 1, "method": "abs"})
    for name, contract in (("queries", {"role": "query"}), ("passages", {"role": "passage"})):
        _store_of(folder / name, ["a cat", "a dog"], contract)
    queries, passages = (next((folder / name).iterdir()) for name in ("queries", "passages"))
    write_guide(run, teacher="toy", queries=queries, passages=passages)


def _read_run(folder: Path) -> None:
    from embedsmith.mining.select import audit_run, read_mined, select_again, write
    from embedsmith.mining.verdicts import false_negatives, read_judgement
    from embedsmith.models.settings import StudentSettings
    from embedsmith.recipes.report_pages import write_page
    from embedsmith.runs.run import read_manifest
    from embedsmith.training.train import mined_sources

    for run in (folder / "mined", folder / "selected"):
        each(
            lambda run=run: read_manifest(run),  # type: ignore[misc]
            lambda run=run: read_mined(run),  # type: ignore[misc]
            lambda run=run: select_again(run, out=run.with_name(f"{run.name}-again"), changes={"mining_seed": 1}),  # type: ignore[misc]
            lambda run=run: select_again(run, out=run.with_name(f"{run.name}-other"), changes={"method": "naive"}),  # type: ignore[misc]
            lambda run=run: audit_run(run, draws=1),  # type: ignore[misc]
            lambda run=run: write_page(run),  # type: ignore[misc]
            lambda run=run: mined_sources(run, StudentSettings()),  # type: ignore[misc]
            lambda run=run: false_negatives(run),  # type: ignore[misc]
            lambda run=run: read_judgement(run),  # type: ignore[misc]
            lambda run=run: write(run, out=run.with_name(f"{run.name}.jsonl")),  # type: ignore[misc]
            lambda run=run: false_negatives(run),  # type: ignore[misc]
        )


# Vectors, journals.


def _vectors(texts: list[str]) -> Any:
    import numpy as np

    return np.array([[len(text), text.count("a"), 1.0] for text in texts], np.float32).reshape(len(texts), 3)


def _store_of(parent: Path, texts: list[str], contract: dict[str, Any]) -> Any:
    from embedsmith.vectors.store import VectorStore

    store = VectorStore.open_or_create(parent, contract=contract, texts=texts, shard_size=2)
    return store.fill_each(lambda lists: (_vectors(list(some)) for some in lists))


TEXTS = ["a cat", "a dog", "an owl", "a bat and a fig", "plums"]


def _store(folder: Path) -> None:
    _store_of(folder / "vectors", TEXTS, {"model": "toy"})


def _read_store(folder: Path) -> None:
    """Open the store again, and one of a grown list of texts, which takes vectors from it."""
    each(
        lambda: _store_of(folder / "vectors", [*TEXTS, "a pear"], {"model": "toy"}),
        lambda: _store_of(folder / "vectors", TEXTS, {"model": "toy"}),
    )


def _journal(folder: Path) -> None:
    from embedsmith.services.chat import Chat, Question, ServerSettings
    from embedsmith.services.endpoint import endpoint
    from embedsmith.services.journal import Journal

    path = only(folder)
    where = endpoint("http://localhost/v1#toy")
    questions = [Question("a cat?", 8), Question("a dog?", 8)]

    def ask() -> None:
        with answering(b'{"choices": [{"message": {"content": "yes"}}]}'):
            Chat(where, path, settings=ServerSettings(concurrency=1, budget_tokens=10_000)).ask(questions)

    each(lambda: Journal(path).add("x", {"text": "x"}), ask)


def _journal_base(folder: Path) -> None:
    from embedsmith.services.chat import Chat, Question
    from embedsmith.services.endpoint import endpoint

    with answering(b'{"choices": [{"message": {"content": "yes"}}]}'):
        Chat(endpoint("http://localhost/v1#toy"), folder / "journal.jsonl").ask([Question("a cat?", 8)])
    for path in folder.iterdir():
        if path.name != "journal.jsonl":
            path.unlink()


def _answer(folder: Path) -> None:
    from embedsmith.generation.answers import json_in, lines, said
    from embedsmith.generation.verdicts import verdict_of
    from embedsmith.services.chat import _chat
    from embedsmith.services.endpoint import endpoint
    from embedsmith.serving.verify.programs import Server
    from embedsmith.teachers.remote import RemoteModel

    path = only(folder)
    raw = path.read_bytes()

    def chat() -> None:
        answer = _chat(raw.decode("utf-8", "replace").encode(), "a cat?", "toy")
        text = said(answer.text)
        lines(text), json_in(text, dict), json_in(text, list), verdict_of(answer)
        json.dumps(answer.text, ensure_ascii=False).encode()

    def embed() -> None:
        with answering(raw):
            RemoteModel(endpoint("http://localhost/v1#toy"), concurrency=1).embed(["a", "b"], "query")

    def verify() -> None:
        with answering(raw):
            Server("http://localhost/v1#toy").vectors(["a", "b"], "query")

    each(chat, embed, verify)


def _templates(folder: Path) -> None:
    import random

    from embedsmith.generation.templates import read_templates

    for name, holes in (("queries", ["passage", "count"]), ("judge", ["query", "passage"])):
        each(
            lambda name=name, holes=holes: [  # type: ignore[misc]
                template.filled(dict.fromkeys(holes, "{{x}}"), random.Random(0))
                for template in read_templates({name: holes}, folder).values()
            ]
        )


def _code(folder: Path) -> None:
    from embedsmith.prepare.code import CodeSettings, harvest, split

    settings = CodeSettings(source=str(folder))
    found = harvest(settings)
    split(found, settings)


READERS: dict[str, Reader] = {
    "pairs-jsonl": Reader(_pairs),
    "pairs-csv": Reader(_pairs),
    "pairs-parquet": Reader(_pairs, _parquet_of(ROWS, "pairs.parquet"), ("pairs.parquet",)),
    "pairs-saved": Reader(_read_saved, _saved, ("saved/*.json", "saved/*/*.json", "saved/*/*.arrow")),
    "beir": Reader(_beir),
    "judgements": Reader(_judgements),
    "labelled": Reader(_labelled),
    "labels": Reader(_labels),
    "converted": Reader(_converted),
    "examples": Reader(_examples),
    "examples-parquet": Reader(_examples, _examples_parquet, ("examples.parquet",)),
    "texts": Reader(_texts),
    "texts-parquet": Reader(_texts, _parquet_of(PASSAGES, "corpus.parquet"), ("corpus.parquet",)),
    "recipe": Reader(_recipe),
    "run-manifests": Reader(
        _read_run, _mined, ("*/manifest.json", "mined/guide.json", "passages/*/store.json"), seconds=20
    ),
    "run-candidates": Reader(_read_run, _mined, ("mined/candidates/*",), seconds=20),
    "run-rows": Reader(_read_run, _mined, ("*/*.jsonl", "mined/judge/*.jsonl", "mined/judge.json"), seconds=20),
    "store": Reader(_read_store, _store, ("vectors/*/*",)),
    "journal": Reader(_journal, _journal_base, ("journal.jsonl",)),
    "answers": Reader(_answer),
    "templates": Reader(_templates),
    "code": Reader(_code),
    **DOCUMENT_READERS,
    **RUN_READERS,
    **MODEL_READERS,
}
