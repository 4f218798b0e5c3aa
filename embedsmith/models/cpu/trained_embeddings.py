"""Gradients of token embeddings on a CPU: of the tokens that were read, not of the whole vocabulary.

torch makes a gradient as large as the table each time that texts have gone through a model, most of it zeros, and adds
it to the one before: 113 MB for SmolLM2-135M, for each chunk of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from embedsmith.models.cpu.switch import is_fast

_LARGE = 8192
"""Rows of a table from which on it is worth it: several times the tokens that go through a model at a time."""


@contextmanager
def gradients_of_rows(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model's large tables of embeddings pass on the gradients of the rows that are read within the block.

    They are added to the table's whole gradient, which is there from the beginning. Elsewhere than on a CPU nothing is
    changed: a GPU writes zeros fast, and would have to sort the rows.

    Args:
        model: in training.
        device: of its weights.
    """
    tables = (
        [module for module in model.modules() if _is_worth_it(module)] if device.type == "cpu" and is_fast() else []
    )
    for table in tables:
        if table.weight.grad is None:
            table.weight.grad = torch.zeros_like(table.weight)
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False


def _is_worth_it(module: nn.Module) -> bool:
    """Return whether a module is a trained table of many rows whose gradient torch would write out."""
    return (
        isinstance(module, nn.Embedding)
        and module.weight.requires_grad
        and module.num_embeddings >= _LARGE
        and not module.sparse
        and not module.scale_grad_by_freq
    )
