"""BM25 against the formulas written out, and the words of prose, code and scripts without spaces."""

import logging
import math
import random
from collections import Counter

import numpy as np
import pytest

from embedsmith.errors import InputError, SettingsError
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
        BM25Settings(k1=0.9, b=0.4, stop_words=False),
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
        np.testing.assert_allclose(index.scores(query, range(40)), wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(its_scores, np.sort(wanted)[::-1][:15], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(its_scores, index.scores(query, its_rows))


def test_ties_go_to_the_passage_that_comes_first():
    passages = ["dog", "cat", "dog", "cat", "dog", "cat", "bird"] * 30
    rows, scores = BM25(passages, DEFAULT).search(["cat"], k=100)
    cats = [row for row, passage in enumerate(passages) if passage == "cat"]
    others = [row for row, passage in enumerate(passages) if passage != "cat"]
    assert rows[0].tolist() == (cats + others)[:100]
    assert (scores[0, : len(cats)] > 0).all() and not scores[0, len(cats) :].any()


def test_more_passages_than_there_are_give_all_of_them():
    rows, scores = BM25(["a dog", "a cat"], DEFAULT).search(["cat", "dog"], k=10)
    assert rows.tolist() == [[1, 0], [0, 1]]
    assert scores.shape == (2, 2)


@pytest.mark.parametrize("query", ["", "the of", "zebra", "?!"])
def test_a_query_without_a_known_word_scores_zero_everywhere(query):
    index = BM25(["a dog", "a cat"], DEFAULT)
    rows, scores = index.search([query], k=2)
    assert rows.tolist() == [[0, 1]] and scores.tolist() == [[0.0, 0.0]]
    assert index.scores(query, [1]).tolist() == [0.0]


def test_passages_without_a_word_score_zero():
    rows, scores = BM25(["", "?"], DEFAULT).search(["cat"], k=2)
    assert rows.tolist() == [[0, 1]] and scores.tolist() == [[0.0, 0.0]]
    assert BM25(["", "cat"], DEFAULT).scores("cat", [0, 1])[0] == 0.0


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
    BM25(["a dog"], DEFAULT).search(["a", "b"], k=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


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
    assert tokenize("The cat", BM25Settings(stop_words=False)) == ["the", "cat"]


def test_a_method_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match="bm25: method: Input should be 'lucene'"):
        BM25Settings.parse({"method": "okapi"}, where="bm25")
