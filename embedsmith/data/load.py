"""A path in, a collection out: which reader is it for?"""

from __future__ import annotations

from pathlib import Path

from embedsmith.data.beir import read_beir, splits
from embedsmith.data.collection import Collection
from embedsmith.data.pairs import read_pairs
from embedsmith.errors import InputError, did_you_mean


def load_collection(path: str | Path, *, split: str | None) -> Collection:
    """Return the collection at a path: a BEIR folder, or a `.jsonl` file of pairs.

    `split` names a file in the folder's `qrels`; None stands for the only one there is. A file of pairs is one split,
    whatever it is called: `split` is not looked at.

    Raises:
        InputError: there is no such path, it is neither of the two, its splits leave a choice, or a line is bad.
    """
    path = Path(path)
    if path.is_dir():
        if not any(path.iterdir()):
            raise InputError(f"{path}: an empty folder", hint="wanted a BEIR folder or a .jsonl file of pairs")
        return read_beir(path, _only_split(path) if split is None else split)
    if not path.exists():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file or folder{did_you_mean(path.name, siblings)}", hint="check the path")
    if path.suffix != ".jsonl":
        raise InputError(
            f'{path}: a file that ends in "{path.suffix}", wanted a BEIR folder or a .jsonl file of pairs',
            hint='write the pairs as JSON lines, {"query": "...", "positive": "..."} each',
        )
    return read_pairs(path)


def _only_split(folder: Path) -> str:
    """Return the name of a folder's only split."""
    names = splits(folder)
    if len(names) > 1:
        raise InputError(
            f"{folder}: there are {len(names)} splits, and none was chosen", hint=f"choose {', '.join(names)}"
        )
    return names[0]
