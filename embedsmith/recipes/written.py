"""Queries that models write for the training passages of documents: a source of pairs of its own, `written`.

RUN/data/NAME/answers.jsonl   what was answered; a run that was cut short asks for the rest
RUN/data/NAME/written.jsonl   the queries that are kept, each with the ids of its passages
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.files import read_jsonl, write_jsonl
from embedsmith.data.normalised import normalised
from embedsmith.generation.answers import Different, Rejects
from embedsmith.generation.settings import QuerySettings
from embedsmith.generation.writers import open_writers
from embedsmith.mining.near_duplicates import shingles
from embedsmith.mining.settings import MiningSettings
from embedsmith.prepare.documents.settings import PairSettings
from embedsmith.prepare.written import drawn_rows, found_again, read_prompts, without_twins, write
from embedsmith.progress import Progress
from embedsmith.recipes.recipe import DataSettings
from embedsmith.recipes.shelf import Shelf, identity_of_model, once, versions_of_arithmetic
from embedsmith.runs.run import Run
from embedsmith.settings import fingerprint
from embedsmith.teachers.named import open_teacher

SOURCE = "written"


def query_settings(documents: PairSettings, mining: MiningSettings, *, seed: int) -> QuerySettings:
    """Return how queries are written for documents, and which are kept."""
    return QuerySettings(
        generators=documents.generators,
        passages=documents.written_for,
        teacher=mining.teachers[0],
        teacher_settings=mining.teacher_settings,
        seed=seed,
    )


def with_written(
    run: Run,
    name: str,
    settings: DataSettings,
    train: Collection,
    test: Collection,
    mining: MiningSettings,
    shelf: Shelf | None,
    on_progress: Progress,
) -> Collection:
    """Return a training side with the queries that models write for its passages.

    None of them is a query of the folder, on either side.

    Raises:
        InputError, ModelError, SettingsError: see `embedsmith.errors`.
        ConnectionError: a server cannot be reached.
    """
    if not settings.documents.generators:
        return train
    asked = query_settings(settings.documents, mining, seed=settings.split_seed)
    path = run.folder / "data" / name / "written.jsonl"
    with once(shelf, SOURCE, lambda: _identity(asked, train, test), path, on_progress):
        if not path.is_file():
            write_jsonl(path, _rows(run, path.parent, name, asked, train, test, on_progress))
    return with_queries(train, [row for _, row in read_jsonl(path)])


def with_queries(side: Collection, rows: list[dict[str, Any]]) -> Collection:
    """Return a collection with more queries, each with the ids of the passages that answer it."""
    ids = [f"{SOURCE}-{number}" for number in range(1, len(rows) + 1)]
    more = {query: dict.fromkeys(row["passages"], 1) for query, row in zip(ids, rows, strict=True)}
    return Collection.of(
        name=side.name,
        passage_ids=side.passage_ids,
        passages=side.passages,
        query_ids=[*side.query_ids, *ids],
        queries=[*side.queries, *(row["query"] for row in rows)],
        qrels={**side.qrels, **more},
        metadata=side.metadata or (),
    )


def _rows(
    run: Run, folder: Path, name: str, asked: QuerySettings, train: Collection, test: Collection, on_progress: Progress
) -> list[dict[str, Any]]:
    """Return the queries that are kept, each with the ids of its passages."""
    different = Different(asked.near_duplicates, shingles=shingles)
    writer, rejects = open_writers(asked.writers, folder / "answers.jsonl", None), Rejects()
    rows = drawn_rows(len(train.passages), asked.passages, asked.seed)
    with run.timed("write queries"):
        written, answers = write(
            writer,
            rows,
            train.passages,
            train.passage_ids,
            train.metadata or (),
            prompts=read_prompts(None),
            settings=asked,
            rejects=rejects,
            on_progress=on_progress,
        )
    known = {normalised(query) for query in (*train.queries, *test.queries)}
    written.pairs = [(same, row) for same, row in written.pairs if same not in known]
    written.texts = {same: text for same, text in written.texts.items() if same not in known}
    if written.pairs:
        with run.timed("find again"):
            teacher = open_teacher(
                asked.teacher,
                train.passages,
                vectors=run.vectors,
                settings=asked.teacher_settings,
                ties=train.ties,
                on_progress=on_progress,
            )
            written = found_again(
                written,
                train.passages,
                teacher,
                within=asked.found_within,
                rejects=rejects,
                ids=train.passage_ids,
            )
        written = without_twins(written, different, rejects, train.passage_ids)
    passages: dict[str, list[str]] = {same: [] for same in written.texts}
    for same, row in written.pairs:
        passages[same].append(train.passage_ids[row])
    run.count(
        f"written {name}",
        {
            "asked": len(rows),
            "answered": sum(answer is not None for answer in answers),
            "queries": len(written.texts),
            "rejected": dict(rejects.counts.most_common()),
            "tokens": writer.tokens,
        },
    )
    return [{"query": text, "passages": passages[same]} for same, text in written.texts.items()]


def _identity(asked: QuerySettings, train: Collection, test: Collection) -> Any:
    """Return all that written queries depend on."""
    return {
        "settings": asked.model_dump(mode="json"),
        "writers": [identity_of_model(name) for name in asked.writers],
        "teacher": identity_of_model(asked.teacher),
        "train": train.content_hash(),
        "test": test.content_hash(),
        "prompts": {name: fingerprint(one.text) for name, one in read_prompts(None).items()},
        "versions": versions_of_arithmetic(),
    }
