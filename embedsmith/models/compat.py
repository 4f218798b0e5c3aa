"""Private and undocumented names of torch, transformers, sentence-transformers and peft: all that the package uses.

`training/compat.py` has those of the Trainer, `teachers/compat.py` those of bm25s. Each function says what a name is
for, and `tests/models/test_compat.py` that it is there with the signature that is expected. Only torch is imported with
the module; the other libraries are imported where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves as tree_leaves  # every tensor among nested arguments
from torch.utils._triton import has_triton as has_triton  # whether torch can compile for a GPU

Module = TypeVar("Module", bound=torch.nn.Module)


OVERRIDDEN = {"_module_classes": "modules of ours are opened by the installed classes, never by code of the folder"}
"""Private attributes of `SentenceTransformer` that `EmbeddingModel` overrides, and what each does here."""

ATTENTION_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
"""Fields of a transformers configuration that name the attention implementation."""

ORIGIN_FIELDS = ("_name_or_path", "_commit_hash")
"""Fields of a transformers configuration that say where the model was read from."""


def show_bars(show: bool) -> bool:
    """Let transformers draw progress bars of weights that are read and written, or not; return what it did before.

    Its own functions change the bars of the hub's downloads too, which take long and are to be seen.
    """
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging._tqdm_active = show
    return before


def compiled_call(layer: torch.nn.Module) -> Any:
    """Return what `Module.compile` has made of a layer; None of one that is not compiled."""
    return layer._compiled_call_impl


def set_compiled_call(layer: torch.nn.Module, call: Callable[..., Any]) -> None:
    """Have a compiled layer called by way of something else."""
    layer._compiled_call_impl = call


def recompiling(times: int) -> AbstractContextManager[Any]:
    """Return the block in which torch compiles a function for at least so many kinds of calls before it gives up."""
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # so it is in torch 2.6
    block: AbstractContextManager[Any] = config.patch({name: max(getattr(config, name), times)})
    return block


def unsaved_buffers(module: torch.nn.Module) -> set[str]:
    """Return the names of a module's own buffers that are in no file: they are built from the configuration."""
    return module._non_persistent_buffers_set


def hooks(module: torch.nn.Module) -> list[Any]:
    """Return what reads a module's output: it must get the output, not what follows it."""
    return list(module._forward_hooks.values())


def version(tensor: Tensor) -> int:
    """Return how often a tensor was written to in place; one of inference mode has no such number."""
    return 0 if tensor.is_inference() else tensor._version


def has_onednn_linear() -> bool:
    """Return whether this torch has `onednn_linear`."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(states: Tensor, weight: Tensor, bias: Tensor | None, activation: str, algorithm: str) -> Tensor:
    """Return states times weight, transposed, plus bias, activated, by oneDNN. Without a gradient.

    What torch's own compiler makes of a linear layer; under no public name.
    """
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, activation, [], algorithm)


def has_onednn_int8() -> bool:
    """Return whether this torch has `onednn_int8_linear`."""
    return hasattr(torch.ops.onednn, "qlinear_pointwise")


def onednn_int8_pack(weight: Tensor) -> Tensor:
    """Return a weight of int8 [O, I] as `onednn_int8_linear` reads it, laid out for batches of many tokens."""
    return torch.ops.onednn.qlinear_prepack(weight, [1024, weight.shape[1]])


def onednn_int8_linear(states: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """Return the matmul of states of uint8 [..., I] and a packed weight, times a step for each row of it, in float32.

    What torch's own compiler makes of a quantised linear layer; under no public name.
    """
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    return torch.ops.onednn.qlinear_pointwise(
        states, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    longest: int,
    *,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Return the attention of texts in one row, by torch's flash kernel, which no public function hands ends to.

    There may be fewer key heads than query heads.
    """
    forward = torch.ops.aten._flash_attention_forward
    return forward(query, key, value, ends, ends, longest, longest, dropout, causal, False, scale=scale)[0]


def attention_name(config: Any) -> str | None:
    """Return what computes attention in a transformers model of a configuration; None where that is not said."""
    return getattr(config, "_attn_implementation", None)


def set_attention_name(config: Any, name: str | None) -> None:
    """Have something else compute it, without the checks of `set_attn_implementation`, which knows no names of ours."""
    config._attn_implementation = name


def attention_functions() -> MutableMapping[str, Callable[..., Any]]:
    """Return transformers' table of what computes attention, by name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS


def sdpa_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Return attention as transformers has torch compute it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(*args, **kwargs)


def layer_class() -> type[torch.nn.Module]:
    """Return the class that every decoder's and encoder's layers in transformers are of."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return GradientCheckpointingLayer


def cpu_capabilities() -> dict[str, Any]:
    """Return what torch knows of the CPU: its name and its instruction sets. Nothing in torch 2.6."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def share_state(model: torch.nn.Module, cls: type[Module]) -> Module:
    """Return an object of another class with the attributes of a module; weights and submodules are shared.

    The constructor is not called: it would load the model again, or move it to another device.
    """
    other = object.__new__(cls)
    other.__dict__.update(vars(model))
    return other


def pools_last_states(transformer: Any) -> bool:
    """Return whether a `Transformer` of sentence-transformers hands the last hidden states of texts to the pooling."""
    text = transformer.modality_config.get("text", {})
    return (
        transformer.module_output_name == "token_embeddings" and text.get("method_output_name") == "last_hidden_state"
    )


def modalities(module: Any) -> set[str]:
    """Return the kinds of input that a module of sentence-transformers reads, such as `text` and `message`."""
    return set(getattr(module, "modality_config", {}))


def creation_arguments(tokenizer: Any) -> dict[str, Any]:
    """Return the arguments that a transformers tokenizer was made with; changes to them are kept."""
    arguments: dict[str, Any] = tokenizer.init_kwargs
    return arguments


def adapter_settings(module: Any) -> dict[str, dict[str, Any]] | None:
    """Return the settings of peft's adapters by name; None of a module that has none."""
    if not isinstance(configs := getattr(module, "peft_config", None), dict):
        return None
    return {name: config.to_dict() for name, config in configs.items() if hasattr(config, "to_dict")}


def adapter_state(layer: Any) -> tuple[dict[str, Any], bool] | None:
    """Return which adapters a layer applies, which are merged and their scale, and whether all are switched off.

    None of a layer without adapters.
    """
    if not (hasattr(layer, "merged_adapters") and hasattr(layer, "active_adapters")):
        return None
    state = {key: getattr(layer, key, None) for key in ("active_adapters", "merged_adapters", "scaling")}
    return state, layer.disable_adapters


def inputs_as_they_are(backbone: torch.nn.Module) -> AbstractContextManager[None]:
    """Return the block in which peft's adapters read states in the type that they have."""
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(backbone)


def gguf_names(backbone: Any) -> dict[str, str]:
    """Return what each tensor of a GGUF file is called in a backbone, by its name in the file."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    config = backbone.config
    processor = TENSOR_PROCESSORS.get(config.model_type, TensorProcessor)(config=config.to_dict())
    names: dict[str, str] = get_gguf_hf_weights_map(backbone, processor)
    return names
