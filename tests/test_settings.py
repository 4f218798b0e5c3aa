"""Settings: frozen, strict about keys, and explained where they do not fit."""

from __future__ import annotations

import importlib
import math
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

import embedsmith
from embedsmith.errors import SettingsError
from embedsmith.models.settings import StudentSettings
from embedsmith.settings import Settings, fingerprint
from embedsmith.training.settings import StageSettings


class Percent(Settings):
    kind: Literal["percent"] = "percent"
    ratio: float = Field(0.95, gt=0)
    """Share of the positive's score."""


class Margin(Settings):
    kind: Literal["margin"] = "margin"
    margin: float = 0.05

    @field_validator("margin")
    @classmethod
    def _is_round(cls, margin: float) -> float:
        if margin == 0.123:
            raise ValueError("choose a rounder margin")
        return margin


class Recipe(Settings):
    name: str
    plain: Percent = Percent()
    optional: Percent | None = None
    many: list[Percent] = []
    holes: list[Percent | None] = []
    two: tuple[Percent, Margin] = (Percent(), Margin())
    any_number: tuple[Margin, ...] = ()
    by_name: dict[str, Percent] = {}
    lists_by_name: dict[str, list[Margin]] = {}
    text_or: str | Margin = "margin"
    tagged: Annotated[Percent | Margin, Field(discriminator="kind")] = Percent()
    many_tagged: list[Annotated[Percent | Margin, Field(discriminator="kind")]] = []

    @model_validator(mode="after")
    def _has_a_good_name(self) -> Recipe:
        if self.name == "bad":
            raise ValueError("choose a better name")
        return self


def refusal(values: object, where: str = "recipe.yaml") -> SettingsError:
    with pytest.raises(SettingsError, match=rf"^{where}") as caught:
        Recipe.parse(values, where=where)
    return caught.value


def test_values_that_fit_become_settings():
    assert Recipe.parse({"name": "toy", "plain": {"ratio": 0.5}}, where="recipe.yaml") == Recipe(
        name="toy", plain=Percent(ratio=0.5)
    )


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Percent().ratio = 0.5


def test_a_docstring_of_a_field_is_its_help_text():
    assert Percent.model_fields["ratio"].description == "Share of the positive's score."


