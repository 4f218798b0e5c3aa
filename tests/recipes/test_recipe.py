"""Recipes: what the files say, and the error of each wrong one."""

import re
from pathlib import Path

import pytest
import yaml

from embedsmith.errors import InputError, SettingsError
from embedsmith.recipes.quickstart import quickstart_recipe
from embedsmith.recipes.recipe import Recipe, read_recipe
from embedsmith.variables import filled

RECIPES = Path(__file__).parents[2] / "recipes"
NV_EMBED = RECIPES / "nv-embed.yaml"

# What the paper, as far as it was at hand, does not state.
UNCONFIRMED = {
    "negatives",
    "depth",
    "max_tokens",
    "query_max_tokens",
    "passage_max_tokens",
    "hard_negatives",
    "batch_size",
    "steps",
    "learning_rate",
    "warmup",
    "weight_decay",
    "schedule",
    "temperature",
}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_the_repository_is_one(path: Path):
    assert read_recipe(path).name.startswith(path.stem)


@pytest.mark.parametrize(("name", "student"), [("quickstart", "minilm"), ("quickstart-smollm2", "smollm2")])
def test_the_quickstarts_recipe_says_what_the_quickstart_does(name: str, student: str):
    assert read_recipe(RECIPES / f"{name}.yaml") == quickstart_recipe(student=student)


def test_nv_embed_is_a_bidirectional_mistral_with_latent_attention_in_two_stages():
    recipe = read_recipe(NV_EMBED)
    student = recipe.student
    assert "Mistral-7B" in student.name
    assert (student.attention, student.pooling, student.latents, student.heads) == ("bidirectional", "latent", 512, 8)
    assert [stage.in_batch for stage in recipe.stages] == [True, False]
    assert (recipe.mining.method, recipe.mining.ratio) == ("percpos", 0.95)
    assert set(recipe.stages[0].data) < set(recipe.data)
    assert recipe.stages[1].data == []


def test_what_the_paper_does_not_state_says_so_on_its_line():
    seen = set()
    for line in NV_EMBED.read_text().splitlines():
        key = line.partition(":")[0].strip(" -")
        if key in UNCONFIRMED:
            seen.add(key)
            assert re.search("# not (confirmed|stated)", line), line
    assert seen == UNCONFIRMED


def test_every_recipe_is_the_same_after_it_was_written_and_read(tmp_path: Path):
    recipe = quickstart_recipe(student="smollm2", seed=3)
    path = write(tmp_path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    assert read_recipe(path) == recipe


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path):
    path = write(tmp_path, "data: {a: {path: x}}\nmining: {metod: naive}\n")
    with pytest.raises(SettingsError, match=r'recipe.yaml.mining: unknown key "metod" \(did you mean "method"\?\)'):
        read_recipe(path)


def test_a_recipe_without_data_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match='missing key "data"'):
        read_recipe(write(tmp_path, "seed: 1\n"))


def test_two_stages_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="two stages have the same name: train, train"):
        read_recipe(write(tmp_path, "data: {a: {path: x}}\nstages: [{}, {}]\n"))


def test_a_stage_on_data_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="stage train names data that the recipe does not have: b"):
        read_recipe(write(tmp_path, "data: {a: {path: x}}\nstages: [{data: [b]}]\n"))


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_a_list_is_not_a_recipe(tmp_path: Path):
    with pytest.raises(SettingsError, match="not a recipe"):
        read_recipe(write(tmp_path, "- a\n"))


