"""Options are made from settings: one a field, and nothing that a field does not have."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from embedsmith.cli.main import app
from embedsmith.cli.options import Given, settings_of, with_options
from embedsmith.errors import SettingsError
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.settings import Settings
from embedsmith.training.settings import StageSettings


class Kitchen(Settings):
    """Something to cook with."""

    oven_heat: int = 180
    """Degrees of the oven."""
    lid: bool = False
    """Put the lid on."""
    size: Literal["small", "large"] = "small"
    """Which pan."""
    spice: str | None = None
    """Which spice, if any."""
    shelves: list[str] = []
    """No option: a recipe holds lists."""


def cook(*words: str) -> tuple[int, str, list[Any]]:
    """Return the exit code, the output and what the command was given."""
    given: list[Any] = []
    kitchen_app = typer.Typer()

    @kitchen_app.command()
    @with_options(flags={"kitchen.spice": "herb"}, kitchen=Kitchen)
    def command(dish: Annotated[str, typer.Argument()], kitchen: dict[str, Any]) -> None:
        """Cook."""
        given.extend([dish, kitchen])

    done = CliRunner().invoke(kitchen_app, list(words), env={"COLUMNS": "200"})
    return done.exit_code, done.output, given


def test_only_what_was_given_is_passed_on():
    assert cook("soup") == (0, "", ["soup", {}])
    code, _, given = cook("soup", "--oven-heat", "200", "--lid", "--herb", "dill", "--size", "large")
    assert (code, given) == (0, ["soup", {"oven_heat": 200, "lid": True, "spice": "dill", "size": "large"}])
    assert settings_of(Kitchen, given[1]) == Kitchen(oven_heat=200, lid=True, spice="dill", size="large")


def test_a_switch_can_be_turned_off():
    assert cook("soup", "--no-lid")[2] == ["soup", {"lid": False}]


@pytest.mark.parametrize("words", [("--oven-heat", "hot"), ("--size", "huge"), ("--spice", "dill"), ("--shelves", "a")])
def test_what_no_field_takes_is_refused(words: tuple[str, str]):
    assert cook("soup", *words)[0] == 2


def test_the_help_says_what_the_field_says():
    _, text, _ = cook("--help")
    assert "Degrees of the oven. Default: 180." in text
    assert "Which spice, if any." in text
    assert "[small|large]" in text
    assert "shelves" not in text


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="options: negatives: Input should be greater than 0, got 0"):
        settings_of(MiningSettings, {"negatives": 0})


def is_plain(annotation: Any) -> bool:
    """Return whether one word on a command line can give a field its value."""
    if get_origin(annotation) in (Union, UnionType):
        return all(is_plain(member) for member in get_args(annotation))
    return get_origin(annotation) is Literal or annotation in (str, int, float, bool, type(None))


def flags_of(settings: type[Settings], **renamed: str | None) -> set[str]:
    """Return the flags that a command must have for some settings."""
    fields = {name for name, field in settings.model_fields.items() if is_plain(field.annotation)}
    assert len(fields) >= 9
    return {f"--{flag.replace('_', '-')}" for name in fields if (flag := renamed.get(name, name))}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("mine", flags_of(MiningSettings)),
        ("train", flags_of(StudentSettings, name="student") | flags_of(StageSettings, name=None, remine=None)),
    ],
    ids=["mine", "train"],
)
def test_every_plain_field_is_an_option_that_the_help_shows(command: str, flags: set[str]):
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    shown = {word.strip(",│/") for part in done.output.split() for word in part.split("/")}
    assert flags - shown == set()
    assert "--name" not in shown
    options = {flag for parameter in typer.main.get_command(app).commands[command].params for flag in parameter.opts}
    assert flags <= options


class Garden(Settings):
    """Something to grow."""

    oven_heat: int = 30
    """Degrees of the glasshouse."""


@pytest.mark.parametrize(
    ("own", "flags", "twin"),
    [
        (typer.Option(), {}, "--oven-heat would set both kitchen_oven_heat and garden_oven_heat"),
        (
            typer.Option("--glass-heat"),
            {"garden.oven_heat": "glass-heat"},
            "--glass-heat would set both own and garden",
        ),
        (typer.Option(), {"garden.oven_heat": "no-lid"}, "--no-lid would set both kitchen_lid and garden_oven_heat"),
        (typer.Option(), {"garden.oven_heat": "own"}, "--own would set both own and garden_oven_heat"),
    ],
    ids=["two groups", "an own option", "a switch turned off", "an own option's usual name"],
)
def test_two_settings_behind_one_option_are_refused_when_the_command_is_defined(own, flags, twin):
    def command(kitchen: dict[str, Any], garden: dict[str, Any], own: Annotated[str, own] = "") -> None:
        """Cook."""

    with pytest.raises(AssertionError, match=twin):
        with_options(flags=flags, kitchen=Kitchen, garden=Garden)(command)


def test_an_error_names_the_option_as_it_is_typed():
    given = Given({"oven_heat": "hot"}, flags={"oven_heat": "--heat"})
    with pytest.raises(SettingsError, match=r"^--heat: Input should be a valid integer"):
        settings_of(Kitchen, given)
