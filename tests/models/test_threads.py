"""Several threads with one model get the vectors that one thread gets, and leave the process as it was."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embedsmith.models import opening
from embedsmith.models.attention import steady_attention
from embedsmith.models.compiled import uncompiled
from embedsmith.models.cpu.attention import training_attention
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.models.threads import Shared, on_cores, one_at_a_time, set_cores
from embedsmith.models.tokens import tokens_of

WORDS = "the cat sat on a mat and read lists of files with parsers".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(7 * n + 3 * m) % len(WORDS)] for m in range(1 + n % 23)) for n in range(40)]
LENGTHS = {"query": 7, "passage": 19}


def at_once(calls, times=1):
    """Return what each call returns, all of them made at the same time."""
    barrier = threading.Barrier(len(calls))

    def call(made):
        barrier.wait()
        return [made() for _ in range(times)]

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call, made) for made in calls]]


@pytest.fixture(scope="module", params=["an encoder", "instructed", "mixed"])
def model(request, tiny_bert, tiny_llama):
    if request.param == "an encoder":
        found = build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    else:
        sizes = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find it"}
        found = build_student(StudentSettings(name=str(tiny_llama), **sizes), device="cpu")
    found.set_max_tokens(**LENGTHS)
    if request.param == "mixed":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("embedsmith.models.precision.cpu_has_bfloat16", lambda: True)
            found.use_dtype("auto")
    return found


@pytest.fixture
def slow_tokenizer(monkeypatch):
    """A tokenizer that lets other threads run between setting the truncation and tokenising."""
    tell = PreTrainedTokenizerFast.set_truncation_and_padding

    def notes(self, *arguments, **keywords):
        tell(self, *arguments, **keywords)
        time.sleep(0.003)

    monkeypatch.setattr(PreTrainedTokenizerFast, "set_truncation_and_padding", notes)


WAYS = {
    "embed queries": lambda model: model.embed(TEXTS, "query"),
    "embed passages": lambda model: model.embed(TEXTS, "passage"),
    "embed lists": lambda model: np.concatenate(list(model.embed_each(iter([TEXTS[:9], TEXTS[9:]]), "passage"))),
    "encode_query": lambda model: model.encode_query(TEXTS, normalize_embeddings=True),
    "encode_document": lambda model: model.encode_document(TEXTS, normalize_embeddings=True),
    "encode": lambda model: model.encode(TEXTS, normalize_embeddings=True),
    "count tokens": lambda model: np.array([model.count_tokens(TEXTS, "query"), model.count_tokens(TEXTS, "passage")]),
    "tokens": lambda model: tokens_of(model, TEXTS, task="query")["input_ids"].numpy(),
}


@pytest.mark.usefixtures("slow_tokenizer")
def test_threads_that_use_one_model_in_any_way_get_what_one_thread_gets(model):
    alone = [way(model) for way in WAYS.values()]
    together = at_once([lambda way=way: way(model) for way in WAYS.values()], times=2)
    for name, expected, found in zip(WAYS, alone, together, strict=True):
        for vectors in found:
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6, err_msg=name)


def test_models_are_opened_in_turn_and_used_meanwhile(tiny_bert, tiny_llama, tmp_path, monkeypatch):
    """Transformers changes the type of new tensors while it makes a model of another type."""
    folders = []
    for name, tiny in (("bert", tiny_bert), ("llama", tiny_llama)):
        student = build_student(StudentSettings(name=str(tiny), pooling="mean"), device="cpu")
        for dtype in (torch.float32, torch.float16):
            folders.append(str(tmp_path / f"{name}-{dtype}"))
            student.to(dtype).save(folders[-1])
    within = []
    opened = opening._open

    def one(*arguments, **keywords):
        within.append(1)
        assert len(within) == 1
        time.sleep(0.003)
        found = opened(*arguments, **keywords)
        within.pop()
        return found

    monkeypatch.setattr(opening, "_open", one)
    known = load(folders[0], device="cpu")
    calls = [
        lambda folder=folder: load(folder, device="cpu", dtype="float16").embed(TEXTS, "query") for folder in folders
    ]
    calls.append(lambda: known.embed(TEXTS, "query"))
    alone = [call() for call in calls]
    for expected, found in zip(alone, at_once(calls, times=2), strict=True):
        for vectors in found:
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)
    assert torch.get_default_dtype() == torch.float32


def test_texts_are_tokenised_right_beside_a_model_that_embeds(model, slow_tokenizer):
    """As a training's next batch is while its `on_step` embeds."""
    batch = {"query": TEXTS[3:9], "document": TEXTS[20:26]}

    def tokenised():
        return [model.preprocess(texts, task=task)["input_ids"] for task, texts in batch.items()]

    expected = tokenised()
    for found in at_once([tokenised, lambda: model.embed(TEXTS, "passage"), tokenised], times=3)[::2]:
        for ids in found:
            assert all(map(torch.equal, ids, expected))


