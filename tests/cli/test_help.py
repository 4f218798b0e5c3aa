"""`--help`: by use, in eighty columns, with examples that can be typed; and one flag has one meaning everywhere."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer

import embedsmith
from embedsmith.cli.commands import ALIASES, VARIABLES
from embedsmith.cli.help import ADVANCED, MAIN, RUNNING, panels_of, said
from embedsmith.cli.main import app
from embedsmith.cli.panels import _SUBJECTS
from tests.cli.test_every_option import CLICKED, COMMANDS, OPTIONS, field_of

ROOT: Any = typer.main.get_command(app)


@pytest.fixture
def help_of(embedsmith_command, monkeypatch: pytest.MonkeyPatch):
    """A function that returns the help of a command, as a terminal of eighty columns shows it."""
    monkeypatch.setenv("COLUMNS", "80")

    def ask(name: str) -> list[str]:
        done = embedsmith_command(*name.split(), "--help")
        assert done.code == 0
        return done.out.splitlines()

    return ask


@pytest.mark.parametrize("name", ["", "synthesize", *CLICKED])
def test_help_fits_eighty_columns_and_breaks_no_option(help_of, name: str):
    lines = help_of(name)
    assert max(map(len, lines)) <= 80
    shown = " ".join(lines)
    assert [one for one in options_of(name) if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", shown)] == []


def options_of(name: str) -> list[str]:
    """Return the first flag of each option of a command."""
    return [max(parameter.opts, key=len) for command, parameter in OPTIONS if command == name]


@pytest.mark.parametrize("name", CLICKED)
def test_what_most_people_set_comes_first_and_the_rest_by_subject(help_of, name: str):
    options = CLICKED[name].get_params(CLICKED[name].make_context(name, [], resilient_parsing=True))
    panels = panels_of([one for one in options if one.param_type_name == "option"])
    order = list(panels)
    assert len(panels.get(MAIN, [])) <= 15
    assert [panel for panel in order if panel.startswith(ADVANCED)] == order[order.index(RUNNING) + 1 :]
    assert all(len(panel) > len(ADVANCED) for panel in order[order.index(RUNNING) + 1 :])
    titles = [line[:-1] for line in help_of(name) if line.endswith(":") and not line.startswith(" ")]
    assert [title for title in titles if title in panels] == order


def test_the_options_that_must_be_given_are_marked_and_come_first(help_of):
    lines = help_of("mine")
    at = lines.index("Options:")
    assert lines[at + 1].startswith("  --out PATH               Required. Run folder")
    assert lines[at + 3].startswith("  --teacher MODEL...")
    assert any(line.startswith("  DATA                     Required. ") for line in lines)
    assert "  --url URL#MODEL          Required." in "\n".join(help_of("judge"))


def test_an_option_that_must_be_given_is_missed_by_its_name(embedsmith_command, tmp_path: Path):
    done = embedsmith_command("judge", tmp_path)
    assert (done.code, done.error) == (2, "Missing option '--url'.")


def test_choices_stand_in_the_type_of_an_option(help_of):
    text = "\n".join(help_of("mine"))
    assert "--method [naive|shifted|abs|marginpos|percpos|twodistances]" in text
    assert "--ensemble [first|cross|intra|intra-dedup|rrf|fuse|pca]" in text
    assert "--task [classification|clustering|sts|nli|reranking|pairs]" in "\n".join(help_of("convert"))
    # More of them than a line holds.
    assert "yiddish]" in text


def test_every_class_of_settings_that_makes_options_has_a_panel():
    classes = {
        cls.__name__
        for command in COMMANDS.values()
        for settings in command.groups.values()
        for field in settings.model_fields
        for cls in settings.__mro__
        if field in vars(cls).get("__annotations__", {})
    }
    assert classes == set(_SUBJECTS)


@pytest.mark.parametrize("name", CLICKED)
def test_the_examples_of_a_command_can_be_typed(name: str):
    _, examples = said(CLICKED[name].help)
    assert 1 <= len(examples) <= 3
    for example in examples:
        words = shlex.split(example)
        assert words[: 1 + len(name.split())] == ["embedsmith", *name.split()]
        CLICKED[name].make_context(name, words[1 + len(name.split()) :])


def test_the_help_names_every_variable_that_is_read(help_of):
    source = "".join(path.read_text(encoding="utf-8") for path in Path(embedsmith.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"\bEMBEDSMITH_[A-Z_]+[A-Z]\b", source))
    assert named - set(VARIABLES) == set()
    text = "\n".join(help_of(""))
    assert [name for name in VARIABLES if name not in text] == []
    assert "--install-completion" in text


def test_an_example_that_the_help_gives_has_a_short_first_line(help_of):
    for name, command in CLICKED.items():
        first = command.help.split("\n\n")[0]
        assert len(first) <= 120, name


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_a_shorter_name_is_the_same_command(old: str, new: str):
    context = ROOT.make_context("embedsmith", [], resilient_parsing=True)
    assert ROOT.get_command(context, old) is ROOT.get_command(context, new)
    assert ROOT.get_command(context, old).name == new
    assert old not in ROOT.list_commands(context)


SAME = {
    "--data": "a data set in the place of the run's own",
    "--seed": "the seed of the command's own draws",
    "--set": "a setting by its path",
    "--dry-run": "show and stop",
    "--out": "what is written",
    "--student": "the model that is trained; the quickstart has two",
    "--teacher": "the model, or models, that find and score passages",
    "--metric": "one metric, or several",
    "--task": "what the data ask for",
}
"""Flags that other parameters or fields have in other commands, with what they mean in all of them."""


def test_one_flag_has_one_meaning_in_all_commands():
    meanings: dict[str, set[str]] = defaultdict(set)
    for name, parameter in OPTIONS:
        field = field_of(name, parameter)
        for flag in (*parameter.opts, *parameter.secondary_opts):
            meanings[flag].add(field[1] if field else parameter.name)
    several = {flag: names for flag, names in meanings.items() if len(names) > 1}
    assert several.keys() - SAME.keys() == set(), several


APART = {
    "batch_size": {"TeacherSettings", "StageSettings"},
    "memory_gib": {"TeacherSettings", "StageSettings"},
    "threshold": {"ConvertSettings", "MiningSettings", "SelectionSettings"},
    "temperature": {"StageSettings", "QuerySettings", "TaskSettings", "JudgeSettings"},
    "max_tokens": {"TeacherSettings", "QuerySettings", "TaskSettings", "JudgeSettings"},
    "passages": {"ContaminationSettings", "QuerySettings"},
    "query_max_tokens": {"StudentSettings", "StageSettings"},
    "passage_max_tokens": {"StudentSettings", "StageSettings"},
}
"""Fields that have a name in common and no more."""
ALIKE = [{"MiningSettings", "SelectionSettings"}, {"QuerySettings", "TaskSettings", "JudgeSettings"}]


def test_fields_that_have_no_more_than_a_name_in_common_have_flags_of_their_own():
    flags: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, parameter in OPTIONS:
        if field := field_of(name, parameter):
            settings = field[0].__name__
            kind = next(("/".join(sorted(alike)) for alike in ALIKE if settings in alike), settings)
            flags[field[1], kind] |= set(parameter.opts)
    for field in APART:
        own = [found for (name, _), found in flags.items() if name == field]
        assert len(own) >= 2, field
        assert sum(map(len, own)) == len(set().union(*own)), (field, own)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("convert", "--threshold", "--sts-threshold"),
        ("mine", "--memory-gib", "--search-memory-gib"),
        ("evaluate", "--batch-size", "--rescoring-batch-size"),
        ("judge", "--max-tokens", "--answer-tokens"),
        ("judge", "--temperature", "--chat-temperature"),
        ("compare", "--against", "--baseline"),
        ("synthesize queries", "--temperature", "--chat-temperature"),
    ],
)
def test_a_flag_of_an_earlier_version_is_taken_with_a_note(embedsmith_command, name: str, old: str, new: str):
    known = {flag for parameter in CLICKED[name].params for flag in parameter.opts}
    assert old not in known and new in known
    for words in ([old, "not-a-number"], [f"{old}=not-a-number"]):
        done = embedsmith_command(*name.split(), *words)
        assert done.code == 2
        note, *_ = done.err.splitlines()
        assert note == f"note: {old} of `{name.split()[-1]}` is called {new} now"


def test_every_flag_of_an_earlier_version_has_one_of_today():
    for name, command in CLICKED.items():
        known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
        assert set(command.renamed) & known == set(), name
