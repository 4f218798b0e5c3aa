"""How near does a 7B decoder come to a GPU's limit? Encoding against sentence-transformers, and training with LoRA.

The decoder has Mistral-7B's shape and random weights, for speed does not depend on what they are; its tokenizer has one
token a word, so that every length is known. Nothing is downloaded.

    python benchmarks/seven_billion.py encode train [--texts 512] [--tokens 512] [--batch 64] [--steps 4] [--profile]
    python benchmarks/seven_billion.py encode train --shape tiny --device cpu        # whether the script runs

`encode`: texts of 1/8 to all of --tokens, in bfloat16, by `embed`, which mining and scoring use, and by the `encode` of
sentence-transformers with its batches of 32, in turns; medians. `train`: queries of 32 tokens, passages of up to
--tokens, adapters of rank 16 on every linear layer; the first step is not counted. Both as the layers are, and
compiled (`compile: true`); the first call, which compiles them, is not counted and its seconds are shown.

Model FLOPs utilisation: a token costs 2 operations for each weight of a linear layer, and T tokens of a text 4 T² for
each layer and dimension of the attention. With adapters, training costs each twice (frozen weights get no gradients,
what goes through them does) and attention three times; what is computed again to save memory is no useful work and is
not counted. The limit is --peak-tflops (989: dense bfloat16 of H100 and H200, NVIDIA's data sheets); beside it stands
what matmuls of the layers' own shapes reach on the card in three seconds on end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from encoding import linear_layers
from torch.profiler import ProfilerActivity, profile

from embedsmith.data.examples import Example, Passage
from embedsmith.models.compiled import compile_layers
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.training.batches import Source
from embedsmith.training.report import StepReport
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

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
    """Return what matmuls of a layer's own shape reach in bfloat16: for a moment, and for three seconds on end.

    A card at the limit of its power lowers its clock, and does so the sooner the fewer zeros it multiplies.
    """
    rows = 8192 if device == "cuda" else 512
    states = torch.randn(rows, shape["hidden_size"], device=device, dtype=torch.bfloat16)
    weight = torch.randn(shape["intermediate_size"], shape["hidden_size"], device=device, dtype=torch.bfloat16) * 0.02
    operations = 2.0 * rows * weight.numel()
    rates = []
    seconds_of(lambda: torch.nn.functional.linear(states, weight), device)
    for least in (0.02, 3.0 if device == "cuda" else 0.1):
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


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Return the median seconds of each side."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            found[name].append(seconds_of(call, device))
    return {name: median(runs) for name, runs in found.items()}


def encode(model: EmbeddingModel, arguments: argparse.Namespace, reached: float) -> None:
    """Encode the same texts by both sides in turns, and by ours with compiled layers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(max(1, arguments.tokens // 8), arguments.tokens + 1, size=arguments.texts)
    texts = texts_of(lengths, rng)
    model.to(torch.bfloat16).eval()
    vectors = {}

    def ours(name: str) -> None:
        vectors[name] = model.embed(texts, "passage")

    def theirs() -> None:
        found = model.encode(texts, convert_to_tensor=True)
        # Theirs are brought to length 1 in bfloat16, which is off by up to a percent.
        vectors["theirs"] = torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()

    ours("eager")
    model.encode(texts[:32])
    seconds = in_turns(
        {"embedsmith": lambda: ours("eager"), "sentence-transformers": theirs}, arguments.rounds, arguments.device
    )
    if arguments.compile:
        compile_layers(model, name=arguments.shape)
        first = seconds_of(lambda: model.embed(texts[:64], "passage"), arguments.device)
        seconds |= in_turns({"embedsmith, compiled": lambda: ours("compiled")}, arguments.rounds, arguments.device)
    for name, taken in seconds.items():
        show(f"encode: {name}", sum(work(model, lengths.tolist())), taken, int(lengths.sum()), arguments, reached)
    if arguments.profile:
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            model.embed(texts[:128], "passage")
        print_kernels("encode", seen)
    print(f"\npacked: {model.packs(torch.bfloat16)}; cosines of the sides' vectors, at the least:")
    for name in vectors:
        print(f"  eager and {name}: {float((vectors['eager'] * vectors[name]).sum(1).min()):.5f}")
    if arguments.compile:
        print(f"the first call with compiled layers took {first:.0f} s")


def train(model: EmbeddingModel, arguments: argparse.Namespace, reached: float) -> None:
    """Train adapters for a few steps, with the layers as they are and compiled."""
    for name in ("as they are", "compiled") if arguments.compile else ("as they are",):
        if name == "compiled":
            compile_layers(model, name=arguments.shape)
        _train(model.float(), name, arguments, reached)
        model[0].model = model.backbone.unload()
        model.requires_grad_(True)


def _train(model: EmbeddingModel, name: str, arguments: argparse.Namespace, reached: float) -> None:
    """Train new adapters for a few steps; the first is not counted."""
    rng = np.random.default_rng(0)
    steps = arguments.steps + 1 + arguments.profile
    count = arguments.batch * steps
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
        steps=steps,
        batch_size=arguments.batch,
        hard_negatives=arguments.negatives,
        guide=False,
        dropout=0.0,
        dtype="bfloat16",
        lora_rank=16,
        lora_merge=False,
        gradient_checkpointing=arguments.gradient_checkpointing,
        chunk_tokens=arguments.chunk_tokens,
        memory_gib=arguments.memory_gib,
        save_steps=10**6,
        report_to="none",
    )
    linear, attention = work(model, [QUERY_TOKENS] * count + lengths.tolist())
    if arguments.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    profiler = profile(activities=[ProfilerActivity.CUDA])

    def on_step(report: StepReport) -> None:
        if arguments.profile and report.step == steps - 1:
            profiler.start()
        elif arguments.profile and report.step == steps:
            profiler.stop()

    with tempfile.TemporaryDirectory() as folder:
        reports = train_stage(model, [Source("random", examples)], stage, folder=Path(folder), seed=0, on_step=on_step)
    counted = reports[1 : arguments.steps + 1]
    seconds = median(report.seconds for report in counted)
    # All examples are seen once, so a step's share of all the work is its share of the tokens.
    tokens = median(report.tokens for report in counted)
    share = tokens / sum(report.tokens for report in reports)
    show(f"train: {name}", share * (2 * linear + 3 * attention), seconds, int(tokens), arguments, reached)
    twice = share * (linear + attention) / seconds / 1e12
    print(
        f"\n{name}: {arguments.batch / seconds:.1f} queries with {each} passages a second, {arguments.steps} steps; "
        f"{twice:.0f} TFLOP/s more where every chunk is encoded twice; the first step took {reports[0].seconds:.0f} s; "
        f"losses {', '.join(f'{report.loss:.3f}' for report in reports)}",
        end="",
    )
    if arguments.device == "cuda":
        print(f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at the peak", end="")
    print("\n")
    if arguments.profile:
        print_kernels(f"a step {name}, {reports[-1].seconds:.2f} s", profiler)


def print_kernels(name: str, seen: Any) -> None:
    """Print where a GPU's time went."""
    kernels = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in kernels)
    print(f"\n{name}: {total / 1e6:.2f} s on the GPU\n")
    for event in kernels[:28]:
        print(f"  {event.self_device_time_total / total:6.1%} {event.count:6d} {event.key[:90]}")


def main() -> None:
    """Build the model and run one of the two, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["encode", "train"])
    parser.add_argument("--shape", default="7b", choices=SHAPES)
    parser.add_argument("--pooling", default="mean", choices=["mean", "latent"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--chunk-tokens", type=int)
    parser.add_argument("--memory-gib", type=float, help="activations that are kept; else 0.8 of what is free")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--profile", action="store_true", help="show where a GPU's time goes")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --shape tiny --device cpu shows whether the script runs")
    if arguments.profile and arguments.device != "cuda":
        parser.error("--profile is of a GPU's time")
    at_best, reached = product_tflops(arguments.device, SHAPES[arguments.shape])
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    head = "| side | seconds | tokens/s | TFLOP/s | of the data sheet | of matmuls |\n" + "| --- " * 6 + "|"
    for what in arguments.what:
        with tempfile.TemporaryDirectory() as folder:
            model = student(arguments, Path(folder))
        size = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name}, {size:,} parameters; matmuls reach {at_best:.0f} TFLOP/s, {reached:.0f} on end\n\n{head}")
        (encode if what == "encode" else train)(model, arguments, reached)
        del model
        if arguments.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
