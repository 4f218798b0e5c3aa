"""What `embedsmith.run` returns: the model and the scores of a recipe's run, as a table too."""

import html
from pathlib import Path

import pytest
import yaml

import embedsmith
from embedsmith.errors import RunError
from embedsmith.recipes.results import RecipeRun
from tests.evaluation.test_compare import recipe_on, write_data


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory) -> RecipeRun:
    folder = tmp_path_factory.mktemp("recipe")
    recipe = recipe_on(write_data(folder / "animals"), tiny_bert)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return embedsmith.run(folder / "recipe.yaml", out=folder / "run")


def test_a_recipe_s_file_is_carried_out(run: RecipeRun):
    assert run.scores.keys() == {"animals"}
    assert run.scores["animals"].keys() == {"teacher", "before", "after"}
    again = RecipeRun.read(run.folder)
    assert again.scores == run.scores
    assert again.model.embed(["a cat"], "query").tolist() == run.model.embed(["a cat"], "query").tolist()


def test_the_main_scores_are_a_table(run: RecipeRun):
    lines = str(run).splitlines()
    assert lines[1].split() == ["data", "model", "metric", "score"]
    after = f"{run.scores['animals']['after']['ndcg@10']:.4f}"
    assert lines[-1].split() == ["animals", "after", "ndcg@10", after]
    assert f"<td>{after}</td>" in run._repr_html_()


def test_a_report_of_a_run_is_written_from_python_and_shown_in_a_notebook(run: RecipeRun, tmp_path: Path):
    written = embedsmith.report(run.folder)
    assert str(written) == str(run.folder / "report.html")
    assert written.numbers["metric"] == "ndcg@10"
    shown = written._repr_html_()
    assert html.unescape(shown.split('srcdoc="')[1].split('" style=')[0]) == written.path.read_text(encoding="utf-8")
    assert shown.startswith("<iframe sandbox ")
    notes = []
    mined = embedsmith.report(run.folder / "mined" / "animals", on_progress=lambda *said: notes.append(said))
    assert mined.path == run.folder / "mined" / "animals" / "report.html"
    assert mined.numbers["data"] == "animals"
    with pytest.raises(RunError, match="no such run folder"):
        embedsmith.report(tmp_path / "none")