class TestCores:
    """The number of cores that matmuls use."""

    @pytest.fixture(autouse=True)
    def three_cores(self):
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)

    def in_new_thread(self, read=torch.get_num_threads):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(read).result()

    def test_a_threads_own_number_is_nobody_elses(self):
        with on_cores(1):
            assert torch.get_num_threads() == 1
            assert self.in_new_thread() == 3
            assert self.in_new_thread(lambda: set_cores(2) or torch.get_num_threads()) == 2
            assert self.in_new_thread() == 3
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == self.in_new_thread() == 3

    def test_threads_that_embed_at_once_leave_all_as_it_was(self, model):
        seen = []

        def watched():
            lists = model.embed_each(iter([TEXTS, TEXTS[:2]]), "passage", tokens=60)
            seen.extend(torch.get_num_threads() for _ in lists)
            return torch.get_num_threads()

        assert at_once([watched] * 3, times=2) == [[3, 3]] * 3
        assert set(seen) == {3}
        assert torch.get_num_threads() == self.in_new_thread() == 3

    @pytest.mark.parametrize("last", [0, 1])
    def test_lists_that_are_read_in_turn_leave_all_as_it_was(self, model, last):
        """Whichever is done first."""
        readers = [model.embed_each(iter([TEXTS, TEXTS]), role, tokens=60) for role in ("query", "passage")]
        for reader in readers:
            next(reader)
        assert torch.get_num_threads() == 3
        readers[1 - last].close()
        readers[last].close()
        assert torch.get_num_threads() == self.in_new_thread() == 3


class TestBlocksOfTheProcess:
    """The first to enter begins a block, the last to leave ends it."""

    def test_it_is_begun_once_and_ended_once(self):
        events = []

        @Shared
        @contextmanager
        def block():
            events.append("begun")
            yield
            events.append("ended")

        one, other = block(), block()
        for _ in range(2):
            one, other = block(), block()
            one.__enter__()
            other.__enter__()
            one.__exit__(None, None, None)
            assert events[-1] == "begun"
            other.__exit__(None, None, None)
            assert events[-1] == "ended"
        assert len(events) == 4
        with pytest.raises(ValueError, match="within"), block(), block():
            raise ValueError("within")
        assert events[-1] == "ended" and len(events) == 6

    @pytest.mark.parametrize(
        ("block", "state"),
        [
            (lambda: steady_attention("cuda"), torch.backends.cuda.cudnn_sdp_enabled),
            (lambda: training_attention("cpu"), torch.backends.cuda.flash_sdp_enabled),
            (uncompiled, lambda: torch._dynamo.eval_frame._stance.stance),
        ],
        ids=["steady_attention", "training_attention", "uncompiled"],
    )
    def test_blocks_of_two_threads_leave_what_was_before_the_first(self, block, state):
        before = state()
        one, other = block(), block()
        one.__enter__()
        within = state()
        assert within != before
        other.__enter__()
        one.__exit__(None, None, None)
        assert state() == within
        other.__exit__(None, None, None)
        assert state() == before


def test_what_opens_models_may_open_another_within():
    depth = []

    @one_at_a_time
    def opened(more):
        depth.append(more)
        return opened(more - 1) if more else len(depth)

    assert opened(2) == 3
