"""Every text ends with the end-of-text token, cut off or not, here and wherever the folder is opened."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embedsmith.errors import ModelError
from embedsmith.models.end_of_text import append_end_of_text
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings

LONG = "the cat sat on the mat and the dog sat on the log, " * 9
BEGIN = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
BYTES = processors.ByteLevel(trim_offsets=False)
RULES = {
    "none": None,
    "bytes": BYTES,
    "a beginning": BEGIN,
    "bytes and a beginning": processors.Sequence([BYTES, BEGIN]),
}


def tokenizer(folder, rules=None, **arguments):
    made = PreTrainedTokenizerFast.from_pretrained(folder, **arguments)
    if rules is not None:
        made.backend_tokenizer.post_processor = rules
    return made


def check(ending, plain):
    """What stands before the end is what stood there before, on either side of the padding."""
    for text in ("the cat", "", " a space"):
        assert ending(text)["input_ids"] == [*plain(text)["input_ids"], 2]
    cut = ending(LONG, truncation=True, max_length=9, return_special_tokens_mask=True)
    assert cut["input_ids"] == [*plain(LONG)["input_ids"][:8], 2]
    assert cut["special_tokens_mask"][-1] == 1
    ending.padding_side = "left"
    assert [row[-1] for row in ending(["the cat", "s"], padding=True)["input_ids"]] == [2, 2]
    ending.padding_side = "right"


@pytest.mark.parametrize("rules", RULES)
def test_it_is_added_to_whatever_rules_there_are_and_kept_on_disk(tiny_llama, tmp_path, rules):
    plain, ending = tokenizer(tiny_llama, RULES[rules]), tokenizer(tiny_llama, RULES[rules])
    append_end_of_text(ending, name="toy")
    check(ending, plain)
    append_end_of_text(ending, name="toy")
    check(ending, plain)
    ending.save_pretrained(tmp_path)
    check(AutoTokenizer.from_pretrained(tmp_path), plain)


def test_it_is_added_where_the_rules_are_made_of_two_switches(tiny_llama, tmp_path):
    """Llama's, Mistral's and Gemma's tokenizers make their rules anew each time they are opened."""
    plain = tokenizer(tiny_llama, add_bos_token=True, add_eos_token=False)
    assert plain("the cat")["input_ids"][0] == 1
    ending = tokenizer(tiny_llama, add_bos_token=True, add_eos_token=False)
    append_end_of_text(ending, name="toy")
    check(ending, plain)
    ending.save_pretrained(tmp_path)
    check(AutoTokenizer.from_pretrained(tmp_path), plain)


@pytest.mark.parametrize("folder", ["tiny_llama_bos_eos", "tiny_bert"])
def test_one_that_ends_texts_already_stays_as_it_is(request, folder):
    plain, ending = (tokenizer(request.getfixturevalue(folder)) for _ in range(2))
    append_end_of_text(ending, name="toy")
    assert ending("the cat")["input_ids"] == plain("the cat")["input_ids"]


def test_a_tokenizer_without_one_is_an_error(tiny_llama):
    bare = tokenizer(tiny_llama)
    bare.eos_token = None
    with pytest.raises(ModelError, match="toy: its tokenizer has no end-of-text token"):
        append_end_of_text(bare, name="toy")


def student(folder, **settings):
    return build_student(StudentSettings(name=str(folder), **{"query_max_tokens": 9, **settings}), device="cpu")


def test_last_token_pooling_reads_it_also_where_a_text_is_cut_off(tiny_llama, tmp_path):
    model = student(tiny_llama, pooling="last")
    ids = [*tokenizer(tiny_llama)(LONG)["input_ids"][:8], 2]
    with torch.no_grad():
        end = model.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    right = (end / end.norm()).numpy()
    np.testing.assert_allclose(model.embed([LONG], "query")[0], right, atol=1e-5)
    model.save(str(tmp_path / "model"))
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")  # no code of ours is needed
    np.testing.assert_allclose(plain.encode_query([LONG])[0], right, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"pooling": "last"}, True),
        ({"pooling": "last", "append_eos": False}, False),
        ({"pooling": "mean"}, False),
        ({"pooling": "mean", "append_eos": True}, True),
        ({"pooling": "latent", "latents": 4, "append_eos": True, "instruction": "find"}, True),
    ],
)
def test_it_is_an_option_and_the_habit_of_last_token_pooling(tiny_llama, settings, ends):
    model = student(tiny_llama, **(settings | ({"query_max_tokens": 60} if "instruction" in settings else {})))
    features = model.preprocess(["the cat"], task="query", prompt=model.prompts["query"])
    assert (int(features["input_ids"][0, -1]) == 2) == ends
    if "pooling_mask" in features:
        assert features["pooling_mask"][0, -1] == 1  # NV-Embed pools it
