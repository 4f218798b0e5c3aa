"""Are the weights of a folder whole, and do they belong to its configuration?

transformers fills what it does not find with random numbers and says so in its log alone; a layer more than the
configuration has is left out in the same way. Here both are errors that name the tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open

from embedsmith.data.files import visible
from embedsmith.errors import ModelError
from embedsmith.models.compat import gguf_names
from embedsmith.models.known_tokens import rows_of
from embedsmith.models.library_errors import LibraryErrors, reason
from embedsmith.models.vetted import NO_CODE_IN_WEIGHTS

Shapes = Mapping[str, tuple[int, ...]]

UNUSED_POOLER = re.compile(r"(^|\.)pooler\.")
"""An encoder's own pool, which models trained on words lack, and which gives no token states."""


_DEVICE_OF_NOTHING = "cpu" if transformers.__version__.startswith("5.2.") else "meta"
"""Where a model is opened of which only the names of its tensors are asked; 5.2 takes all tensors on meta for tied."""


def check_files(folder: Path, *, name: str) -> None:
    """Refuse a folder with a file of weights, its own or that of a part, which is cut off or broken.

    Raises:
        ModelError: names the file.
    """
    for path in sorted([*visible(folder, "*.safetensors"), *visible(folder, "*/*.safetensors")]):
        _shapes_in(path, name)


def check_weights(backbone: Any, folder: Path, *, name: str, unused: re.Pattern[str] | None = UNUSED_POOLER) -> None:
    """Refuse a backbone that was opened from a folder with other tensors than its configuration asks for.

    Args:
        unused: tensors that the model can do without.

    Raises:
        ModelError: names the first tensor that is missing, has another shape, or belongs to a layer more.
    """
    files = visible(folder, "*.safetensors")
    if not files or not (folder / "config.json").is_file():
        return
    there = {key: shape for path in files for key, shape in _shapes_in(path, name).items()}
    wanted = {key: tuple(tensor.shape) for key, tensor in backbone.state_dict().items()}
    prefix = f"{backbone.base_model_prefix}."
    if all(shape in (there.get(key), there.get(prefix + key)) for key, shape in wanted.items()):
        missing, shapes = [], []
    else:
        # transformers knows which old names mean which tensor, and which ones are tied: it looks again, and reads none.
        _, found = type(backbone).from_pretrained(
            folder,
            config=backbone.config,
            device_map=_DEVICE_OF_NOTHING,
            local_files_only=True,
            **NO_CODE_IN_WEIGHTS,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        missing = sorted(key for key in found["missing_keys"] if not (unused and unused.search(key)))
        shapes = sorted(key for key, *_ in found["mismatched_keys"])
    for what, odd in (
        ("no tensor", missing),
        ("another shape in the file than in config.json:", shapes),
        ("unknown tensor", more_layers(there, {prefix + key: shape for key, shape in wanted.items()} | wanted)),
    ):
        if odd:
            others = f" and {len(odd) - 1:,} more" if len(odd) > 1 else ""
            raise ModelError(
                f"{name}: {what} {odd[0]!r}{others}", hint="weights and config.json do not belong together"
            )


def check_configuration(backbone: Any, *, name: str) -> None:
    """Refuse a backbone whose configuration names another one for its texts that is none, such as a number.

    Raises:
        ModelError: what is said there.
    """
    with LibraryErrors(name, "cannot be opened", hint="copy config.json again"):
        text = backbone.config.get_text_config()
        if not isinstance(text, transformers.PreTrainedConfig):
            raise TypeError(f"config.json: the configuration for texts is {text!r:.60}")


def check_table(tokenizer: Any, rows: int, *, name: str, matrix: str) -> None:
    """Refuse static embeddings whose matrix has no row for a token.

    Raises:
        ModelError: names the two numbers.
    """
    # The highest id, not the number of tokens: ids may have gaps.
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= rows:
        raise ModelError(
            f"{name}: {matrix} has {rows:,} rows, the tokenizer's highest id is {highest:,}",
            hint="name a folder whose matrix and tokenizer belong together",
        )


def check_tokenizer(tokenizer: Any, backbone: Any, *, name: str) -> None:
    """Refuse a tokenizer with an id beyond the last row of the embeddings: a text with its token could not be read.

    Raises:
        ModelError: names the two numbers.
    """
    count = rows_of(backbone)
    # Some tokenizers add tokens of their own behind the vocabulary, which few texts have: see `check_known`.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = backend.get_vocab(with_added_tokens=False) if count and backend is not None else {}
    if known and max(known.values()) >= count:
        raise ModelError(
            f"{name}: its tokenizer's highest id is {max(known.values()):,}, and it has {count:,} tokens",
            hint="name a folder whose weights and tokenizer belong together",
        )


def check_gguf(backbone: Any, path: Path, *, name: str) -> None:
    """Refuse a backbone that was opened from a GGUF file without all of its tensors.

    Raises:
        ModelError: names the first tensor that is missing.
    """
    from gguf import GGUFReader

    ours = backbone.state_dict()
    # What a tensor of the file is called in the model; a name that is in no model of the kind means nothing here.
    called = {key: there for key, there in gguf_names(backbone).items() if there in ours}
    there = {called.get(tensor.name) for tensor in GGUFReader(path).tensors}
    if missing := sorted(key for key, our_name in called.items() if our_name not in there):
        others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ModelError(f"{name}: no tensor {missing[0]!r}{others}", hint="the file is not whole: copy it again")


def more_layers(there: Shapes, wanted: Shapes) -> list[str]:
    """Return the tensors of layers that a model does not have, and not those of a head, which it needs not.

    >>> more_layers({"layers.0.w": (2,), "layers.1.w": (2,), "head.w": (2,)}, {"layers.0.w": (2,)})
    ['layers.1.w']
    """
    kinds = {_without_numbers(key) for key in wanted}
    return sorted(key for key in there.keys() - wanted.keys() if _without_numbers(key) in kinds)


def _without_numbers(key: str) -> str:
    """Return a tensor's name without the number of its layer."""
    return re.sub(r"\.\d+\.", ".*.", key)


def are_short(folder: Path) -> bool:
    """Return whether all weights of a folder were saved in bfloat16."""
    found = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    return {one for one in found if one[0] not in "IUB" or one == "BF16"} == {"BF16"}


def _shapes_in(path: Path, name: str) -> Shapes:
    """Return the tensors of a file with their shapes."""
    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{name}: {path.name} is broken: {error}", hint="copy it again") from None
    except RuntimeError as error:  # torch cannot map a file so large
        raise ModelError(
            f"{name}: {path.name} cannot be opened: {reason(error)}",
            hint="use a machine with more memory, or copy it again",
        ) from None
