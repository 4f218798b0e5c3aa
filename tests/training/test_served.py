"""What is trained is what is served: a text has the vector in training that `embed` gives it."""

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from embedsmith.data.examples import Example, Passage
from embedsmith.models import packed
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.chunks import chunks_of, encode
from embedsmith.training.grad_cache import ActivationMemory, GradCache
from embedsmith.training.processes import Processes
from tests.models.test_packed import slow_flash

PROMPTS = {"one": ("Find it: ", ""), "two": ("Instruct: read 10 lines\nQuery: ", "Text: "), "none": ("", "")}
"""Of queries and of passages, for each data set."""


def sources() -> list[Source]:
    """Three data sets whose texts have other instructions, some of them cut off."""

    def example(name: str, n: int) -> Example:
        positive = Passage(f"p{n}", f"the dog {n} sat on {name} " * (1 + 3 * n))
        return Example(f"q{n}", f"{n} where is {name} " * (1 + 2 * n), [positive], [Passage(f"n{n}", f"{name} {n}")])

    return [
        Source(name, [example(name, n) for n in range(3)], prompt=query, passage_prompt=passage)
        for name, (query, passage) in PROMPTS.items()
    ]


def in_training(model, batch, *, packed_texts: bool, rounded: bool):
    """The vectors that a step holds against each other, of length 1."""
    chunks = chunks_of(model, batch, 64, packed=packed_texts, rounded=rounded)
    assert len(chunks) > 1
    assert {chunk.is_packed for chunk in chunks} == {packed_texts}
    cache = GradCache(
        model,
        lambda chunk: encode(model, chunk, device=model.device, bfloat16=False),
        seed=0,
        memory=ActivationMemory(0.0),
        processes=Processes(),
        dimensions=model.get_embedding_dimension(),
    )
    vectors = cache.vectors(chunks, device=model.device)
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


def served(model, batch):
    """The vectors that `embed` gives the same texts, under the instruction of each."""
    found = np.zeros((len(batch.queries) + len(batch.passages), model.get_embedding_dimension()), np.float32)
    for role, texts, chars, first in (
        ("query", batch.queries, batch.prompt_chars, 0),
        ("passage", batch.passages, batch.passage_prompt_chars, len(batch.queries)),
    ):
        prompts = [text[:count] for text, count in zip(texts, chars, strict=True)]
        for prompt in set(prompts):
            rows = [row for row, other in enumerate(prompts) if other == prompt]
            model.set_prompt(role, prompt)
            found[[first + row for row in rows]] = model.embed([texts[row][len(prompt) :] for row in rows], role)
    return found


ENCODER, DECODER = "tiny_bert", "tiny_llama_bos_eos"
OF_LIBRARY = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
TRAINED = ["latent", "self-attention", "multi-layer"]
LEFT_OUT = ["nothing", "prompt", "instruction", "both"]
CASES = [
    # A left-padded encoder counts its positions from the padding: it has no one vector of a text.
    *((ENCODER, pooling, out, "right", "padded") for pooling in OF_LIBRARY for out in LEFT_OUT),
    *((DECODER, pooling, out, "left", "padded") for pooling in OF_LIBRARY for out in LEFT_OUT),
    *((DECODER, pooling, "instruction", side, "padded") for pooling in TRAINED for side in ("left", "right")),
    *((DECODER, pooling, out, "right", "packed") for pooling in ("mean", "lasttoken") for out in LEFT_OUT),
    *((DECODER, pooling, "instruction", "left", "packed") for pooling in TRAINED[:2]),
    *((folder, "mean", out, "right", "rounded") for folder in (ENCODER, DECODER) for out in ("prompt", "instruction")),
    *(("tiny_llama", "mean", out, "left", "padded") for out in LEFT_OUT),
]


@pytest.mark.parametrize(("folder", "pooling", "leaves_out", "side", "kind"), CASES, ids=map("-".join, CASES))
def test_a_text_has_the_same_vector_in_training_as_when_it_is_served(
    request, monkeypatch, folder, pooling, leaves_out, side, kind
):
    """`prompt`: sentence-transformers' `Pooling(include_prompt=False)`; `instruction`: our exact mask."""
    if kind == "packed":
        monkeypatch.setattr(packed, "_has_kernel", lambda device: True)
        monkeypatch.setattr(packed, "_SHORT_TYPES", (torch.float32,))
        monkeypatch.setattr(packed, "flash_attention", slow_flash)
    model = build_student(
        StudentSettings(
            name=str(request.getfixturevalue(folder)),
            pooling=pooling if pooling in TRAINED else "mean",
            instruction="Find it" if leaves_out in ("instruction", "both") else "",
            append_eos=folder == "tiny_llama",
            layers=2,
            query_max_tokens=24,
            passage_max_tokens=32,
            latents=4,
            heads=2,
        ),
        device="cpu",
    ).eval()
    if pooling in OF_LIBRARY:
        model[1] = Pooling(32, pooling_mode=pooling, include_prompt=leaves_out not in ("prompt", "both"))
    model.tokenizer.padding_side = side
    (batch,) = BatchPlan(sources(), steps=1, batch_size=9, hard_negatives=1, in_batch=True, seed=0, once=True)
    assert len(set(batch.prompt_chars)) == 3 and len(set(batch.passage_prompt_chars)) == 2
    with torch.no_grad():
        trained = in_training(model, batch, packed_texts=kind == "packed", rounded=kind == "rounded")
    np.testing.assert_allclose(trained, served(model, batch), rtol=0, atol=1e-5)


def test_a_model_of_which_the_first_numbers_are_kept_is_trained_on_those(tiny_bert, tmp_path):
    build_student(StudentSettings(name=str(tiny_bert)), device="cpu").save(str(tmp_path / "model"))
    model = load(str(tmp_path / "model"), device="cpu", dimensions=8)
    (batch,) = BatchPlan(sources(), steps=1, batch_size=9, hard_negatives=1, in_batch=True, seed=0, once=True)
    with torch.no_grad():
        trained = in_training(model.eval(), batch, packed_texts=False, rounded=False)
    assert trained.shape[1] == 8
    np.testing.assert_allclose(trained, served(model, batch), rtol=0, atol=1e-5)
