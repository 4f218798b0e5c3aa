"""Does a model have a row for each token of a batch, each position and each type?

Asked while the numbers lie in the CPU's memory. Past the last row of a table a CPU raises an IndexError; a GPU stops
with an assertion, and computes nothing more in that process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from embedsmith.errors import ModelError

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
_TYPES = ("token_type_embeddings",)

_tables: WeakKeyDictionary[Any, dict[tuple[str, ...], nn.Embedding | None]] = WeakKeyDictionary()


def check_known(features: Mapping[str, Any], model: Any, backbone: Any, *, name: str) -> None:
    """Refuse a batch with a number past the last row of the table that it is looked up in.

    A tokenizer may have tokens behind its vocabulary that no row belongs to; few texts have one, so it is asked here
    and not when the model is opened.

    Args:
        features: of a batch, with tensors [n, T] on any device; lists are not looked at.
        model: a SentenceTransformer or a CrossEncoder, with a tokenizer.
        backbone: its transformers model; one without tables passes.

    Raises:
        ModelError: names a token, or the two numbers.
    """
    ids = features.get("input_ids")
    if backbone is None or not isinstance(ids, Tensor) or ids.ndim != 2 or not ids.numel():
        return
    rows = rows_of(backbone)
    if rows is not None and (highest := int(ids.max())) >= rows:
        token = model.tokenizer.convert_ids_to_tokens(highest)
        raise ModelError(
            f"{name}: a text has a token beyond the {rows:,} that the model knows: {token!r:.40} is one",
            hint="take the token out of the tokenizer's files, or out of the texts",
        )
    types = features.get("token_type_ids")
    table = _table(backbone, _TYPES)
    if table is not None and isinstance(types, Tensor) and int(types.max()) >= table.num_embeddings:
        raise ModelError(
            f"{name}: its tokenizer gives tokens of type {int(types.max())}, and it knows {table.num_embeddings:,}",
            hint="name a folder whose weights and tokenizer belong together",
        )
    positions = positions_of(backbone)
    if positions is not None and ids.shape[1] > positions:
        raise ModelError(
            f"{name}: a text has {ids.shape[1]:,} tokens, and the model has {positions:,} positions",
            hint=f"let its max_seq_length be {positions} or less",
        )


def rows_of(backbone: Any) -> int | None:
    """Return how many tokens a model has a row for; None where it does not say."""
    table = getattr(backbone, "get_input_embeddings", lambda: None)()
    return getattr(table, "num_embeddings", None)


def positions_of(backbone: Any) -> int | None:
    """Return how many tokens of a text have a learned position; None where positions are computed."""
    table = _table(backbone, _POSITIONS)
    if table is None:
        return None
    # RoBERTa and its kin count from behind the row of padding; OPT and BART leave two rows out.
    first = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings - first)


def _table(backbone: Any, names: tuple[str, ...]) -> nn.Embedding | None:
    """Return the first table of a model with one of some names."""
    known = _tables.setdefault(backbone, {})
    if names not in known:
        known[names] = next(
            (
                module
                for path, module in backbone.named_modules()
                if path.rsplit(".", 1)[-1] in names and isinstance(module, nn.Embedding)
            ),
            None,
        )
    return known[names]
