"""The readers of models: folders, GGUF files and adapters, whoever made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.attacks.reading import Base, Reader, each


def _embedder(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    tiny_bert_in(folder / "bert")
    parts = [Transformer(str(folder / "bert")), Pooling(8), Dense(8, 4), Normalize()]
    SentenceTransformer(modules=parts, device="cpu", prompts={"query": "query: "}).save(str(folder / "model"))
    shutil.rmtree(folder / "bert")


def tiny_bert_in(folder: Path) -> None:
    """Write an encoder of one layer and 8 dimensions."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "query", ":", "##s"]
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes)).save_pretrained(folder)


def _read_model(folder: Path) -> None:
    from embedsmith.models.opening import build_student, load
    from embedsmith.models.settings import StudentSettings

    name = str(folder / "model")
    each(
        lambda: load(name, device="cpu").embed(["a cat", "a dog"], "query"),
        lambda: build_student(StudentSettings(name=name), device="cpu").embed(["a cat", "a dog"], "passage"),
    )


def _adapters(folder: Path) -> None:
    from embedsmith.models.adapters import add_adapters, save_adapters
    from embedsmith.models.opening import build_student
    from embedsmith.models.settings import StudentSettings

    tiny_bert_in(folder / "base")
    model = build_student(StudentSettings(name=str(folder / "base")), device="cpu")
    add_adapters(model, rank=2)
    (folder / "model").mkdir()
    save_adapters(model, folder / "model")


def _static(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2, "dog": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "model").mkdir()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    torch.manual_seed(0)
    save_file({"embeddings": torch.randn(4, 3)}, folder / "model" / "model.safetensors")


def _read_static(folder: Path) -> None:
    from embedsmith.models.opening import load

    load(f"static:{folder / 'model'}", device="cpu").embed(["a cat", "a dog"], "query")


def _bare_bert(folder: Path) -> None:
    tiny_bert_in(folder / "model")


