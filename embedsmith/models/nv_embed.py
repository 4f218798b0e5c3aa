"""NV-Embed checkpoints in the layout in which NVIDIA released them, read and written without their code.

config.json                  `model_type: nvembed`, with `text_config` and `latent_attention_config`
*.safetensors                `embedding_model.*`, a Mistral without its head, and `latent_attention_model.*`; one file,
                             or shards and `model.safetensors.index.json`
tokenizer.json, …            the tokenizer

Read, such a model does what the released code does: bidirectional attention without a sliding window, "</s>" after
every text, an instruction masked by its number of tokens. NVIDIA's weights are CC-BY-NC-4.0.

Source: NV-Embed, section 3, and the released configuration and parameter names.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn
from transformers import MistralConfig, MistralModel

from embedsmith.data.files import read_json, write_json, write_tensors
from embedsmith.errors import ModelError, did_you_mean
from embedsmith.models.compat import ORIGIN_FIELDS
from embedsmith.models.modeling_embedsmith import InstructedTransformer, LatentAttentionPooling
from embedsmith.models.sizes import check_numbers

_BACKBONE, _POOLING = "embedding_model.", "latent_attention_model."
_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_LENGTHS, _PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
_TOKENIZER = ("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json")
_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_MAX_TOKENS = 4096
"""The released code's default length."""

_WIDEST = 2**20
"""Of a size of the pooling: more than any model has."""

_TEXT_ONLY: dict[str, Any] = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a config.json of the released layout says."""

    text: MistralConfig
    """The backbone's: bidirectional, every token sees every other one."""
    pooling: dict[str, Any]
    """Arguments of `LatentAttentionPooling`."""
    normalize: bool
    add_eos: bool
    mask_instruction: bool
    padding_side: str

    def skeleton(self) -> tuple[MistralModel, LatentAttentionPooling]:
        """Return backbone and pooling with parameters that have shapes and names, and take no memory."""
        with init_empty_weights():
            return MistralModel(self.text), LatentAttentionPooling(**self.pooling)


def bidirectional_mistral(given: dict[str, Any]) -> MistralConfig:
    """Return the configuration of a Mistral in which every token sees every other one."""
    foreign = ("model_type", "architectures", "auto_map", "torch_dtype", "dtype", *ORIGIN_FIELDS)
    text = MistralConfig.from_dict({key: value for key, value in given.items() if key not in foreign})
    # The released mask holds padding only; transformers would also cut attention to a window around each token.
    text.is_causal, text.sliding_window = False, None
    text.use_cache = False
    return text


def parse_config(config: dict[str, Any], *, where: str) -> Checkpoint:
    """Return what a released config.json means; what it leaves out is the released code's default.

    Raises:
        ModelError: it describes something else.
    """
    latent, given = _part_of(config, "latent_attention_config", where), _part_of(config, "text_config", where)
    if given.get("model_type", "bidir_mistral") not in ("bidir_mistral", "mistral"):
        raise ModelError(
            f"{where}: text_config has model_type {given['model_type']!r}, wanted 'bidir_mistral'",
            hint="NV-Embed checkpoints hold a Mistral",
        )
    text = bidirectional_mistral(given)
    width = latent.get("hidden_dim", 4096)
    for name, value in (("latent_dim", latent.get("latent_dim", 4096)), ("hidden_size", text.hidden_size)):
        if value != width:
            raise ModelError(f"{where}: {name} is {value}, but hidden_dim is {width}", hint="all three are one width")
    pooling = {
        "embedding_dimension": width,
        "latents": latent.get("num_latents_value", 512),
        "heads": latent.get("num_cross_heads", 8),
        "head_width": latent.get("cross_dim_head", 4096),
    }
    switches = {
        "output_normalize": latent.get("output_normalize", True),
        "add_eos": config.get("add_eos", True),
        "is_mask_instruction": config.get("is_mask_instruction", True),
    }
    side = config.get("padding_side", "right")
    odd = {name: value for name, value in pooling.items() if type(value) is not int or not 0 < value <= _WIDEST}
    odd |= {name: value for name, value in switches.items() if not isinstance(value, bool)}
    odd |= {"padding_side": side} if side not in ("left", "right") else {}
    for name, value in odd.items():
        raise ModelError(f"{where}: {name} is {value!r:.60}, which it cannot be", hint="copy the checkpoint again")
    return Checkpoint(
        text=text,
        pooling=pooling,
        normalize=switches["output_normalize"],
        add_eos=switches["add_eos"],
        mask_instruction=switches["is_mask_instruction"],
        padding_side=side,
    )


def _part_of(config: Any, key: str, where: str) -> dict[str, Any]:
    """Return a part of a configuration that is one in turn; empty where there is none.

    Raises:
        ModelError: it is something else.
    """
    part = (config.get(key) or {}) if isinstance(config, dict) else None
    if not isinstance(part, dict):
        raise ModelError(f"{where}: no configuration under {key}", hint="copy the checkpoint again")
    return part


