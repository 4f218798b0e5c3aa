"""Does a configuration ask for about as much as its weights hold?

Every layer is made, and every tensor that no file holds is filled with random numbers, before a library finds out that
the two do not belong together: a few digits in config.json would take hours, or all of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from embedsmith.errors import ModelError
from embedsmith.models.library_errors import CANNOT_BE_READ

LAYERS = {"num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers"}
"""Keys under which configurations have their number of layers."""
_NUMBERS_A_BYTE, _QUANTISED_NUMBERS_A_BYTE = 2, 8
"""Of weights with four bits each, and of the smallest that a `quantization_config` may speak of."""
_SPARE = 2**26
"""Numbers that may be in no file: a head, an old pool, positions that are computed."""
_FEW_LAYERS = 64
"""Are soon made, and may share their tensors."""
_IDS_A_TOKEN, _SPARE_IDS = 10, 2**20
"""Ids may have gaps, and a file may hold the tokens alone that were added to others."""


def check_sizes(folder: Path, config: Any, *, name: str) -> None:
    """Refuse a folder whose config.json asks for more layers than its files have tensors, or for far more numbers.

    Args:
        folder: with a config.json and weights; one without weights passes.
        config: what config.json holds.

    Raises:
        ModelError: names what is asked for, and what is there.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files or not isinstance(config, Mapping) or "model_type" not in config:
        return
    try:
        tensors = sum(len(_names(path)) for path in files)
    except (SafetensorError, OSError, RuntimeError):  # RuntimeError: torch cannot map a file so large
        return  # whoever opens the file says what is wrong with it
    for key, value in _layers_in(config):
        if value > max(tensors, _FEW_LAYERS):
            raise ModelError(
                f"{name}: config.json: {key} is {value:,}, and its files have {tensors:,} tensors", hint=_APART
            )
    is_quantised = "quantization_config" in config
    check_numbers(files, lambda: _model_of(folder), name=name, is_quantised=is_quantised, asked=repr(config))


def check_gguf_sizes(path: Path, *, name: str) -> None:
    """Refuse a GGUF file whose header asks for more layers than it has tensors, or for far more numbers.

    Raises:
        ModelError: names what is asked for, and what is there.
        ValueError, IndexError: the file is damaged.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    for key, field in reader.fields.items():
        layers = int(field.parts[field.data[0]][0]) if key.endswith(".block_count") else 0
        if layers > len(reader.tensors):
            raise ModelError(
                f"{name}: {key} is {layers:,}, and it has {len(reader.tensors):,} tensors", hint="copy the file again"
            )
    # Not its bytes: a weight may have one and a half bits.
    held = sum(int(tensor.n_elements) for tensor in reader.tensors)
    wanted = _numbers_of(lambda: _model_of(path.parent, gguf_file=path.name))
    if wanted > held + _SPARE:
        raise ModelError(
            f"{name}: its header asks for {wanted:,} numbers, and its tensors have {held:,}", hint="copy the file again"
        )


def check_numbers(
    files: Sequence[Path], model: Callable[[], Any], *, name: str, is_quantised: bool = False, asked: str = ""
) -> None:
    """Refuse a configuration that asks for far more numbers than the files of weights have bytes.

    Args:
        files: of weights.
        model: makes what is asked for; it is called where a tensor takes no memory.
        is_quantised: whether the configuration says that weights have few bits.
        asked: all that says what is made, where it is known; a model of the same is counted once in a process.

    Raises:
        ModelError: names the two.
    """
    size = sum(path.stat().st_size for path in files)
    wanted = _COUNTED.get(asked) or _numbers_of(model)
    if asked and wanted:
        _COUNTED[asked] = wanted
    if wanted > (_QUANTISED_NUMBERS_A_BYTE if is_quantised else _NUMBERS_A_BYTE) * size + _SPARE:
        raise ModelError(
            f"{name}: its configuration asks for {wanted:,} numbers, and its weights have {size:,} bytes", hint=_APART
        )


_COUNTED: dict[str, int] = {}
"""How many numbers a model has, by the configuration that asks for it: it is opened again and again."""


def _numbers_of(model: Callable[[], Any]) -> int:
    """Return how many numbers a model has; 0 where it cannot be made, and whoever opens it says what is wrong."""
    try:
        with torch.device("meta"):
            made = model()
    except CANNOT_BE_READ:
        return 0
    return sum(tensor.numel() for tensor in (*made.parameters(), *made.buffers()))


def check_ids(path: Path, found: Any, *, name: str) -> None:
    """Refuse a table of tokens with an id far beyond their number: some libraries make room for every id below.

    Args:
        path: of the file.
        found: what it holds.

    Raises:
        ModelError: names the highest id, and how many tokens there are.
    """
    ids = list(_ids_in(found))
    highest = max(ids, default=0)
    if highest > _IDS_A_TOKEN * len(ids) + _SPARE_IDS:
        raise ModelError(
            f"{name}: {path.name}: the id {highest:,} of a token, and there are {len(ids):,} tokens",
            hint="copy the file again",
        )


def _ids_in(found: Any) -> Iterator[int]:
    """Yield the ids of a tokenizer's tokens."""
    tables = [found, found.get("model")] if isinstance(found, Mapping) else []
    for table in tables:
        vocabulary = table.get("vocab", table) if isinstance(table, Mapping) else {}
        if isinstance(vocabulary, Mapping):
            yield from (number for number in vocabulary.values() if type(number) is int)
        elif isinstance(vocabulary, list):
            yield from range(len(vocabulary))
    added = found.get("added_tokens") if isinstance(found, Mapping) else None
    for token in added if isinstance(added, list) else []:
        if isinstance(token, Mapping) and type(token.get("id")) is int:
            yield token["id"]


_APART = "weights and config.json do not belong together: copy the folder again"


def _names(path: Path) -> list[str]:
    """Return the names of the tensors of a file."""
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _layers_in(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers in a configuration, and in those that it holds, with their keys."""
    for key, value in config.items():
        if key in LAYERS and type(value) is int:
            yield key, value
        if isinstance(value, Mapping):
            yield from _layers_in(value)


def _model_of(folder: Path, **more: str) -> Any:
    """Return a model of a folder's configuration."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **more)
    return AutoModel.from_config(config, trust_remote_code=False)
