"""How near does a 7B decoder come to a GPU's limit? Encoding against sentence-transformers, and training with LoRA.

The decoder has Mistral-7B's shape and random weights, for speed does not depend on what they are; its tokenizer has one
token a word, so that every length is known. Nothing is downloaded.

    python benchmarks/seven_billion.py encode [--texts 512] [--tokens 512] [--pooling mean] [--compile]
    python benchmarks/seven_billion.py train [--batch 64] [--negatives 7] [--steps 4] [--compile]
    python benchmarks/seven_billion.py encode --shape tiny --device cpu        # whether the script runs

`encode`: texts of 1/8 to all of --tokens, in bfloat16, by `embed`, which mining and scoring use, and by the `encode` of
sentence-transformers with its batches of 32, in turns; medians. `train`: queries of 32 tokens, passages of up to
--tokens, adapters of rank 16 on every linear layer.

Model FLOPs utilisation: a token costs 2 operations for each weight of a linear layer, and T tokens of a text 4 T² for
each layer and dimension of the attention. With adapters, training costs each twice (frozen weights get no gradients,
what goes through them does) and attention three times; what is computed again to save memory is no useful work and is
not counted. The limit is --peak-tflops (989: dense bfloat16 of H100 and H200, NVIDIA's data sheets); beside it stands
what products of the layers' own shapes reach on the card in three seconds on end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from encoding import linear_layers

from embedsmith.data.examples import Example, Passage
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student

SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 224,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
    },
}
WORDS = 32_000
QUERY_TOKENS = 32


def student(arguments: argparse.Namespace, folder: Path) -> EmbeddingModel:
    """Return an embedding model of random weights that bfloat16 holds, in float32, on the device.

    Built by its first layer, so that not all of it goes through the disk.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast
    from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

    vocabulary = {"<pad>": 0, "</s>": 1} | {f"w{number}": number + 2 for number in range(WORDS - 2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    shape = SHAPES[arguments.shape]
    torch.manual_seed(0)
    MistralModel(MistralConfig(vocab_size=WORDS, **{**shape, "num_hidden_layers": 1})).bfloat16().save_pretrained(
        folder
    )
    settings = StudentSettings(
        name=str(folder),
        attention="bidirectional",
        pooling=arguments.pooling,
        query_max_tokens=QUERY_TOKENS,
        passage_max_tokens=arguments.tokens,
    )
    model = build_student(settings, device=arguments.device)
    backbone = model.backbone
    config = backbone.config
    config.num_hidden_layers = shape["num_hidden_layers"]
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1] * config.num_hidden_layers
    with torch.device(arguments.device):
        backbone.layers.extend(
            MistralDecoderLayer(config, number).bfloat16().float() for number in range(1, config.num_hidden_layers)
        )
    return model


def texts_of(lengths: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Return texts of so many words each."""
    return [" ".join(f"w{word}" for word in rng.integers(WORDS - 2, size=length)) for length in lengths]


def work(model: EmbeddingModel, lengths: list[int]) -> tuple[float, float]:
    """Return the operations of linear layers and of attention for one pass over texts of so many tokens."""
    config = model.backbone.config
    weights = sum(layer.weight.numel() for layer in linear_layers(model))
    attention = config.num_hidden_layers * config.hidden_size
    return 2.0 * weights * sum(lengths), 4.0 * attention * float(np.square(np.array(lengths, float)).sum())


def seconds_of(call: Any, device: str) -> float:
    """Return how long a call takes, until the device is done."""
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def product_tflops(device: str, shape: dict[str, int]) -> tuple[float, float]:
    """Return what products of a layer's own shape reach in bfloat16: for a moment, and for three seconds on end.

    A card at the limit of its power lowers its clock, and does so the sooner the fewer zeros it multiplies.
    """
    rows = 8192 if device == "cuda" else 512
    states = torch.randn(rows, shape["hidden_size"], device=device, dtype=torch.bfloat16)
    weight = torch.randn(shape["intermediate_size"], shape["hidden_size"], device=device, dtype=torch.bfloat16) * 0.02
    operations = 2.0 * rows * weight.numel()
    rates = []
    seconds_of(lambda: torch.nn.functional.linear(states, weight), device)
    for least in (0.02, 3.0):
        seconds = count = 0.0
        while seconds < least:
            seconds += seconds_of(lambda: [torch.nn.functional.linear(states, weight) for _ in range(20)], device)
            count += 20
        rates.append(count * operations / seconds / 1e12)
    return max(rates), rates[1]


def show(name: str, operations: float, seconds: float, tokens: int, arguments: argparse.Namespace, reached: float):
    """Print a row of the table."""
    tflops = operations / seconds / 1e12
    print(
        f"| {name} | {seconds:.2f} | {tokens / seconds:,.0f} | {tflops:.1f} | "
        f"{tflops / arguments.peak_tflops:.0%} | {tflops / reached:.0%} |",
        flush=True,
    )


def encode(model: EmbeddingModel, arguments: argparse.Namespace, reached: float) -> None:
    """Encode the same texts by both sides, in turns."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(max(1, arguments.tokens // 8), arguments.tokens + 1, size=arguments.texts)
    texts = texts_of(lengths, rng)
    model.to(torch.bfloat16).eval()
    sides = {
        "embedsmith": lambda: model.embed(texts, "passage"),
        "sentence-transformers": lambda: model.encode(texts, convert_to_tensor=True),
    }
    model.embed(texts[:32], "passage")
    model.encode(texts[:32])
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, call in sides.items():
            found[name].append(seconds_of(call, arguments.device))
    for name, runs in found.items():
        show(name, sum(work(model, lengths.tolist())), median(runs), int(lengths.sum()), arguments, reached)
    one, other = (median(runs) for runs in found.values())
    print(f"\n{other / one:.2f} times as fast as sentence-transformers")


def train(model: EmbeddingModel, arguments: argparse.Namespace, reached: float) -> None:
    """Train adapters for a few steps; the first is not counted."""
    from embedsmith.training.batches import Source
    from embedsmith.training.settings import StageSettings
    from embedsmith.training.trainer import train_stage

    rng = np.random.default_rng(0)
    count = arguments.batch * (arguments.steps + 1)
    each = 1 + arguments.negatives
    lengths = rng.integers(max(1, arguments.tokens // 8), arguments.tokens + 1, size=count * each)
    queries, passages = texts_of(np.full(count, QUERY_TOKENS), rng), texts_of(lengths, rng)
    examples = [
        Example(
            f"q{n}",
            queries[n],
            [Passage(f"p{n}", passages[n * each])],
            [Passage(f"n{n}-{m}", passages[n * each + m]) for m in range(1, each)],
        )
        for n in range(count)
    ]
    stage = StageSettings(
        steps=arguments.steps + 1,
        batch_size=arguments.batch,
        hard_negatives=arguments.negatives,
        guide=False,
        dropout=0.0,
        dtype="bfloat16",
        lora_rank=16,
        lora_merge=False,
        gradient_checkpointing=arguments.gradient_checkpointing,
        chunk_tokens=arguments.chunk_tokens,
        save_steps=10**6,
        report_to="none",
    )
    linear, attention = work(model, [QUERY_TOKENS] * count + lengths.tolist())
    with tempfile.TemporaryDirectory() as folder:
        reports = train_stage(model, [Source("random", examples)], stage, folder=Path(folder), seed=0)
    seconds = median(report.seconds for report in reports[1:])
    steps = arguments.steps + 1
    # All examples are seen once, so a step's share of all the work is its share of the tokens.
    tokens = median(report.tokens for report in reports[1:])
    share = tokens / sum(report.tokens for report in reports)
    show("a step", share * (2 * linear + 3 * attention), seconds, int(tokens), arguments, reached)
    print(f"\n{arguments.batch / seconds:.1f} queries with {each} passages a second, {steps - 1} steps", end="")
    if arguments.device == "cuda":
        print(f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at the peak", end="")
    print()


def main() -> None:
    """Build the model and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encode", "train"])
    parser.add_argument("--shape", default="7b", choices=SHAPES)
    parser.add_argument("--pooling", default="mean", choices=["mean", "latent"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--chunk-tokens", type=int)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --shape tiny --device cpu shows whether the script runs")
    seconds_of(
        lambda: torch.ones(8, device=arguments.device) @ torch.ones(8, device=arguments.device), arguments.device
    )
    at_best, reached = product_tflops(arguments.device, SHAPES[arguments.shape])
    with tempfile.TemporaryDirectory() as folder:
        model = student(arguments, Path(folder))
        size = sum(parameter.numel() for parameter in model.parameters())
        name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
        print(f"{name}, {size:,} parameters; products reach {at_best:.0f} TFLOP/s, {reached:.0f} on end\n")
        print("| side | seconds | tokens/s | TFLOP/s | of the data sheet | of products |")
        print("| --- | --- | --- | --- | --- | --- |")
        (encode if arguments.what == "encode" else train)(model, arguments, reached)


if __name__ == "__main__":
    main()
