"""Prompts: files that a user changes, and what is said when one is wrong."""

import random
from pathlib import Path

import pytest

from embedsmith.errors import InputError
from embedsmith.generation import templates
from embedsmith.generation.templates import Template, read_template, read_templates

OWN = Path(templates.__file__).parent / "prompts"


def test_a_users_prompt_stands_in_the_place_of_ours(tmp_path: Path):
    (tmp_path / "queries.txt").write_text("\n{{passage}}\n\n{{ queries }} queries, please.\n")
    template = read_template("queries", ["passage", "queries"], tmp_path)
    filled = template.filled({"passage": "a cat", "queries": "3"}, random.Random(0))
    assert filled == "a cat\n\n3 queries, please."


def test_a_prompt_that_the_folder_lacks_is_ours(tmp_path: Path):
    assert read_template("queries", ["passage", "queries"], tmp_path).text == (OWN / "queries.txt").read_text().strip()


def test_what_is_put_in_is_never_taken_for_a_hole():
    text = "{{one|two}} {{passage}} {{nothing}}"
    assert Template("<{{passage}}>").filled({"passage": text}, random.Random(0)) == f"<{text}>"


def test_each_of_several_words_is_drawn_and_the_same_draw_is_the_same_prompt():
    template = Template("{{a | b | c}}{{x|y}}")
    drawn = [template.filled({}, random.Random(f"0 {number}")) for number in range(50)]
    assert set(drawn) == {"ax", "ay", "bx", "by", "cx", "cy"}
    assert drawn == [template.filled({}, random.Random(f"0 {number}")) for number in range(50)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{queries}}\n{{pasage}}", r'queries\.txt:2: {{pasage}} is not known \(did you mean "passage"\?\)'),
        ("{{queries}}", r"queries\.txt: no {{passage}}"),
    ],
)
def test_a_prompt_with_a_wrong_hole_is_told_by_file_and_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "queries.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_template("queries", ["passage", "queries"], tmp_path)


def test_a_prompt_that_is_not_utf8_is_refused(tmp_path: Path):
    (tmp_path / "queries.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"queries\.txt: not UTF-8"):
        read_template("queries", ["passage"], tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "prompts: no such folder"),
        ([], "prompts: no prompt is in it"),
        (["queries.txt", "jugde.txt"], r'no prompt is called "jugde.txt" \(did you mean "judge.txt"\?\)'),
    ],
)
def test_a_folder_that_nobody_would_read_is_refused(tmp_path: Path, names: list[str] | None, message: str):
    folder = tmp_path / "prompts"
    if names is not None:
        folder.mkdir()
    for name in names or []:
        (folder / name).write_text("{{passage}} {{queries}}")
    with pytest.raises(InputError, match=message):
        read_templates({"queries": ["passage", "queries"]}, folder)
