"""Names that lead elsewhere: out of the folder that a command writes, or out of what it may remove."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from embedsmith.data.files import remove_below, remove_partials, remove_partials_of
from embedsmith.data.load import load_tables
from embedsmith.errors import EmbedsmithError, InputError, RunError, SettingsError
from embedsmith.evaluation.evaluate import places_of
from embedsmith.recipes.ablation.grid import Ablation, read_ablation
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.run import Run
from embedsmith.training.settings import StageSettings
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.test_architecture import modules

ELSEWHERE = ["../../../x", "/tmp/precious", "..", ".", "", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "a\n", "\x1b[2J"]
ODD_BUT_ONE_LINE = ["a b", "été", "a" * 101, "\u202eevil", "-rf", "a\u2028b"]


@pytest.mark.parametrize("name", [*ELSEWHERE, *ODD_BUT_ONE_LINE], ids=repr)
def test_a_recipe_whose_names_of_data_lead_elsewhere_is_refused_when_it_is_parsed(tmp_path, name):
    against = {"path": "x.jsonl", "against": ["y"]}
    with pytest.raises(SettingsError, match="is to be a folder's name, and cannot be one"):
        Recipe.parse({"data": {name: against}}, where="recipe")


@pytest.mark.parametrize("name", [*ELSEWHERE, *ODD_BUT_ONE_LINE], ids=repr)
def test_a_stage_whose_name_leads_elsewhere_is_refused_when_it_is_parsed(name):
    with pytest.raises(SettingsError, match="name: String should match pattern"):
        StageSettings.parse({"name": name}, where="stage")


@pytest.mark.parametrize("name", ELSEWHERE, ids=repr)
def test_a_recipe_and_a_row_whose_names_lead_elsewhere_are_refused_when_they_are_parsed(name):
    with pytest.raises(SettingsError, match="is to be a folder's name, and cannot be one"):
        Recipe.parse({"name": name, "data": {"nq": {"path": "x"}}}, where="recipe")
    recipe = {"data": {"nq": {"path": "x"}}}
    with pytest.raises(SettingsError, match="is to be a folder's name, and cannot be one"):
        Ablation.parse({"recipe": recipe, "rows": {name: {"seed": 1}, "b": {"seed": 2}}}, where="ablation")


def test_the_command_line_refuses_it_and_leaves_what_is_there(embedsmith_command, tmp_path):
    precious = tmp_path / "precious"
    (precious / "clean").mkdir(parents=True)
    (precious / "clean" / "letters").write_text("mine")
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "positive": "p"}\n')
    for name in (str(precious), "../../precious"):
        data = {name: {"path": str(tmp_path / "rows.jsonl"), "against": [str(tmp_path / "rows.jsonl")]}}
        (tmp_path / "recipe.yaml").write_text(json.dumps({"data": data}))
        done = embedsmith_command("train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"))
        assert done.code == 2
        assert "cannot be one" in done.err
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": str(precious), "data": {"a": {"path": "rows.jsonl"}}}))
    assert embedsmith_command("train", str(tmp_path / "recipe.yaml")).code == 2
    assert [path.name for path in precious.rglob("*")] == ["clean", "letters"]


@pytest.mark.parametrize("name", ["hf:owner/..", "hf:..", "z/k/..", "..", "/", "a/\x1b[2J", "a/b\nc.jsonl"])
def test_the_files_of_data_lie_in_a_folder_below_the_evaluation(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in places_of([name, "other"]).values():
        assert (tmp_path / "out" / place).resolve().parent == tmp_path / "out"
        assert place.isprintable()


def test_values_of_a_grid_with_slashes_and_line_breaks_still_name_rows(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {nq: {path: x}}")
    vary = ['student.template=["a {instruction}\\n/x", "b {instruction}"]'.replace("[", "").replace("]", "")]
    found = read_ablation(tmp_path / "recipe.yaml", vary=vary)
    assert all(name.isprintable() for name in found.rows)


def test_ablations_that_name_each_other_in_a_circle_are_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("recipe: b.yaml")
    (tmp_path / "b.yaml").write_text("recipe: ../" + tmp_path.name + "/a.yaml")
    for name in "ab":
        with pytest.raises(SettingsError, match="names this file again"):
            read_ablation(tmp_path / f"{name}.yaml")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A folder of ours, beside one that is not."""
    for name in ("ours/made", "theirs/precious"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "ours/link").symlink_to(tmp_path / "theirs")
    (tmp_path / "ours/file-link").symlink_to(tmp_path / "theirs/precious/file")
    (tmp_path / "ours/inner").symlink_to(tmp_path / "ours/made")
    return tmp_path / "ours"


