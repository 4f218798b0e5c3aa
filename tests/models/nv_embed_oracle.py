"""NV-Embed written out from its description, one text at a time: an oracle that shares no code with the package."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = {
    "model_type": "bidir_mistral",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    # Narrower than the texts: the released mask does not look at it.
    "sliding_window": 3,
}
LATENT = {
    "model_type": "latent_attention",
    "num_latents_value": 5,
    "num_cross_heads": 2,
    "output_normalize": True,
    "hidden_dim": 32,
    "latent_dim": 32,
    "cross_dim_head": 24,
}
CONFIG = {
    "model_type": "nvembed",
    "architectures": ["NVEmbedModel"],
    "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
    "add_eos": True,
    "add_pad_token": True,
    "is_mask_instruction": True,
    "mask_type": "b",
    "padding_side": "right",
    "hidden_size": 32,
    "text_config": TEXT,
    "latent_attention_config": LATENT,
}


def random_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random weights under the released names."""
    torch.manual_seed(seed)
    d, inner, width = (
        TEXT["hidden_size"],
        TEXT["intermediate_size"],
        LATENT["num_cross_heads"] * LATENT["cross_dim_head"],
    )
    keys = d // TEXT["num_attention_heads"] * TEXT["num_key_value_heads"]
    shapes = {"embedding_model.embed_tokens.weight": (TEXT["vocab_size"], d), "embedding_model.norm.weight": (d,)}
    for layer in range(TEXT["num_hidden_layers"]):
        start = f"embedding_model.layers.{layer}."
        for name, rows in (("q_proj", d), ("k_proj", keys), ("v_proj", keys), ("o_proj", d)):
            shapes[f"{start}self_attn.{name}.weight"] = (rows, d)
        for name, shape in (("gate_proj", (inner, d)), ("up_proj", (inner, d)), ("down_proj", (d, inner))):
            shapes[f"{start}mlp.{name}.weight"] = shape
        shapes[f"{start}input_layernorm.weight"] = shapes[f"{start}post_attention_layernorm.weight"] = (d,)
    block = "latent_attention_model.cross_attend_blocks."
    shapes["latent_attention_model.latents"] = (LATENT["num_latents_value"], d)
    for norm in ("0.norm", "0.norm_context", "1.norm"):
        shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = (d,)
    shapes[f"{block}0.fn.to_q.weight"] = (width, d)
    shapes[f"{block}0.fn.to_kv.weight"] = (2 * width, d)
    shapes[f"{block}0.fn.to_out.weight"] = (d, width)
    shapes[f"{block}1.fn.net.0.weight"], shapes[f"{block}1.fn.net.0.bias"] = (8 * d, d), (8 * d,)
    shapes[f"{block}1.fn.net.2.weight"], shapes[f"{block}1.fn.net.2.bias"] = (d, 4 * d), (d,)
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of Mistral's kind: "▁" for a space, one before the text, <s> added, </s> not."""
    rules = Tokenizer(models.BPE(unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    rules.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT["vocab_size"],
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    rules.train_from_iterator(sentences, trainer)
    rules.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def write(folder: Path, sentences: list[str], *, shards: int = 1) -> Path:
    """Write a random model in the released layout."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(sentences).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = random_tensors()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    places = {name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def embed(folder: Path, text: str, instruction: str = "", max_length: int = 4096) -> torch.Tensor:
    """Return the vector of one text as the description has it."""
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = words(instruction + text + "</s>", truncation=True, max_length=max_length)["input_ids"]
    hidden = decoder(weights, torch.tensor(ids))
    hidden = latent_attention(weights, hidden)
    pool = torch.ones(len(ids))
    if instruction:
        pool[: len(words.tokenize(instruction))] = 0
    mean = (hidden * pool[:, None]).sum(0) / pool.sum()
    return mean / mean.norm()


def decoder(weights: dict, ids: torch.Tensor) -> torch.Tensor:
    """Mistral without a causal mask: RMSNorm, rotary positions, grouped heads, SwiGLU."""

    def at(name):
        return weights["embedding_model." + name]

    def rms(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + TEXT["rms_norm_eps"]).sqrt() * at(name)

    heads, groups = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    width = TEXT["hidden_size"] // heads
    angle = torch.arange(len(ids))[:, None] * TEXT["rope_theta"] ** (-torch.arange(0, width, 2) / width)[None]
    cosine, sine = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

    def turn(x):
        first, second = x.chunk(2, -1)
        return x * cosine + torch.cat([-second, first], -1) * sine

    x = at("embed_tokens.weight")[ids]
    for layer in range(TEXT["num_hidden_layers"]):
        start = f"layers.{layer}."
        normed = rms(x, start + "input_layernorm.weight")
        query, key, value = (normed @ at(f"{start}self_attn.{p}_proj.weight").T for p in "qkv")
        out = []
        for head in range(heads):
            group = head * groups // heads
            own, shared = slice(head * width, (head + 1) * width), slice(group * width, (group + 1) * width)
            scores = turn(query[:, own]) @ turn(key[:, shared]).T / math.sqrt(width)
            out.append(scores.softmax(-1) @ value[:, shared])
        x = x + torch.cat(out, -1) @ at(start + "self_attn.o_proj.weight").T
        normed = rms(x, start + "post_attention_layernorm.weight")
        gate, up = (normed @ at(f"{start}mlp.{p}_proj.weight").T for p in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ at(start + "mlp.down_proj.weight").T
    return rms(x, "norm.weight")


def latent_attention(weights: dict, hidden: torch.Tensor) -> torch.Tensor:
    """Tokens ask latents, with LayerNorm before and a residual after; then the same with GEGLU."""

    def at(name):
        return weights["latent_attention_model." + name]

    def norm(x, name):
        name = f"cross_attend_blocks.{name}"
        return torch.nn.functional.layer_norm(x, x.shape[-1:], at(f"{name}.weight"), at(f"{name}.bias"))

    heads, width = LATENT["num_cross_heads"], LATENT["cross_dim_head"]
    query = norm(hidden, "0.norm") @ at("cross_attend_blocks.0.fn.to_q.weight").T
    key, value = (norm(at("latents"), "0.norm_context") @ at("cross_attend_blocks.0.fn.to_kv.weight").T).chunk(2, -1)
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        out.append((query[:, part] @ key[:, part].T * width**-0.5).softmax(-1) @ value[:, part])
    hidden = torch.cat(out, -1) @ at("cross_attend_blocks.0.fn.to_out.weight").T + hidden
    first, second = "cross_attend_blocks.1.fn.net.0", "cross_attend_blocks.1.fn.net.2"
    inner, gate = (norm(hidden, "1.norm") @ at(f"{first}.weight").T + at(f"{first}.bias")).chunk(2, -1)
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    return (inner * gelu) @ at(f"{second}.weight").T + at(f"{second}.bias") + hidden
