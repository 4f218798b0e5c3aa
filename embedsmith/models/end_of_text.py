"""An end-of-text token after every text, put there by the tokenizer: cutting a text off leaves it in its place.

It travels in the tokenizer's own files, so the model needs no code for it elsewhere. (NV-Embed's released code writes
it as characters instead, which a text that is cut off loses.)
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from embedsmith.errors import ModelError
from embedsmith.models.compat import creation_arguments


def append_end_of_text(tokenizer: Any, *, name: str) -> None:
    """Let a tokenizer end every text with its end-of-text token; one that does already stays as it is.

    Raises:
        ModelError: the tokenizer has no such token, or is not one whose rules can be changed.
    """
    if _ends(tokenizer):
        return
    if not tokenizer.eos_token:
        raise ModelError(
            f"{name}: its tokenizer has no end-of-text token", hint="choose another pooling, or append_eos: false"
        )
    if {"add_bos_token", "add_eos_token"} & creation_arguments(tokenizer).keys():
        # A tokenizer that makes its rules from these two, each time it is opened.
        tokenizer.add_eos_token = creation_arguments(tokenizer)["add_eos_token"] = True
    else:
        backend = tokenizer.backend_tokenizer
        rules = json.loads(backend.to_str())
        rules["post_processor"] = _with_end(rules["post_processor"], tokenizer.eos_token, tokenizer.eos_token_id)
        backend.post_processor = Tokenizer.from_str(json.dumps(rules)).post_processor
    if not _ends(tokenizer):
        raise ModelError(
            f"{name}: its tokenizer cannot be made to end texts with {tokenizer.eos_token}",
            hint="choose another pooling, or append_eos: false",
        )


def _ends(tokenizer: Any) -> bool:
    """Return whether a tokenizer ends texts with a token that it adds: an end of text, a separator."""
    found = tokenizer("a", return_special_tokens_mask=True)
    return bool(found["special_tokens_mask"][-1]) and found["input_ids"][-1] != tokenizer.bos_token_id


def _with_end(rules: dict[str, Any] | None, token: str, number: int) -> dict[str, Any]:
    """Return a tokenizer's last rules with one token more at the end of a text.

    A second template in a sequence would lose what the first one added, so the token joins a template that is there.
    """
    end = {"SpecialToken": {"id": token, "type_id": 0}}
    known = {token: {"id": token, "ids": [number], "tokens": [token]}}
    if rules is None:
        text: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
        second = {"Sequence": {"id": "B", "type_id": 1}}
        single = [text, end]
        return {"type": "TemplateProcessing", "single": single, "pair": [*single, second, end], "special_tokens": known}
    if rules["type"] == "TemplateProcessing":
        return {**rules, "single": [*rules["single"], end], "special_tokens": {**rules["special_tokens"], **known}}
    steps = rules["processors"] if rules["type"] == "Sequence" else [rules]
    templates = [place for place, step in enumerate(steps) if step["type"] == "TemplateProcessing"]
    if not templates:
        return {"type": "Sequence", "processors": [*steps, _with_end(None, token, number)]}
    last = templates[-1]
    return {
        "type": "Sequence",
        "processors": [*steps[:last], _with_end(steps[last], token, number), *steps[last + 1 :]],
    }
