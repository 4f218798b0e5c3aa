"""What is on a shelf is found by all that it depends on, what computed it included."""

import pytest

from embedsmith.data.collection import Collection
from embedsmith.models.settings import StudentSettings
from embedsmith.recipes import shelf
from embedsmith.recipes.recipe import EvaluationSettings, Recipe
from embedsmith.recipes.run import _candidates_of, _conversion_of
from embedsmith.recipes.scores import _baseline_of
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.settings import StageSettings

TOY = Collection.of(
    name="toy", passage_ids=["d"], passages=["a cat"], query_ids=["q"], queries=["cat"], qrels={"q": {"d": 1}}
)


@pytest.fixture
def identities(tmp_path, tiny_bert):
    """What each kind of result on a shelf is found by."""
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "cat", "positive": "a cat"}\n')
    data = {"toy": {"path": str(file)}}
    recipe = Recipe.parse({"data": data, "mining": {"teachers": ["bm25"]}}, where="recipe")
    student = StudentSettings(name=str(tiny_bert))
    return {
        "candidates": lambda: _candidates_of(recipe, TOY),
        "scores": lambda: _baseline_of("bm25", None, TeacherSettings(), EvaluationSettings(), TOY),
        "examples": lambda: _conversion_of(recipe, recipe.data["toy"]),
        "stages": lambda: shelf._stage_identities(tmp_path, student, [StageSettings()], [], seed=0),
    }


@pytest.mark.parametrize("kind", ["candidates", "scores", "examples", "stages"])
def test_another_version_of_what_computes_it_is_another_result(kind, identities, monkeypatch):
    known = identities[kind]()
    assert identities[kind]() == known
    monkeypatch.setattr(shelf, "ARITHMETIC", shelf.ARITHMETIC + 1)
    ours = identities[kind]()
    monkeypatch.undo()
    monkeypatch.setattr(shelf, "_COMPUTING", ("numpy",))
    assert known != ours != identities[kind]() != known


def test_the_packages_that_decide_a_number_are_known_by_their_versions():
    found = shelf.versions_of_arithmetic()
    assert {"embedsmith", "arithmetic", "bm25s", "torch", "transformers", "sentence-transformers"} <= found.keys()
