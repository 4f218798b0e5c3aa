"""Static embeddings: a matrix with one vector for each token; a text is the mean of its tokens' vectors.

No transformer, so a processor encodes thousands of texts a second. A folder of sentence-transformers or model2vec with
a `modules.json` opens like any other model; this module reads folders that only hold the two files.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from embedsmith.data.files import visible
from embedsmith.errors import ModelError
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.weights import check_table

_MATRICES = ("embedding.weight", "embeddings")
"""Names of the matrix in the files of sentence-transformers and wordllama, and of model2vec."""


def read_static(folder: Path, *, name: str) -> StaticEmbedding:
    """Return the static embeddings of a folder, which lie anywhere in it.

    Raises:
        ModelError: there is not exactly one matrix and one tokenizer, or they do not belong together.
    """
    with LibraryErrors(name, "cannot be opened"):
        matrices = [path for path in _files(folder, "*.safetensors") if _matrix_in(path)]
    matrix = _only(matrices, "token matrix", folder, name)
    beside = _files(matrix.parent, "tokenizer.json", deep=False)
    candidates = beside or [path for path in _files(folder, "*.json") if _is_tokenizer(path)]
    found = _only(candidates, "tokenizer", folder, name)
    with LibraryErrors(name, "cannot be opened"):
        tokenizer = Tokenizer.from_file(str(found))
        tokenizer.encode("a word that it knows, and \N{SNOWMAN}")
        weights = _weights(matrix)
    check_table(tokenizer, len(weights), name=name, matrix=matrix.name)
    tokenizer.no_truncation()
    return StaticEmbedding(tokenizer, embedding_weights=weights)


def _files(folder: Path, pattern: str, *, deep: bool = True) -> list[Path]:
    """Return the files of a folder, and those below it, in the order of their names."""
    return [path for path in visible(folder, f"**/{pattern}" if deep else pattern) if path.is_file()]


def _only(found: list[Path], what: str, folder: Path, name: str) -> Path:
    """Return the only file that was found."""
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:4])
        raise ModelError(
            f"{name}: wanted one {what}, found {len(found)}{f': {names}' if names else ''}",
            hint="name the folder that holds one .safetensors file with a token matrix, and its tokenizer.json",
        )
    return found[0]


def _matrix_in(path: Path) -> str | None:
    """Return the name of the token matrix in a safetensors file, None where there is none or it is a whole model."""
    try:
        with safe_open(path, "pt") as file:
            keys = set(file.keys())
    except SafetensorError:
        return None
    return next((key for key in _MATRICES if key in keys and keys <= {key, "mapping", "weights"}), None)


def _weights(path: Path) -> Float32[torch.Tensor, "_ D"]:
    """Return one vector for each token id."""
    tensors = load_file(path)
    matrix = tensors[_matrix_in(path) or ""].float()
    # model2vec: tokens that share a vector, and how much each token counts.
    if "mapping" in tensors:
        matrix = matrix[tensors["mapping"].long()]
    if "weights" in tensors:
        matrix = matrix * tensors["weights"].float()[:, None]
    return matrix.contiguous()


def _is_tokenizer(path: Path) -> bool:
    """Return whether a JSON file holds a tokenizer."""
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(rules, dict) and isinstance(rules.get("model"), dict) and "vocab" in rules["model"]
