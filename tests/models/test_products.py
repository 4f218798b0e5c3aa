"""Products by oneDNN are those of float32, and take the place of MKL's where they are meant to."""

import contextlib

import numpy as np
import pytest
import torch
from torch.nn import functional

from embedsmith.models import embedder, products
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
TEXTS = ["where is the parser", "s", "", "the cat sat on the mat and the dog sat on the log, " * 3]


@needs_onednn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 7), (5, 7), (2, 3, 7), (7,), (0, 7), (2, 0, 7)])
def test_a_product_is_float64s_to_the_precision_of_float32(shape, with_bias):
    numbers = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=numbers) for size in (shape, (11, 7), (11,)))
    right = states.double() @ weight.double().T + (bias.double() if with_bias else 0)
    with torch.inference_mode(), products.WideProducts():
        found = functional.linear(states, weight, bias if with_bias else None)
        turned = functional.linear(states.flip(-1).clone().flip(-1), weight, bias=bias if with_bias else None)
    assert found.dtype == torch.float32
    assert found.shape == right.shape
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned, found, rtol=0, atol=0)


@needs_onednn
def test_what_is_not_contiguous_is_multiplied_as_it_reads():
    wide = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))[::2]
    with torch.inference_mode(), products.WideProducts():
        found = functional.linear(wide.T, weight)
    torch.testing.assert_close(found, wide.T.contiguous() @ weight.contiguous().T)


def test_shorter_types_stay_with_torch(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    states, weight = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(4, 3, dtype=torch.bfloat16)
    with products.WideProducts():
        assert functional.linear(states, weight).tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize(
    ("maker", "capability", "device", "wide"),
    [
        ("AMD EPYC 9654", "AVX512", "cpu", True),
        ("AMD EPYC 7742", "AVX2", "cpu", False),
        ("Intel(R) Xeon(R) Platinum", "AVX512", "cpu", False),
        ("AMD EPYC 9654", "AVX512", "cuda", False),
    ],
)
def test_it_is_for_amds_processors_with_avx512(monkeypatch, maker, capability, device, wide):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": maker})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert isinstance(products.fast_products(torch.device(device)), products.WideProducts) == wide


@needs_onednn
@pytest.mark.parametrize("pooling", ["mean", "latent", "multi-layer"])
def test_vectors_are_the_same_by_either_library(tiny_llama, monkeypatch, pooling):
    sizes = {"latents": 4, "heads": 2, "head_width": 8}
    settings = StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling=pooling, **sizes)
    student = build_student(settings, device="cpu")
    monkeypatch.setattr(embedder, "fast_products", lambda device: contextlib.nullcontext())
    by_mkl = student.embed(TEXTS, "passage")
    asked = []
    wide = products.WideProducts

    def counted(device):
        asked.append(device.type)
        return wide()

    monkeypatch.setattr(embedder, "fast_products", counted)
    np.testing.assert_allclose(student.embed(TEXTS, "passage"), by_mkl, rtol=0, atol=1e-6)
    assert asked == ["cpu"]
