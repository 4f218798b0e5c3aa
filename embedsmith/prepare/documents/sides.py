"""Pairs of documents as two collections that share no file, and no passage that is almost the same."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.near_texts import NearTexts
from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.mining.near_duplicates import shingles
from embedsmith.prepare.code import MIN_PAIRS, MIN_UNITS, drawn
from embedsmith.prepare.documents.harvest import DocumentHarvest
from embedsmith.prepare.documents.pairs import TRAINED_ONLY, Pair, drawn_by_weight
from embedsmith.prepare.documents.passages import Passage, in_front
from embedsmith.prepare.documents.settings import DocumentSettings
from embedsmith.progress import Progress, silent

_FEWEST_WORDS = 3
"""Of what is left of a passage when a query is taken out."""


@dataclass(frozen=True)
class DocumentSearch:
    """Two collections; passages of the test side are not trained on, nor what is almost one of them."""

    train: Collection
    test: Collection
    """Queries of the test files; its passages are those of all files."""
    test_files: list[str]
    """Sorted; with the headings of a part where a folder has too few files to be split by them."""
    copies: int
    """Passages that say what another one says to the letter; they are one with it."""
    near_copies: int
    """Passages that are almost another one: any of them is an answer where one is, and one is trained on."""
    everything: Collection | None
    """All passages and no queries, where the two sides are of some files only."""


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
    merged = _Merged.of(harvest, settings.near_duplicates, on_progress)
    units = _units(harvest)
    first = [units[pair.passages[0]] for pair in harvest.pairs]
    tested = drawn(
        Counter(unit for unit, pair in zip(first, harvest.pairs, strict=True) if pair.source not in TRAINED_ONLY),
        share=settings.test_share,
        seed=settings.split_seed,
    )
    if not tested:
        raise InputError(
            f"{name}: all its pairs are in one part, {first[0]}; a split needs at least 2",
            hint="add documents, or some with more headings",
        )
    is_tested = [units[number] in tested for number in range(len(harvest.passages))]
    test_pairs = [p for p in harvest.pairs if is_tested[p.passages[0]] and p.source not in TRAINED_ONLY]
    known = {normalised(pair.query) for pair in test_pairs}
    seen = {merged.cluster[number] for number, tested_too in enumerate(is_tested) if tested_too}
    train_pairs = [
        pair
        for pair, is_taken in zip(harvest.pairs, drawn_by_weight(harvest.pairs, settings), strict=True)
        if is_taken
        if not is_tested[pair.passages[0]] and normalised(pair.query) not in known
        if not any(merged.cluster[number] in seen for number in pair.passages)
    ]
    if not train_pairs or not test_pairs:
        side = "train on" if not train_pairs else "test with"
        hint = "set another split_seed, greater weights, or add documents"
        raise InputError(f"{name}: no pair is left to {side}", hint=hint)
    return DocumentSearch(
        train=_train(harvest, merged, train_pairs, seen),
        test=_test(harvest, merged, test_pairs),
        test_files=sorted(tested),
        copies=len(harvest.passages) - len(set(merged.first)),
        near_copies=len(set(merged.first)) - len(set(merged.cluster)),
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

    first: list[int]
    """Passage -> the first one with its text."""
    cluster: list[int]
    """Passage -> the first one of those that are almost the same."""

    @classmethod
    def of(cls, harvest: DocumentHarvest, limit: float, on_progress: Progress) -> _Merged:
        """Find them once, for both sides."""
        texts: dict[str, int] = {}
        first = [texts.setdefault(normalised(one.text), number) for number, one in enumerate(harvest.passages)]
        cluster = list(first)
        if not limit:
            return cls(first, cluster)
        near = NearTexts(limit, shingles=shingles)
        unique = [number for number, own in enumerate(first) if own == number]
        for done, number in enumerate(unique):
            text = harvest.passages[number].text
            if like := near.like(text):
                # The best one's alone: else chains of passages, each like the next, would be one cluster.
                cluster[number] = cluster[unique[max(like, key=lambda found: found[1])[0]]]
            near.add(text)
            if done % 1000 == 0:
                on_progress("look for near-duplicates", done, len(unique))
        on_progress("look for near-duplicates", len(unique), len(unique))
        return cls(first, [cluster[own] for own in first])


def _units(harvest: DocumentHarvest) -> list[str]:
    """Return for each passage what goes to one side as a whole: its file, or with few files a part under a heading."""
    passages = harvest.passages
    units = [passage.file for passage in passages]
    deepest = max((len(passage.path) for passage in passages), default=0)
    for depth in range(1, deepest + 1):
        if len({units[pair.passages[0]] for pair in harvest.pairs}) >= MIN_UNITS:
            break
        units = [" > ".join([passage.file, *passage.path[:depth]]) for passage in passages]
    return units


def _some(harvest: DocumentHarvest, most: int, seed: int) -> DocumentHarvest:
    """Return the passages and pairs of as many whole units as do not hold too many passages, in their order."""
    units = _units(harvest)
    sizes = Counter(units)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    kept: set[str] = set()
    count = 0
    for unit in order:
        if count + sizes[unit] <= most or len(kept) < 2:
            kept.add(unit)
            count += sizes[unit]
    places = {old: new for new, old in enumerate(number for number, unit in enumerate(units) if unit in kept)}
    # An answer that is left out is no answer any more; a query without one is no query.
    pairs = [
        replace(pair, passages=there)
        for pair in harvest.pairs
        if (there := tuple(places[number] for number in pair.passages if number in places))
    ]
    return replace(harvest, passages=[harvest.passages[old] for old in places], pairs=pairs)


def _everything(harvest: DocumentHarvest) -> Collection:
    """Return every passage as it stands, copies as one."""
    unlike = _Merged.of(harvest, 0.0, silent)
    return _test(harvest, unlike, [])


def _train(harvest: DocumentHarvest, merged: _Merged, pairs: Sequence[Pair], seen: set[int]) -> Collection:
    """Return the training side: of passages that are almost the same the first, without what was taken out of it."""
    kept = [n for n, own in enumerate(merged.cluster) if own == n and own not in seen]
    taken: dict[int, list[str]] = defaultdict(list)
    usable: list[Pair] = []
    texts = {number: harvest.passages[number].text for number in kept}
    for pair in pairs:
        if pair.taken_out:
            own = pair.passages[0]
            # Of a near copy: the sentence may stand otherwise in the one that is trained on.
            if own not in texts or pair.taken_out not in texts[own]:
                continue
            rest = texts[own].replace(pair.taken_out, "", 1)
            if len(rest.split()) < _FEWEST_WORDS:
                continue
            texts[own] = rest
            taken[own].append(pair.taken_out)
        usable.append(pair)
    plain = {number: " ".join(text.split("  ")).strip() if number in taken else text for number, text in texts.items()}
    return _collection("documents-train", harvest, usable, plain, merged.cluster)


def _test(harvest: DocumentHarvest, merged: _Merged, pairs: Sequence[Pair]) -> Collection:
    """Return the test side: every passage as it stands, copies as one; what is almost an answer is one."""
    like: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(merged.first):
        if own == number:
            like[merged.cluster[number]].append(number)
    spread = [
        Pair(pair.source, pair.query, tuple(n for own in pair.passages for n in like[merged.cluster[own]]))
        for pair in pairs
    ]
    texts = {n: harvest.passages[n].text for n, own in enumerate(merged.first) if own == n}
    return _collection("documents-test", harvest, spread, texts, merged.first)


def _collection(
    name: str,
    harvest: DocumentHarvest,
    pairs: Iterable[Pair],
    texts: dict[int, str],
    stands_for: Sequence[int],
) -> Collection:
    """Return the collection of some passages, and of the pairs of which some are there; equal queries are one."""
    ids = {number: _id(harvest.passages[number]) for number in texts}
    asked: dict[int, set[str]] = defaultdict(set)
    # By all pairs, also of the other side: where a heading is left out shows nothing of what is asked.
    for pair in harvest.pairs:
        for number in pair.passages if pair.source not in TRAINED_ONLY else ():
            asked[stands_for[number]].add(normalised(pair.query))
    queries: dict[str, tuple[str, str]] = {}
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for pair in pairs:
        own = dict.fromkeys(stands_for[number] for number in pair.passages)
        there = [number for number in own if number in texts]
        if not there:
            continue
        key = normalised(pair.query)
        query_id, _ = queries.setdefault(key, (f"{pair.source}-{len(queries) + 1}", pair.query))
        for number in there:
            qrels[query_id][ids[number]] = 1
    return Collection.of(
        name=name,
        passage_ids=list(ids.values()),
        passages=[_shown(harvest.passages[n], text, asked[n]) for n, text in texts.items()],
        query_ids=[query_id for query_id, _ in queries.values()],
        queries=[query for _, query in queries.values()],
        qrels=qrels,
        metadata=[_metadata(harvest.passages[number]) for number in texts],
    )


def _shown(passage: Passage, text: str, asked: set[str]) -> str:
    """Return a passage's text under its headings, without those that are its queries, nor one at its beginning."""
    begins = next((query for query in asked if normalised(text).startswith(f"{query} ") and text.isascii()), None)
    if begins and normalised(text[: len(begins)]) == begins:
        text = text[len(begins) :].lstrip(" :.,;—–-\n") or text
    # Also not one that a query quotes, as the text of a link may.
    kept = [one for one in passage.front if not any(normalised(one) in query for query in asked)]
    return in_front(kept) + text


def _id(passage: Passage) -> str:
    """Return `file:start-end`, without what a line of a file of judgements cannot hold."""
    return " ".join(f"{passage.file}:{passage.start}-{passage.end}".split())


def _metadata(passage: Passage) -> dict[str, Any]:
    page = {} if passage.page is None else {"page": passage.page}
    kinds = {one.block.kind for one in passage.blocks}
    # For the prompt of a model that writes queries: what has a row or code and no prose.
    kind = next(({"kind": said} for one, said in (("row", "rows"), ("code", "code")) if kinds == {one}), {})
    own = {"file": passage.file, "headings": list(passage.path), "start": passage.start, "end": passage.end}
    return {**own, **page, **kind}
