"""Batches of about equal work: every text once, within the budget, little padding."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from embedsmith.models.budget import Rounding, ahead, cheapest_cuts, side_by_side, token_batches, windows


def features(lengths, *, left=False):
    """Features of texts of some lengths; every token is the number of its text."""
    width = max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, width - length :] = 1 if left else mask[row, width - length :]
        mask[row, :length] = mask[row, :length] if left else 1
    numbers = torch.arange(len(lengths))[:, None] * mask
    return {"input_ids": numbers, "attention_mask": mask, "prompt_length": 3, "modality": "text"}


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("tokens", [1, 16, 64, 10_000])
def test_every_text_is_in_one_batch_with_all_its_tokens_and_no_more_columns_than_the_longest_has(tokens, left):
    lengths = np.random.default_rng(0).integers(1, 30, 100).tolist()
    whole = features(lengths, left=left)
    seen = []
    for rows, batch in token_batches(whole, tokens):
        longest = max(lengths[row] for row in rows)
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(rows), longest)
        assert batch["attention_mask"].sum(1).tolist() == [lengths[row] for row in rows]
        assert batch["input_ids"].amax(1).tolist() == rows.tolist()
        assert (batch["prompt_length"], batch["modality"]) == (3, "text")
        assert len(rows) * longest <= max(tokens, longest)
        seen += rows.tolist()
    assert sorted(seen) == list(range(100))
    assert [lengths[row] for row in seen] == sorted(lengths, reverse=True)


@pytest.mark.parametrize(("overhead", "padded"), [(None, True), (5, True), (None, False)])
@pytest.mark.parametrize("apart", [None, 0, 1, 12, 30, 99])
def test_short_texts_share_no_batch_with_long_ones(apart, overhead, padded):
    lengths = np.random.default_rng(0).integers(1, 30, 100).tolist()
    found = [
        rows.tolist() for rows, _ in token_batches(features(lengths), 64, overhead=overhead, padded=padded, apart=apart)
    ]
    assert [lengths[row] for rows in found for row in rows] == sorted(lengths, reverse=True)
    are_short = [{lengths[row] < (apart or 0) for row in rows} for rows in found]
    assert all(len(some) == 1 for some in are_short)


def test_a_text_of_no_token_keeps_a_column():
    whole = features([2, 1])
    whole["attention_mask"][1] = 0
    ((_, first), (rows, last)) = token_batches(whole, tokens=2)
    assert first["input_ids"].shape == (1, 2)
    assert rows.tolist() == [1] and last["input_ids"].shape == (1, 1)


def test_padding_is_a_twentieth_where_lengths_vary():
    lengths = np.random.default_rng(0).geometric(1 / 25, 4096).clip(3, 256).tolist()
    padded = sum(batch["input_ids"].numel() for _, batch in token_batches(features(lengths), 2048))
    assert padded < 1.05 * sum(lengths)


@pytest.mark.parametrize("overhead", [0, 5, 40, 1000])
@pytest.mark.parametrize("tokens", [1, 40, 90, 10_000])
def test_batches_are_cut_where_padding_and_overhead_are_least(tokens, overhead):
    lengths = sorted(np.random.default_rng(tokens + overhead).integers(1, 30, 9).tolist(), reverse=True)

    def cost(ends):
        parts = [lengths[start:end] for start, end in pairwise((0, *ends))]
        fits = all(len(part) * part[0] <= tokens or len(part) == 1 for part in parts)
        return sum(len(part) * part[0] + overhead for part in parts) if fits else np.inf

    ways = [(*inner, 9) for count in range(9) for inner in combinations(range(1, 9), count)]
    found = cheapest_cuts(np.array(lengths), tokens, overhead)
    assert found[-1] == 9
    assert cost(found) == min(map(cost, ways)) < np.inf
    shapes = [batch["input_ids"].shape for _, batch in token_batches(features(lengths), tokens, overhead=overhead)]
    assert sum(n * width + overhead for n, width in shapes) == cost(found)


@pytest.mark.parametrize("on_left", [False, True])
@pytest.mark.parametrize("longest", [30, 512])
def test_numbers_of_tokens_are_rounded_up_by_padding(on_left, longest):
    lengths = np.random.default_rng(2).integers(1, 31, 150).tolist()
    rounding = Rounding(grain=16, longest=longest, values={"input_ids": 7, "attention_mask": 0}, on_left=on_left)
    plain = features(lengths, left=on_left)
    rows = []
    for some, batch in token_batches(plain, 200, overhead=20, rounding=rounding):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ids.numel() % 16 == 0 or longest == 30
        assert ids.shape[1] <= longest
        assert ids.numel() <= 200 or len(ids) == 1
        assert mask.sum(1).tolist() == [lengths[row] for row in some.tolist()]
        more = ids.shape[1] - int(mask.sum(1).max())
        new = ids[:, :more] if on_left else ids[:, ids.shape[1] - more :]
        assert (new == 7).all()
        kept = ids[:, more:] if on_left else ids[:, : ids.shape[1] - more]
        wanted = plain["input_ids"][some]
        assert torch.equal(
            kept, wanted[:, wanted.shape[1] - kept.shape[1] :] if on_left else wanted[:, : kept.shape[1]]
        )
        rows += some.tolist()
    assert sorted(rows) == list(range(150))


def test_rounding_costs_a_twentieth_where_batches_are_cut_for_it():
    lengths = np.random.default_rng(1).geometric(1 / 90, 160).clip(8, 128).tolist()
    rounding = Rounding(grain=64, longest=512, values={"input_ids": 0, "attention_mask": 0})
    plain, rounded = (
        sum(
            batch["input_ids"].numel() for _, batch in token_batches(features(lengths), 2048, overhead=64, rounding=how)
        )
        for how in (None, rounding)
    )
    assert plain <= rounded < 1.06 * plain


def test_a_small_batch_that_is_cut_well_has_half_the_padding_of_one_that_is_cut_full():
    lengths = np.random.default_rng(1).geometric(1 / 90, 160).clip(8, 256).tolist()
    full, cut = (
        sum(batch["input_ids"].numel() for _, batch in token_batches(features(lengths), 2048, overhead=overhead))
        for overhead in (None, 64)
    )
    assert cut - sum(lengths) < 0.5 * (full - sum(lengths))


def test_windows_hold_every_text_longest_first_within_their_limits():
    lengths = np.random.default_rng(0).integers(0, 50, 200).tolist()
    found = list(windows(lengths, texts=30, characters=500))
    flat = [place for window in found for place in window]
    assert sorted(flat) == list(range(200))
    assert [lengths[place] for place in flat] == sorted(lengths, reverse=True)
    assert all(len(window) <= 30 and len(window) * lengths[window[0]] <= 500 for window in found)


def test_work_goes_on_one_list_ahead_and_in_order():
    started = []

    def work(places):
        started.append(places)
        return {"sum": sum(places)}

    results = []
    for places, result in ahead(work, iter([[1, 2], [3], [4, 5]])):
        results.append((places, result["sum"], len(started)))
    assert [(places, total) for places, total, _ in results] == [([1, 2], 3), ([3], 3), ([4, 5], 9)]
    assert all(begun <= number + 2 for number, (_, _, begun) in enumerate(results))


def test_work_that_fails_fails_where_its_list_is_asked_for():
    def work(places):
        return {"inverse": 1 / places[0]}

    found = ahead(work, iter([[2], [0]]))
    assert next(found) == ([2], {"inverse": 0.5})
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        next(found)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_what_is_made_side_by_side_comes_in_order(count, workers):
    def work(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(side_by_side(work, iter(range(count)), workers)) == [item * item for item in range(count)]


@pytest.mark.parametrize(("cores", "workers", "share"), [(2, 2, 1), (2, 3, 1), (4, 2, 2)])
def test_each_worker_computes_on_its_share_of_the_cores_and_the_caller_keeps_its_own(two_cores, cores, workers, share):
    torch.set_num_threads(cores)
    seen = list(side_by_side(lambda _: (threading.get_ident(), torch.get_num_threads()), iter(range(40)), workers))
    assert {cores for _, cores in seen} == {share}
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert torch.get_num_threads() == cores
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == cores


def test_a_single_item_has_all_cores(two_cores):
    assert list(side_by_side(lambda _: torch.get_num_threads(), iter([0]), 3)) == [two_cores]


def test_an_error_in_one_worker_is_raised_and_the_rest_is_not_begun(two_cores):
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError("item 3")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(side_by_side(work, iter(range(1000)), 2))
    assert len(begun) < 20
    assert torch.get_num_threads() == two_cores


@pytest.fixture
def two_cores():
    """Torch computes on two cores, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)
