"""The queue: what waits is batched by length, in a fair order, and one text's failure is not another's."""

import asyncio
import itertools
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from embedsmith.serving.server import batching
from embedsmith.serving.server.batching import Batcher, BatchFailed, OutOfMemory


@dataclass(frozen=True)
class Text:
    tokens: int
    kind: str = "a"


class Model:
    """Returns each text's tokens; the first batch waits until it is let go, so that others gather behind it."""

    def __init__(self, fails=None):
        self.batches, self.go, self.fails = [], threading.Event(), fails

    def __call__(self, texts):
        if not self.batches:
            self.batches.append(texts)
            assert self.go.wait(30)
        else:
            self.batches.append(texts)
        if self.fails:
            self.fails(texts)
        return np.array([[text.tokens] for text in texts], np.float32)


@pytest.fixture
def queue(request):
    made = []

    def start(model, **more):
        made.append(Batcher(model, **{"batch_tokens": 100, "packs": False, "is_on_cpu": False, **more}))
        return made[-1]

    yield start
    for batcher in made:
        batcher._compute.go.set()
        batcher.close()


def run(model, batcher, *requests, before=lambda jobs: None):
    """Enqueue a text that blocks, then requests; return what each got."""

    async def main():
        first = batcher.enqueue([Text(1, "first")])
        while not model.batches:
            await asyncio.sleep(0.001)
        jobs = [batcher.enqueue(texts) for texts in requests]
        before(jobs)
        waiting = [job.done for job in jobs if not job.is_gone]
        model.go.set()
        await first.done
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(main())


def test_requests_share_batches_and_each_gets_its_own_in_order(queue):
    model = Model()
    found = run(model, queue(model), [Text(10), Text(9)], [Text(8)], [Text(11), Text(7), Text(6)])
    assert [vectors[:, 0].tolist() for vectors in found] == [[10, 9], [8], [11, 7, 6]]
    assert len(model.batches) == 2 and len(model.batches[1]) == 6


@pytest.mark.parametrize("packs", [False, True])
def test_a_batch_keeps_to_its_budget_and_to_texts_of_one_length(queue, packs):
    model = Model()
    texts = [Text(tokens) for tokens in (5, 90, 6, 40, 39, 7, 95, 1000, 41)]
    run(model, queue(model, packs=packs), texts)
    for batch in model.batches[1:]:
        lengths = [text.tokens for text in batch]
        size = sum(lengths) if packs else max(lengths) * len(lengths)
        assert size <= 100 or len(batch) == 1
        assert max(lengths) <= 4 * min(lengths)


def test_kinds_share_no_batch(queue):
    model = Model()
    run(model, queue(model), [Text(5, "a"), Text(5, "b"), Text(5, "a")])
    assert sorted(len(batch) for batch in model.batches[1:]) == [1, 2]


def test_a_short_request_passes_the_rest_of_a_long_one(queue):
    model = Model()
    run(model, queue(model), [Text(100)] * 20, [Text(3)])
    place = next(place for place, batch in enumerate(model.batches) if batch[0].tokens == 3)
    assert place < 4


def test_who_came_first_is_not_passed_for_ever(queue, monkeypatch):
    """Requests come a millisecond apart; a long text is due after 10 ms, and those after it follow."""
    clock = itertools.count()
    monkeypatch.setattr(batching.time, "monotonic", lambda: next(clock) / 1000)
    model = Model()
    run(model, queue(model), [Text(100)], *[[Text(3)]] * 400)
    place = next(place for place, batch in enumerate(model.batches) if batch[0].tokens == 100)
    assert place <= 3


def test_a_request_that_is_gone_is_not_computed(queue):
    model = Model()

    def leave(jobs):
        jobs[0].is_gone = True

    found = run(model, queue(model), [Text(50)] * 3, [Text(20)], before=leave)
    assert [vectors.tolist() for vectors in found] == [[[20]]]
    assert [len(batch) for batch in model.batches] == [1, 1]


def test_a_failure_is_that_of_the_requests_in_the_batch(queue):
    def fail(texts):
        if any(text.kind == "bad" for text in texts):
            raise ValueError("broken")

    model = Model(fail)
    good, bad = run(model, queue(model), [Text(5)], [Text(5, "bad")])
    assert good.tolist() == [[5]]
    assert isinstance(bad, BatchFailed) and str(bad) == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_where_memory_is_short_texts_are_computed_one_by_one_and_the_largest_alone_fails(queue, error):
    def fail(texts):
        if sum(text.tokens for text in texts) > 60:
            raise error

    model = Model(fail)
    found = run(model, queue(model, batch_tokens=1000), [Text(50), Text(40)], [Text(70)])
    assert found[0].tolist() == [[50], [40]]
    assert isinstance(found[1], OutOfMemory)


def test_several_threads_lose_nothing(queue):
    model = Model()
    model.go.set()
    torch.set_num_threads(1)
    batcher = queue(model, is_on_cpu=True)
    requests = [[Text(tokens) for tokens in range(1, count)] for count in range(2, 60)]
    found = run(model, batcher, *requests)
    assert [vectors[:, 0].tolist() for vectors in found] == [[text.tokens for text in texts] for texts in requests]


def test_what_is_in_the_queue_is_computed_before_the_end():
    model = Model()
    model.go.set()
    batcher = Batcher(model, batch_tokens=10, packs=False, is_on_cpu=False)

    async def main():
        jobs = [batcher.enqueue([Text(9)] * 5) for _ in range(3)]
        await asyncio.to_thread(batcher.close)
        return await asyncio.gather(*(job.done for job in jobs))

    assert [len(vectors) for vectors in asyncio.run(main())] == [5, 5, 5]


def test_only_one_thread_ever_uses_several_cores(queue):
    """Each thread that does has OpenMP workers of its own, and libgomp slows all down where they exceed the cores."""
    model = Model()
    model.go.set()
    seen = set()

    def note(texts):
        seen.add((threading.get_ident(), torch.get_num_threads()))

    model.fails = note
    torch.set_num_threads(2)
    try:
        batcher = queue(model, is_on_cpu=True, batch_tokens=10)

        async def main():
            for _ in range(30):
                await batcher.enqueue([Text(5)]).done
                await asyncio.gather(*(batcher.enqueue([Text(9)]).done for _ in range(6)))

        asyncio.run(main())
    finally:
        torch.set_num_threads(1)
    assert {cores for _, cores in seen} == {1, 2}
    assert len({thread for thread, cores in seen if cores == 2}) == 1


def test_on_a_cpu_texts_of_another_width_come_only_where_padding_is_cheaper_than_a_batch(queue):
    torch.set_num_threads(1)
    model = Model()
    run(model, queue(model, is_on_cpu=True, batch_tokens=1000), [Text(16)] * 10, [Text(24)] * 10, [Text(30)])
    # 10 texts of 16 to 24 tokens are 80 of padding; 10 of 24 to 32 are 80, too.
    assert sorted([text.tokens for text in batch] for batch in model.batches[1:]) == [[16] * 10, [24] * 10, [30]]
    model = Model()
    run(model, queue(model, is_on_cpu=True, batch_tokens=1000), [Text(16)] * 5, [Text(24)] * 10)
    assert [len(batch) for batch in model.batches[1:]] == [15]
