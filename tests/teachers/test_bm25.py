"""BM25 against the formulas written out, and the words of prose, code and scripts without spaces."""

import logging
import math
import random
import sys
from collections import Counter

import numpy as np
import pytest

from embedsmith.data.ties import NO_PASSAGE, Ties
from embedsmith.errors import InputError, SettingsError
from embedsmith.teachers import bm25
from embedsmith.teachers.bm25 import BM25, BM25Settings, tokenize

DEFAULT = BM25Settings()


def slow_bm25(query: str, passages: list[str], settings: BM25Settings) -> list[float]:
    documents = [tokenize(passage, settings) for passage in passages]
    count, average = len(documents), sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        frequencies, score = Counter(document), 0.0
        for word in tokenize(query, settings):
            containing = sum(word in other for other in documents)
            if not frequencies[word]:
                continue
            length = settings.k1 * (1 - settings.b + settings.b * len(document) / average)
            odds = (count - containing + 0.5) / (containing + 0.5)
            weight = frequencies[word] / (frequencies[word] + length)
            if settings.method == "lucene":
                score += math.log(1 + odds) * weight
            elif settings.method == "robertson":
                score += math.log(max(1.0, odds)) * weight
            else:
                score += math.log(count / containing) * weight * (settings.k1 + 1)
        scores.append(score)
    return scores


