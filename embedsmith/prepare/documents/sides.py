"""Pairs of documents as two collections that share no file, and no passage that is almost the same."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from embedsmith.data.collection import Collection
from embedsmith.data.near_texts import nearest_before
from embedsmith.errors import InputError
from embedsmith.mining.near_duplicates import shingles
from embedsmith.prepare.code import MIN_PAIRS, MIN_UNITS, drawn
from embedsmith.prepare.documents.harvest import DocumentHarvest
from embedsmith.prepare.documents.pairs import TRAINED_ONLY, drawn_by_weight
from embedsmith.prepare.documents.settings import SOURCES, DocumentSettings
from embedsmith.prepare.documents.side import Asked, Grouped, Side, without
from embedsmith.prepare.documents.spooled import Pairs
from embedsmith.progress import Progress, silent

_FEWEST_WORDS = 3
"""Of what is left of a passage when a query is taken out."""


@dataclass(frozen=True)
class DocumentSearch:
    """Two collections; passages of the test side are not trained on, nor what is almost one of them."""

    train_side: Side
    test_side: Side
    """Queries of the test files; its passages are those of all files."""
    test_files: list[str]
    """Sorted; with the headings of a part where a folder has too few files to be split by them."""
    copies: int
    """Passages that say what another one says to the letter; they are one with it."""
    near_copies: int
    """Passages that are almost another one: any of them is an answer where one is, and one is trained on."""
    everything: Side | None
    """All passages and no queries, where the two sides are of some files only."""

    @cached_property
    def train(self) -> Collection:
        """The training side, in memory."""
        return self.train_side.collection()

    @cached_property
    def test(self) -> Collection:
        """The test side, in memory."""
        return self.test_side.collection()

    def write(self, folder: Path) -> None:
        """Write both sides as BEIR folders, `train` and `test`, and all passages as `all`, passage by passage."""
        self.train_side.write(folder / "train", "train")
        self.test_side.write(folder / "test", "test")
        if self.everything:
            self.everything.write_corpus(folder / "all")


def split_documents(
    harvest: DocumentHarvest, settings: DocumentSettings, *, name: str = "", on_progress: Progress = silent
) -> DocumentSearch:
    """Return the two sides of a folder.

    Query ids begin with the source of the pair, and passage ids with the file.

    Args:
        harvest: of the folder.
        settings: the share of the test side, and what is almost the same.
        name: of the folder, for errors.
        on_progress: called with the progress of the work.

    Raises:
        InputError: there are too few pairs, or none is left for one of the sides.
    """
    _check_enough(harvest, name)
    everything = None
    if settings.max_passages is not None and settings.max_passages < len(harvest.passages):
        everything = _everything(harvest)
        harvest = _some(harvest, settings.max_passages, settings.split_seed)
        _check_enough(harvest, f"{name}, of which max_passages leaves {len(harvest.passages):,} passages")
    pairs = harvest.pairs
    merged = _Merged.of(harvest, settings.near_duplicates, on_progress)
    units, names = _units(harvest)
    trained_only = np.isin(pairs.sources, [SOURCES.index(source) for source in TRAINED_ONLY])
    counts = np.bincount(units[pairs.firsts[~trained_only]], minlength=len(names)).tolist()
    sizes = Counter({unit: count for unit, count in zip(names, counts, strict=True) if count})
    tested = drawn(sizes, share=settings.test_share, seed=settings.split_seed)
    if not tested:
        raise InputError(
            f"{name}: all its pairs are in one part, {names[units[pairs.firsts[0]]]}; a split needs at least 2",
            hint="add documents, or some with more headings",
        )
    is_tested = np.array([unit in tested for unit in names])[units]
    test_pairs = np.flatnonzero(is_tested[pairs.firsts] & ~trained_only)
    seen = np.zeros(len(units), bool)
    seen[merged.cluster[is_tested]] = True
    usable = np.array(drawn_by_weight(pairs, settings), bool) & ~is_tested[pairs.firsts]
    usable &= ~np.isin(pairs.queries, pairs.queries[test_pairs])
    train_pairs = [
        row for row in np.flatnonzero(usable).tolist() if not seen[merged.cluster[list(pairs[row].passages)]].any()
    ]
    if not len(train_pairs) or not len(test_pairs):
        side = "train on" if not len(train_pairs) else "test with"
        hint = "set another split_seed, greater weights, or add documents"
        raise InputError(f"{name}: no pair is left to {side}", hint=hint)
    asked = Asked(harvest)
    alone = np.arange(len(units))
    return DocumentSearch(
        train_side=_train(harvest, merged, train_pairs, (merged.cluster == alone) & ~seen, asked),
        test_side=_test(harvest, merged, test_pairs.tolist(), asked),
        test_files=sorted(tested),
        copies=int((merged.first != alone).sum()),
        near_copies=int((merged.first == alone).sum() - (merged.cluster == alone).sum()),
        everything=everything,
    )


def _check_enough(harvest: DocumentHarvest, name: str) -> None:
    """Refuse a folder that gives nearly no pairs."""
    if len(harvest.pairs) < MIN_PAIRS:
        found = ", ".join(f"{count} {source}" for source, count in harvest.by_source().items() if count)
        raise InputError(
            f"{name}: got {len(harvest.pairs)} pairs ({found or 'of no source'}) of {len(harvest.read):,} files, "
            f"wanted at least {MIN_PAIRS}",
            hint="add documents; those with headings give the most",
        )


@dataclass(frozen=True)
class _Merged:
    """Which passages are one."""

    first: Int64[np.ndarray, " N"]
    """Passage -> the first one with its text."""
    cluster: Int64[np.ndarray, " N"]
    """Passage -> the first one of those that are almost the same."""

    @classmethod
    def of(cls, harvest: DocumentHarvest, limit: float, on_progress: Progress) -> _Merged:
        """Find them once, for both sides."""
        first = harvest.passages.first_alike()
        cluster = first.copy()
        if not limit:
            return cls(first, cluster)
        unique = np.flatnonzero(first == np.arange(len(first)))
        nearest = nearest_before(
            (harvest.passages[number].text for number in unique.tolist()),
            limit,
            shingles=shingles,
            folder=harvest.folder,
            on_text=lambda done: on_progress("look for near-duplicates", done, len(unique)),
        )
        for place in np.flatnonzero(nearest >= 0).tolist():
            # The best one's alone: else chains of passages, each like the next, would be one cluster.
            cluster[unique[place]] = cluster[unique[nearest[place]]]
        return cls(first, cluster[first])


def _units(harvest: DocumentHarvest) -> tuple[Int64[np.ndarray, " N"], list[str]]:
    """Return for each passage the number of what goes to one side as a whole, and the names of these.

    They are files, or with few files parts under a heading.
    """
    passages, firsts = harvest.passages, harvest.pairs.firsts
    units, names = passages.file_numbers(), passages.files
    depth = 0
    while len(np.unique(units[firsts])) < MIN_UNITS:
        depth += 1
        paths = array("q")
        known: dict[str, int] = {}
        deepest = 0
        for passage in passages:
            deepest = max(deepest, len(passage.path))
            paths.append(known.setdefault(" > ".join([passage.file, *passage.path[:depth]]), len(known)))
        if depth > deepest:
            break
        units, names = np.array(paths, np.int64), list(known)
    return units, names


def _some(harvest: DocumentHarvest, most: int, seed: int) -> DocumentHarvest:
    """Return the passages and pairs of as many whole units as do not hold too many passages, in their order."""
    units, names = _units(harvest)
    counts = np.bincount(units, minlength=len(names)).tolist()
    sizes = {name: size for name, size in zip(names, counts, strict=True) if size}
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    kept: set[str] = set()
    count = 0
    for unit in order:
        if count + sizes[unit] <= most or len(kept) < 2:
            kept.add(unit)
            count += sizes[unit]
    is_kept = np.array([name in kept for name in names])[units]
    places = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
    # An answer that is left out is no answer any more; a query without one is no query.
    pairs = (
        replace(pair, passages=there)
        for pair in harvest.pairs
        if (there := tuple(place for place in places[list(pair.passages)].tolist() if place >= 0))
    )
    passages = harvest.passages.kept(np.flatnonzero(is_kept))
    return replace(harvest, passages=passages, pairs=Pairs(pairs, folder=harvest.folder))


def _everything(harvest: DocumentHarvest) -> Side:
    """Return every passage as it stands, copies as one."""
    return _test(harvest, _Merged.of(harvest, 0.0, silent), [], Asked(harvest))


def _train(
    harvest: DocumentHarvest, merged: _Merged, pairs: list[int], is_kept: Bool[np.ndarray, " N"], asked: Asked
) -> Side:
    """Return the training side: of passages that are almost the same the first, without what was taken out of it."""
    taken: dict[int, list[str]] = {}

    def answers() -> Iterator[tuple[int, list[int]]]:
        for row in pairs:
            pair = harvest.pairs[row]
            if pair.taken_out:
                own = pair.passages[0]
                # Of a near copy: the sentence may stand otherwise in the one that is trained on.
                if not is_kept[own]:
                    continue
                before = without(harvest.passages[own].text, taken.get(own, []))
                if pair.taken_out not in before:
                    continue
                if len(without(before, [pair.taken_out]).split()) < _FEWEST_WORDS:
                    continue
                taken.setdefault(own, []).append(pair.taken_out)
            yield row, [number for number in merged.cluster[list(pair.passages)].tolist() if is_kept[number]]

    return Side.of(
        "documents-train", harvest, np.flatnonzero(is_kept), answers(), taken=taken, asked=asked.by(merged.cluster)
    )


def _test(harvest: DocumentHarvest, merged: _Merged, pairs: list[int], asked: Asked) -> Side:
    """Return the test side: every passage as it stands, copies as one; what is almost an answer is one."""
    unique = np.flatnonzero(merged.first == np.arange(len(merged.first)))
    alike = Grouped(merged.cluster[unique], unique)
    answers = (
        (row, [n for own in merged.cluster[list(harvest.pairs[row].passages)].tolist() for n in alike.of(own).tolist()])
        for row in pairs
    )
    return Side.of("documents-test", harvest, unique, answers, taken={}, asked=asked.by(merged.first))
