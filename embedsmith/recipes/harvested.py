"""Data of a recipe that are made, in its run, of what lies at their path: source code, and folders of documents.

RUN/data/NAME/train, test   BEIR folders of the two sides
RUN/data/NAME/all           corpus of all passages, where the two sides are of some files only
RUN/data/NAME/done.json     what was not read and why, and what is held out
RUN/data/NAME/not_found.jsonl  training queries by which the teacher finds none of their passages
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.files import read_jsonl, write_json, write_jsonl
from embedsmith.data.sentences import Tokens
from embedsmith.errors import InputError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.prepare.code import CodeSearch, CodeSettings, check_sources, harvest, sources_hash, split
from embedsmith.prepare.documents.harvest import documents_hash, harvest_documents
from embedsmith.prepare.documents.packed import is_packed
from embedsmith.prepare.documents.reading import check_documents
from embedsmith.prepare.documents.settings import DocumentSettings
from embedsmith.prepare.documents.sides import DocumentSearch, split_documents
from embedsmith.prepare.found_again import not_found, without_queries
from embedsmith.progress import Progress
from embedsmith.recipes.recipe import DataSettings, Recipe
from embedsmith.recipes.shelf import Shelf, identity_of_model, once
from embedsmith.runs.run import Run
from embedsmith.teachers.named import open_teacher
from embedsmith.variables import Place, filled
from embedsmith.version import __version__

_ELSEWHERE = 400
"""Functions on which it is seen what the student has lost: read twice in some seconds."""


@dataclass(frozen=True)
class Sides:
    """What a harvest gives."""

    made: CodeSearch | DocumentSearch
    counts: dict[str, Any]
    """For the report."""
    done: dict[str, Any]
    """What `done.json` says."""

    @property
    def train(self) -> Collection:
        """The training side, in memory."""
        return self.made.train

    @property
    def test(self) -> Collection:
        """The test side, in memory."""
        return self.made.test

    def write(self, folder: Path) -> None:
        """Write both sides as BEIR folders, and of documents all passages where the sides have some; see above."""
        if isinstance(self.made, DocumentSearch):
            self.made.write(folder)
        else:
            write_beir(folder / "train", {"train": self.train})
            write_beir(folder / "test", {"test": self.test})


def check_harvest(settings: DataSettings) -> None:
    """Refuse a path that holds nothing to harvest; nothing of it is read.

    Raises:
        InputError: says what is missing, a library too.
    """
    if settings.format == "code":
        check_sources(code_of(settings))
    else:
        check_documents(Path(filled(settings).path))


def harvest_into(
    run: Run, name: str, settings: DataSettings, student: StudentSettings, shelf: Shelf | None, on_progress: Progress
) -> None:
    """Write both sides of a data set into the run, once."""
    folder = run.folder / "data" / name
    with once(shelf, settings.format, lambda: _identity(settings, student), folder, on_progress):
        if not (folder / "done.json").is_file():
            with run.timed("harvest"):
                folder.mkdir(parents=True, exist_ok=True)
                sides = sides_of(settings, student, on_progress, folder=folder)
                sides.write(folder)
                run.count(f"data {name}", sides.counts)
                # Written last: without it the harvest was cut short and is done again.
                write_json(folder / "done.json", sides.done)


def elsewhere_settings(recipe: Recipe) -> DataSettings | None:
    """Return the data on which a recipe sees what the student has lost; None where it does not look."""
    if recipe.evaluation.elsewhere is None:
        return None
    path = Place(recipe.evaluation.elsewhere)
    # Nothing of it is trained on, so nearly all of it is queries.
    return DataSettings(path=path, format="code", max_functions=_ELSEWHERE, test_share=0.9)


def found_again(
    run: Run, name: str, settings: DataSettings, train: Collection, mining: MiningSettings, on_progress: Progress
) -> Collection:
    """Return a training side without the queries by which the first teacher finds none of their passages.

    Raises:
        InputError: the teacher finds no passages, or no query is left.
    """
    within = settings.documents.found_within
    if settings.format != "documents" or within is None:
        return train
    path = run.folder / "data" / name / "not_found.jsonl"
    if not path.is_file():
        with run.timed("find again"):
            teacher = open_teacher(
                mining.teachers[0],
                train.passages,
                vectors=run.vectors,
                settings=mining.teacher_settings,
                ties=train.ties,
                on_progress=on_progress,
            )
            left_out = not_found(train, teacher, within=within)
        texts = {query: train.queries[train.query_index[query]] for query in left_out}
        write_jsonl(path, [{"_id": query, "text": text} for query, text in texts.items()])
        run.count(f"not found {name}", count_by_source(left_out))
    left_out = [str(row["_id"]) for _, row in read_jsonl(path)]
    if len(left_out) == len(train.query_ids):
        raise InputError(
            f"{settings.path}: by none of {len(left_out):,} queries the teacher finds their passage among the first "
            f"{within}",
            hint="leave data.NAME.documents.found_within out, or name another teacher",
        )
    return without_queries(train, left_out)


def sides_of(
    settings: DataSettings, student: StudentSettings, on_progress: Progress, *, folder: Path | None = None
) -> Sides:
    """Return both sides of a data set.

    Args:
        settings: of the data set.
        student: whose tokens count.
        on_progress: called with the progress of the work.
        folder: on whose disk documents lie meanwhile; by default where the system keeps temporary files.

    Raises:
        InputError: nothing can be read, or it gives too few pairs.
    """
    if settings.format == "code":
        return _code(code_of(settings), on_progress)
    return _documents(settings, student, on_progress, folder)


def _identity(settings: DataSettings, student: StudentSettings) -> list[Any]:
    """Return all that a harvest depends on."""
    if settings.format == "code":
        code = code_of(settings)
        return [{**code.model_dump(), "source": settings.path}, sources_hash(code), __version__]
    own = documents_of(settings, student).model_dump(mode="json")
    content = documents_hash(Path(filled(settings).path))
    return [own, settings.path, content, identity_of_model(student.name), __version__]


def _code(code: CodeSettings, on_progress: Progress) -> Sides:
    found = harvest(code, on_file=lambda done, total: on_progress(f"read {code.source}", done, total))
    sides = split(found, code)
    skipped = [{"path": s.path, "line": s.line, "reason": s.reason} for s in found.skipped]
    counts = {"functions": len(found.functions), "files_skipped": len(skipped), **_sizes(sides.train, sides.test)}
    return Sides(sides, counts, {"skipped": skipped, "test_modules": sides.test_modules})


def _documents(settings: DataSettings, student: StudentSettings, on_progress: Progress, folder: Path | None) -> Sides:
    path = filled(settings).path
    own = documents_of(settings, student)
    tokens, added = _tokens_of(student)
    # What the model puts around a text counts too.
    cut = own.model_copy(update={"max_tokens": max(1, own.limit - added)})
    found = harvest_documents(
        Path(path),
        cut,
        tokens,
        folder=folder,
        on_file=lambda done, total: on_progress(f"read {settings.path}", done, total),
    )
    sides = split_documents(found, own, name=settings.path, on_progress=on_progress)
    skipped = [{"path": one.path, "line": None, "reason": one.reason} for one in found.unread]
    counts = {
        "files_read": len(found.read),
        "files_unpacked": sum(map(is_packed, found.read)),
        "files_skipped": len(skipped),
        "files_read_in_part": len(found.read_in_part),
        "pairs": {source: count for source, count in found.by_source().items() if count},
        "trained_on": count_by_source(sides.train_side.query_ids()),
        "copies": sides.copies,
        "near_copies": sides.near_copies,
        "passages": len(sides.test_side.passages),
        "train_queries": len(sides.train_side.queries),
        "test_queries": len(sides.test_side.queries),
        "several_positives": sides.train_side.several_positives(),
    }
    if sides.everything:
        counts["all_passages"] = len(sides.everything.passages)
    done = {"counts": counts, "skipped": skipped, "read_in_part": found.read_in_part, "test_files": sides.test_files}
    return Sides(sides, counts, done)


def count_by_source(query_ids: Iterable[str]) -> dict[str, int]:
    """Return how many queries each source gave; the id of a query begins with its source.

    >>> count_by_source(["heading-1", "link-2", "heading-3"])
    {'heading': 2, 'link': 1}
    """
    return dict(Counter(query.rpartition("-")[0] for query in query_ids).most_common())


def _sizes(train: Collection, test: Collection) -> dict[str, int]:
    return {
        "passages": len(test.passages),
        "train_queries": len(train.queries),
        "test_queries": len(test.queries),
        "several_positives": sum(len(train.positives(query)) > 1 for query in train.query_ids),
    }


def code_of(data: DataSettings) -> CodeSettings:
    """Return how a data set is harvested from source code."""
    return CodeSettings(
        source=filled(data).path,
        split_seed=data.split_seed,
        test_share=data.test_share,
        max_functions=data.max_functions,
    )


def documents_of(data: DataSettings, student: StudentSettings) -> DocumentSettings:
    """Return how a data set is made of documents; passages are as long as the student reads them, unless it is said."""
    own = data.documents.model_dump()
    own["max_tokens"] = own["max_tokens"] or student.passage_max_tokens
    return DocumentSettings(**own, split_seed=data.split_seed, test_share=data.test_share)


def _tokens_of(student: StudentSettings) -> tuple[Tokens, int]:
    """Return how the student counts the tokens of a text, and how many it adds to each."""
    from embedsmith.models.chunks import token_counter
    from embedsmith.models.opening import build_student

    return token_counter(build_student(student).tokenizer)