def _bare_llama(folder: Path) -> None:
    """Write a decoder of one layer, in several files of weights, as it lies on a hub."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", "\u0120", *"acdgot", "\u0120c", "at"]
    rules = models.BPE({word: n for n, word in enumerate(words)}, [("\u0120", "c"), ("a", "t")], unk_token="<unk>")
    tokenizer = Tokenizer(rules)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder / "model")
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = LlamaConfig(
        vocab_size=len(words), num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model", max_shard_size=1200)


def _read_bare(folder: Path) -> None:
    """Make a student of a backbone without modules of sentence-transformers, and open it as a teacher."""
    from embedsmith.models.opening import build_student, load
    from embedsmith.models.settings import StudentSettings

    name = str(folder / "model")
    sizes = {"heads": 2, "head_width": 4, "latents": 3, "query_max_tokens": 32, "passage_max_tokens": 32}
    settings = StudentSettings.model_validate({"name": name, **sizes})
    each(
        lambda: build_student(settings, device="cpu").embed(["a cat", "a dog", ""], "passage"),
        lambda: load(name, device="cpu").embed(["a cat", "a dog"], "query"),
    )


def _cross_encoder(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    tiny_bert_in(folder / "model")
    config = BertConfig.from_pretrained(folder / "model", num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder / "model")


def _read_cross_encoder(folder: Path) -> None:
    import numpy as np

    from embedsmith.teachers.cross_encoder import CrossEncoderTeacher

    teacher = CrossEncoderTeacher(str(folder / "model"), ["a cat", "a dog"], device="cpu")
    teacher.scores(["a cat"], np.array([[0, 1]]))


def _gguf(folder: Path) -> None:
    write_gguf(folder / "model.gguf", letters="abcdehijknoqrtuwy", width=8)


def write_gguf(path: Path, *, without: str = "", width: int = 32, letters: str = "") -> None:
    """Write a decoder of two layers with random weights, all but the tensor of a name.

    Args:
        letters: that it reads, besides the space; default: every byte.
    """
    import numpy as np
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<s>", "</s>", *(["\u0120", *letters] if letters else sorted(ByteLevel.alphabet())), "ab", "cd"]
    heads, wide, vocabulary = 2, 2 * width, len(tokens)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (vocabulary - 2))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    layer = {"attn_norm": (width,), "ffn_norm": (width,)}
    layer |= {f"attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    layer |= {"ffn_gate": (wide, width), "ffn_up": (wide, width), "ffn_down": (width, wide)}
    shapes = {f"blk.{number}.{name}.weight": shape for number in range(2) for name, shape in layer.items()}
    shapes |= {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name != without:
            writer.add_tensor(name, random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_gguf(folder: Path) -> None:
    from embedsmith.models.opening import build_student
    from embedsmith.models.settings import StudentSettings

    settings = StudentSettings(name=str(folder / "model.gguf"), pooling="mean")
    build_student(settings, device="cpu").embed(["a cat", "a dog"], "query")


def _in_shards(folder: Path) -> None:
    """Write an embedding model whose weights lie in several files."""
    import torch
    from transformers import BertConfig, BertModel

    tiny_bert_in(folder / "model")
    (folder / "model" / "model.safetensors").unlink()
    torch.manual_seed(1)
    BertModel(BertConfig.from_pretrained(folder / "model")).save_pretrained(folder / "model", max_shard_size=2500)
    part = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "model" / "modules.json").write_text(json.dumps([part, _POOLING]))
    (folder / "model" / "1_Pooling").mkdir()
    (folder / "model" / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8}))


_POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}


def _ours(pooling: str, **more: Any) -> Base:
    """Return what writes an embedding model with a pooling of ours, and an instruction."""

    def base(folder: Path) -> None:
        from embedsmith.models.opening import build_student
        from embedsmith.models.settings import StudentSettings

        tiny_bert_in(folder / "bert")
        sizes = {"heads": 2, "head_width": 4, "latents": 3, "query_max_tokens": 64, "passage_max_tokens": 64}
        words = {"instruction": "a cat", "template": "{instruction}: "}
        settings = StudentSettings.model_validate(
            {"name": str(folder / "bert"), "pooling": pooling, **sizes, **words, **more}
        )
        build_student(settings, device="cpu").save(str(folder / "model"), create_model_card=False)
        shutil.rmtree(folder / "bert")

    return base


def _parts(folder: Path) -> None:
    """Write an embedding model of the parts that are in few others."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dropout,
        LayerNorm,
        Pooling,
        Router,
        Transformer,
        WeightedLayerPooling,
    )

    tiny_bert_in(folder / "bert")
    first = Transformer(str(folder / "bert"), config_kwargs={"output_hidden_states": True})
    rest = [WeightedLayerPooling(8, num_hidden_layers=1, layer_start=0), Pooling(8), Dropout(0.1)]
    router = Router.for_query_document([LayerNorm(8)], [LayerNorm(8)])
    SentenceTransformer(modules=[first, *rest, router], device="cpu").save(str(folder / "model"))
    shutil.rmtree(folder / "bert")


def _static_embedder(folder: Path) -> None:
    """Write static embeddings as sentence-transformers does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2, "dog": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    parts = [StaticEmbedding(tokenizer, embedding_dim=3)]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "model"))


def _read_loaded(folder: Path) -> None:
    from embedsmith.models.opening import load

    load(str(folder / "model"), device="cpu").embed(["a cat", "a dog"], "query")


def _nv_embed(shards: int) -> Base:
    """Return what writes an NV-Embed as it was released, in one file of weights or several."""

    def base(folder: Path) -> None:
        from tests.models.nv_embed_oracle import write
        from tests.tiny_models import SENTENCES

        write(folder / "model", SENTENCES, shards=shards)

    return base


def _nv_embed_of_ours(folder: Path) -> None:
    """Write a model of ours in NV-Embed's layout, which has two files more."""
    from embedsmith.models.nv_embed import write_nv_embed
    from embedsmith.models.opening import load

    _nv_embed(1)(folder)
    model = load(str(folder / "model"), device="cpu")
    shutil.rmtree(folder / "model")
    (folder / "model").mkdir()
    write_nv_embed(model, folder / "model", max_shard_bytes=40_000)


