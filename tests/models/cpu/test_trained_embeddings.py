"""Gradients of the rows that were read add up to torch's own of the whole table."""

import pytest
import torch

from embedsmith.models.cpu import trained_embeddings
from embedsmith.models.cpu.trained_embeddings import gradients_of_rows

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_tables_count(monkeypatch):
    monkeypatch.setattr(trained_embeddings, "_LARGE", 20)


def a_table(**settings):
    """Return a table of embeddings and a smaller one, the same numbers every time."""
    torch.manual_seed(0)
    return torch.nn.ModuleList([torch.nn.Embedding(30, 4, **settings), torch.nn.Embedding(5, 4)])


def run(tables, batches):
    """Run forward and back for each batch of tokens."""
    for number, ids in enumerate(batches):
        states = tables[0](ids) + tables[1](ids % 5)
        states.backward(torch.randn(states.shape, generator=torch.Generator().manual_seed(number)))


BATCHES = [torch.tensor([[3, 3, 7], [29, 0, 0]]), torch.tensor([[7, 1, 0]])]


@pytest.mark.parametrize("settings", [{}, {"padding_idx": 0}])
def test_they_add_up_to_the_gradient_of_the_table(settings):
    expected, tables = a_table(**settings), a_table(**settings)
    for _ in range(2):  # the second block adds to what the first has left
        run(expected, BATCHES)
        with gradients_of_rows(tables, CPU):
            run(tables, BATCHES)
    for table, other in zip(tables, expected, strict=True):
        assert not table.weight.grad.is_sparse
        torch.testing.assert_close(table.weight.grad, other.weight.grad)


def test_no_gradient_of_the_whole_table_is_made():
    tables, made = a_table(), []
    tables[0].weight.register_hook(lambda gradient: made.append(gradient.is_sparse))
    with gradients_of_rows(tables, CPU):
        run(tables, BATCHES)
    run(tables, BATCHES)
    assert made == [True, True, False, False]


@pytest.mark.parametrize(
    "left", ["frozen", "elsewhere", "counted"], ids=["a frozen table", "a GPU's", "one that counts tokens"]
)
def test_others_are_left_as_they_are(left):
    tables = a_table(scale_grad_by_freq=left == "counted").requires_grad_(left != "frozen")
    with gradients_of_rows(tables, torch.device("cuda" if left == "elsewhere" else "cpu")):
        assert not tables[0].sparse
        assert tables[0].weight.grad is None


def test_tables_are_as_before_after_the_block():
    tables = a_table()
    with pytest.raises(KeyError), gradients_of_rows(tables, CPU):
        assert tables[0].sparse
        assert not tables[1].sparse
        raise KeyError
    assert not tables[0].sparse
