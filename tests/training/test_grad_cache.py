"""GradCache on a small network with dropout: the gradient is the whole batch's, whatever is kept."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from embedsmith.models.cpu.trained_matmul import shared_short
from embedsmith.training.chunks import Chunk, copied_bytes
from embedsmith.training.grad_cache import ActivationMemory, GradCache
from embedsmith.training.processes import Processes

WIDTHS = [9, 8, 5, 2]
TEXTS, D = 12, 6


class Network(torch.nn.Module):
    """The mean of token vectors, with dropout, and one weight that every text uses twice."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 16)
        self.hidden = torch.nn.Linear(16, 16)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(16, D)

    def forward(self, ids):
        states = self.dropout(torch.tanh(self.hidden(self.dropout(torch.tanh(self.hidden(self.embedding(ids)))))))
        return self.head(states.mean(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def chunks():
    """Four chunks of three texts each, wider ones first, their rows scattered over the step."""
    torch.manual_seed(1)
    rows = torch.randperm(TEXTS).split(3)
    return [
        Chunk(own, {"ids": torch.randint(50, (3, width))}, 3, width) for own, width in zip(rows, WIDTHS, strict=True)
    ]


def loss_of(vectors):
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    return torch.nn.functional.cross_entropy(vectors[:4] @ vectors[4:].T / 0.1, torch.arange(4))


def gradients_of(network, *, limit=float("inf"), processes=None, rank_of=None, batch=3, at_once=1):
    """Return loss and gradients of one batch."""
    network = copy.deepcopy(network)
    cache = GradCache(
        network,
        lambda chunk: network(chunk.features["ids"]),
        seed=5,
        memory=ActivationMemory(limit, at_once=at_once),
        processes=processes or Processes(),
        dimensions=D,
    )
    loss = cache.run(chunks(), loss_of, batch=batch, device=torch.device("cpu"))
    return loss, {name: parameter.grad for name, parameter in network.named_parameters()}, cache


def draws(number):
    import numpy as np

    return int(np.random.SeedSequence((5, 3, number)).generate_state(1, np.uint64)[0]) >> 1


def test_the_gradient_is_that_of_one_graph_over_the_whole_batch(network):
    whole = copy.deepcopy(network)
    vectors = torch.zeros(TEXTS, D)
    for number, chunk in enumerate(chunks()):
        torch.manual_seed(draws(number))
        vectors[chunk.rows] = whole(chunk.features["ids"])
    expected = loss_of(vectors)
    expected.backward()
    loss, gradients, _ = gradients_of(network, limit=0.0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-6)


def test_memory_changes_no_bit(network):
    loss, expected, cache = gradients_of(network)
    a_token = cache.memory.bytes_a_token
    assert a_token > 0
    for limit in (0.0, 1.0, a_token * 3 * 18, a_token * 3 * 23):
        other, gradients, _ = gradients_of(network, limit=limit)
        assert torch.equal(loss, other)
        assert all(torch.equal(gradients[name], expected[name]) for name in expected)


@pytest.mark.parametrize("at_once", [2, 3, 7])
@pytest.mark.parametrize("limit", [float("inf"), 0.0, 1000.0])
def test_chunks_at_the_same_time_change_no_bit(network, at_once, limit):
    assert any(isinstance(module, torch.nn.Dropout) and module.p for module in network.modules())
    loss, expected, _ = gradients_of(network, limit=limit)
    for _ in range(5):
        other, gradients, _ = gradients_of(network, limit=limit, at_once=at_once)
        assert torch.equal(loss, other)
        assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def test_chunks_run_at_the_same_time(network):
    both = threading.Barrier(2, timeout=20)
    cache = GradCache(
        network,
        lambda chunk: (both.wait(), network(chunk.features["ids"]))[1],
        seed=5,
        memory=ActivationMemory(0.0, at_once=2),
        processes=Processes(),
        dimensions=D,
    )
    cache.memory.bytes_a_token = 1.0
    cache.run(chunks(), loss_of, batch=3, device=torch.device("cpu"))


def test_as_many_chunks_are_kept_as_leave_room_to_encode_another(network):
    *_, cache = gradients_of(network)
    a_token = cache.memory.bytes_a_token
    tokens = [3 * width for width in WIDTHS]
    for limit, kept in [(24, 4), (23.9, 1), (17.9, 0), (0, 0)]:
        memory = ActivationMemory(limit * 3 * a_token)
        memory.bytes_a_token = a_token
        assert sum(memory.kept(tokens)) == kept


def test_what_a_chunk_takes_is_what_autograd_keeps_of_it():
    memory = ActivationMemory(1e9)
    weight = torch.randn(100, 7, requires_grad=True)
    values = torch.randn(10, 100)
    with memory.measured(Chunk(torch.tensor([0]), {}, 5, 2), {weight.untyped_storage().data_ptr()}):
        (values @ weight).tanh().sum()
    # The product keeps its input and tanh its output; the weights are there anyway.
    assert memory.bytes_a_token == (10 * 100 * 4 + 10 * 7 * 4) / 10


def test_the_random_numbers_of_another_batch_are_others(network):
    one, *_ = gradients_of(network, batch=3)
    again, *_ = gradients_of(network, batch=3)
    other, *_ = gradients_of(network, batch=4)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_gradients_add_up_over_batches(network):
    _, once, _ = gradients_of(network)
    twice = copy.deepcopy(network)
    cache = GradCache(
        twice,
        lambda chunk: twice(chunk.features["ids"]),
        seed=5,
        memory=ActivationMemory(0.0),
        processes=Processes(),
        dimensions=D,
    )
    for _ in range(2):
        cache.run(chunks(), loss_of, batch=3, device=torch.device("cpu"))
    for name, parameter in twice.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])


