"""Converting labelled data into training examples: rows read, drafts made of them, negatives found, one file written.

With a teacher, negatives are mined among the passages of the data as `mine` does it; its folder lies beside the file
until that is whole, and a conversion that was cut short goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.data.bad_rows import Tally, refuse
from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, iter_examples, write_examples, write_examples_parquet
from embedsmith.data.files import refuse_link, remove_below
from embedsmith.data.instructions import OF_TASK, instruction_for
from embedsmith.data.labelled_rows import (
    LabelledColumns,
    LabelledText,
    Meanings,
    judged_queries,
    labelled_texts,
    pair_meanings,
    text_pairs,
)
from embedsmith.data.load import load_tables
from embedsmith.data.locks import writes_out
from embedsmith.data.tables import HUB
from embedsmith.errors import InputError
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.mine import mine_into
from embedsmith.mining.settings import MiningSettings
from embedsmith.pages.bars import draws_bars
from embedsmith.prepare.converters.classes import convert_classes, is_by_label, read_label_texts
from embedsmith.prepare.converters.drafts import Converted, capped
from embedsmith.prepare.converters.negatives import GIVEN, RANDOM, with_negatives
from embedsmith.prepare.converters.pairs import convert_related, convert_sts
from embedsmith.prepare.converters.reranking import convert_reranking
from embedsmith.prepare.converters.settings import ConvertSettings
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.settings import Settings
from embedsmith.variables import names_in

_DEEPEST = 2000
"""Candidates of a query at most, where most of the best are of its own class."""


class ConversionSettings(Settings):
    """What `convert` was asked for."""

    convert: ConvertSettings
    mining: MiningSettings | None = None


@dataclass(frozen=True)
class Conversion:
    """What became of the rows, and what the examples are like."""

    path: Path
    examples: int
    rows: int
    """All rows: those of `positives`, `negatives` and `dropped`."""
    positives: int
    """Rows that examples were made of."""
    negatives: int
    """Rows that gave negatives to the examples of other rows."""
    dropped: dict[str, int]
    """Rows that are in no example, by reason."""
    by: str
    """What stands for a class: label or example; empty for other tasks."""
    labels: int
    """Different labels; 0 for other tasks."""
    meanings: dict[str, dict[str, Any]]
    """nli and pairs: label -> what it means, and its rows."""
    labels_told: str
    """The same in a line."""
    passages: int
    """Different texts that examples may name."""
    negatives_by: dict[str, int]
    """Negatives of all examples: given by the data, mined, random."""
    short: int
    """Examples with fewer negatives than asked for."""
    instruction: str
    symmetric: bool


@dataclass(frozen=True)
class Drafted:
    """Labelled data, before negatives are found."""

    converted: Converted
    by: str
    labels: int
    instruction: str
    symmetric: bool
    skipped: dict[str, int]
    """Rows that could not be used, by reason."""
    meanings: Meanings | None = None
    """What the labels of pairs mean."""

    def examples(self, settings: ConvertSettings, mined: Mapping[str, Example] | None = None) -> Iterator[Example]:
        """Yield the examples with given, mined and random negatives."""
        return with_negatives(
            self.converted,
            negatives=settings.negatives,
            seed=settings.convert_seed,
            instruction=self.instruction,
            symmetric=self.symmetric,
            mined=mined,
        )


@writes_out
@draws_bars
def convert(
    data: str | Path,
    *,
    out: str | Path,
    settings: ConvertSettings,
    columns: LabelledColumns | None = None,
    split: str | None = None,
    mining: MiningSettings | None = None,
    asked: tuple[str, ConvertSettings] | None = None,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Conversion:
    """Write labelled data as training examples.

    Args:
        data: a file of rows, a folder with a file for each split, a folder of `datasets`, or hf:OWNER/NAME.
        out: the file, Parquet where its name ends in `.parquet`, else JSON lines.
        settings: the task, and how it is done.
        columns: names of columns that are not the conventional ones.
        split: which part of the data; train where there is one.
        mining: teachers and method of mined negatives; None for random ones. Its number of negatives is that of
            `settings`, and so is whether the method counts: see `ConvertSettings.trust_labels`.
        asked: data and settings as a recipe writes them, which the folder of mining keeps in the place of those above.
        skip_bad: leave out rows that cannot be used, and count them.
        on_skip: called with the number of rows left out, by reason; and what the labels of pairs are taken for.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    out = Path(out)
    work = out.with_name(f"{out.name}.mining")
    if mining is not None:
        refuse_link(work)
        _refuse_foreign(work)
    drafted = draft(data, settings, columns=columns, split=split, skip_bad=skip_bad, on_skip=on_skip)
    found = drafted.converted
    sources: Counter[str] = Counter()
    shorts: Counter[str] = Counter()
    kinds: dict[str | None, str] = {GIVEN: "given", RANDOM: "random"}

    def counted(examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            shorts[example.outcome] += 1
            sources.update(kinds.get(passage.teacher, "mined") for passage in example.negatives)
            yield example

    write = write_examples_parquet if out.suffix == ".parquet" else write_examples
    mined: dict[str, Example] = {}
    if mining is not None:
        place, written = asked or (str(data), settings)
        inputs = _inputs(place, split, columns or LabelledColumns())
        mined = _mined(work, found, ConversionSettings(convert=written, mining=mining), inputs, on_progress)
    count = write(
        out,
        counted(drafted.examples(settings, mined)),
    )
    if mining is not None:
        remove_below(out.parent, work)
    used = found.counts()
    return Conversion(
        path=out,
        examples=count,
        rows=used.rows + sum(drafted.skipped.values()),
        positives=used.positives,
        negatives=used.negatives,
        dropped={**used.dropped, **drafted.skipped},
        by=drafted.by,
        labels=drafted.labels,
        meanings=drafted.meanings.plain() if drafted.meanings else {},
        labels_told=str(drafted.meanings or ""),
        passages=len(found.passages),
        negatives_by={name: sources[name] for name in ("given", "mined", "random") if sources[name]},
        short=shorts["short"] + shorts["none"],
        instruction=drafted.instruction,
        symmetric=drafted.symmetric,
    )


def draft(
    data: str | Path,
    settings: ConvertSettings,
    *,
    columns: LabelledColumns | None = None,
    split: str | None = None,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Drafted:
    """Return what becomes of labelled data before negatives are found; arguments and errors are those of `convert`."""
    tally = Tally()
    tables = load_tables(data, split)
    instruction = instruction_of(settings)
    labels: set[str] = set()
    meanings: Meanings | None = None
    on_bad = tally if skip_bad else refuse
    columns = columns or LabelledColumns()
    try:
        if settings.task in ("classification", "clustering"):
            label_texts = read_label_texts(settings.labels) if settings.labels else None
            texts = chain.from_iterable(labelled_texts(table, columns, on_bad) for table in tables)
            found = convert_classes(_noting(texts, labels), settings, label_texts)
        elif settings.task == "reranking":
            found = convert_reranking(chain.from_iterable(judged_queries(t, columns, on_bad) for t in tables))
        else:
            is_sts = settings.task == "sts"
            pairs = chain.from_iterable(text_pairs(t, columns, on_bad, scores=is_sts) for t in tables)
            if is_sts:
                found = convert_sts(pairs, settings)
            else:
                meanings = pair_meanings(
                    tables,
                    columns,
                    is_nli=settings.task == "nli",
                    labels=settings.labels,
                    positive=settings.positive_labels,
                )
                if on_skip:
                    on_skip(f"{data}: labels: {meanings}")
                found = convert_related(pairs, meanings.meanings, settings)
    finally:
        if on_skip:
            for line in tally.lines():
                on_skip(line)
    found = capped(found, settings.max_examples, seed=settings.convert_seed)
    if not found.drafts:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in found.dropped.most_common())
        raise InputError(
            f"{data}: {found.rows:,} rows make no example ({reasons})", hint="check --task, and the names of columns"
        )
    by = "" if not labels else "label" if is_by_label(settings, len(labels)) else "example"
    symmetric = settings.symmetric
    if symmetric is None:
        symmetric = settings.task in ("sts", "pairs") or by == "example"
    return Drafted(found, by, len(labels), instruction, symmetric, dict(tally.counts), meanings)


def instruction_of(settings: ConvertSettings) -> str:
    """Return the instruction of the examples."""
    if settings.instruction is not None:
        return settings.instruction
    return instruction_for(settings.instruction_for) if settings.instruction_for else OF_TASK[settings.task]


def _noting(texts: Iterable[LabelledText], labels: set[str]) -> Iterator[LabelledText]:
    """Yield texts, and note their labels."""
    for item in texts:
        labels.add(item.label)
        yield item


def _inputs(data: str, split: str | None, columns: LabelledColumns) -> dict[str, Any]:
    place = str(data) if data.startswith(HUB) or names_in(data) else str(Path(data).resolve())
    return {"data": place, "split": split, "columns": columns.model_dump(mode="json")}


def _refuse_foreign(work: Path) -> None:
    """Refuse a folder of mining that holds something else."""
    if work.is_dir() and not (work / "manifest.json").is_file() and any(work.iterdir()):
        raise InputError(f"{work}: needed for mining, and holds something else", hint="choose another --out")
    if work.exists() and not work.is_dir():
        raise InputError(f"{work}: needed for mining, and a file", hint="choose another --out")


def _mined(
    work: Path, found: Converted, settings: ConversionSettings, inputs: dict[str, Any], on_progress: Progress
) -> dict[str, Example]:
    """Return what mining makes of the drafts, by query id."""
    assert settings.mining is not None
    mining = _fitting(settings.mining, settings.convert, found)
    collection, listed = collection_of(found)
    with Run.open(work, command="convert", settings=settings, inputs=inputs) as run:
        mine_into(run, run.folder, collection, mining, listed=listed, on_progress=on_progress)
        return {example.query_id: example for example in iter_examples(run.folder / "negatives.jsonl")}


def collection_of(found: Converted) -> tuple[Collection, Listed]:
    """Return the drafts as a collection that can be mined, and what must not be a negative in it."""
    ids = found.passages.ids
    collection = Collection.of(
        name="drafts",
        passage_ids=ids,
        passages=found.passages.texts,
        query_ids=[draft.query_id for draft in found.drafts],
        queries=[draft.query for draft in found.drafts],
        qrels={draft.query_id: {ids[row]: 1 for row in draft.positives} for draft in found.drafts},
    )
    sizes = [len(draft.excluded) for draft in found.drafts]
    given = [np.array(draft.negatives, np.int64) for draft in found.drafts]
    collection = replace(
        collection,
        negative_queries=np.repeat(np.arange(len(given)), [len(rows) for rows in given]),
        negative_passages=np.concatenate([*given, np.zeros(0, np.int64)]),
    )
    listed = Listed(
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate([draft.excluded for draft in found.drafts]),
        np.zeros(0, np.int64),
    )
    return collection, listed


def _fitting(mining: MiningSettings, settings: ConvertSettings, found: Converted) -> MiningSettings:
    """Return the settings of mining for what a task's labels say."""
    widest = max(len(draft.excluded) + len(draft.negatives) for draft in found.drafts)
    changes: dict[str, Any] = {
        "negatives": max(1, settings.negatives),
        "keep_negatives": True,
        # The best candidates may all be of the query's own class.
        "depth": max(mining.depth, min(len(found.passages), widest + mining.depth, _DEEPEST)),
    }
    trusted = settings.trust_labels
    if trusted or (trusted is None and settings.task in ("classification", "clustering")):
        changes["method"] = "naive"
    return mining.model_copy(update=changes)
