from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.data.sentences import pieces, sentences
from embedsmith.prepare.documents.blocks import Block, Document, Kind
from embedsmith.prepare.documents.passages import Passage, passages_of
from embedsmith.prepare.documents.settings import PassageSettings


def words(text: str) -> int:
    return len(text.split())


def cut(blocks: list[Block], max_tokens: int, tokens=words, **more: int) -> list[Passage]:
    settings = PassageSettings(max_tokens=max_tokens, **{"heading_path": False, **more})
    return passages_of(Document.of("a.md", blocks), settings, tokens)


def test_a_passage_crosses_no_heading():
    blocks = [Block("heading", "Cats", 1), Block("paragraph", "They purr."), Block("heading", "Dogs", 1)]
    found = cut([*blocks, Block("paragraph", "They bark.")], 100)
    assert [(one.text, one.path, one.section) for one in found] == [
        ("They purr.", ("Cats",), 1),
        ("They bark.", ("Dogs",), 2),
    ]


def test_a_passage_ends_where_a_block_does_and_else_where_a_sentence_does():
    blocks = [Block("paragraph", "One two three."), Block("paragraph", "Four five. Six seven eight. Nine ten.")]
    assert [one.text for one in cut(blocks, 7)] == ["One two three.", "Four five. Six seven eight. Nine ten."]
    assert [one.text for one in cut(blocks, 5)] == ["One two three.", "Four five.", "Six seven eight.", "Nine ten."]


@pytest.mark.parametrize("kind", ["code", "row"])
def test_code_and_rows_are_cut_only_where_one_alone_is_too_long(kind: Kind):
    code = Block(kind, "a = 1\nb = 2\nc = 3" if kind == "code" else "a 1 b 2 c. D 3")
    before = Block("paragraph", "One two three four.")
    size = words(code.text)
    assert [one.text for one in cut([before, code], size)] == [before.text, code.text]
    parts = [one.text for one in cut([before, code], size - 1) if one.text != before.text]
    assert len(parts) > 1 and words(" ".join(parts)) == size


def test_the_last_sentences_of_a_passage_begin_the_next_one():
    text = "One two three. Four five. Six seven. Eight nine ten."
    found = cut([Block("paragraph", text)], 8, overlap_tokens=3)
    assert [one.text for one in found] == ["One two three. Four five.", "Six seven. Eight nine ten."]
    blocks = [Block("paragraph", "One two three four. Five six."), Block("paragraph", "Seven eight.")]
    found = cut(blocks, 8, overlap_tokens=3)
    assert [one.text for one in found] == [blocks[0].text, "Five six.\n\nSeven eight."]


def test_headings_in_front_count_and_take_at_most_half():
    path = [Block("heading", "A very long heading of eight words indeed", 1)]
    text = Block("paragraph", "One two three. Four five six. Seven eight nine.")
    assert [(words(one.text), one.front) for one in cut([*path, text], 9, heading_path=True)] == [(9, ())]
    short = Block("heading", "Three short words", 2)
    found = cut([*path, short, text], 11, heading_path=True)
    assert [(words(one.text), one.front) for one in found] == [(6, ("Three short words",)), (3, ("Three short words",))]
    (whole,) = cut([*path, short, text], 30, heading_path=True)
    assert whole.front == whole.path == (path[0].text, short.text)


def test_japanese_is_cut_at_its_sentences_and_a_long_one_between_letters():
    text = "猫は魚を食べます。犬は骨が好きです。鳥は空を飛びます。"
    found = [one.text for one in cut([Block("paragraph", text)], 18, tokens=len)]
    assert "".join(found) == text and all(one.endswith("。") for one in found) and len(found) == 3
    long = "ア" * 100
    found = [one.text for one in cut([Block("paragraph", long)], 30, tokens=len)]
    assert [len(one) for one in found] == [30, 30, 30, 10]


def test_passages_know_their_page():
    blocks = [Block("paragraph", "One two.", page=3), Block("paragraph", "Three four.", page=4)]
    assert [one.page for one in cut(blocks, 2)] == [3, 4]


texts = st.text(st.sampled_from("ab .。!猫\n"), min_size=1, max_size=60)


@given(
    st.lists(st.tuples(st.sampled_from(["paragraph", "item", "code", "row", "heading"]), texts), max_size=8),
    st.integers(1, 20),
    st.integers(0, 6),
)
def test_passages_keep_the_budget_lose_no_text_and_stand_where_they_say(given_blocks, limit: int, overlap: int):
    blocks = [
        Block(kind, text if kind == "code" else " ".join(text.split()), 1)
        for kind, text in given_blocks
        if text.strip()
    ]
    document = Document.of("a", blocks)
    found = passages_of(document, PassageSettings(max_tokens=limit, overlap_tokens=overlap, heading_path=False), len)
    for one in found:
        assert one.text == document.text[one.start : one.end] and one.text.strip()
        assert len(one.text) <= limit
    for one, other in pairwise(found):
        assert one.start < other.start and one.end < other.end
    covered = {place for one in found for place in range(one.start, one.end)}
    for block in document.blocks:
        if block.block.kind != "heading":
            lost = [place for place in range(block.start, block.end) if place not in covered]
            assert all(document.text[place].isspace() for place in lost)


@given(texts)
def test_sentences_are_all_of_a_text_but_blanks(text: str):
    spans = sentences(text)
    assert re.sub(r"\s", "", "".join(text[start:end] for start, end in spans)) == re.sub(r"\s", "", text)
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)


@given(texts, st.integers(1, 9))
def test_pieces_are_all_of_a_text_but_blanks_and_keep_the_limit(text: str, limit: int):
    found = [text[start:end] for start, end in pieces(text.strip(), limit, len)] if text.strip() else []
    text = text.strip()
    found = [text[start:end] for start, end in pieces(text, limit, len)]
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)
    assert all(len(one) <= limit for one in found)
