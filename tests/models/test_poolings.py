"""Poolings against the formulas written out, text by text, with their gradients, on both sides of the padding."""

import math

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedsmith.models.modeling_embedsmith import MultiLayerPooling, SelfAttentionPooling
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings

D, R, H, W, L = 6, 5, 2, 3, 4
MASKS = {
    "whole": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    "right padding": [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
    "left padding": [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]],
    "an instruction left out and right padding": [[0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]],
}
TEXTS = ["where is the parser", "10 times 100", " the cat", "the dog sat on the log, " * 4]


class Slow:
    """The two blocks of a trained pooling, a token and a head at a time."""

    def __init__(self, weights):
        self.weights = {name.removeprefix("cross_attend_blocks."): value for name, value in weights.items()}

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, token, context):
        query = self.weights["0.fn.to_q.weight"] @ self.norm(token, "0.norm")
        both = [self.weights["0.fn.to_kv.weight"] @ self.norm(row, "0.norm_context") for row in context]
        heads = []
        for head in range(H):
            part = slice(head * W, (head + 1) * W)
            share = torch.stack([(row[: H * W][part] @ query[part] * W**-0.5).exp() for row in both])
            share = share / share.sum()
            heads.append(sum(weight * row[H * W :][part] for weight, row in zip(share, both, strict=True)))
        return self.weights["0.fn.to_out.weight"] @ torch.cat(heads)

    def feed_forward(self, token):
        first, second = "1.fn.net.0", "1.fn.net.2"
        both = self.weights[f"{first}.weight"] @ self.norm(token, "1.norm") + self.weights[f"{first}.bias"]
        value, gate = both[: 4 * D], both[4 * D :]
        gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        return self.weights[f"{second}.weight"] @ (value * gelu) + self.weights[f"{second}.bias"]

    def blocks(self, tokens, context):
        states = [self.attend(token, context) + token for token in tokens]
        return torch.stack([self.feed_forward(state) + state for state in states])


def kept(states, mask):
    return torch.stack([state for state, is_kept in zip(states, mask, strict=True) if is_kept])


def slow_weighted_mean(weights, layers, mask):
    vectors = []
    for text, pooled in zip(layers[-1], mask, strict=True):
        own = kept(text, pooled)
        vectors.append(sum((n + 1) * state for n, state in enumerate(own)) / sum(range(1, len(own) + 1)))
    return torch.stack(vectors)


def slow_last(weights, layers, mask):
    return torch.stack([kept(text, pooled)[-1] for text, pooled in zip(layers[-1], mask, strict=True)])


def slow_mean(weights, layers, mask):
    return torch.stack([kept(text, pooled).mean(0) for text, pooled in zip(layers[-1], mask, strict=True)])


def slow_self_attention(weights, layers, mask):
    texts = [kept(text, pooled) for text, pooled in zip(layers[-1], mask, strict=True)]
    return torch.stack([Slow(weights).blocks(text, text).mean(0) for text in texts])


def slow_multi_layer(weights, layers, mask, *, last):
    vectors = []
    for text, pooled in enumerate(mask):
        own = [kept(layer[text], pooled) for layer in layers[1:]]  # layer 0 are the embeddings
        own = [states[-1] if last else states.mean(0) for states in own]
        own = [vector + weights["layer_embeddings"][n] for n, vector in enumerate(own)]
        vectors.append(Slow(weights).blocks(weights["latents"], own).mean(0))
    return torch.stack(vectors)


POOLINGS = {
    "mean": (lambda: Pooling(D, "mean"), slow_mean),
    "weighted mean": (lambda: Pooling(D, "weightedmean"), slow_weighted_mean),
    "last": (lambda: Pooling(D, "lasttoken"), slow_last),
    "self-attention": (lambda: SelfAttentionPooling(D, heads=H, head_width=W), slow_self_attention),
    "multi-layer, means": (
        lambda: MultiLayerPooling(D, L, latents=R, heads=H, head_width=W),
        lambda *given: slow_multi_layer(*given, last=False),
    ),
    "multi-layer, last tokens": (
        lambda: MultiLayerPooling(D, L, latents=R, heads=H, head_width=W, of_layer="last"),
        lambda *given: slow_multi_layer(*given, last=True),
    ),
}


