"""Making room for `encode` and `export-model`: what they wrote before is removed, and nothing else.

Vectors are known by their columns, or by the ids beside them; a folder by its card, and by the names of all its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedsmith.data.files import read_json, remove_below
from embedsmith.data.locks import sole_writer
from embedsmith.errors import InputError, RunError
from embedsmith.pages.model_card import use

_NAMES = re.compile(
    r"README\.md|golden\.json|modules\.json|(generation_)?config\.json|config_sentence_transformers\.json|\w+_bert_config\.json"
    r"|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.jinja|modeling_embedsmith\.py"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|adapters\.json|rest\.safetensors|adapter_config\.json|adapter_model\.safetensors"
)
"""Files of a model, in its folder or in that of one of its modules."""
_MODULES = re.compile(r"\d+_\w+|adapters")


def what_is_in_vectors(path: Path) -> str:
    """Return in a few words which vectors a file holds.

    Raises:
        RunError: `encode` has not written it.
    """
    count = _count(path) if path.is_file() else None
    if count is None:
        raise RunError(f"{path}: not vectors that `encode` wrote, and not removed", hint="choose another --out")
    return f"file of {count:,} vectors"


def clear_vectors(path: Path) -> None:
    """Remove a file of vectors, and its ids.

    Raises:
        RunError: `encode` has not written it, or is writing it.
    """
    with sole_writer(path):
        what_is_in_vectors(path)
        for file in (path, ids_beside(path)):
            remove_below(path.parent, file)


def ids_beside(path: Path) -> Path:
    """Return the file of the ids of a file of vectors: the same for Parquet."""
    return path.with_suffix(".ids.json") if path.suffix == ".npy" else path


def what_is_in_export(folder: Path) -> str:
    """Return in a few words what a folder holds that `export-model` wrote.

    Raises:
        RunError: `export-model` has not written it, or it holds what is no part of a model.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    *_, last, _ = use("", is_plain=True)
    if last not in text:
        raise RunError(f"{folder}: not a model that `export-model` wrote, and not removed", hint="choose another --out")
    if foreign := sorted(_foreign(folder)):
        raise RunError(
            f"{folder}: not removed, for {foreign[0]} is no part of the model",
            hint="move it away, or choose another --out",
        )
    return "exported model"


def clear_export(folder: Path) -> None:
    """Empty the folder of an exported model; the card goes last, so that it is one until nothing is left.

    Raises:
        RunError: `export-model` has not written it, or is writing it, or it holds what is no part of a model.
    """
    with sole_writer(folder):
        what_is_in_export(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "README.md"):
            remove_below(folder, path)


def _count(path: Path) -> int | None:
    """Return how many vectors a file of `encode` holds, None of another file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            rows = pq.ParquetFile(path)
            return rows.metadata.num_rows if rows.schema_arrow.names == ["id", "vector"] else None
        vectors, ids = np.load(path, mmap_mode="r", allow_pickle=False), read_json(ids_beside(path))
    except (InputError, OSError, ValueError, EOFError, pa.ArrowException):
        return None
    return len(vectors) if vectors.ndim == 2 and isinstance(ids, list) and len(ids) == len(vectors) else None


def _foreign(folder: Path) -> Iterator[str]:
    """Yield what is in a folder, or in that of a module, and is no part of a model."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and _MODULES.fullmatch(path.name):
            inner = (file for file in path.iterdir() if not (file.is_file() and _NAMES.fullmatch(file.name)))
            yield from (file.relative_to(folder).as_posix() for file in inner)
        elif not (path.is_file() and _NAMES.fullmatch(path.name)):
            yield path.name
