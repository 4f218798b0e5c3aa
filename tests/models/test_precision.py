"""What a processor computes in is asked in one place, and every answer leads to vectors."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import embedsmith
from embedsmith.models import precision
from embedsmith.models.precision import has_bfloat16, mixes, resolve_dtype

SHORT, LONG = torch.bfloat16, torch.float32
NAMES = {"get_capabilities", "get_cpu_capability", "is_bf16_supported", "mkldnn"}
"""Where torch tells of the hardware."""


@pytest.mark.parametrize(
    ("dtype", "device", "has", "computed", "is_mixed"),
    [
        ("auto", "cpu", True, SHORT, True),
        ("auto", "cpu", False, LONG, False),
        ("bfloat16", "cpu", True, SHORT, True),
        ("bfloat16", "cpu", False, LONG, False),
        ("float32", "cpu", True, LONG, False),
        ("float32", "cpu", False, LONG, False),
        ("float16", "cpu", False, torch.float16, False),
        ("int8", "cpu", True, LONG, False),
        ("auto", "cuda:1", True, SHORT, False),
        ("auto", "cuda", False, LONG, False),
        ("bfloat16", "cuda", False, SHORT, False),  # half the memory, and a GPU makes do
        ("auto", "mps", True, SHORT, False),
        ("auto", "mps", False, LONG, False),
        ("bfloat16", "mps", False, LONG, False),
    ],
)
def test_a_precision_is_computed_in_what_the_device_has(monkeypatch, dtype, device, has, computed, is_mixed):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    monkeypatch.setattr(precision, "multiplies_right", lambda dtype, device: has)
    monkeypatch.setattr("sentence_transformers.util.get_device_name", lambda: device)
    for named in (device, None):
        assert resolve_dtype(dtype, named) is computed
        assert mixes(dtype, named) == is_mixed


def test_the_hardware_is_asked_in_one_place():
    package = Path(embedsmith.__file__).parent
    asking = {
        (path.relative_to(package).as_posix(), ast.unparse(node))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in NAMES
    }
    # `compat` wraps an operator and a list of capabilities; only `precision` calls the wrappers.
    others = {(path, said) for path, said in asking if path != "models/precision.py"}
    assert others == {("models/compat.py", name) for name in ("torch.ops.mkldnn", "torch.cpu.get_capabilities")}
    assert asking != others


@pytest.mark.parametrize(
    ("capabilities", "onednn", "has"),
    [
        ({"avx512_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),  # ONEDNN_MAX_CPU_ISA, or a build without it
        ({"avx512_bf16": False, "avx512_f": True}, True, False),  # it would make float32 of it, and be slower
        ({"avx512_bf16": False, "neon": True}, True, False),
    ],
)
def test_bfloat16_is_there_where_processor_and_library_have_it(monkeypatch, capabilities, onednn, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(precision, "onednn_multiplies", lambda dtype: onednn)
    assert has_bfloat16("cpu") == has


def test_a_product_that_the_library_refuses_is_not_asked_for_again(monkeypatch):
    asked = []

    def refuse(*_):
        asked.append(1)
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", refuse, raising=False)
    precision.onednn_multiplies.cache_clear()
    try:
        assert not any(precision.onednn_multiplies(dtype) for dtype in (SHORT, LONG, SHORT, LONG))
        assert len(asked) == 2
    finally:
        precision.onednn_multiplies.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="what torch does not tell is known on Linux alone")
def test_a_torch_that_tells_less_of_the_processor_is_enough(monkeypatch):
    """Torch 2.6 has no `get_capabilities`, and another that has it may not tell the name."""
    answers = has_bfloat16("cpu"), True
    assert precision.cpu_name()  # torch and Linux may call it by two names
    notes = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    nameless = {name: value for name, value in notes.items() if name != "cpu_name"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: nameless, raising=False)
    assert (has_bfloat16("cpu"), bool(precision.cpu_name())) == answers
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert (has_bfloat16("cpu"), bool(precision.cpu_name())) == answers


ON_A_SMALL_PROCESSOR = """
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from embedsmith.data.examples import Example, Passage
from embedsmith.models.opening import load
from embedsmith.models.precision import has_bfloat16
from embedsmith.models.precision import SHORT_TEXT
from embedsmith.models.settings import StudentSettings
from embedsmith.models.opening import build_student
from embedsmith.serving.encode import encode
from embedsmith.serving.export import export
from embedsmith.topk.exact import top_k
from embedsmith.training.batches import Source
from embedsmith.training.settings import StageSettings
from embedsmith.training.stage import train_stage