def test_vectors_without_a_gradient_are_those_of_the_network(network):
    cache = GradCache(
        network.eval(),
        lambda chunk: network(chunk.features["ids"]),
        seed=0,
        memory=ActivationMemory(0.0),
        processes=Processes(),
        dimensions=D,
    )
    vectors = cache.vectors(chunks(), device=torch.device("cpu"))
    assert not vectors.requires_grad
    for chunk in chunks():
        assert torch.equal(vectors[chunk.rows], network(chunk.features["ids"]))


def nothing_shared(network, device):
    return nullcontext()


def in_bfloat16(network, *, limit, block, checkpointed=False):
    """Return the gradients of a batch in bfloat16, and the addresses of the copies of one weight that were kept."""
    network = copy.deepcopy(network)
    network.dropout.p = 0.0
    addresses = []

    def note(tensor):
        if tensor.dtype == torch.bfloat16 and tensor.shape == (16, 16):
            addresses.append(tensor.untyped_storage().data_ptr())
        return tensor

    def encode(chunk):
        with (
            torch.autocast("cpu", torch.bfloat16, cache_enabled=block is nothing_shared),
            torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
        ):
            if checkpointed:
                return checkpoint(network, chunk.features["ids"], use_reentrant=False)
            return network(chunk.features["ids"])

    memory = ActivationMemory(limit)
    memory.bytes_a_token = 1.0
    cache = GradCache(network, encode, seed=5, memory=memory, processes=Processes(), dimensions=D)
    with block(network, torch.device("cpu")):
        cache.run(chunks(), loss_of, batch=3, device=torch.device("cpu"))
    return {name: parameter.grad for name, parameter in network.named_parameters()}, addresses


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("limit", [0.0, 60.0, 1e9])
def test_copies_that_chunks_share_change_no_bit_of_the_gradients(network, limit, checkpointed):
    wanted, _ = in_bfloat16(network, limit=limit, block=nothing_shared, checkpointed=checkpointed)
    found, _ = in_bfloat16(network, limit=limit, block=shared_short, checkpointed=checkpointed)
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in found.values())
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_chunks_that_are_kept_share_one_copy_of_a_weight(network):
    _, apart = in_bfloat16(network, limit=1e9, block=nothing_shared)
    _, together = in_bfloat16(network, limit=1e9, block=shared_short)
    assert len(set(apart)) == len(WIDTHS)
    assert len(set(together)) == 1
    assert copied_bytes(network, torch.device("cpu"), bfloat16=True) == 2 * (16 * 16 + D * 16)


def test_what_all_chunks_share_is_no_chunk_s():
    memory = ActivationMemory(1e9, shared_bytes=80.0)
    values = torch.randn(10, 10, requires_grad=True)
    with memory.measured(Chunk(torch.tensor([0]), {}, 5, 2), set()):
        values.tanh().sum()
    assert memory.bytes_a_token == (10 * 10 * 4 - 80) / 10
