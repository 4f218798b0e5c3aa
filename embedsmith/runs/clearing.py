"""Making room: a run folder is emptied, so that its command begins anew; what embedsmith did not write stays.

A folder is a run by its manifest. A file in it that no command of ours writes is somebody's: then nothing is removed.
"""

from __future__ import annotations

import re
from pathlib import Path

from embedsmith.data.files import remove_below
from embedsmith.data.locks import Lock, busy
from embedsmith.errors import RunError
from embedsmith.runs.part import recipe_around
from embedsmith.runs.run import read_manifest

_MANIFEST = "manifest.json"
_WRITTEN = frozenset(
    {
        # any command
        *(_MANIFEST, "recipe.yaml", ".lock", "vectors", "report.html", "report.md"),
        # mine, select, judge
        *("candidates", "candidates-parts", "negatives.jsonl", "guide.json", "dataset.jsonl"),
        *("judge", "judge.json", "judged.jsonl"),
        # train, run, quickstart, build
        *("data", "mined", "remined", "student", "stages", "checkpoints", "model", "steps.jsonl", "tensorboard"),
        # evaluate
        *("scores", "scores.json", "per_query.jsonl", "ranking.trec", "judgements.qrels", "mteb", "before", "after"),
        # ablate
        *("cells", "shared", "table.json", "table.md"),
        # synthesize
        *("corpus.jsonl", "queries.jsonl", "qrels", "rejected.jsonl", "answers.jsonl", "prompts"),
        *("examples.jsonl", "tasks.jsonl"),
    }
)
"""What commands write into a run folder."""
_OF_A_DATA_SET = {"scores.json", "per_query.jsonl", "ranking.trec", "judgements.qrels"}
"""What a folder holds that `evaluate` has written of one data set, under the name of that."""


def what_is_in(folder: Path) -> str:
    """Return in a few words which run a folder holds.

    Raises:
        RunError: it is no run, or holds what is no part of one.
    """
    manifest = read_manifest(folder)
    if recipe_around(folder) and not (folder / _MANIFEST).is_file():
        raise RunError(f"{folder}: a part of a recipe's run, and not removed alone", hint="choose another --out")
    if not re.fullmatch(r"[0-9a-f]{16}", str(manifest.get("fingerprint"))):
        raise RunError(f"{folder}: not a run of embedsmith, and not removed", hint="choose another --out")
    foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
    if foreign:
        raise RunError(
            f"{folder}: not removed, for {foreign[0]} is no part of the run",
            hint="move it away, or choose another --out",
        )
    state = "finished" if manifest["status"] == "finished" else "unfinished"
    return f"{state} run of `{manifest['command']}`"


def clear(folder: Path) -> None:
    """Empty a run folder; the manifest goes last, so that it is a run until nothing is left.

    Raises:
        RunError: it is no run, holds what is no part of one, or is being written.
    """
    what_is_in(folder)
    lock = Lock.in_folder(folder)
    if not lock.take():
        raise busy(folder, lock)
    try:
        what_is_in(folder)  # again: now nobody writes there
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _MANIFEST):
            if path != lock.path:
                remove_below(folder, path)
    finally:
        lock.release()


def _is_ours(path: Path) -> bool:
    """Return whether a command of ours writes something of this name into its run folder."""
    if path.name in _WRITTEN or re.fullmatch(r"\..+\.partial|.+-optimizer\.safetensors", path.name):
        return True
    return path.is_dir() and {inner.name for inner in path.iterdir()} <= _OF_A_DATA_SET