folder = Path(sys.argv[2])
texts = ["where is the parser", "g", "", *("the dog sat on the log, " * n for n in (2, 9, 20))]
assert torch.backends.cpu.get_cpu_capability() == "AVX2"
assert not has_bfloat16("cpu")

sizes = {"attention": "bidirectional", "pooling": "latent", "latents": 4, "heads": 2, "head_width": 8}
student = build_student(StudentSettings(name=sys.argv[1], **sizes), device="cpu")
student.save(str(folder / "long"))
exported = export(folder / "long", out=folder / "short", dtype="bfloat16")
assert exported.largest_difference == 0.0
assert {weight.dtype for weight in load_file(folder / "short" / "model.safetensors").values()} == {torch.bfloat16}
rounded = load(str(folder / "short"), device="cpu")
for name, right in (("long", student), ("short", rounded)):
    for dtype in ("auto", "bfloat16", "float32"):
        model = load(str(folder / name), dtype=dtype, device="cpu")
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        for role in SHORT_TEXT:
            assert np.array_equal(model.embed(texts, role), right.embed(texts, role))
            assert model.contract(role)["dtype"] == "torch.float32"

# Whoever makes a model of bfloat16 all the same gets vectors.
short = load(str(folder / "short"), device="cpu").to(torch.bfloat16)
assert np.abs(short.embed(texts, "query") - rounded.embed(texts, "query")).max() < 0.05

(folder / "texts.txt").write_text("a text\\nanother\\n", encoding="utf-8")
encode(folder / "short", folder / "texts.txt", out=folder / "vectors.npy", dtype="bfloat16")

pairs = [Example(f"q{i}", f"query {i}", [Passage(f"p{i}", f"passage {i}")], []) for i in range(8)]
losses = []
for dtype in ("float32", "bfloat16"):
    stage = StageSettings(steps=2, batch_size=4, dtype=dtype, report_to="none", lora_rank=int(sys.argv[3]))
    model = load(str(folder / "long"), device="cpu")
    reports = train_stage(model, [Source("toy", pairs, prompt="")], stage, folder=folder / dtype, seed=7)
    losses.append([(report.loss, report.gradient_norm) for report in reports])
assert losses[0] == losses[1]

vectors = np.random.default_rng(0).standard_normal((600, 24)).astype(np.float32)
rows, _ = top_k(vectors[:50], vectors, k=10)
wanted = (vectors[:50].astype(np.float64) @ vectors.T.astype(np.float64)).argsort(axis=1)[:, :-11:-1]
assert np.array_equal(rows, wanted)
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no processor with AVX2")
def test_a_processor_with_avx2_alone_loads_encodes_exports_trains_and_searches(tiny_llama, tmp_path):
    small = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    rank = 4 if importlib.util.find_spec("peft") else 0
    done = subprocess.run(
        [sys.executable, "-c", ON_A_SMALL_PROCESSOR, str(tiny_llama), str(tmp_path), str(rank)],
        env={**os.environ, **small, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


SHAPES = """
import os
import torch
from embedsmith.models.precision import limit_onednn_cache

before = dict(os.environ)
limit_onednn_cache()
assert dict(os.environ) == before
for _ in range(2):
    print("again", flush=True)
    for rows in range(1, 101):
        torch.ops.mkldnn._linear_pointwise(torch.ones(rows, 16), torch.ones(8, 16), None, "none", [], "")
"""


@pytest.mark.skipif(not precision.onednn_multiplies(LONG), reason="torch without oneDNN")
def test_the_code_of_few_products_is_kept_and_the_environment_stays_as_it_was():
    given = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    given |= {"ONEDNN_VERBOSE": "2"}
    done = subprocess.run([sys.executable, "-c", SHAPES], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *_, last = done.stdout.split("again")
    assert last.count("cache_miss") == 100 and "cache_hit" not in last


def test_a_number_that_the_user_has_chosen_is_left_alone(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "500")
    monkeypatch.setattr(torch.Tensor, "to_mkldnn", None)
    precision.limit_onednn_cache.cache_clear()
    try:
        precision.limit_onednn_cache()
    finally:
        precision.limit_onednn_cache.cache_clear()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "500"
