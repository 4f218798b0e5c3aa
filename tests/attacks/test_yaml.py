"""YAML that stands for more than fits into memory, for itself, or for no YAML at all."""

import pytest
import yaml

from embedsmith.data.pair_labels import read_labels
from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.errors import EmbedsmithError, InputError, SettingsError
from embedsmith.models.licence import licence_in
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes.ablation.grid import read_ablation
from embedsmith.recipes.overrides import axis_of, override_of
from embedsmith.recipes.recipe import read_recipe

LAUGHS = "\n".join(["l0: &l0 [ha]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))])
ODD = {
    "a billion laughs": LAUGHS,
    "itself": "a: &a [*a]",
    "itself as a key": "&a {*a : 1}",
    "merged": "a: &a {b: 1}\nc: {<<: *a}",
    "deep": "[" * 20_000,
    "deep mappings": "{a: " * 5_000,
    "a long number": "a: " + "9" * 100_000,
    "a day that is none": "a: 2026-99-99",
    "a tag that runs code": "a: !!python/object/apply:os.mkdir [harmed]",
    "a null byte": "a: \0",
    "half a character": 'a: "\\ud800"',
    "half a character in a key": '"\\udc00": 1',
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("place", ["{}", "data:\n  toy:\n    path: x\nname: {}", "data: {}"])
def test_a_file_of_odd_yaml_is_one_line(tmp_path, monkeypatch, text, place):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.yaml"
    path.write_text(
        text if place == "{}" else place.format("\n" + "\n".join(f"    {line}" for line in text.split("\n")))
    )
    readers = [read_recipe, read_ablation]
    for read in readers:
        with pytest.raises(EmbedsmithError, match=r"file\.yaml") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", [name for name in ODD if name not in ("a long number", "a day that is none")])
def test_a_file_of_labels_in_odd_yaml_is_one_line(tmp_path, name):
    (tmp_path / "labels.yaml").write_text(ODD[name])  # there a number or a day is a text like others
    with pytest.raises(InputError, match=r"labels\.yaml"):
        read_labels(str(tmp_path / "labels.yaml"))


@pytest.mark.parametrize("text", [text for name, text in ODD.items() if "day" not in name and "\0" not in text])
def test_odd_yaml_on_the_command_line_is_one_line(text):
    with pytest.raises(EmbedsmithError, match="not a YAML value"):
        override_of(f"student.name={text}")
    with pytest.raises(EmbedsmithError, match="not a YAML value"):
        axis_of(f"student.name={text}")


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_a_card_of_odd_yaml_states_no_licence(tmp_path, text):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nother:\n{text}\n---\n")
    assert licence_in(tmp_path / "README.md") is None


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: Apache-2.0", "apache-2.0"),
        ("license: <script>alert(1)</script>", None),
        ('license: "mit\\n## Another heading"', None),
        ("license: [mit]", None),
        ("license: &a [*a]", None),
        ("- license", None),
    ],
)
def test_a_licence_is_an_identifier(tmp_path, front, licence):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    assert licence_in(tmp_path / "README.md") == licence


def test_an_alias_is_refused_at_its_line():
    with pytest.raises(yaml.YAMLError, match=r"an alias, \*a, is not read here") as caught:
        plain_yaml("a: &a 1\nb: *a")
    assert caught.value.problem_mark.line == 1


def test_a_recipe_with_an_alias_is_refused_at_its_line(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data:\n  a: &a {path: x}\n  b: *a\n")
    with pytest.raises(InputError, match=r"recipe\.yaml:3: not YAML: an alias, \*a"):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    "values", [{"name": "a\ud800"}, {"na\udcffme": "a"}, {"suffix": ["a\udc00"]}, {"name": {"\ud800": "a"}}]
)
def test_settings_of_a_program_with_half_a_character_are_one_line(values):
    with pytest.raises(SettingsError, match="half of a surrogate pair, which no text can hold"):
        StudentSettings.parse(values, where="student")