@pytest.mark.parametrize(
    "name",
    [
        *(".", "..", "../theirs", "../theirs/precious", "made/../../theirs", "made/.."),
        *("link", "file-link", "link/precious", "link/precious/file", "link/..", "link/../theirs"),
    ],
)
def test_nothing_is_removed_but_below_the_folder(ours, name):
    for path in (ours / name, Path(f"{ours}/{name}")):
        with pytest.raises(RunError, match="leads out of"):
            remove_below(ours, path)
    with pytest.raises(RunError, match="leads out of"):
        remove_below(ours, ours.parent / "theirs")
    assert (ours.parent / "theirs/precious/file").is_file()
    assert (ours / "made/file").is_file()


def test_what_lies_below_the_folder_is_removed_and_a_link_is_no_more_than_itself(ours):
    remove_below(ours, ours / "inner")
    assert (ours / "made/file").is_file()
    remove_below(ours, ours / "made/file")
    remove_below(ours, ours / "made")
    remove_below(ours, ours / "made")
    assert sorted(path.name for path in ours.iterdir()) == ["file-link", "link"]
    (ours.parent / "alias").symlink_to(ours)
    (ours / "again").mkdir()
    remove_below(ours.parent / "alias", ours.parent / "alias" / "again")
    assert not (ours / "again").exists()


def test_what_killed_processes_left_is_removed_without_following_links(ours):
    (ours / ".made.1234.partial").symlink_to(ours.parent / "theirs")
    with pytest.raises(RunError, match="leads out of"):
        remove_partials(ours)
    with pytest.raises(RunError, match="leads out of"):
        remove_partials_of(ours / "made")
    assert (ours.parent / "theirs/precious/file").is_file()


@pytest.mark.parametrize("name", ["../theirs", "/etc", "..", "", 7, None, "a\0b"])
def test_a_saved_data_set_names_files_of_its_own_folder_only(tmp_path, name):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(InputError, match="no name in its folder"):
        load_tables(folder)
    (folder / "dataset_dict.json").unlink()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match="no name in its folder"):
        load_tables(folder)


REMOVERS = {
    "data/files.py": "is the one way, and what it made itself a moment ago",
    "data/locks.py": "its own lock, and folders that it made and that are empty",
}


def test_what_removes_anything_goes_through_the_function_that_looks_where_it_lies():
    for path, source in modules():
        called = {
            name
            for call in ast.walk(ast.parse(source))
            if isinstance(call, ast.Call)
            for name in [call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")]
            if name in ("rmtree", "unlink", "rmdir", "removedirs")
            or (name == "remove" and getattr(getattr(call.func, "value", None), "id", "") == "os")
        }
        if str(path) == "runs/run.py":
            called -= {"rmdir"}  # the run's own folder, which is empty
        assert not called or str(path) in REMOVERS, (path, called)


def test_a_run_that_has_made_nothing_leaves_what_its_links_name(ours):
    with (
        pytest.raises(EmbedsmithError, match="leads out of"),
        Run.open(ours.parent / "run", command="train", settings=StageSettings(), inputs={}) as run,
    ):
        (run.folder / "recipe.yaml").unlink()
        (run.folder / "recipe.yaml").symlink_to(ours / "made/file")
        raise InputError("stopped")
    assert (ours / "made/file").is_file()


@pytest.mark.parametrize(
    "value", ["null", "5", "true", "[1]", "[[a, b]]", '"a\\0b"', "''", ".", "/dev/zero", "2024-01-01"]
)
def test_an_ablation_of_what_is_no_recipe_is_one_line(tmp_path, value):
    (tmp_path / "a.yaml").write_text(f"recipe: {value}\nrows:\n  a:\n    seed: 1\n  b:\n    seed: 2\n")
    with pytest.raises(EmbedsmithError) as refused:
        read_ablation(tmp_path / "a.yaml")
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.hint
