"""What a model's numbers depend on, as plain values: vectors and scores are stored under them.

Everything that a model computes with is in here, apart from a short list of what cannot change a number. Where the
model lies is not: the same model in another folder shares what is stored.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Module, StaticEmbedding
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.models.compat import (
    ATTENTION_FIELDS,
    ORIGIN_FIELDS,
    adapter_settings,
    adapter_state,
    attention_name,
    creation_arguments,
    modalities,
)
from embedsmith.models.compiled import is_compiled
from embedsmith.models.precision import precision_of
from embedsmith.models.probe import promised_attention
from embedsmith.models.settings import Role
from embedsmith.settings import fingerprint

WITHOUT_EFFECT = frozenset(
    {
        # Names and places.
        *ORIGIN_FIELDS,
        "name_or_path",
        "architectures",
        "auto_map",
        "tokenizer_class",
        "transformers_version",
        # The weights themselves identify it: their type, and the number of a head's outputs.
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        # Keys and values for tokens to come: an embedding has none.
        "use_cache",
        # A cross-encoder's activation, which is asked of the model.
        "sentence_transformers",
        "sbert_ce_default_activation_function",
        # What computes attention is asked of the model, too.
        *ATTENTION_FIELDS,
    }
)
"""Fields of a configuration that change no number."""

_ADAPTERS_WITHOUT_EFFECT = frozenset(
    {"base_model_name_or_path", "inference_mode", "revision", "auto_mapping", "peft_version", "task_type"}
)
"""The same of a configuration of adapters."""

_LENGTHS = ("query_length", "document_length", "max_seq_length")
"""Of a module: the length of each role is in its contract, and the other role's changes nothing."""

_OF_TOKENIZERS = (
    "padding_side",
    "truncation_side",
    "model_input_names",
    "special_tokens_map",
    "pad_token_id",
    "pad_token_type_id",
    "split_special_tokens",
    "do_lower_case",
)
"""What a tokenizer does beside the rules of its backend."""

_OF_A_CALL = ("padding", "truncation")
"""Rules of a tokenizer that its last call has left there."""


def contract_of(model: Any) -> dict[str, Any]:
    """Return what determines the numbers of a model, apart from its texts, prompts, lengths and precision.

    Args:
        model: a SentenceTransformer or a CrossEncoder.
    """
    return {
        "arithmetic": ARITHMETIC,
        "weights": hash_of_weights(model),
        "modules": list(_modules(model)),
        "layers": fingerprint(list(_layers(model))),
        "configuration": fingerprint(list(_configurations(model))),
        "adapters": fingerprint(list(_adapters(model))),
        "tokenizer": fingerprint(list(_tokenizers(model))),
        "attention": promised_attention(getattr(model[0], "model", None)),
        "compiled": is_compiled(model),
        "device": model.device.type,
    }


def contracts_of(model: Any) -> dict[Role, dict[str, Any]]:
    """Return what determines the vectors of each role; weights and tokenizer, which they share, are hashed once.

    Args:
        model: an embedding model.
    """
    shared = {**contract_of(model), **({"dimensions": model.truncate_dim} if model.truncate_dim else {})}
    roles: tuple[Role, ...] = ("query", "passage")
    return {
        role: {
            **shared,
            "role": role,
            "dtype": precision_of(model, role),
            "prompt": model.prompt_of(role),
            "max_tokens": model.contract_length(role),
        }
        for role in roles
    }


def length_of(model: Any, role: Role) -> int | None:
    """Return at how many tokens the texts of a role are cut by an embedding model, None for never."""
    first = model[0]
    if isinstance(first, StaticEmbedding):
        truncation = first.tokenizer.truncation
        return truncation["max_length"] if truncation else None
    return getattr(first, "query_length" if role == "query" else "document_length", None) or model.max_seq_length


