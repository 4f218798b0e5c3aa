"""The backbone of a student: the transformers model of a folder or a GGUF file, and what is made of it.

A decoder gets bidirectional attention, a pooling, and instruction tokens masked out of pooling
(NV-Embed, sections 3.1 to 3.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.compat import attention_name, set_attention_name, share_state
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.models.modeling_embedsmith import (
    InstructedTransformer,
    LatentAttentionPooling,
    MultiLayerPooling,
    SelfAttentionPooling,
)
from embedsmith.models.names import ModelSource
from embedsmith.models.probe import measure_attention
from embedsmith.models.settings import AttentionBackend, StudentSettings
from embedsmith.models.sizes import check_gguf_sizes
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS
from embedsmith.models.weights import check_configuration, check_files, check_gguf, check_tokenizer, check_weights

# Text only, no chat template: a tokenizer that has one would otherwise wrap every text in it.
_TEXT_ONLY: dict[str, Any] = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}

_PLAIN_POOLINGS = {"mean": "mean", "weighted-mean": "weightedmean", "last": "lasttoken"}
"""Poolings without weights, as sentence-transformers calls them."""


def open_backbone(source: ModelSource, *, dtype: torch.dtype = torch.float32) -> Transformer:
    """Return the bare backbone of a vetted folder or a GGUF file, with its tokenizer.

    Args:
        source: of the model.
        dtype: of the weights; a GGUF file's are de-quantised to float32.
    """
    path = Path(source.path)
    is_gguf = source.kind == "gguf"
    if not is_gguf:
        check_files(path, name=source.name)
    with LibraryErrors(source.name, "cannot be opened", hint="check that it is a model transformers knows"):
        if is_gguf:
            check_gguf_sizes(path, name=source.name)
        transformer = _from_gguf(path) if is_gguf else _from_folder(path, dtype)
    check_configuration(transformer.model, name=source.name)
    check = check_gguf if is_gguf else check_weights
    check(transformer.model, path, name=source.name)
    check_tokenizer(transformer.tokenizer, transformer.model, name=source.name)
    return _padded(transformer)


def _from_folder(path: Path, dtype: torch.dtype) -> Transformer:
    """Return a backbone with the weights of a folder."""
    return Transformer(
        str(path),
        model_kwargs={
            "dtype": dtype,
            "ignore_mismatched_sizes": True,  # check_weights names them
            **NO_CODE_IN_WEIGHTS,
        },
        config_kwargs=dict(NO_CODE),
        processor_kwargs=dict(NO_CODE),
        unpad_inputs=False,
        **_TEXT_ONLY,
    )


def _padded(transformer: Transformer) -> Transformer:
    """Return a transformer whose tokenizer has a token to pad with: many decoders' have none."""
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token is None:
        # Which token does not matter: the mask says what is padding.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    return transformer


def _from_gguf(path: Path) -> Transformer:
    """Return a backbone with the weights of a GGUF file, de-quantised to float32."""
    file = {"gguf_file": path.name, **NO_CODE}
    module = Transformer(
        str(path.parent),
        model_kwargs={"dtype": torch.float32, **NO_CODE_IN_WEIGHTS, **file},
        config_kwargs=dict(file),
        processor_kwargs=dict(file),
        unpad_inputs=False,
        **_TEXT_ONLY,
    )
    quantised = module.model
    config = type(quantised.config).from_dict(
        {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
    )
    # A de-quantised GGUF model refuses to be saved; the same weights in a fresh model do not.
    set_attention_name(config, attention_name(quantised.config))
    fresh = type(quantised)(config)
    fresh.load_state_dict(quantised.state_dict(), strict=True)
    module.model = fresh
    return module


def use_backend(transformer: Any, backend: AttentionBackend, *, name: str) -> None:
    """Let a transformer compute attention with a back end.

    Raises:
        ModelError: it is not installed, or the model cannot use it.
    """
    if backend == "auto":
        return
    try:
        transformer.model.set_attn_implementation(backend)
    except (ImportError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{name}: no attention with {backend}: {first_line}", hint="install it, or choose sdpa or eager"
        ) from error
    # With flash attention sentence-transformers would unpad the batch, and not the instruction masks with it.
    transformer.unpad_inputs = False


def set_attention(transformer: Transformer, attention: Literal["bidirectional", "causal"]) -> None:
    """Let a transformer compute one attention or the other."""
    # On the object, after loading: as an argument of loading, transformers ignores it in silence.
    config = transformer.model.config
    config.is_causal = attention == "causal"
    if config.model_type == "mistral" and attention == "bidirectional":
        # NV-Embed's mask holds padding only; transformers would also cut attention to a window around each token.
        config.sliding_window = None


def with_instruction_mask(transformer: Transformer) -> InstructedTransformer:
    """Return the same backbone and tokenizer in a module that masks instructions."""
    if not getattr(transformer.tokenizer, "is_fast", False):
        raise ModelError(
            "the model's tokenizer gives no character offsets, which exact instruction masks need",
            hint="use a model with a fast tokenizer, or no instruction",
        )
    return share_state(transformer, InstructedTransformer)


def shorten(transformer: Transformer, layers: int | None, name: str) -> None:
    """Keep the first layers of a backbone."""
    if layers is None:
        return
    backbone = transformer.model
    holder = backbone if hasattr(backbone, "layers") else getattr(backbone, "encoder", None)
    attribute = "layers" if hasattr(holder, "layers") else "layer"
    present = getattr(holder, attribute, None)
    if present is None:
        raise ModelError(f"{name}: no list of layers found in {type(backbone).__name__}", hint="leave --layers out")
    if layers > len(present):
        raise SettingsError(f"{name}: layers {layers}, but the model has {len(present)}", hint="ask for fewer")
    setattr(holder, attribute, present[:layers])
    backbone.config.num_hidden_layers = layers
    if getattr(backbone.config, "layer_types", None):
        backbone.config.layer_types = backbone.config.layer_types[:layers]


def check_instruction_fits(tokenizer: Any, settings: StudentSettings) -> None:
    """Refuse a length that leaves nothing of the text beside the instruction."""
    limits = {"query_max_tokens": settings.query_max_tokens, "passage_max_tokens": settings.passage_max_tokens}
    for prompt, (name, limit) in zip((settings.prompt, settings.passage_prompt), limits.items(), strict=True):
        tokens = len(tokenizer(prompt)["input_ids"]) if prompt else 0
        if prompt and tokens + 8 > limit:
            raise SettingsError(
                f"{name}: {limit}, but the instruction alone takes {tokens} tokens",
                hint=f"set it to {tokens + 32} or more",
            )


def pooling_of(settings: StudentSettings, transformer: Transformer, seed: int) -> torch.nn.Module:
    """Return a pooling module for the token states of a transformer."""
    width, config = transformer.get_embedding_dimension(), transformer.model.config
    if settings.pooling in _PLAIN_POOLINGS:
        return Pooling(width, pooling_mode=_PLAIN_POOLINGS[settings.pooling])
    sizes: dict[str, Any] = {"heads": settings.heads, "head_width": settings.head_width}
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # not those of GPUs, which are not put back
        if settings.pooling == "self-attention":
            return SelfAttentionPooling(width, **sizes)
        if settings.pooling == "latent":
            return LatentAttentionPooling(width, latents=settings.latents, **sizes)
        is_causal = "causal" in measure_attention(transformer.model).values()
        config.output_hidden_states = True
        return MultiLayerPooling(
            width,
            config.num_hidden_layers,
            latents=settings.latents,
            of_layer="last" if is_causal else "mean",
            **sizes,
        )
