"""Which tokens are pooled: against character offsets looked up one text at a time, and against the decoded tokens."""

import pytest
import torch

from embedsmith.models.modeling_embedsmith import pooling_mask
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings

TEXTS = [
    "where is the parser",
    "10 times 100",
    " the cat, after a space",
    "  two spaces",
    "\nafter a newline",
    "élan vital",
    "e\u0301lan with a combining accent",
    "🙂 sat on the mat",
    "s",
    ")",
    "",
]
PROMPTS = ["Instruct: find the code\nQuery: ", "Instruct: find\nQuery:", "query", "the ", "Find it é\n", "🙂"]


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_llama_bos_eos", "tiny_bert"])
def transformer(request):
    settings = StudentSettings(name=str(request.getfixturevalue(request.param)), pooling="mean", instruction="find")
    return build_student(settings, device="cpu")[0]


@pytest.fixture(params=["right", "left"])
def padding_side(request, transformer):
    before = transformer.tokenizer.padding_side
    transformer.tokenizer.padding_side = request.param
    yield request.param
    transformer.tokenizer.padding_side = before


def slow_mask(tokenizer, prompt: str, text: str, max_tokens: int) -> list[int]:
    """Look up the characters of every token of one text; pool from the first token that has one of the text's on."""
    encoding = tokenizer([prompt + text], truncation=True, max_length=max_tokens)
    word_tokens = [place for place, added in enumerate(encoding.sequence_ids(0)) if added is not None]
    if not prompt:
        return [1] * len(encoding["input_ids"][0])
    for place in word_tokens:
        span = encoding.token_to_chars(0, place)
        if any(character >= len(prompt) for character in range(span.start, span.end)):
            return [int(other >= place) for other in range(len(encoding["input_ids"][0]))]
    return [0] * (len(encoding["input_ids"][0]) - 1) + [1]


def masks(transformer, features) -> list[list[int]]:
    """Return each text's mask without its padding, which must not be pooled."""
    pooled, attended = features["pooling_mask"], features["attention_mask"].bool()
    assert not pooled[~attended].any()
    return [row[real].tolist() for row, real in zip(pooled, attended, strict=True)]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_mask_equals_offsets_looked_up_one_text_at_a_time(transformer, padding_side, prompt):
    features = transformer.preprocess(TEXTS, prompt=prompt, task="query")
    expected = [slow_mask(transformer.tokenizer, prompt, text, transformer.query_length) for text in TEXTS]
    assert masks(transformer, features) == expected


def test_the_pooled_tokens_spell_the_text_and_nothing_of_the_instruction(tiny_llama):
    transformer = build_student(StudentSettings(name=str(tiny_llama), pooling="mean", instruction="find"))[0]
    prompt = "Instruct: find the code\nQuery: "
    features = transformer.preprocess(TEXTS[:-1], prompt=prompt, task="query")
    for ids, pooled, text in zip(features["input_ids"], features["pooling_mask"], TEXTS[:-1], strict=True):
        # The token of the first word may hold the instruction's last space.
        assert transformer.tokenizer.decode(ids[pooled.bool()]) in (text, f" {text}")


def test_without_an_instruction_every_token_is_pooled(transformer, padding_side):
    features = transformer.preprocess(TEXTS[:-1], task="query")
    assert torch.equal(features["pooling_mask"], features["attention_mask"])


def test_of_the_added_tokens_the_first_is_masked_and_the_last_is_pooled(tiny_llama_bos_eos):
    transformer = build_student(StudentSettings(name=str(tiny_llama_bos_eos), instruction="find", latents=4))[0]
    features = transformer.preprocess(["the cat"], prompt="Query: ", task="query")
    tokens = transformer.tokenizer.convert_ids_to_tokens(features["input_ids"][0])
    pooled = dict(zip(tokens, features["pooling_mask"][0].tolist(), strict=True))
    assert (tokens[0], tokens[-1]) == ("<s>", "</s>")
    assert (pooled["<s>"], pooled["</s>"]) == (0, 1)


@pytest.mark.parametrize("max_tokens", [9, 12, 14])
def test_the_mask_is_exact_where_a_text_is_cut_off(transformer, padding_side, max_tokens, monkeypatch):
    monkeypatch.setattr(transformer, "query_length", max_tokens)
    prompt, texts = (
        "Query: ",
        ["the cat sat on the mat and the dog sat on the log", "", "s", "10, 100 or 1000 times 🙂"],
    )
    features = transformer.preprocess(texts, prompt=prompt, task="query")
    assert features["input_ids"].shape[1] == max_tokens
    assert masks(transformer, features) == [slow_mask(transformer.tokenizer, prompt, t, max_tokens) for t in texts]


def test_an_instruction_that_fills_the_whole_length_leaves_its_last_token(transformer, monkeypatch):
    monkeypatch.setattr(transformer, "query_length", 5)
    features = transformer.preprocess(["cat"], prompt="Instruct: find the code\nQuery: ", task="query")
    assert features["pooling_mask"].tolist() == [[0, 0, 0, 0, 1]]


def test_several_instructions_in_a_batch_give_the_masks_of_each_alone(transformer, padding_side):
    pairs = [(prompt, text) for prompt in [*PROMPTS, ""] for text in TEXTS if prompt + text]
    batch = transformer.preprocess(
        [prompt + text for prompt, text in pairs], prompt_chars=[len(prompt) for prompt, _ in pairs], task="query"
    )
    alone = [
        masks(transformer, transformer.preprocess([text], prompt=prompt or None, task="query"))[0]
        for prompt, text in pairs
    ]
    assert masks(transformer, batch) == alone


def test_an_added_token_never_begins_the_text_wherever_its_offsets_lie():
    mask = pooling_mask(
        ends=torch.tensor([[9, 4, 7, 9, 9]]),
        special=torch.tensor([[True, False, False, False, True]]),
        attended=torch.ones(1, 5, dtype=torch.bool),
        prompt_chars=torch.tensor([4]),
    )
    assert mask.tolist() == [[0, 0, 1, 1, 1]]


def test_the_same_features_can_be_run_twice(transformer):
    features = transformer.preprocess(TEXTS[:3], prompt="Query: ", task="query")
    before = {key: value.clone() for key, value in features.items() if isinstance(value, torch.Tensor)}
    first, second = transformer(features), transformer(features)
    assert torch.equal(first["token_embeddings"], second["token_embeddings"])
    assert torch.equal(first["attention_mask"], before["pooling_mask"])
    assert all(torch.equal(features[key], value) for key, value in before.items())
