"""InfoNCE against the formula written with `math.exp`, and its gradient against the formula's."""

import math

import pytest
import torch

from embedsmith.training.losses import in_batch_accuracy, info_nce

B, U, D = 4, 7, 5


def slow_info_nce(queries, passages, positive, allowed, temperature) -> float:
    losses = []
    for b in range(len(queries)):
        score = [sum(q * p for q, p in zip(queries[b], passage, strict=True)) / temperature for passage in passages]
        denominator = sum(math.exp(s) for u, s in enumerate(score) if allowed[b][u])
        losses.append(-math.log(math.exp(score[positive[b]]) / denominator))
    return sum(losses) / len(losses)


@pytest.fixture(params=range(4))
def batch(request):
    torch.manual_seed(request.param)
    queries = torch.nn.functional.normalize(torch.randn(B, D), dim=1)
    passages = torch.nn.functional.normalize(torch.randn(U, D), dim=1)
    positive = torch.randint(U, (B,))
    allowed = torch.rand(B, U) < 0.6
    allowed[torch.arange(B), positive] = True
    return queries, passages, positive, allowed


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("everything", [True, False])
def test_the_loss_equals_the_formula(batch, temperature, everything):
    queries, passages, positive, allowed = batch
    allowed = torch.ones_like(allowed) if everything else allowed
    loss = info_nce(queries, passages, positive=positive, allowed=allowed, temperature=temperature)
    expected = slow_info_nce(queries.tolist(), passages.tolist(), positive.tolist(), allowed.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_the_share_of_each_passage_less_the_positive(batch):
    """dL/dq_b = (sum over allowed u of p(u|b) passage_u - passage_positive) / (t B), and likewise for passages."""
    queries, passages, positive, allowed = batch
    queries.requires_grad_(), passages.requires_grad_()
    temperature = 0.1
    info_nce(queries, passages, positive=positive, allowed=allowed, temperature=temperature).backward()

    off = torch.zeros(B, U)
    for b in range(B):
        weights = {
            u: math.exp(float(queries[b].detach() @ passages[u].detach()) / temperature)
            for u in range(U)
            if allowed[b, u]
        }
        for u, weight in weights.items():
            off[b, u] = weight / sum(weights.values())
        off[b, positive[b]] -= 1
    off = off / (temperature * B)
    torch.testing.assert_close(queries.grad, off @ passages.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(passages.grad, off.T @ queries.detach(), rtol=1e-4, atol=1e-5)


def test_a_masked_passage_changes_nothing_and_gets_no_gradient(batch):
    queries, passages, positive, allowed = batch
    masked = 0
    positive = torch.where(positive == masked, 1, positive)
    allowed[:, 1], allowed[:, masked] = True, False
    passages.requires_grad_()
    loss = info_nce(queries, passages, positive=positive, allowed=allowed, temperature=0.05)
    loss.backward()
    assert not passages.grad[masked].any()
    spoiled = passages.detach().clone()
    spoiled[masked] = 1e6
    assert info_nce(queries, spoiled, positive=positive, allowed=allowed, temperature=0.05).item() == loss.item()


def test_a_query_contrasted_with_nothing_has_no_loss():
    one = torch.eye(2)
    assert info_nce(one, one, positive=torch.arange(2), allowed=torch.eye(2, dtype=torch.bool), temperature=0.05) == 0


def test_a_positive_that_is_masked_is_our_own_mistake():
    nobody = torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(AssertionError, match="must be in its denominator"):
        info_nce(torch.eye(2), torch.eye(2), positive=torch.arange(2), allowed=nobody, temperature=1.0)


def test_bfloat16_vectors_are_compared_in_float32(batch):
    queries, passages, positive, allowed = batch
    arguments = {"positive": positive, "allowed": allowed, "temperature": 0.02}
    half = info_nce(queries.bfloat16(), passages.bfloat16(), **arguments)
    exact = info_nce(queries.bfloat16().float(), passages.bfloat16().float(), **arguments)
    assert half.dtype == torch.float32
    assert half.item() == exact.item()


def test_accuracy_is_the_share_of_queries_whose_positive_comes_first():
    queries = torch.eye(3)
    passages = torch.tensor([[0.9, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.1]])
    positive, everything = torch.arange(3), torch.ones(3, 3, dtype=torch.bool)
    assert in_batch_accuracy(queries, passages, positive=positive, allowed=everything) == pytest.approx(2 / 3)
    without = everything.clone()
    without[0, 1] = False
    assert in_batch_accuracy(queries, passages, positive=positive, allowed=without) == 1
