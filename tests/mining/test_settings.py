"""What does not go together is refused before anything is read or encoded."""

import math
import re

import pytest

from embedsmith.errors import SettingsError
from embedsmith.mining.settings import MiningSettings, SelectionSettings


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
        (
            {"sampler": "window", "window_first": 150, "window_last": 200},
            "window_first: 150 lies behind all candidates",
        ),
        ({"sampler": "window", "depth": 20}, "window_first: 30 lies behind all candidates, 20; raise depth"),
        ({"method": "shifted", "shift": 9, "depth": 9}, "shift: 9 leaves out all candidates, 9; raise depth"),
    ],
)
def test_settings_that_do_not_go_together_are_one_short_line(values: dict, message: str):
    with pytest.raises(SettingsError, match=re.escape(f"recipe.yaml: {message}")) as caught:
        MiningSettings.parse(values, where="recipe.yaml")
    assert "got {" not in str(caught.value)


def test_settings_that_go_together_are_taken():
    both = MiningSettings(teachers=["bm25", "./model"], neighbour=0.5, ensemble="pca", veto_deviations=2)
    assert MiningSettings(teachers=["bm25", "cross-encoder:x"], veto_deviations=2).depth == both.depth


@pytest.mark.parametrize("settings", [MiningSettings, SelectionSettings])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": [0]}, "weights: all are 0"),
        ({"weights": [0.0, 0.0]}, "weights: all are 0"),
        ({"weights": [2, -1]}, "weights: a teacher's weight is -1"),
        ({"window_first": 5, "window_last": 2}, "window_first: 5 lies behind window_last, 2"),
        ({"window_first": 101}, "window_first: 101 lies behind window_last, 100"),
        ({"method": "percpos+abs", "floor": 0.7}, "floor: no score reaches 0.7 and stays under the threshold, 0.7"),
    ],
)
def test_values_that_leave_no_negative_are_refused_whoever_selects(
    settings: type[SelectionSettings], values: dict, message: str
):
    with pytest.raises(SettingsError, match=re.escape(f"recipe.yaml: {message}")):
        settings.parse(values, where="recipe.yaml")


NUMBERS = sorted(name for name, field in MiningSettings.model_fields.items() if "float" in str(field.annotation))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_mining_is_finite(name: str, value: float):
    assert len(NUMBERS) >= 10
    given = [value] if name == "weights" else value
    with pytest.raises(SettingsError, match=rf"^recipe.yaml(\.{name})?: ({name}|0): Input should be"):
        MiningSettings.parse({name: given}, where="recipe.yaml")


def test_a_sampler_s_window_and_a_shift_count_the_candidates_of_all_teachers():
    two = {"teachers": ["bm25", "random"], "depth": 20}
    assert MiningSettings(**two, sampler="window").window_first == 30
    assert MiningSettings(**two, method="shifted", shift=39).shift == 39
    # What another sampler or method would need says nothing.
    assert MiningSettings(depth=5).window_first == 30
    assert SelectionSettings(floor=0.9, threshold=0.1).floor == 0.9
