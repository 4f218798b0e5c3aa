"""Training draws from a state of its own."""

import random

import numpy as np
import pytest
import torch
from transformers import set_seed

from embedsmith.training.draws import own_draws


def drawn():
    return random.random(), np.random.random(), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_what_is_drawn_next_is_the_same_as_without_the_block(error):
    @own_draws()
    def stage():
        set_seed(7)
        drawn()
        if error:
            raise error("cut short")

    set_seed(3)
    drawn()
    expected = drawn()
    for _ in range(2):
        set_seed(3)
        drawn()
        if error:
            with pytest.raises(error, match="cut short"):
                stage()
        else:
            stage()
        assert drawn() == expected
