"""Latent-attention pooling against the formulas written out, text by text."""

import math

import pytest
import torch

from embedsmith.models.modeling_embedsmith import LatentAttentionPooling

D, R, H, W = 6, 5, 2, 3


def slow_pooling(weights: dict, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """h = attn(LN(h), LN(latents)) + h;  h = geglu(LN(h)) + h;  mean over the mask: one token at a time."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(token):
        context = norm(weights["latents"], "cross_attend_blocks.0.norm_context")
        query = weights["cross_attend_blocks.0.fn.to_q.weight"] @ norm(token, "cross_attend_blocks.0.norm")
        both = context @ weights["cross_attend_blocks.0.fn.to_kv.weight"].T
        keys, values = both[:, : H * W], both[:, H * W :]
        heads = []
        for head in range(H):
            part = slice(head * W, (head + 1) * W)
            share = (keys[:, part] @ query[part] * W**-0.5).exp()
            heads.append((share / share.sum()) @ values[:, part])
        return weights["cross_attend_blocks.0.fn.to_out.weight"] @ torch.cat(heads)

    def feed_forward(token):
        first, second = "cross_attend_blocks.1.fn.net.0", "cross_attend_blocks.1.fn.net.2"
        both = weights[f"{first}.weight"] @ norm(token, "cross_attend_blocks.1.norm") + weights[f"{first}.bias"]
        value, gate = both[: 4 * D], both[4 * D :]
        gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        return weights[f"{second}.weight"] @ (value * gelu) + weights[f"{second}.bias"]

    vectors = []
    for text, pooled in zip(hidden, mask, strict=True):
        states = []
        for token, is_pooled in zip(text, pooled, strict=True):
            if is_pooled:
                state = attend(token) + token
                states.append(feed_forward(state) + state)
        vectors.append(torch.stack(states).mean(0))
    return torch.stack(vectors)


@pytest.fixture
def pooling() -> LatentAttentionPooling:
    torch.manual_seed(0)
    module = LatentAttentionPooling(D, latents=R, heads=H, head_width=W).double()
    for parameter in module.parameters():  # norms begin as ones and zeros, which would hide a swap
        torch.nn.init.normal_(parameter, std=0.7)
    return module


MASKS = {
    "whole": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    "right padding": [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
    "left padding": [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]],
    "an instruction left out and right padding": [[0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_vectors_and_gradients_equal_the_formulas(pooling, mask):
    mask = torch.tensor(mask)
    hidden = torch.randn(3, 4, D, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(3, D, dtype=torch.float64)
    wanted = [hidden, *pooling.parameters()]

    features = {"token_embeddings": hidden, "attention_mask": mask}
    vectors = pooling(features)["sentence_embedding"]
    gradients = torch.autograd.grad((vectors * direction).sum(), wanted)
    expected = slow_pooling(dict(pooling.named_parameters()), hidden, mask)
    expected_gradients = torch.autograd.grad((expected * direction).sum(), wanted)

    # 1e-6: the mean is taken in float32, whatever the states are.
    torch.testing.assert_close(vectors, expected, rtol=1e-6, atol=1e-6)
    for got, right in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_what_stands_in_padding_never_reaches_a_vector(pooling, garbage):
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1]])
    hidden = torch.randn(2, 4, D, dtype=torch.float64)
    spoiled = torch.where(mask.bool()[..., None], hidden, torch.full_like(hidden, garbage))
    vectors = [
        pooling({"token_embeddings": x, "attention_mask": mask})["sentence_embedding"] for x in (hidden, spoiled)
    ]
    assert torch.equal(*vectors)


def test_a_text_has_the_same_vector_with_neighbours_and_alone(pooling):
    hidden = torch.randn(3, 4, D, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    together = pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    for text in range(3):
        tokens = hidden[text, mask[text].bool()].unsqueeze(0)
        ones = torch.ones(tokens.shape[:2], dtype=torch.long)
        alone = pooling({"token_embeddings": tokens, "attention_mask": ones})["sentence_embedding"]
        torch.testing.assert_close(alone[0], together[text], rtol=1e-6, atol=1e-6)


def test_parameter_names_and_shapes_are_those_of_the_released_checkpoint(pooling):
    assert {name: tuple(tensor.shape) for name, tensor in pooling.state_dict().items()} == {
        "latents": (R, D),
        "cross_attend_blocks.0.norm.weight": (D,),
        "cross_attend_blocks.0.norm.bias": (D,),
        "cross_attend_blocks.0.norm_context.weight": (D,),
        "cross_attend_blocks.0.norm_context.bias": (D,),
        "cross_attend_blocks.0.fn.to_q.weight": (H * W, D),
        "cross_attend_blocks.0.fn.to_kv.weight": (2 * H * W, D),
        "cross_attend_blocks.0.fn.to_out.weight": (D, H * W),
        "cross_attend_blocks.1.norm.weight": (D,),
        "cross_attend_blocks.1.norm.bias": (D,),
        "cross_attend_blocks.1.fn.net.0.weight": (8 * D, D),
        "cross_attend_blocks.1.fn.net.0.bias": (8 * D,),
        "cross_attend_blocks.1.fn.net.2.weight": (D, 4 * D),
        "cross_attend_blocks.1.fn.net.2.bias": (D,),
    }


def test_the_released_size_has_740_million_parameters():
    with torch.device("meta"):
        released = LatentAttentionPooling(4096)  # 512 latents, 8 heads, each of the full width
    assert sum(parameter.numel() for parameter in released.parameters()) == 740_356_096


def test_a_module_saved_and_opened_again_is_the_same(pooling, tmp_path):
    folder = tmp_path / "1_LatentAttentionPooling"
    folder.mkdir()
    pooling.float().save(str(folder))
    again = LatentAttentionPooling.load(str(tmp_path), subfolder=folder.name)
    assert again.get_config_dict() == {"embedding_dimension": D, "latents": R, "heads": H, "head_width": W}
    assert again.get_embedding_dimension() == D
    for name, tensor in pooling.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