def configuration_of(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration that can change a number."""
    found: dict[str, Any] = _without(config.to_dict(), WITHOUT_EFFECT)
    return found


def hash_of_weights(module: torch.nn.Module) -> str:
    """Return a hash of every parameter and buffer of a module that is saved, by name, type and shape.

    Of a buffer that is not saved, such as the angles of rotary positions, only the type counts: it is built from the
    configuration, and its last bits differ between processors.
    """
    digest = hashlib.sha256()
    saved = module.state_dict()
    for name, tensor in sorted(saved.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for name, tensor in sorted(module.named_buffers()):
        if name not in saved:
            digest.update(f"{name} {tensor.dtype} not saved\n".encode())
    return digest.hexdigest()[:32]


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, the same in every process.

    >>> plain({"a": {2, 1}, 3: (torch.float32, None)})
    {'a': [1, 2], '3': ['torch.float32', None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def name_of(function: Callable[..., Any]) -> str:
    """Return what tells a function from others, of a module of torch with its settings.

    >>> name_of(torch.nn.LeakyReLU(0.5))
    'torch.nn.modules.activation.LeakyReLU(negative_slope=0.5)'
    """
    if isinstance(function, torch.nn.Module):
        return f"{_class_of(function)}({function.extra_repr()})"
    return f"{function.__module__}.{function.__qualname__}"


def _class_of(thing: Any) -> str:
    """Return the full name of what an object is."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _modules(model: Any) -> Iterator[Any]:
    """Yield each module of sentence-transformers, also those within others, with its settings."""
    for name, module in model.named_modules():
        if isinstance(module, Module):
            settings = {key: value for key, value in module.get_config_dict().items() if key not in _LENGTHS}
            yield [name, type(module).__name__, plain(settings)]


def _layers(model: Any) -> Iterator[Any]:
    """Yield what the layers say of themselves: what they are, and numbers such as a norm's epsilon."""
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Dropout | torch.nn.Identity):  # neither does anything here
            yield [name, type(module).__name__, module.extra_repr()]


def _configurations(model: Any) -> Iterator[Any]:
    """Yield the whole configuration of each transformer, and what computes its attention."""
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            config = module.config
            yield [name, configuration_of(config), attention_name(config)]


def _adapters(model: Any) -> Iterator[Any]:
    """Yield the settings of adapters, and what each layer does with its own: which are used, and at which scale."""
    for name, module in model.named_modules():
        if (settings := adapter_settings(module)) is not None:
            yield [name, _without(settings, _ADAPTERS_WITHOUT_EFFECT)]
        if (state := adapter_state(module)) is not None:
            applied, is_off = state
            yield [name, plain(applied), is_off]


def _tokenizers(model: Any) -> Iterator[Any]:
    """Yield the rules of every tokenizer, and the chat template of one that texts are put into."""
    for name, module in model.named_modules():
        tokenizer = getattr(module, "tokenizer", None) if isinstance(module, Module) else None
        if tokenizer is None:
            continue
        yield [name, _rules_of(tokenizer), {key: plain(getattr(tokenizer, key, None)) for key in _OF_TOKENIZERS}]
        if "message" in modalities(module):
            yield [plain(getattr(each, "chat_template", None)) for each in (module.processor, tokenizer)]


def _rules_of(tokenizer: Any) -> Any:
    """Return a tokenizer's rules, without the padding and truncation of its last call."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if isinstance(backend, Tokenizer):
        return {key: rule for key, rule in json.loads(backend.to_str()).items() if key not in _OF_A_CALL}
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # of sentence-transformers: words and a list of them
        return [_class_of(tokenizer), plain(vars(tokenizer))]
    with tempfile.TemporaryDirectory(prefix="embedsmith-") as scratch:
        tokenizer.save_vocabulary(scratch)
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(scratch).iterdir()}
    # Not where it lay: a vocabulary that was given as a file is in the files that were written.
    given = {key: value for key, value in creation_arguments(tokenizer).items() if not key.endswith(("_file", "_path"))}
    return [_class_of(tokenizer), files, plain(given), plain(tokenizer.added_tokens_decoder)]


def _without(settings: Any, names: Iterable[str]) -> Any:
    """Return settings as plain values, without some names wherever they stand."""
    if isinstance(settings, Mapping):
        return {str(key): _without(value, names) for key, value in settings.items() if key not in names}
    return plain(settings)
