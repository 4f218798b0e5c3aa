"""The papers' instructions, named by task: before queries, and where both sides are alike before passages too."""

import numpy as np
import pytest

from embedsmith.data.instructions import OF_DATA
from embedsmith.errors import SettingsError
from embedsmith.models.instructions import ONE_SIDED, task_of
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings

TEXTS = ["where is the parser", "10 times 100", " the cat"]


def student(folder, **settings):
    return build_student(StudentSettings(name=str(folder), pooling="mean", **settings), device="cpu")


def test_a_named_task_is_asked_in_the_papers_words():
    assert StudentSettings(instruction="task:fiqa").prompt == (
        "Instruct: Given a financial question, retrieve relevant passages that answer the query\nQuery: "
    )
    assert OF_DATA.keys() > ONE_SIDED
    assert task_of("task:nq").instruction == OF_DATA["nq"]


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(SettingsError, match=r'no instruction for "fqia" \(did you mean "fiqa"\?\)'):
        _ = StudentSettings(instruction="task:fqia").prompt


@pytest.mark.parametrize(
    ("settings", "both"),
    [
        ({"instruction": "task:scifact"}, False),
        ({"instruction": "task:quora"}, True),
        ({"instruction": "find the code"}, False),
        ({"instruction": "find the code", "both_sides": True}, True),
    ],
)
def test_an_instruction_stands_on_one_side_or_on_both(tiny_llama, settings, both, tmp_path):
    model = student(tiny_llama, query_max_tokens=99, passage_max_tokens=99, **settings)
    prompt = StudentSettings(**settings).prompt
    assert model.prompts == {"query": prompt, "document": prompt if both else ""}
    queries, passages = model.embed(TEXTS, "query"), model.embed(TEXTS, "passage")
    assert (np.abs(queries - passages).max() < 1e-6) == both
    model.save(str(tmp_path / "model"))
    np.testing.assert_allclose(load(str(tmp_path / "model"), device="cpu").embed(TEXTS, "passage"), passages, atol=1e-6)


def test_an_instruction_longer_than_a_passage_may_be_is_an_error(tiny_llama):
    with pytest.raises(SettingsError, match=r"passage_max_tokens: 12, but the instruction alone takes \d+ tokens"):
        student(tiny_llama, instruction="task:sts", query_max_tokens=99, passage_max_tokens=12)