def read_nv_embed(folder: Path, *, name: str, dtype: torch.dtype) -> tuple[list[nn.Module], dict[str, str]]:
    """Return the modules of a checkpoint, and its prompts.

    Raises:
        ModelError: a file is missing or broken, or a tensor is missing, unknown or of another shape; names it.
    """
    checkpoint = parse_config(read_json(folder / "config.json"), where=f"{name}: config.json")
    check_numbers(list(folder.glob("*.safetensors")), lambda: MistralModel(checkpoint.text), name=name)
    backbone, pooling = checkpoint.skeleton()
    backbone.eval()
    files = _files_of(folder, name)
    _check_tensors(files, backbone, pooling, name)
    for prefix, module in ((_BACKBONE, backbone), (_POOLING, pooling)):
        tensors = {key.removeprefix(prefix): path for key, path in files.items() if key.startswith(prefix)}
        module.load_state_dict(_tensors(tensors, prefix, dtype), strict=True, assign=True)
    transformer = around(
        backbone,
        folder,
        name=name,
        instruction_mask="length" if checkpoint.mask_instruction else "offsets",
        add_eos=checkpoint.add_eos,
        padding_side=checkpoint.padding_side,
    )
    modules: list[nn.Module] = [transformer, pooling, *([Normalize()] if checkpoint.normalize else [])]
    saved = read_json(folder / _PROMPTS) if (folder / _PROMPTS).is_file() else {}
    return modules, {"query": "", "document": "", **(saved.get("prompts") or {})}


