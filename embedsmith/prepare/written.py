"""Queries that models write for passages, kept when a teacher finds their passage again and none is almost another."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.normalised import normalised
from embedsmith.generation.answers import ALMOST_SAID_TWICE, Different, Rejects
from embedsmith.generation.queries import queries_in
from embedsmith.generation.settings import QuerySettings
from embedsmith.generation.templates import Template, read_templates
from embedsmith.generation.writers import Writer
from embedsmith.prepare.found_again import found_texts
from embedsmith.progress import Progress
from embedsmith.services.chat import Answer, Question
from embedsmith.teachers.named import Teacher

PROMPTS = {"prose": "queries", "code": "queries-code", "rows": "queries-rows"}
"""Kind of passage, as `kind` in its metadata says -> its prompt. What says nothing is prose."""

_NOT_FOUND = "passage not found again"


class Written:
    """Different queries, and which passages each of them was written for."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        """Normalised -> as it was first written."""
        self.pairs: list[tuple[str, int]] = []

    def add(self, queries: Iterable[str], row: int) -> None:
        """Add the queries of a passage."""
        for query in queries:
            same = normalised(query)
            self.texts.setdefault(same, query)
            self.pairs.append((same, row))


def read_prompts(folder: str | Path | None) -> dict[str, Template]:
    """Return the prompt of each kind of passage.

    Args:
        folder: of files in the place of ours, such as `queries-code.txt`.

    Raises:
        InputError: see `embedsmith.generation.templates`.
    """
    return read_templates({name: ["passage", "queries"] for name in PROMPTS.values()}, folder)


def drawn_rows(count: int, most: int | None, seed: int) -> list[int]:
    """Return the rows of the passages that queries are written for, ascending."""
    if most is None or most >= count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), most))


def write(
    writer: Writer,
    rows: Sequence[int],
    passages: Sequence[str],
    ids: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    *,
    prompts: Mapping[str, Template],
    settings: QuerySettings,
    rejects: Rejects,
    on_progress: Progress,
) -> tuple[Written, list[Answer | None]]:
    """Return the queries that are written for some passages, without those that cannot be used, and the answers.

    Args:
        writer: who is asked.
        rows: of the passages that queries are written for.
        passages: all of them.
        ids: of them, for what is rejected.
        metadata: of them, or nothing; `kind` in it says which prompt is used.
        prompts: see `read_prompts`.
        settings: how many queries, and how they are drawn.
        rejects: takes what cannot be used.
        on_progress: called with the progress of the work.
    """
    own = [prompts[_prompt_of(metadata[row] if metadata else {})] for row in rows]
    questions = [_question(template, passages[row], row, settings) for row, template in zip(rows, own, strict=True)]
    answers = writer.ask(questions, what="ask for queries", on_progress=on_progress)
    written = Written()
    for row, template, answer in zip(rows, own, answers, strict=True):
        if answer:
            given = queries_in(
                answer,
                passages[row],
                wanted=settings.queries,
                prompt=template.text,
                rejects=rejects,
                passage_id=ids[row],
            )
            written.add(given, row)
    return written, answers


def _prompt_of(metadata: Mapping[str, Any]) -> str:
    """Return the name of a passage's prompt.

    >>> _prompt_of({"kind": "code"}), _prompt_of({"kind": ["?"]}), _prompt_of({})
    ('queries-code', 'queries', 'queries')
    """
    kind = metadata.get("kind")
    return PROMPTS.get(kind, PROMPTS["prose"]) if isinstance(kind, str) else PROMPTS["prose"]


def _question(template: Template, passage: str, row: int, settings: QuerySettings) -> Question:
    """Return what is asked about a passage."""
    values = {"passage": passage, "queries": str(settings.queries)}
    return Question(
        template.filled(values, random.Random(f"{settings.seed} {row}")),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
    )


def found_again(
    written: Written, passages: Sequence[str], teacher: Teacher, *, within: int, rejects: Rejects, ids: Sequence[str]
) -> Written:
    """Return the pairs whose passage is among the first that the teacher finds for the query."""
    first = found_texts(teacher, passages, list(written.texts.values()), within=within)
    found = dict(zip(written.texts, first, strict=True))
    kept = Written()
    for same, row in written.pairs:
        if normalised(passages[row]) in found[same]:
            kept.add([written.texts[same]], row)
        else:
            rejects.add(_NOT_FOUND, query=written.texts[same], passage_id=ids[row])
    return kept


def without_twins(found: Written, different: Different, rejects: Rejects, ids: Sequence[str]) -> Written:
    """Return the pairs without those whose query is almost one that comes before it."""
    twins: dict[str, str] = {}
    for same, query in found.texts.items():
        if (twin := different.twin(query)) is not None:
            twins[same] = twin
        else:
            different.add(query)
    kept = Written()
    for same, row in found.pairs:
        if same in twins:
            rejects.add(ALMOST_SAID_TWICE, query=found.texts[same], other=twins[same], passage_id=ids[row])
        else:
            kept.add([found.texts[same]], row)
    return kept
