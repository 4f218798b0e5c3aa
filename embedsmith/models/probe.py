"""The causality probe: does a late token reach the early ones?

A library upgrade can make a bidirectional decoder causal again without any error; the scores only drop. So the
attention is measured, not read from the configuration: change the last token and look at the first one's state.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from embedsmith.errors import CausalityError
from embedsmith.models.compat import attention_name
from embedsmith.models.compiled import uncompiled

Attention = Literal["bidirectional", "causal"]


def measure_attention(backbone: Any) -> dict[str, Attention]:
    """Return what the backbone does in each situation: batch of one, with and without mask, and padded.

    Args:
        backbone: a transformers model that takes input_ids [B, T] and attention_mask [B, T].
    """
    tokens = 8
    vocabulary = backbone.config.get_text_config().vocab_size
    device = next(backbone.parameters()).device
    # Ordinary tokens from the middle of the vocabulary: special ones tend to sit at its ends.
    base = torch.arange(tokens + 2, device=device).unsqueeze(0) * 7 % max(vocabulary // 2, 1) + vocabulary // 4
    changed = base.clone()
    changed[0, tokens - 1] = (changed[0, tokens - 1] + 1) % vocabulary
    padded = torch.ones_like(base)
    padded[0, tokens:] = 0
    whole = torch.ones_like(base[:, :tokens])
    situations: dict[str, tuple[int, torch.Tensor | None, int]] = {
        "one text": (tokens, whole, 1),
        "one text without mask": (tokens, None, 1),
        "padded": (tokens + 2, padded, 1),
        "padded in a batch": (tokens + 2, padded, 2),
    }
    with uncompiled():
        return {
            name: "bidirectional" if _first_state_moves(backbone, base, changed, *situation) else "causal"
            for name, situation in situations.items()
        }


def check_attention(backbone: Any, promised: Attention, *, name: str) -> None:
    """Refuse a backbone whose attention is not the promised one in every situation.

    Raises:
        CausalityError: names the situation and the back end.
    """
    for situation, measured in measure_attention(backbone).items():
        if measured != promised:
            implementation = attention_name(backbone.config) or "unknown"
            raise CausalityError(
                f"{name}: attention is {measured}, not {promised} (situation: {situation}, back end: {implementation})",
                hint="upgrade transformers (>= 5.2), or choose another attention back end or model",
            )


def promised_attention(backbone: Any) -> Attention | None:
    """Return what the configuration promises; None where it says nothing."""
    is_causal = getattr(getattr(backbone, "config", None), "is_causal", None)
    return None if is_causal is None else "causal" if is_causal else "bidirectional"


@torch.no_grad()
def _first_state_moves(
    backbone: Any, base: torch.Tensor, changed: torch.Tensor, length: int, mask: torch.Tensor | None, rows: int
) -> bool:
    """Return whether the first token's last hidden state depends on the changed token."""
    was_training = backbone.training
    backbone.eval()
    states = []
    for ids in (base, changed):
        ids = ids[:, :length].expand(rows, -1)
        attention = None if mask is None else mask.expand(rows, -1).clone()
        if attention is not None and rows > 1:
            attention[1:] = 1  # the neighbour fills the batch's whole width
        states.append(backbone(input_ids=ids, attention_mask=attention).last_hidden_state[0, 0].float())
    backbone.train(was_training)
    # Causal attention gives bit-equal states; rounding of another kernel's choice stays far below this.
    return bool((states[0] - states[1]).abs().max() > 1e-4 * states[0].abs().max())
