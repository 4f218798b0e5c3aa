"""Long documents in parts: nothing is lost, nothing is too long, and sentences stay whole where they can."""

import random

import pytest

from embedsmith.generation.passages import cut

SENTENCES = [
    "A cat sat on the mat.",
    "Did it purr?",
    'It said "no!"',
    "Then, e.g. at noon, it slept…",
    "猫が寝た。",
    "x" * 30,
]


@pytest.mark.parametrize("seed", range(20))
def test_parts_hold_every_word_and_none_is_too_long(seed: int):
    draw = random.Random(seed)
    text = "".join(draw.choice(SENTENCES) + draw.choice([" ", "\n\n", "  "]) for _ in range(draw.randrange(1, 40)))
    limit = draw.randrange(5, 120)
    parts = cut(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert all(part == part.strip() for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_parts_end_where_sentences_do_and_are_about_even():
    text = " ".join(["The cat sat on the mat."] * 11)
    assert [part.count(".") for part in cut(text, 240)] == [6, 5]
    assert {part[-1] for part in cut(text, 60)} == {"."}


def test_a_short_text_is_one_part():
    assert cut("  A cat.\n", 100) == ["A cat."]


def test_japanese_sentences_end_without_a_space():
    assert cut("猫が寝た。犬が走った。", 6) == ["猫が寝た。", "犬が走った。"]
