"""Building a student: any encoder or decoder made a trainable embedding model.

A decoder gets bidirectional attention, a pooling, and an instruction on queries that the pool leaves out
(NV-Embed, sections 3.1 to 3.3). A model that is an embedding model already keeps what it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.compiled import compile_layers
from embedsmith.models.embedder import (
    EmbeddingModel,
    _lasting,
    _open,
    is_released,
    use_backend,
)
from embedsmith.models.end_of_text import append_end_of_text
from embedsmith.models.modeling_embedsmith import (
    InstructedTransformer,
    LatentAttentionPooling,
    MultiLayerPooling,
    SelfAttentionPooling,
)
from embedsmith.models.names import ADAPTERS, ModelSource, find_model
from embedsmith.models.probe import check_attention, measure_attention, promised_attention
from embedsmith.models.settings import StudentSettings
from embedsmith.models.threads import one_at_a_time
from embedsmith.models.vetted import NO_CODE, NO_CODE_IN_WEIGHTS, Told, vetted
from embedsmith.models.weights import check_files, check_gguf, check_tokenizer, check_weights

# Text only, no chat template: a tokenizer that has one would otherwise wrap every text in it.
_TEXT_ONLY: dict[str, Any] = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}

_PLAIN_POOLINGS = {"mean": "mean", "weighted-mean": "weightedmean", "last": "lasttoken"}
"""Poolings without weights, as sentence-transformers calls them."""


@one_at_a_time
def build_student(settings: StudentSettings, *, seed: int = 0, device: str | None = None) -> EmbeddingModel:
    """Return a trainable embedding model in float32, probed for its attention.

    Args:
        settings: what to build.
        seed: of the weights that are new (latent attention).
        device: a torch device; default: a GPU where there is one.

    Raises:
        ModelError: the model is missing or cannot be opened.
        SettingsError: the settings do not fit the model.
        CausalityError: the attention is not the one asked for.
    """
    given, source = settings, find_model(settings.name)
    if source.kind == "static":
        raise ModelError(f"{settings.name}: static embeddings cannot be trained here", hint="use them as a teacher")
    found = vetted(source)
    is_embedder = source.kind != "gguf" and _is_embedding_model(Path(found.path))
    if is_embedder:
        start = _open(found, dtype=torch.float32, device="cpu")
        if start.has_adapters:
            from embedsmith.models.lora import merge_adapters  # it knows how a base is built, and so knows this module

            merge_adapters(start)
        transformer, rest, prompts = start[0], list(start)[1:], start.prompts
    else:
        transformer, rest, prompts = _transformer(found), [], {}
        settings = _settled(settings, transformer)
    if settings.instruction and not isinstance(transformer, InstructedTransformer):
        transformer = _with_instruction_mask(transformer)
    if settings.append_eos or (settings.append_eos is None and settings.pooling == "last"):
        append_end_of_text(transformer.tokenizer, name=settings.name)
    _shorten(transformer, settings.layers, settings.name)
    use_backend(transformer, settings.attention_backend, name=settings.name)
    if settings.attention != "auto":
        # On the object, after loading: as an argument of loading, transformers ignores it in silence.
        config = transformer.model.config
        config.is_causal = settings.attention == "causal"
        if config.model_type == "mistral" and settings.attention == "bidirectional":
            # NV-Embed's mask holds padding only; transformers would also cut attention to a window around each token.
            config.sliding_window = None
    if settings.pooling != "auto":
        rest = [_pooling(settings, transformer, seed), Normalize()]
    if settings.instruction or not is_embedder:
        prompts = {"query": settings.prompt, "document": settings.passage_prompt}
    model = EmbeddingModel(modules=[transformer, *rest], prompts=prompts, device=device)
    model.origin = given.model_copy(update={"name": _lasting(source)})
    model.set_max_tokens(query=settings.query_max_tokens, passage=settings.passage_max_tokens)
    _check_instruction_fits(model, settings)
    promised = promised_attention(model.backbone) if settings.attention == "auto" else settings.attention
    if promised and (settings.attention != "auto" or settings.attention_backend != "auto"):
        check_attention(model.backbone, promised, name=settings.name)
    if settings.compile:
        compile_layers(model, name=settings.name)
    return model


def _settled(settings: StudentSettings, transformer: Transformer) -> StudentSettings:
    """Return the settings with what `auto` means for a bare model: an NV-Embed of a decoder, the mean of an encoder."""
    is_decoder = "causal" in measure_attention(transformer.model).values()
    auto = {"attention": "bidirectional", "pooling": "latent"} if is_decoder else {"pooling": "mean"}
    return settings.model_copy(update={k: v for k, v in auto.items() if getattr(settings, k) == "auto"})


def _is_embedding_model(folder: Path) -> bool:
    """Return whether a folder holds sentence-transformers modules, adapters, or a released model."""
    return any((folder / name).is_file() for name in ("modules.json", ADAPTERS)) or is_released(folder)


def _transformer(source: ModelSource) -> Transformer:
    """Return the bare backbone of a vetted folder or a GGUF file, with its tokenizer."""
    path = Path(source.path)
    is_gguf = source.kind == "gguf"
    if not is_gguf:
        check_files(path, name=source.name)
    with Told(source.name, "cannot be opened", hint="check that it is a model transformers knows"):
        transformer = _from_gguf(path) if is_gguf else _from_folder(path)
    check = check_gguf if is_gguf else check_weights
    check(transformer.model, path, name=source.name)
    check_tokenizer(transformer.tokenizer, transformer.model, name=source.name)
    return _padded(transformer)


def _from_folder(path: Path) -> Transformer:
    """Return a backbone with the weights of a folder, in float32."""
    return Transformer(
        str(path),
        model_kwargs={
            "dtype": torch.float32,
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
        # Which one does not matter: what is padding is told by the mask, never by the token.
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
    config._attn_implementation = quantised.config._attn_implementation
    fresh = type(quantised)(config)
    fresh.load_state_dict(quantised.state_dict(), strict=True)
    module.model = fresh
    return module


def _with_instruction_mask(transformer: Transformer) -> InstructedTransformer:
    """Return the same backbone and tokenizer in a module that masks instructions."""
    if not getattr(transformer.tokenizer, "is_fast", False):
        raise ModelError(
            "the model's tokenizer gives no character offsets, which exact instruction masks need",
            hint="use a model with a fast tokenizer, or no instruction",
        )
    masked = InstructedTransformer.__new__(InstructedTransformer)
    # The same module under a class that marks what to pool: every attribute and submodule is shared.
    masked.__dict__ = transformer.__dict__
    return masked


def _shorten(transformer: Transformer, layers: int | None, name: str) -> None:
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


def _check_instruction_fits(model: EmbeddingModel, settings: StudentSettings) -> None:
    """Refuse a length that leaves nothing of the text beside the instruction."""
    limits = {"query_max_tokens": settings.query_max_tokens, "passage_max_tokens": settings.passage_max_tokens}
    for prompt, (name, limit) in zip((settings.prompt, settings.passage_prompt), limits.items(), strict=True):
        tokens = len(model.tokenizer(prompt)["input_ids"]) if prompt else 0
        if prompt and tokens + 8 > limit:
            raise SettingsError(
                f"{name}: {limit}, but the instruction alone takes {tokens} tokens",
                hint=f"set it to {tokens + 32} or more",
            )


def _pooling(settings: StudentSettings, transformer: Transformer, seed: int) -> torch.nn.Module:
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


def describe(model: EmbeddingModel) -> dict[str, Any]:
    """Return the sizes of a model: parameters in all, in the pooling, layers and dimensions."""
    parameters = [(name, p.numel()) for name, p in model.named_parameters()]
    return {
        "parameters": sum(count for _, count in parameters),
        "pooling_parameters": sum(count for name, count in parameters if not name.startswith("0.")),
        "layers": getattr(model.backbone.config, "num_hidden_layers", None),
        "dimensions": model.get_embedding_dimension(),
    }
