"""The tokens of many texts at once are those that `preprocess` returns."""

import pytest
import torch

from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.models.tokens import tokens_of

TEXTS = [
    "the cat",
    "",
    "10 apples in lists of files " * 20,
    "def read(path)",
    "the dog sat on the log",
]


@pytest.fixture
def build(request):
    def of(folder, **settings):
        name = str(request.getfixturevalue(folder))
        given = {"query_max_tokens": 20, "passage_max_tokens": 40, "latents": 4, "heads": 2, **settings}
        return build_student(StudentSettings(name=name, **given), seed=1, device="cpu")

    return of


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert type(found[key]) is type(value), key
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value), key
        else:
            assert found[key] == value


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], [""], ["", "a"], []], ids=len)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("task", ["query", "document"])
@pytest.mark.parametrize("folder", ["tiny_llama", "tiny_llama_bos_eos", "tiny_bert"])
def test_they_are_those_of_preprocess(build, folder, task, side, texts):
    model = build(folder)
    model.tokenizer.padding_side = side
    for prompt in (None, "", "query: "):
        assert_equal(
            tokens_of(model, texts, prompt=prompt, task=task), model.preprocess(texts, prompt=prompt, task=task)
        )


@pytest.mark.parametrize("prompt", [None, "Instruct: Find it\nQuery: "])
def test_with_an_instruction_and_an_end_of_text_too(build, prompt):
    model = build("tiny_llama", instruction="Find it", pooling="last", attention="bidirectional", append_eos=True)
    found = tokens_of(model, TEXTS, prompt=prompt, task="query")
    assert "pooling_mask" in found
    assert_equal(found, model.preprocess(TEXTS, prompt=prompt, task="query"))


def test_a_tokenizer_with_ways_of_its_own_is_left_to_them(build):
    model = build("tiny_bert")
    model[0].processing_kwargs = {"text": {"padding": "max_length", "max_length": 16}}
    found = tokens_of(model, TEXTS, task="document")
    assert_equal(found, model.preprocess(TEXTS, task="document"))
    assert found["input_ids"].shape[1] >= 16
