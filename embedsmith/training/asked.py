"""What `train` is asked for in Python: data in memory, and a student that is open already.

RUN/student/           an open student, as it was when training began
RUN/examples.jsonl     data in memory, as examples
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage
from embedsmith.data.files import whole_folder
from embedsmith.data.in_memory import Rows, is_in_memory, table_in_memory
from embedsmith.data.load import load_collection
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opened import borrowed, name_of_open, student_folder
from embedsmith.models.settings import StudentSettings
from embedsmith.runs.run import Run

Student = Any
"""Settings, a name, an open `SentenceTransformer`, or nothing for the default."""

Mined = Any
"""A run of `mine`, its folder, a file of examples, or rows in memory with their negatives."""


class Named(NamedTuple):
    """A student by its settings."""

    settings: StudentSettings
    model: EmbeddingModel | None
    """The model itself, where the caller has it open."""

    def keep(self, run: Path) -> None:
        """Write an open model into the folder of a run, once; the model stays as it is."""
        if self.model is not None and not student_folder(run).is_dir():
            with whole_folder(student_folder(run)) as partial:
                self.model.write_into(partial, name=self.settings.name, create_model_card=False)


@contextmanager
def named_student(student: Student) -> Iterator[Named]:
    """Give a student by its settings within the block.

    Raises:
        TypeError: it is none.
        ModelError: an open model has weights that cannot be identified.
    """
    if student is None or isinstance(student, StudentSettings):
        yield Named(student or StudentSettings(), None)
    elif isinstance(student, str | os.PathLike):
        yield Named(StudentSettings(name=os.fspath(student)), None)
    else:
        with borrowed(student) as model:
            yield Named(StudentSettings(name=name_of_open(model)), model)


def examples_in_memory(data: Rows) -> tuple[list[Example], str]:
    """Return rows in memory as examples, with a hash of all that they hold.

    Args:
        data: pairs with their negatives: columns `query` or `anchor`, `positive`, `negative`, `negative_1`...

    Raises:
        TypeError: it is nothing that holds rows.
        InputError: a row cannot be used.
    """
    collection = load_collection(table_in_memory(data))
    return list(_examples(collection)), collection.content_hash()


def place_of(mined: Mined) -> Path | None:
    """Return where examples lie; None where they are in memory."""
    if isinstance(mined, Run):
        return mined.folder
    return None if is_in_memory(mined) else Path(mined)


def _examples(collection: Collection) -> Iterator[Example]:
    """Yield the queries of a collection with their positives, and the negatives that their rows brought along."""
    given: dict[int, list[int]] = defaultdict(list)
    for query, passage in zip(collection.negative_queries.tolist(), collection.negative_passages.tolist(), strict=True):
        given[query].append(passage)
    for row, query_id in enumerate(collection.query_ids):
        yield Example(
            query_id,
            collection.queries[row],
            positives=[_passage(collection, collection.passage_index[one]) for one in collection.positives(query_id)],
            negatives=[_passage(collection, one) for one in given[row]],
            outcome="full" if given[row] else "none",
        )


def _passage(collection: Collection, row: int) -> Passage:
    return Passage(collection.passage_ids[row], collection.passages[row])