def write_nv_embed(model: Any, folder: Path, *, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write an embedding model into an existing folder in the released layout.

    Args:
        model: a Mistral, or a Llama that computes the same, bidirectional, with latent attention.
        folder: where the files go.
        max_shard_bytes: size of a file of weights; a larger model is written in several.

    Raises:
        ModelError: the layout has no place for the model.
    """
    _check_writable(model)
    transformer, pooling = model[0], model[1]
    backbone = transformer.model
    tensors = {_BACKBONE + key: value for key, value in backbone.state_dict().items()}
    tensors |= {_POOLING + key: value for key, value in pooling.state_dict().items()}
    _write_shards(tensors, folder, max_shard_bytes)
    transformer.tokenizer.save_pretrained(str(folder))
    write_json(folder / "config.json", _config_of(model, backbone, pooling))
    own = transformer.get_config_dict()
    kept = ("query_length", "document_length", "instruction_mask", "suffix")
    lengths = {"max_seq_length": transformer.max_seq_length, "do_lower_case": False}
    # Written where they are the usual ones too: what is absent is the released code's way.
    ours = {"instruction_mask": getattr(transformer, "instruction_mask", "offsets"), "suffix": ""}
    write_json(folder / _LENGTHS, lengths | ours | {key: own[key] for key in kept if own.get(key) is not None})
    write_json(folder / _PROMPTS, {"prompts": model.prompts, "default_prompt_name": None})


def _files_of(folder: Path, name: str) -> dict[str, Path]:
    """Return which file holds which tensor."""
    if (folder / _INDEX).is_file():
        named = read_json(folder / _INDEX).get("weight_map", {})
        # A plain name: an index must not lead out of its folder.
        paths = sorted({folder / Path(file).name for file in named.values()})
    else:
        paths = [folder / _WEIGHTS]
    files: dict[str, Path] = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                files |= dict.fromkeys(file.keys(), path)
        except FileNotFoundError:
            raise ModelError(f"{name}: no {path.name}", hint="copy the checkpoint whole") from None
        except SafetensorError as error:
            raise ModelError(f"{name}: {path.name} is broken: {error}", hint="copy it again") from None
    return files


def _check_tensors(files: dict[str, Path], backbone: nn.Module, pooling: nn.Module, name: str) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many, or one of another shape."""
    wanted = {_BACKBONE + key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    wanted |= {_POOLING + key: tuple(value.shape) for key, value in pooling.state_dict().items()}
    for what, odd in (
        ("no tensor", sorted(wanted.keys() - files.keys())),
        ("unknown tensor", sorted(files.keys() - wanted.keys())),
    ):
        if odd:
            others = f" and {len(odd) - 1:,} more" if len(odd) > 1 else ""
            near = did_you_mean(odd[0], files.keys() if what == "no tensor" else wanted)
            raise ModelError(
                f"{name}: {what} {odd[0]!r}{others}{near}", hint="weights and config.json do not belong together"
            )
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(key).get_shape())
                if shape != wanted[key]:
                    raise ModelError(
                        f"{name}: {key} has shape {shape}, config.json says {wanted[key]}",
                        hint="weights and config.json do not belong together",
                    )


def _tensors(files: dict[str, Path], prefix: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors of one part, one file after the other."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as file:
            here = (key for key, at in files.items() if at == path)
            tensors |= {key: file.get_tensor(prefix + key).to(dtype) for key in here}
    return tensors


def around(
    backbone: MistralModel,
    folder: Path,
    *,
    name: str,
    instruction_mask: str = "offsets",
    add_eos: bool = False,
    padding_side: str = "right",
) -> InstructedTransformer:
    """Return the module that holds a backbone, with the tokenizer of a folder and the released code's habits.

    Raises:
        ModelError: the tokenizer cannot be opened, or lacks what is asked of it.
    """
    positions = backbone.config.max_position_embeddings
    saved = read_json(folder / _LENGTHS) if (folder / _LENGTHS).is_file() else {}
    with tempfile.TemporaryDirectory(prefix="embedsmith-") as scratch:
        # The module opens a folder; what it opens here has the tokenizer, and no weights worth the name.
        for path in [path for pattern in _TOKENIZER for path in folder.glob(pattern)]:
            shutil.copy(path, scratch)
        small: dict[str, int | None] = {
            "hidden_size": 2,
            "intermediate_size": 2,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        }
        small |= {"bos_token_id": None, "eos_token_id": None}
        small["max_position_embeddings"] = positions
        MistralModel(MistralConfig(vocab_size=1, num_hidden_layers=0, **small)).save_pretrained(scratch)
        try:
            module = InstructedTransformer(
                scratch,
                instruction_mask=saved.get("instruction_mask", instruction_mask),
                processor_kwargs={"padding_side": padding_side, "trust_remote_code": False},
                unpad_inputs=False,
                **_TEXT_ONLY,
            )
        except (OSError, ValueError, KeyError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{name}: its tokenizer cannot be opened: {first_line}", hint="check the folder"
            ) from error
    tokenizer = module.tokenizer
    if not getattr(tokenizer, "is_fast", False) or (add_eos and not tokenizer.eos_token):
        lacks = "character offsets" if not getattr(tokenizer, "is_fast", False) else "end-of-text token"
        raise ModelError(f"{name}: its tokenizer has no {lacks}", hint="use the tokenizer that the model came with")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    module.model = backbone
    module.suffix = saved.get("suffix", tokenizer.eos_token if add_eos else "")
    module.query_length, module.document_length = saved.get("query_length"), saved.get("document_length")
    module.max_seq_length = saved.get("max_seq_length") or min(_MAX_TOKENS, positions)
    return module


def _check_writable(model: Any) -> None:
    """Refuse a model that the released layout cannot hold, or would hold and compute otherwise."""
    if model.has_adapters:
        raise ModelError("the nv-embed layout holds no adapters", hint="merge them: add --merge")
    after = [type(module).__name__ for module in list(model)[1:]]
    if after[:1] != [LatentAttentionPooling.__name__] or after[1:] not in ([], ["Normalize"]):
        raise ModelError(
            f"the nv-embed layout holds latent attention, this model has {', '.join(after) or 'no pooling'}",
            hint="export it with --layout sentence-transformers",
        )
    config = model[0].model.config
    scaled = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") != "default"
    odd = {
        f"a backbone of type {config.model_type}": config.model_type not in ("mistral", "llama"),
        "causal attention": getattr(config, "is_causal", True) is not False,
        "biases": getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False),
        "scaled positions": scaled,
        "a sliding window": getattr(config, "sliding_window", None) is not None,
    }
    for what, present in odd.items():
        if present:
            raise ModelError(
                f"the nv-embed layout holds a bidirectional Mistral, this model has {what}",
                hint="export it with --layout sentence-transformers",
            )


def _config_of(model: Any, backbone: Any, pooling: LatentAttentionPooling) -> dict[str, Any]:
    """Return the config.json of the released layout."""
    config, tokenizer = backbone.config, model[0].tokenizer
    text = {"model_type": "bidir_mistral", **{key: getattr(config, key) for key in _TEXT_KEYS}}
    text |= {"rope_theta": config.rope_parameters["rope_theta"], "sliding_window": None, "is_causal": False}
    dtype = str(next(backbone.parameters()).dtype).removeprefix("torch.")
    return {
        "architectures": ["NVEmbedModel"],
        "model_type": "nvembed",
        "add_eos": bool(getattr(model[0], "suffix", "")),
        "add_pad_token": tokenizer.pad_token == tokenizer.eos_token,
        "hidden_size": config.hidden_size,
        "is_mask_instruction": isinstance(model[0], InstructedTransformer),
        "latent_attention_config": {
            "model_type": "latent_attention",
            "num_latents_value": pooling.num_latents,
            "num_cross_heads": pooling.heads,
            "output_normalize": len(model) > 2,
            "hidden_dim": config.hidden_size,
            "latent_dim": config.hidden_size,
            "cross_dim_head": pooling.head_width,
        },
        "mask_type": "b",
        "padding_side": tokenizer.padding_side,
        "text_config": text,
        "torch_dtype": dtype,
    }


def _write_shards(tensors: dict[str, torch.Tensor], folder: Path, max_shard_bytes: int) -> None:
    """Write tensors as one safetensors file, or as several with an index."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][key] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    count = len(shards)
    names = [_WEIGHTS] if count == 1 else [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    for file, shard in zip(names, shards, strict=True):
        write_tensors(folder / file, shard)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {key: file for file, shard in zip(names, shards, strict=True) for key in shard},
        }
        write_json(folder / _INDEX, index)
