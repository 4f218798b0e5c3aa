"""Mining a collection: candidates once, then negatives from them, into a run folder.

RUN/candidates.npz     what the teacher found, with every score that selection needs
RUN/negatives.jsonl    training examples
RUN/vectors/           the teacher's vectors
"""

from __future__ import annotations

from pathlib import Path

from embedsmith.data.collection import Collection
from embedsmith.data.examples import write_examples
from embedsmith.data.load import known_splits, load_collection
from embedsmith.mining.candidates import mine_candidates, read_candidates, write_candidates
from embedsmith.mining.selection import Selection, select
from embedsmith.mining.settings import MiningSettings
from embedsmith.pipeline.runs import Run
from embedsmith.progress import Progress, silent
from embedsmith.teachers.named import open_teacher


def mine(
    data: str | Path,
    *,
    out: str | Path,
    split: str | None = None,
    settings: MiningSettings | None = None,
    on_progress: Progress = silent,
) -> Run:
    """Mine hard negatives for a user's data into a run folder.

    Args:
        data: a BEIR folder, pairs, or whatever else `load_collection` reads.
        out: the run folder; a run that was cut short goes on.
        split: the split of a BEIR folder; `train` where there is one.
        settings: teacher, method and number of negatives.
        on_progress: told of the work.

    Raises:
        InputError, ModelError, RunError: see `embedsmith.errors`.
    """
    settings = settings or MiningSettings()
    collection = load_collection(data, split=split or _default_split(data))
    run = Run.open(out, command="mine", settings=settings, inputs={"data": str(Path(data).resolve()), "split": split})
    with run:
        selection = mine_into(run, run.folder, collection, settings, on_progress=on_progress)
        run.count("mining", selection.counts)
        run.finish()
    return run


def _default_split(data: str | Path) -> str | None:
    """Return `train` for a folder that has it."""
    return "train" if "train" in known_splits(data) else None


def mine_into(
    run: Run, folder: Path, collection: Collection, settings: MiningSettings, *, on_progress: Progress = silent
) -> Selection:
    """Write candidates and negatives of one collection into a folder of a run; candidates that are there are used."""
    run.same_content(collection.name if folder == run.folder else folder.name, collection.content_hash())
    path = folder / "candidates.npz"
    if not path.is_file():
        with run.timed("mine"):
            teacher = open_teacher(
                settings.teacher,
                collection.passages,
                vectors=run.folder / "vectors",
                dtype=settings.teacher_dtype,
                max_tokens=settings.teacher_max_tokens,
                on_progress=on_progress,
            )
            write_candidates(path, mine_candidates(teacher, collection, depth=settings.depth))
    with run.timed("select"):
        selection = select(read_candidates(path), collection, settings)
        write_examples(folder / "negatives.jsonl", selection.examples)
    return selection
