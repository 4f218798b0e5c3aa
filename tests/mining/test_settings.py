"""What does not go together is refused before anything is read or encoded."""

import re

import pytest

from embedsmith.errors import SettingsError
from embedsmith.mining.settings import MiningSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teachers": ["bm25"], "neighbour": 0.5}, "neighbour: none of the teachers has vectors (bm25)"),
        (
            {"teachers": ["bm25", "random"], "neighbour_ratio": 1},
            "neighbour_ratio: none of the teachers has vectors (bm25, random)",
        ),
        ({"teachers": ["bm25"], "ensemble": "pca"}, "ensemble: pca: none of the teachers has vectors (bm25)"),
        ({"teachers": ["cross-encoder:x"]}, "teachers: cross-encoder:x only rescores"),
        ({"method": "twodistances"}, "method: twodistances compares distances in joined vectors"),
        ({"veto_deviations": 2}, "veto_deviations: asks another teacher than the first, and there is only package:"),
        ({"teachers": ["bm25", "bm25"]}, "a teacher is named twice"),
        ({"teachers": ["bm25"], "weights": [1, 2]}, "weights: 2 for 1 teachers"),
    ],
)
def test_settings_that_do_not_go_together_are_one_short_line(values: dict, message: str):
    with pytest.raises(SettingsError, match=re.escape(f"recipe.yaml: {message}")) as caught:
        MiningSettings.parse(values, where="recipe.yaml")
    assert "got {" not in str(caught.value)


def test_settings_that_go_together_are_taken():
    both = MiningSettings(teachers=["bm25", "./model"], neighbour=0.5, ensemble="pca", veto_deviations=2)
    assert MiningSettings(teachers=["bm25", "cross-encoder:x"], veto_deviations=2).depth == both.depth