def test_a_folder_is_not_a_recipe(tmp_path: Path):
    with pytest.raises(InputError, match="a folder, wanted a recipe"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"seed: 0\ndata: [a\n", r"recipe.yaml:3: not YAML: expected ',' or ']'"),
        (b"a: b\x00\n", "not YAML: unacceptable character #x0000"),
        (b"a: 2024-13-45\n", "not YAML: month must be in 1..12"),
        (b"a: \xff\n", "not YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"? [a]\n: b\n", "recipe.yaml:1: not YAML: found unhashable key"),
        (b"[" * 5000, "not YAML: "),
    ],
    ids=["unclosed", "null byte", "no such date", "not UTF-8", "a list as a key", "too deep"],
)
def test_what_is_not_yaml_is_refused_in_one_line(tmp_path: Path, text: bytes, message: str):
    with pytest.raises(InputError, match=message) as error:
        read_recipe(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_quickstart_on_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        quickstart_recipe(source=str(tmp_path / "none"))


def test_a_quickstart_on_a_gpu_uses_every_layer():
    assert quickstart_recipe(student="smollm2", on_gpu=True).student.layers is None
    assert isinstance(quickstart_recipe(student="smollm2").student.layers, int)
    assert isinstance(quickstart_recipe(), Recipe)


def test_a_variable_stands_for_the_folder_where_data_sets_lie(tmp_path: Path, monkeypatch):
    path = write(tmp_path, "data: {a: {path: '${SETS}/a', against: ['${SETS}/b', c]}}\n")
    recipe = read_recipe(path)
    monkeypatch.setenv("SETS", "/sets")
    data = filled(recipe).data["a"]
    assert (data.path, data.against) == ("/sets/a", ["/sets/b", "c"])
    monkeypatch.delenv("SETS")
    with pytest.raises(SettingsError, match=r"^data\.a\.path: SETS is not set, in \$\{SETS\}/a$") as caught:
        filled(recipe)
    assert caught.value.hint == "export SETS=FOLDER"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{path: x, format: code, convert: {task: sts}}", "convert is for labelled data, the format is code"),
        ("{path: x, format: code, against: [y]}", "against is not for code"),
        ("{path: x, convert: {task: sts, style: label}}", "style is for classification and clustering"),
        ("{path: x, convert: {tsk: sts}}", r'unknown key "tsk" \(did you mean "task"'),
    ],
)
def test_data_settings_that_do_not_go_together_are_refused(tmp_path: Path, data: str, message: str):
    with pytest.raises(SettingsError, match=message):
        read_recipe(write(tmp_path, f"data: {{a: {data}}}\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.steps", '--set "stages.0.steps": not NAME=VALUE'),
        ("stages.5.steps=3", r'no setting "stages.5.steps": stages has 1 entries, got "5"'),
        ("stages.first.steps=3", 'stages has 1 entries, got "first"'),
        ("data.b.path=x", 'no setting "data.b.path": data has no "b"'),
        ("student.poling=mean", r'student has no "poling" \(did you mean "pooling"\?\)'),
        ("stages=[{]", "not a YAML value"),
        ("seed.deep.inside=3", "seed.deep"),
        ("stages.0.stepz=3", r'stages.0 has no "stepz" \(did you mean "steps"\?\)'),
        ("stages.0.steps=many", "steps: "),
    ],
)
def test_a_change_that_does_not_fit_is_refused(tmp_path: Path, change: str, message: str):
    path = write(tmp_path, "seed: 1\ndata: {a: {path: x}}\nstages: [{steps: 5}]\n")
    with pytest.raises(SettingsError, match=message):
        read_recipe(path, changes=[change])


def test_changes_replace_what_the_file_says(tmp_path: Path):
    path = write(tmp_path, "data: {a: {path: x}}\nstages: [{steps: 5}, {name: two}]\n")
    changes = ["stages.1.learning_rate=1e-5", "student.pooling=mean", "data.a.weight=2", "stages.0.data=[a]"]
    recipe = read_recipe(path, changes=changes)
    assert (recipe.stages[1].learning_rate, recipe.student.pooling, recipe.data["a"].weight) == (1e-5, "mean", 2.0)
    assert (recipe.stages[0].data, recipe.stages[0].steps) == (["a"], 5)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{steps: 5, epochs: 2}", "steps is 5 and epochs 2.0: give one of them"),
        ("{patience: 2}", "patience needs held_out"),
        ("{restart_optimizer: false, lora_rank: 4}", "adapters end with their stage"),
        ("{contrastive: 0}", "there is no loss"),
        ("{name: a/b}", "name: "),
    ],
)
def test_a_stage_that_contradicts_itself_is_refused(tmp_path: Path, stage: str, message: str):
    with pytest.raises(SettingsError, match=message):
        read_recipe(write(tmp_path, f"data: {{a: {{path: x}}}}\nstages: [{stage}]\n"))


def test_single_stage_and_reversed_are_the_two_stage_recipe_in_another_order():
    two, single, back = (read_recipe(RECIPES / f"nv-embed-tiny{kind}.yaml") for kind in ("", "-single", "-reversed"))
    assert two.student == single.student == back.student
    assert two.data == single.data == back.data
    assert two.mining == single.mining == back.mining
    assert [stage.in_batch for stage in two.stages] == [True, False]
    assert [stage.in_batch for stage in single.stages] == [False]
    assert [stage.in_batch for stage in back.stages] == [False, True]
    steps = [sum(stage.steps for stage in recipe.stages) for recipe in (two, single, back)]
    assert len(set(steps)) == 1


def test_the_label_based_recipe_differs_from_the_example_based_one_in_that_alone():
    by_example = read_recipe(RECIPES / "nv-embed-tiny.yaml")
    by_label = read_recipe(RECIPES / "nv-embed-tiny-labels.yaml")
    one, other = by_example.model_dump(), by_label.model_dump()
    changed = [name for name in one["data"] if one["data"][name] != other["data"][name]]
    assert changed == ["banking77", "newsgroups"]
    for name in changed:
        assert one["data"][name]["convert"].pop("style") == "example"
        assert other["data"][name]["convert"].pop("style") == "label"
    assert {**one, "name": ""} == {**other, "name": ""}
