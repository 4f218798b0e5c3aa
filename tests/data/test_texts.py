"""Strings in Arrow against lists, rows of ids against a dict, numbers of texts against a dict."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from embedsmith.data.texts import Objects, Rows, Texts, digests, numbered

STRINGS = ["a cat", "", "  ", "猫", "a\u2028b", "a\x00b", "a cat "]


@pytest.fixture
def texts() -> Texts:
    # A slice: offsets that do not begin at 0 are where a reader of buffers goes wrong.
    return Texts.of(["before", *STRINGS, "after"])[1:-1]


def test_texts_read_like_a_list(texts):
    assert list(texts) == STRINGS
    assert [texts[row] for row in range(-len(STRINGS), len(STRINGS))] == STRINGS * 2
    assert texts[2:5] == STRINGS[2:5]
    assert texts[::-2] == STRINGS[::-2]
    assert texts[np.int64(3)] == "猫"
    assert "猫" in texts and "dog" not in texts
    assert texts.index("猫") == 3
    assert bool(texts) and not texts[:0]
    for row in (len(STRINGS), -len(STRINGS) - 1):
        with pytest.raises(IndexError):
            texts[row]


def test_texts_equal_what_holds_the_same_strings_in_the_same_order(texts):
    assert texts == STRINGS == texts
    assert texts == Texts.of(STRINGS)
    for other in (STRINGS[:-1], STRINGS[::-1], [*STRINGS[:-1], "a cat"], "a cat", None):
        assert texts != other


def test_many_texts_are_iterated_whole():
    strings = [str(row) for row in range(20_000)]
    assert list(Texts.of(iter(strings))) == strings


def test_rows_are_taken_in_their_order(texts):
    rows = np.array([3, 0, 3])
    assert texts.take(rows) == ["猫", "a cat", "猫"]
    assert texts.kept(rows) == ["猫", "a cat", "猫"]


def hashed(texts: Texts) -> str:
    digest = hashlib.sha256()
    texts.update(digest)
    return digest.hexdigest()


def test_a_hash_depends_on_the_texts_and_not_on_where_they_lie(texts):
    assert hashed(texts) == hashed(Texts.of(STRINGS)) == hashed(texts[:])
    assert len({hashed(Texts.of(some)) for some in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], [], [""])}) == 6


def test_rows_answer_as_a_dict_does(texts):
    rows = Rows(texts)
    assert dict(rows) == {text: row for row, text in enumerate(STRINGS)}
    assert rows.get("dog") is None and "dog" not in rows
    with pytest.raises(KeyError, match="dog"):
        rows["dog"]
    assert rows.of(["dog", *STRINGS]).tolist() == [-1, *range(len(STRINGS))]
    assert rows.of([]).tolist() == []


def test_two_texts_of_one_hash_are_told_apart(monkeypatch):
    import embedsmith.data.texts

    monkeypatch.setattr(embedsmith.data.texts, "hash", len, raising=False)
    rows = Rows(Texts.of(["bb", "aa", "c"]))
    assert [rows.get(text) for text in ("aa", "bb", "c", "dd")] == [1, 0, 2, None]


def test_objects_read_like_a_list():
    plain = [{"line": 3, "name": "猫"}, {}, {"list": [1, None]}]
    objects = Objects.of(plain)
    assert objects == plain and list(objects) == plain and objects[1:] == plain[1:]
    assert objects != plain[:2]
    assert not Objects.of([])


def test_texts_are_numbered_as_by_a_dict():
    draw = random.Random(1)
    strings = [f"text {draw.randrange(300)}" for _ in range(1000)]
    seen: dict[str, int] = {}
    expected = [seen.setdefault(text, len(seen)) for text in strings]
    numbers, first = numbered(digests(strings))
    assert numbers.tolist() == expected
    assert [strings[row] for row in first] == list(seen)


def test_no_text_has_no_number():
    numbers, first = numbered(digests([]))
    assert (numbers.tolist(), first.tolist()) == ([], [])