TRAINED = [name for name in POOLINGS if "mean" not in name.split(",")[0] and name != "last"]


@pytest.fixture(params=POOLINGS)
def pair(request):
    return made(request.param)


def made(name):
    build, slow = POOLINGS[name]
    torch.manual_seed(0)
    module = build().double()
    for parameter in module.parameters():  # norms begin as ones and zeros, which would hide a swap
        torch.nn.init.normal_(parameter, std=0.7)
    return module, slow


def run(module, layers, mask):
    features = {"token_embeddings": layers[-1], "all_layer_embeddings": tuple(layers), "attention_mask": mask}
    return module(features)["sentence_embedding"]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_vectors_and_gradients_equal_the_formulas(pair, mask):
    module, slow = pair
    mask = torch.tensor(mask)
    layers = [torch.randn(3, 4, D, dtype=torch.float64, requires_grad=True) for _ in range(L + 1)]
    direction = torch.randn(3, D, dtype=torch.float64)
    wanted = [layers[-1], *([] if len(list(module.parameters())) == 0 else layers[1:2]), *module.parameters()]

    vectors = run(module, layers, mask)
    gradients = torch.autograd.grad((vectors * direction).sum(), wanted, allow_unused=True)
    expected = slow(dict(module.named_parameters()), layers, mask.tolist())
    right = torch.autograd.grad((expected * direction).sum(), wanted, allow_unused=True)

    # 1e-6: means are taken in float32, whatever the states are.
    torch.testing.assert_close(vectors, expected, rtol=1e-6, atol=1e-6)
    for got, wanted_gradient in zip(gradients, right, strict=True):
        assert (got is None) == (wanted_gradient is None)
        if got is not None:
            torch.testing.assert_close(got, wanted_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
@pytest.mark.parametrize("name", TRAINED)
def test_what_stands_in_padding_never_reaches_a_trained_pool(name, garbage):
    module, _ = made(name)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1]])
    layers = [torch.randn(2, 4, D, dtype=torch.float64) for _ in range(L + 1)]
    spoiled = [torch.where(mask.bool()[..., None], layer, torch.full_like(layer, garbage)) for layer in layers]
    assert torch.equal(run(module, layers, mask), run(module, spoiled, mask))


def test_a_text_of_no_token_has_a_finite_vector():
    module = SelfAttentionPooling(D, heads=H)
    vector = run(module, [torch.randn(1, 3, D)], torch.zeros(1, 3, dtype=torch.long))
    assert torch.isfinite(vector).all()


STUDENTS = ["weighted-mean", "self-attention", "multi-layer"]


@pytest.fixture(scope="module", params=STUDENTS)
def student(request, tiny_llama):
    settings = {"latents": 4, "heads": 2, "head_width": 8, "instruction": "find the code"}
    return build_student(StudentSettings(name=str(tiny_llama), pooling=request.param, **settings), device="cpu")


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_student_has_the_same_vectors_for_any_batch_and_padding(student, side, monkeypatch):
    monkeypatch.setattr(student.tokenizer, "padding_side", side)
    for role in ("query", "passage"):
        alone = np.concatenate([student.embed([text], role) for text in TEXTS])
        np.testing.assert_allclose(student.embed(TEXTS, role), alone, atol=1e-5)


def test_a_student_travels_with_its_pooling(student, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "code"))
    student.save(str(tmp_path / "model"))
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    here = load(str(tmp_path / "model"), device="cpu")
    assert here.contract("query")["modules"] == student.contract("query")["modules"]
    np.testing.assert_allclose(here.embed(TEXTS, "query"), student.embed(TEXTS, "query"), atol=1e-5)
    np.testing.assert_allclose(plain.encode_query(TEXTS), student.embed(TEXTS, "query"), atol=1e-5)


@pytest.mark.parametrize(("attention", "of_layer"), [("bidirectional", "mean"), ("causal", "last")])
def test_a_layers_vector_is_its_mean_or_where_attention_is_causal_its_last_token(tiny_llama, attention, of_layer):
    settings = StudentSettings(name=str(tiny_llama), pooling="multi-layer", attention=attention, layers=2, latents=4)
    pooling = build_student(settings, device="cpu")[1]
    assert (pooling.of_layer, pooling.layers) == (of_layer, 2)