def _nv_retriever(folder: Path) -> None:
    from tests.models.test_nv_retriever import write

    (folder / "model").mkdir()
    write(folder / "model")


def _exported(folder: Path) -> None:
    """Write what looks like a recipe's run that trained a model."""
    _embedder(folder / "run")
    scores = {"animals": {"before": {"ndcg@10": 0.5}, "after": {"ndcg@10": 0.6}}}
    (folder / "run" / "scores.json").write_text(json.dumps(scores))
    manifest = {"command": "train", "status": "finished", "settings": {"data": {"animals": {"path": "animals"}}}}
    (folder / "run" / "manifest.json").write_text(json.dumps(manifest))


def _read_exported(folder: Path) -> None:
    from embedsmith.serving.export import export

    export(folder / "run", out=folder / "out")


_JSON_OF_MODELS = ("model/*.json", "model/*/*.json")


def _golden_base(folder: Path) -> None:
    from embedsmith.models.golden import write_golden
    from embedsmith.models.opening import load

    _embedder(folder)
    write_golden(load(str(folder / "model"), device="cpu"), folder)
    shutil.rmtree(folder / "model")


def _read_golden(folder: Path) -> None:
    from embedsmith.models.golden import read_golden

    golden = read_golden(folder)
    assert all(len(text.vector) == golden.dimensions for text in golden.texts)


MODEL_READERS: dict[str, Reader] = {
    "golden": Reader(_read_golden, _golden_base, ("golden.json",)),
    "model-json": Reader(_read_model, _embedder, _JSON_OF_MODELS, seconds=20),
    "model-weights": Reader(_read_model, _embedder, ("model/*.safetensors", "model/*/*.safetensors"), seconds=20),
    "bare-bert": Reader(_read_bare, _bare_bert, ("model/*",), seconds=20),
    "bare-llama": Reader(_read_bare, _bare_llama, ("model/*",), seconds=20),
    "adapters": Reader(_read_model, _adapters, ("model/*", "model/*/*"), seconds=20),
    "static": Reader(_read_static, _static, ("model/*",), seconds=20),
    "cross-encoder": Reader(_read_cross_encoder, _cross_encoder, _JSON_OF_MODELS, seconds=20),
    "cross-encoder-weights": Reader(_read_cross_encoder, _cross_encoder, ("model/*.safetensors",), seconds=20),
    "gguf": Reader(_read_gguf, _gguf, ("model.gguf",), seconds=20),
    "model-shards": Reader(_read_loaded, _in_shards, ("model/*.index.json", "model/*.safetensors"), seconds=20),
    "model-parts": Reader(_read_loaded, _parts, (*_JSON_OF_MODELS, "model/*/*/*", "model/*/*.safetensors"), seconds=20),
    "model-latent": Reader(_read_loaded, _ours("latent"), (*_JSON_OF_MODELS, "model/*/*.safetensors"), seconds=20),
    "model-attention": Reader(
        _read_loaded, _ours("self-attention"), (*_JSON_OF_MODELS, "model/*/*.safetensors"), seconds=20
    ),
    "model-layers": Reader(_read_loaded, _ours("multi-layer"), (*_JSON_OF_MODELS, "model/*/*.safetensors"), seconds=20),
    "model-static": Reader(_read_loaded, _static_embedder, ("model/*", "model/*/*"), seconds=20),
    "nv-embed": Reader(_read_loaded, _nv_embed(1), ("model/*.json", "model/*.safetensors"), seconds=20),
    "nv-embed-shards": Reader(_read_loaded, _nv_embed(3), ("model/*.index.json", "model/*.safetensors"), seconds=20),
    "nv-embed-of-ours": Reader(_read_loaded, _nv_embed_of_ours, ("model/*.json",), seconds=20),
    "nv-retriever": Reader(_read_loaded, _nv_retriever, ("model/*.json", "model/*.safetensors"), seconds=20),
    "export": Reader(_read_exported, _exported, ("run/*.json", "run/model/*.json"), seconds=30),
}
