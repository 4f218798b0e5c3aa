"""Ceilings worked out by hand."""

import numpy as np
import pytest

from embedsmith.mining.methods import ceiling, first_rank
from embedsmith.mining.settings import MethodSettings

POSITIVE = [0.8, 0.4, 0.0, -0.2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (MethodSettings(method="naive"), [np.inf] * 4),
        (MethodSettings(method="shifted", shift=3), [np.inf] * 4),
        (MethodSettings(method="abs", threshold=0.7), [0.7] * 4),
        (MethodSettings(method="marginpos", margin=0.05), [0.75, 0.35, -0.05, -0.25]),
        (MethodSettings(method="percpos", ratio=0.95), [0.76, 0.38, 0.0, -0.21]),
        (MethodSettings(method="percpos", ratio=1.0), POSITIVE),
        (MethodSettings(method="percpos", ratio=1.05), [0.84, 0.42, 0.0, -0.19]),
    ],
    ids=lambda value: value.method if isinstance(value, MethodSettings) else "",
)
def test_ceilings_equal_those_worked_out_by_hand(settings, expected):
    positive = np.array(POSITIVE, np.float32)
    got = ceiling(positive, settings)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert positive.tolist() == np.array(POSITIVE, np.float32).tolist()


@pytest.mark.parametrize("method", ["marginpos", "percpos"])
def test_a_stricter_setting_never_lifts_a_ceiling_not_even_of_negative_scores(method):
    positive = np.linspace(-1, 1, 41, dtype=np.float32)
    strict, loose = {
        "marginpos": (MethodSettings(method=method, margin=0.2), MethodSettings(method=method, margin=0.1)),
        "percpos": (MethodSettings(method=method, ratio=0.8), MethodSettings(method=method, ratio=0.9)),
    }[method]
    assert (ceiling(positive, strict) <= ceiling(positive, loose)).all()
    assert (ceiling(positive, loose) <= positive).all()


def test_only_the_shifted_method_leaves_out_the_best():
    ranks = {
        m: first_rank(MethodSettings(method=m, shift=7)) for m in ("naive", "shifted", "abs", "marginpos", "percpos")
    }
    assert ranks == {"naive": 0, "shifted": 7, "abs": 0, "marginpos": 0, "percpos": 0}
