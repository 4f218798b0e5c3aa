"""Queries for a user's own passages, written by a chat model and found again by a teacher: a run and a BEIR folder.

RUN/corpus.jsonl, queries.jsonl, qrels/train.tsv    what `mine` reads
RUN/rejected.jsonl                                  each query that was not kept, with the reason
RUN/answers.jsonl                                   what was paid for
RUN/prompts/                                        the prompts as they were used
RUN/vectors/                                        the teacher's vectors
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.corpus import load_corpus
from embedsmith.data.files import write_jsonl
from embedsmith.data.pool import Pooled
from embedsmith.errors import InputError
from embedsmith.generation.answers import Different, Rejects
from embedsmith.generation.passages import cut
from embedsmith.generation.settings import QuerySettings
from embedsmith.generation.templates import write_templates
from embedsmith.generation.writers import check_writers, open_writers
from embedsmith.mining.near_duplicates import shingles
from embedsmith.pages.bars import draws_bars
from embedsmith.prepare.written import Written, drawn_rows, found_again, read_prompts, without_twins, write
from embedsmith.progress import Progress, silent
from embedsmith.runs.run import Run
from embedsmith.services.chat import ServerSettings
from embedsmith.settings import fingerprint
from embedsmith.teachers.named import open_teacher


@draws_bars
def synthesize_queries(
    corpus: str | Path,
    *,
    out: str | Path,
    settings: QuerySettings,
    server: ServerSettings | None = None,
    prompts: str | Path | None = None,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Run:
    """Write queries for passages, and keep those whose passage the teacher finds again.

    A budget that is spent ends the work with what is there; the run then waits for a larger one.

    Args:
        corpus: a file of passages, or a BEIR folder.
        out: the run folder, a BEIR folder when the work is done; a run that was cut short goes on.
        settings: which model, how many queries, which are kept.
        server: how the server is asked.
        prompts: a folder with a `queries.txt` in the place of ours.
        skip_bad: leave out rows of the corpus that cannot be used.
        on_skip: called with the number of rows left out for each reason.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
        ConnectionError: the server cannot be reached, or is busy or failing for too long.
    """
    templates = read_prompts(prompts)
    # What is missing is reported before anything is paid for.
    different = Different(settings.near_duplicates, shingles=shingles)
    check_writers(settings)
    pooled = load_corpus(Path(corpus), skip_bad=skip_bad, on_skip=on_skip)
    ids, passages, metadata = _cut(pooled, settings.passage_characters)
    inputs = {
        "corpus": str(Path(corpus).resolve()),
        "prompts": {name: fingerprint(one.text) for name, one in templates.items()},
    }
    with Run.open(out, command="synthesize queries", settings=settings, inputs=inputs) as run:
        run.same_content("corpus", fingerprint([ids, passages]))
        writer = open_writers(settings.writers, run.folder / "answers.jsonl", server)
        write_templates(run.folder / "prompts", templates)
        rejects = Rejects()
        with run.timed("ask"):
            rows = drawn_rows(len(passages), settings.passages, settings.seed)
            written, answers = write(
                writer,
                rows,
                passages,
                ids,
                metadata,
                prompts=templates,
                settings=settings,
                rejects=rejects,
                on_progress=on_progress,
            )
        with run.timed("find"):
            found = _found_again(written, passages, run, settings, rejects, ids, on_progress)
            kept = without_twins(found, different, rejects, ids)
        run.count(
            "queries",
            {
                "documents": len(pooled.ids),
                "passages": len(passages),
                "asked": len(rows),
                "answered": sum(answer is not None for answer in answers),
                "not_answered": writer.failures[:10],
                "written": len(kept.pairs) + sum(rejects.counts.values()),
                "kept": len(kept.pairs),
                "queries": len(kept.texts),
                "passages_with_queries": len({row for _, row in kept.pairs}),
                "rejected": dict(rejects.counts.most_common()),
                "tokens": writer.tokens,
                "budget_spent": writer.is_spent,
            },
        )
        write_jsonl(run.folder / "rejected.jsonl", rejects.rows)
        if kept.pairs:
            write_beir(run.folder, {"train": _collection(kept, ids, passages, metadata)})
        if not writer.is_spent:
            if not kept.pairs:
                raise InputError(
                    f"{run.folder}: of {len(rows):,} passages none has a query that can be used ({_in_words(rejects)})",
                    hint="read rejected.jsonl there; try a larger model, another prompt, or a larger --found-within",
                )
            run.finish()
    return run


def _cut(pooled: Pooled, limit: int) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Return the ids, texts and metadata of the passages; what is too long becomes several: `ID#1`, `ID#2`."""
    ids, passages, metadata = [], [], []
    for row, (document, text) in enumerate(zip(pooled.ids, pooled.texts, strict=True)):
        parts = cut(text, limit)
        ids += [document] if len(parts) == 1 else [f"{document}#{number}" for number in range(1, len(parts) + 1)]
        passages += parts
        metadata += [pooled.metadata[row]] * len(parts) if pooled.metadata else []
    return ids, passages, metadata


def _found_again(
    written: Written,
    passages: list[str],
    run: Run,
    settings: QuerySettings,
    rejects: Rejects,
    ids: list[str],
    on_progress: Progress,
) -> Written:
    """Return the pairs whose passage the settings' teacher finds again."""
    if not written.pairs:
        return written
    teacher = open_teacher(
        settings.teacher,
        passages,
        vectors=run.folder / "vectors",
        settings=settings.teacher_settings,
        on_progress=on_progress,
    )
    return found_again(written, passages, teacher, within=settings.found_within, rejects=rejects, ids=ids)


def _collection(kept: Written, ids: list[str], passages: list[str], metadata: list[dict[str, Any]]) -> Collection:
    """Return the kept queries, each with the passages that it was written for."""
    # Named by their text: a query keeps its id when a larger budget brings more of them.
    query_ids = {same: f"q-{fingerprint(same)}" for same in kept.texts}
    qrels: dict[str, dict[str, int]] = {query_id: {} for query_id in query_ids.values()}
    for same, row in kept.pairs:
        qrels[query_ids[same]][ids[row]] = 1
    return Collection.of(
        name="synthetic",
        passage_ids=ids,
        passages=passages,
        query_ids=query_ids.values(),
        queries=kept.texts.values(),
        qrels=qrels,
        metadata=metadata,
    )


def _in_words(rejects: Rejects) -> str:
    """Return how many were rejected for each reason."""
    return ", ".join(f"{number:,} {reason}" for reason, number in rejects.counts.most_common(3)) or "no answer"