@pytest.mark.parametrize(
    ("values", "place", "nearest", "known"),
    [
        ({"nme": 1}, "recipe.yaml", "name", None),
        ({"plain": {"ratoi": 1}}, "recipe.yaml.plain", "ratio", "kind, ratio"),
        ({"optional": {"ratoi": 1}}, "recipe.yaml.optional", "ratio", "kind, ratio"),
        ({"many": [{}, {"ratoi": 1}]}, "recipe.yaml.many.1", "ratio", "kind, ratio"),
        ({"holes": [None, {"ratoi": 1}]}, "recipe.yaml.holes.1", "ratio", "kind, ratio"),
        ({"two": [{}, {"magrin": 1}]}, "recipe.yaml.two.1", "margin", "kind, margin"),
        ({"any_number": [{}, {"magrin": 1}]}, "recipe.yaml.any_number.1", "margin", "kind, margin"),
        ({"by_name": {"hard": {"ratoi": 1}}}, "recipe.yaml.by_name.hard", "ratio", "kind, ratio"),
        ({"lists_by_name": {"hard": [{"magrin": 1}]}}, "recipe.yaml.lists_by_name.hard.0", "margin", "kind, margin"),
        ({"text_or": {"magrin": 1}}, "recipe.yaml.text_or.Margin", "margin", "kind, margin"),
        ({"tagged": {"kind": "margin", "magrin": 1}}, "recipe.yaml.tagged.margin", "margin", "kind, margin"),
        (
            {"many_tagged": [{"kind": "margin", "magrin": 1}]},
            "recipe.yaml.many_tagged.0.margin",
            "margin",
            "kind, margin",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one_of_its_own_settings(values, place, nearest, known):
    error = refusal({"name": "toy", **values})
    assert str(error).startswith(f'{place}: unknown key "')
    assert str(error).endswith(f'" (did you mean "{nearest}"?)')
    assert known is None or error.hint == f"known keys: {known}"


def test_a_name_in_a_mapping_is_not_taken_for_a_field():
    # "ratio" is also a field of the settings that the mapping holds.
    assert str(refusal({"name": "toy", "by_name": {"ratio": {"ratoi": 1}}})) == (
        'recipe.yaml.by_name.ratio: unknown key "ratoi" (did you mean "ratio"?)'
    )


def test_an_unknown_key_without_a_near_one_gets_the_list():
    error = refusal({"name": "toy", "plain": {"zzz": 1}})
    assert str(error) == 'recipe.yaml.plain: unknown key "zzz"'
    assert error.hint == "known keys: kind, ratio"


def test_a_missing_key_is_named_without_a_dump_of_the_others():
    error = refusal({"plain": {}})
    assert str(error) == 'recipe.yaml: missing key "name"'
    assert error.hint.startswith("add it; known keys: any_number, by_name, ")


def test_a_mistyped_required_key_is_unknown_rather_than_missing():
    assert str(refusal({"nmae": "toy"})) == 'recipe.yaml: unknown key "nmae" (did you mean "name"?)'


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plain": {"ratio": -1}}, "recipe.yaml.plain: ratio: Input should be greater than 0, got -1"),
        ({"two": [{}, {"margin": 0.123}]}, "recipe.yaml.two.1: margin: choose a rounder margin, got 0.123"),
        ({"name": 3}, "recipe.yaml: name: Input should be a valid string, got 3"),
        ({"name": "bad"}, "recipe.yaml: choose a better name"),
        ({"tagged": {"kind": "zzz"}}, "expected tags: 'percent', 'margin'"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(values, message):
    error = refusal({"name": "toy", **values})
    assert message in str(error)
    assert error.hint


@pytest.mark.parametrize("values", [None, "text", [1]])
def test_what_is_no_mapping_is_refused_with_its_place(values):
    assert str(refusal(values)).startswith("recipe.yaml: Input should be a valid dictionary")


def test_without_a_place_a_message_starts_with_the_key():
    assert str(refusal({"name": "toy", "plain": {"zzz": 1}}, where="")) == 'plain: unknown key "zzz"'
    assert str(refusal({}, where="")) == 'missing key "name"'
    assert str(refusal({"name": 3}, where="")) == "name: Input should be a valid string, got 3"


def test_a_long_value_is_cut():
    assert len(str(refusal({"name": list(range(10_000))}))) < 150


def test_a_fingerprint_changes_with_each_value():
    changed = [
        Recipe(name="toy"),
        Recipe(name="b"),
        Recipe(name="toy", plain=Percent(ratio=0.5)),
        Recipe(name="toy", many=[Percent()]),
    ]
    assert len({settings.fingerprint() for settings in changed}) == len(changed)


def test_a_default_that_is_spelled_out_has_the_same_fingerprint():
    assert Percent(ratio=0.95).fingerprint() == Percent().fingerprint()


def test_a_fingerprint_does_not_depend_on_the_process():
    program = 'from embedsmith.settings import fingerprint; print(fingerprint({"b": [1, None], "a": "\\u00e4"}))'
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {fingerprint({"a": "ä", "b": [1, None]}) + "\n"}


def test_a_fingerprint_keeps_types_and_order_of_lists_apart():
    values = [1, "1", [1, 2], [2, 1], {"1": 2}, None, True, 1.5, "\ud800"]
    assert len({fingerprint(value) for value in values}) == len(values)


def settings_classes() -> list[type[Settings]]:
    """Every settings class of the package, but those that hold no numbers of their own."""
    for module in pkgutil.walk_packages(embedsmith.__path__, "embedsmith."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = set(), [Settings]
    while waiting:
        for one in waiting.pop().__subclasses__():
            if one.__module__.startswith("embedsmith.") and one not in found:
                found.add(one)
                waiting.append(one)
    return sorted(found, key=lambda one: (one.__module__, one.__name__))


def numbers_in(annotation: Any) -> Iterator[tuple[type, Callable[[Any], Any]]]:
    """Yield the number types that an annotation holds, each with what makes a field's value of a number."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        yield annotation, lambda number: number
    elif origin is Annotated:
        yield from numbers_in(arguments[0])
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from numbers_in(argument)
    elif origin in (list, tuple):
        for kind, made in numbers_in(arguments[0]):
            yield kind, lambda number, made=made: [made(number)]
    elif origin is dict:
        for kind, made in numbers_in(arguments[1]):
            yield kind, lambda number, made=made: {"one": made(number)}


def refuses(settings: type[Settings], field: str, value: Any) -> bool:
    """Whether a value of one field is refused, whatever the others are."""
    try:
        settings.model_validate({field: value})
    except ValidationError as error:
        return any(row["loc"][:1] == (field,) for row in error.errors())
    return False


NUMBERS = [
    (settings, name, kind, made)
    for settings in settings_classes()
    for name, field in settings.model_fields.items()
    for kind, made in numbers_in(field.annotation)
    if (settings.__name__, name) != ("ScoredData", "columns")  # a text is the name of a column there, "nan" too
]

MAY_BE_NEGATIVE = {
    *("threshold", "relevant_from", "exclude_above", "floor", "neighbour", "veto_deviations", "metrics", "means")
}
"""Scores, and distances between them."""
MAY_BE_ZERO = MAY_BE_NEGATIVE | {
    *("seed", "convert_seed", "mining_seed", "split_seed"),
    *("contrastive", "distill_vectors", "distill_scores", "distill_margins", "weights"),
    *("margin", "guide_margin", "shift", "hard_negatives", "held_out", "positives"),
    *("warmup", "warmup_steps", "weight_decay", "dropout", "lora_dropout"),
    *("temperature", "near_duplicates", "overlap_tokens", "chunk_overlap", "k1", "b", "memory_gib"),
    *("retries", "request_retries"),
}
"""Weights that leave a part out, distances, counts of what is optional; a chat model's temperature."""
ONLY_HERE = {
    ("ConvertSettings", "negatives"),
    ("Score", "not_in_run"),
    *(("ScoredData", name) for name in ("queries", "passages", "rows", "left_out")),
}
"""What may be zero in one class and not in others of the same name."""
BUT_NOT_HERE = {
    ("LossSettings", "temperature"),
    ("StageSettings", "temperature"),
    ("TeacherSettings", "memory_gib"),
    ("SelectionSettings", "near_duplicates"),
}


def test_every_number_of_every_part_is_looked_at():
    owners = {settings.__name__ for settings, *_ in NUMBERS}
    assert {
        "StageSettings",
        "StudentSettings",
        "MiningSettings",
        "TeacherSettings",
        "Recipe",
        "QuerySettings",
    } <= owners
    known = {name for _, name, *_ in NUMBERS}
    assert known >= MAY_BE_ZERO, "a field that does not exist any more"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity"])
def test_a_number_of_settings_is_finite(value):
    taken = [f"{s.__name__}.{name}" for s, name, _, made in NUMBERS if not refuses(s, name, made(value))]
    assert taken == []


@pytest.mark.parametrize("value", [-1, -(10**30)])
def test_what_counts_or_measures_is_not_negative(value):
    taken = [
        f"{settings.__name__}.{name}"
        for settings, name, _, made in NUMBERS
        if name not in MAY_BE_NEGATIVE and not refuses(settings, name, made(value))
    ]
    assert taken == []


def test_what_must_be_there_is_not_zero():
    taken = [
        f"{settings.__name__}.{name}"
        for settings, name, _, made in NUMBERS
        if (name not in MAY_BE_ZERO or (settings.__name__, name) in BUT_NOT_HERE)
        and (settings.__name__, name) not in ONLY_HERE
        and not refuses(settings, name, made(0))
    ]
    assert taken == []


def test_a_whole_number_is_no_fraction():
    taken = [
        f"{s.__name__}.{name}" for s, name, kind, made in NUMBERS if kind is int and not refuses(s, name, made(2.5))
    ]
    assert taken == []


def test_a_seed_is_one_that_numpy_takes():
    seeds = [(settings, name) for settings, name, *_ in NUMBERS if name == "seed" or name.endswith("_seed")]
    assert len(seeds) > 8
    assert [f"{settings.__name__}.{name}" for settings, name in seeds if not refuses(settings, name, 2**32)] == []


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (StageSettings, {"matryoshka": [0]}, r"matryoshka: 0: Input should be greater than 0, got 0"),
        (StageSettings, {"matryoshka": [64, -1]}, r"matryoshka: 1: Input should be greater than 0, got -1"),
        (StageSettings, {"matryoshka": [64, 64]}, r"matryoshka names a width twice: \[64, 64\]"),
        (StageSettings, {"guide_margin": 5, "guide_relative": True}, "guide_margin is 5 with guide_relative"),
        (StudentSettings, {"template": "Query: "}, r"a template has \{instruction\} where the instruction stands"),
        (StudentSettings, {"template": "{task}: {instruction}"}, r"and no other braces, got '\{task\}: "),
        (StudentSettings, {"template": "{instruction"}, r"a template has \{instruction\}"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(part, values, message):
    with pytest.raises(SettingsError, match=message) as caught:
        part.parse(values, where="options")
    assert "\n" not in str(caught.value)