def random_texts(rng: random.Random, count: int) -> list[str]:
    words = ["cat", "dog", "red", "getName", "get_size", "the", "猫が好き", "sha256", "zip"]
    return [" ".join(rng.choices(words, k=rng.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize(
    "settings",
    [
        DEFAULT,
        BM25Settings(k1=0.9, b=0.4, stop_words="none"),
        BM25Settings(b=0.0, split_identifiers=False),
        BM25Settings(method="robertson"),
        BM25Settings(method="atire", lower_case=False),
    ],
    ids=str,
)
def test_scores_and_order_equal_the_formula(settings):
    rng = random.Random(0)
    passages, queries = random_texts(rng, 40), random_texts(rng, 12)
    index = BM25(passages, settings)
    rows, scores = index.search(queries, k=15)
    assert rows.dtype == np.int64 and scores.dtype == np.float32
    for query, its_rows, its_scores in zip(queries, rows, scores, strict=True):
        wanted = np.array(slow_bm25(query, passages, settings))
        all_scores = scores_of_all(index, query)
        np.testing.assert_allclose(all_scores, wanted, rtol=1e-5, atol=1e-6)
        found = min(15, int((wanted > 0).sum()))
        np.testing.assert_allclose(its_scores[:found], np.sort(wanted)[::-1][:found], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(its_rows, slow_order(query, all_scores, passages)[:15])
        np.testing.assert_array_equal(its_scores[:found], all_scores[its_rows[:found]])


def slow_order(query: str, scores: np.ndarray, passages: list[str]) -> list[int]:
    """The rows that score above 0, by score and then by their draw, and as many gaps as there are others."""
    drawn = Ties(passages).draw(query, np.arange(len(passages))).tolist()
    found = [row for row in range(len(passages)) if scores[row] > 0]
    found.sort(key=lambda row: (-scores[row], drawn[row], row))
    return found + [NO_PASSAGE] * (len(passages) - len(found))


def test_the_moments_are_those_of_all_scores():
    rng = random.Random(1)
    passages, queries = random_texts(rng, 40), ["", *random_texts(rng, 12)]
    index = BM25(passages, DEFAULT)
    all_scores = np.stack([scores_of_all(index, query) for query in queries]).astype(np.float64)
    for _ in range(2):  # the second time after a search, which takes note of them
        mean, deviation = index.moments(queries)
        np.testing.assert_allclose(mean, all_scores.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(deviation, all_scores.std(axis=1), rtol=1e-6)
        index = BM25(passages, DEFAULT)
        index.search(queries, k=3)
    assert index.proposes and index.name == "bm25"
    assert index.similarities(np.array([0]), np.array([[1]])) is None
    assert index.vectors_of(queries) is None


def scores_of_all(index: BM25, query: str) -> np.ndarray:
    return index.scores([query], np.arange(index._count)[None])[0]


@pytest.mark.parametrize("k", [1, 3, 8, 40, 100])
def test_a_search_is_a_sort_of_all_scores_above_zero(k):
    rng = random.Random(2)
    passages = [" ".join(rng.choices("abcdef", k=rng.randint(0, 2))) for _ in range(40)]  # many ties
    queries = ["b", "c d", "d d e", "f b c", "z"]
    index = BM25(passages, DEFAULT)
    rows, scores = index.search(queries, k)
    for q, query in enumerate(queries):
        all_scores = scores_of_all(index, query)
        np.testing.assert_array_equal(rows[q], slow_order(query, all_scores, passages)[:k])
        there = rows[q] != NO_PASSAGE
        np.testing.assert_array_equal(scores[q, there], all_scores[rows[q, there]])
        assert np.isneginf(scores[q, ~there]).all()


def test_a_passage_that_shares_no_word_is_not_found():
    passages = ["dog", "cat", "dog", "cat", "dog", "cat", "bird"] * 30
    rows, scores = BM25(passages, DEFAULT).search(["cat"], k=100)
    cats = [row for row, passage in enumerate(passages) if passage == "cat"]
    assert sorted(rows[0, : len(cats)].tolist()) == cats and (scores[0, : len(cats)] > 0).all()
    assert (rows[0, len(cats) :] == NO_PASSAGE).all() and np.isneginf(scores[0, len(cats) :]).all()


def test_passages_that_tie_for_the_last_place_have_the_same_chance_with_every_query():
    passages = [f"cat word{n:02}" for n in range(20)]
    queries = ["cat" + " zebra" * n for n in range(400)]  # the same scores, other texts
    rows, _ = BM25(passages, DEFAULT).search(queries, k=5)
    times = np.bincount(rows.ravel(), minlength=20)
    assert times.sum() == 2000
    # 100 each, give or take four standard deviations of a binomial of 400 draws with a chance of a quarter.
    assert np.abs(times - 100).max() < 4 * np.sqrt(400 * 0.25 * 0.75)


def test_more_passages_than_there_are_give_all_that_share_a_word():
    rows, scores = BM25(["a dog", "a cat", "a dog cat"], DEFAULT).search(["cat", "dog"], k=10)
    assert rows.tolist() == [[1, 2, NO_PASSAGE], [0, 2, NO_PASSAGE]]
    assert scores.shape == (2, 3)


@pytest.mark.parametrize("query", ["", "the of", "zebra", "?!"])
def test_a_query_without_a_known_word_finds_nothing_and_scores_zero_everywhere(query):
    index = BM25(["a dog", "a cat"], DEFAULT)
    rows, scores = index.search([query], k=2)
    assert rows.tolist() == [[NO_PASSAGE] * 2] and np.isneginf(scores).all()
    assert index.scores([query], np.array([[1]])).tolist() == [[0.0]]
    assert [moment.tolist() for moment in index.moments([query])] == [[0.0], [0.0]]


def test_passages_without_a_word_score_zero():
    rows, scores = BM25(["", "?"], DEFAULT).search(["cat"], k=2)
    assert rows.tolist() == [[NO_PASSAGE] * 2] and np.isneginf(scores).all()
    assert BM25(["", "cat"], DEFAULT).scores(["cat"], np.array([[0, 1]]))[0, 0] == 0.0


def test_no_passages_are_refused():
    with pytest.raises(InputError, match="BM25 got no passages"):
        BM25([], DEFAULT)


def test_nothing_is_printed_or_logged(capfd, caplog):
    with caplog.at_level(logging.INFO):
        BM25(["a dog", "a cat"], DEFAULT).search(["cat", ""], k=1)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_progress_counts_the_queries():
    seen = []
    index = BM25(["a dog"], DEFAULT, on_progress=lambda what, done, total: seen.append((what, done, total)))
    index.search(["a"] * 300, k=1)
    assert seen == [("search with bm25", 256, 300), ("search with bm25", 300, 300)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parseHTTPResponse", ["parsehttpresponse", "parse", "http", "response"]),
        ("_private __init__", ["private", "init"]),
        ("MAX_SIZE", ["max_size", "max", "size"]),
        ("sha256", ["sha256", "sha", "256"]),
        ("École señor", ["école", "señor"]),
        ("ЁлкаЗима", ["ёлказима"]),
        ("os.path.join(x)", ["os", "path", "join", "x"]),
        ("ｆｕｌｌ ﾈｺ", ["full", "ネコ"]),
        ("猫", ["猫"]),
        ("東京都に住む", ["東京", "京都", "都に", "に住", "住む"]),
        ("한국어 문장", ["한국", "국어", "문장"]),
        ("ไทย", ["ไท", "ทย"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("___ ...", []),
        ("", []),
    ],
)
def test_text_falls_into_words(text, words):
    assert tokenize(text, DEFAULT) == words


def test_case_is_kept_when_asked_to():
    assert tokenize("The getName", BM25Settings(lower_case=False)) == ["getName", "get", "Name"]


def test_identifiers_stay_whole_when_asked_to():
    assert tokenize("get_zipFile2", BM25Settings(split_identifiers=False)) == ["get_zipfile2"]


def test_stop_words_stay_when_asked_to():
    assert tokenize("The cat", BM25Settings(stop_words="none")) == ["the", "cat"]


def test_stop_words_are_those_of_the_language():
    assert tokenize("Der Hund und the cat", BM25Settings(stop_words="german")) == ["hund", "the", "cat"]


def test_a_stemmer_makes_one_word_of_its_forms():
    english = BM25Settings(stemmer="english")
    assert tokenize("Wings winged THE_running", english) == ["wing", "wing", "the_run", "run"]
    assert tokenize("Häuser Hauses", BM25Settings(stemmer="german")) == ["haus", "haus"]
    assert tokenize("検索 wings", english) == ["検索", "wing"]
    rows, _ = BM25(["a dog", "many wings"], english).search(["wing"], k=1)
    assert rows.tolist() == [[1]]
    assert BM25(["a dog", "many wings"], DEFAULT).search(["wing"], k=1)[0].tolist() == [[NO_PASSAGE]]


def test_a_stemmer_that_is_not_installed_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    bm25._snowball.cache_clear()
    with pytest.raises(SettingsError, match="stemming needs the package PyStemmer"):
        BM25(["unseen words here"], BM25Settings(stemmer="basque"))


def test_a_method_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match="bm25: method: Input should be 'lucene'"):
        BM25Settings.parse({"method": "okapi"}, where="bm25")
