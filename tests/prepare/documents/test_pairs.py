from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from embedsmith.data.normalised import normalised
from embedsmith.errors import InputError
from embedsmith.prepare.documents.blocks import Block, Document
from embedsmith.prepare.documents.harvest import DocumentHarvest, documents_hash, harvest_documents
from embedsmith.prepare.documents.pairs import drawn_by_weight, pairs_of
from embedsmith.prepare.documents.passages import Passage
from embedsmith.prepare.documents.recurring import Recurring, without_recurring
from embedsmith.prepare.documents.settings import SOURCES, DocumentSettings
from embedsmith.prepare.documents.sides import split_documents
from embedsmith.prepare.documents.spooled import Pair
from embedsmith.settings import SettingsError
from tests.prepare.documents.made import folder_of


def words(text: str) -> int:
    return len(text.split())


def harvested(documents: Sequence[Document], **settings) -> tuple[DocumentHarvest, DocumentSettings]:
    own = DocumentSettings(**{"max_tokens": 40, "weights": {"cloze": 1.0}, **settings})
    passages, pairs = pairs_of(documents, own, words)
    return DocumentHarvest([one.file for one in documents], [], [], passages, pairs), own


def asked(documents: Sequence[Document], source: str, **settings) -> list[tuple[str, list[str]]]:
    found, _ = harvested(documents, **settings)
    return [(one.query, [found.passages[n].text for n in one.passages]) for one in found.pairs if one.source == source]


def heading(text: str, level: int = 1, **more) -> Block:
    return Block("heading", text, level, **more)


def paragraph(text: str, **more) -> Block:
    return Block("paragraph", text, **more)


def document(file: str, *blocks: Block) -> Document:
    return Document.of(file, blocks)


MANUAL = document(
    "cats.md",
    heading("The book of cats"),
    paragraph("Cats are kept by people."),
    heading("Feeding a cat", 2),
    paragraph("Give it fish twice a day."),
    heading("May it drink milk?", 2),
    paragraph("Better not."),
    heading("Overview", 2),
    paragraph("One word is nobody's question."),
)


def test_headings_titles_and_questions_are_queries_for_what_stands_under_them():
    assert asked([MANUAL], "title") == [("The book of cats", ["Cats are kept by people."])]
    assert asked([MANUAL], "heading") == [("Feeding a cat", ["Give it fish twice a day."])]
    assert asked([MANUAL], "question") == [("May it drink milk?", ["Better not."])]


def test_a_long_section_is_no_answer_to_its_heading():
    blocks = [paragraph(f"Sentence {number} " + "word " * 28) for number in range(6)]
    assert asked([document("a", heading("A heading here"), *blocks)], "title") != []  # its lead alone
    assert asked([document("a", heading("One title", 1), heading("A heading here", 2), *blocks)], "heading") == []
    some = asked([document("a", heading("One title", 1), heading("A heading here", 2), *blocks[:5])], "heading")
    assert [len(passages) for _, passages in some] == [5]


def test_the_text_of_a_link_asks_for_what_it_leads_to():
    links = (
        ("how to feed a cat", "../cats.md#feed"),
        ("all about cats", "../cats.md"),
        ("another site entirely", "https://example.org/cats.md"),
        ("a file elsewhere", "../dogs.md"),
        ("a broken link", "http://[bad"),
        ("this very passage", "#here"),
    )
    page = document("in/a.md", paragraph("See there.", links=links, anchors=("here",)))
    cats = document(
        "cats.md",
        heading("Cats"),
        paragraph("They purr."),
        heading("Food", anchors=("feed",)),
        paragraph("Fish."),
    )
    assert asked([page, cats], "link") == [("how to feed a cat", ["Fish."]), ("all about cats", ["They purr."])]


def test_terms_and_what_is_something_are_queries_and_are_taken_out():
    blocks = [
        paragraph("late binding: names are looked up when code runs.", label="late binding"),
        paragraph("A garbage collector is a program that frees memory."),
        paragraph("This is a cat."),
    ]
    found, _ = harvested([document("a", *blocks)])
    own = [(one.query, one.taken_out) for one in found.pairs if one.source == "definition"]
    assert own == [
        ("late binding", "late binding:"),
        ("What is garbage collector?", "A garbage collector is "),
    ]


def test_a_comment_asks_for_its_code():
    code = Block("code", "def add(a, b):\n    return a + b", label="Return the sum of two numbers")
    assert asked([document("a", code)], "code") == [("Return the sum of two numbers", [code.text])]


PROSE = "The cat sat on the mat all day. The dog ran through the wet park. An owl flew over the old house."


def test_a_sentence_asks_for_the_passage_that_it_was_taken_out_of():
    ((query, passages),) = asked([document("a", paragraph(PROSE))], "cloze")
    assert query in PROSE and passages == [PROSE]
    again = asked([document("b", paragraph("More text.")), document("a", paragraph(PROSE))], "cloze")
    assert again[-1][0] == query


def test_a_weight_is_the_share_of_pairs_that_are_taken():
    many = [
        document(f"{n}", heading(f"Heading number {'abcdefghij'[n // 10]}{n}"), paragraph(f"Text {n}."))
        for n in range(99)
    ]
    all_of_them, _ = harvested(many)
    taken = [sum(drawn_by_weight(all_of_them.pairs, DocumentSettings(weights={"title": w}))) for w in (1.0, 0.5, 0.0)]
    assert taken[0] == 99 and 30 < taken[1] < 70 and taken[2] == 0
    with pytest.raises(SettingsError, match="no share"):
        DocumentSettings.parse({"weights": {"title": 2}}, where="a")
    with pytest.raises(SettingsError, match="titel"):
        DocumentSettings.parse({"weights": {"titel": 1}}, where="a")


def test_a_source_that_is_left_out_changes_neither_the_test_nor_what_is_drawn_of_others():
    sides = {}
    for left_out in ("none", "heading", "title", "cloze"):
        weights = {"cloze": 0.5} | ({} if left_out == "none" else {left_out: 0.0})
        sides[left_out] = split_documents(*harvested(manual(12), weights=weights))
    sources = {name: {query.rpartition("-")[0] for query in side.train.query_ids} for name, side in sides.items()}
    assert sources["none"] == {"heading", "title", "cloze"}
    for left_out in ("heading", "title", "cloze"):
        assert sources[left_out] == sources["none"] - {left_out}
        assert sides[left_out].test.content_hash() == sides["none"].test.content_hash()
        train = sides["none"].train
        kept = [q for q, name in zip(train.queries, train.query_ids, strict=True) if left_out not in name]
        assert kept == sides[left_out].train.queries


def test_headings_that_stand_over_many_sections_are_boilerplate():
    def manual(number: int) -> Document:
        text = f"Number {number} says something of its own."
        return document(
            f"{number}", heading(f"Title {'abcdef'[number]} of it"), heading("See also here", 2), paragraph(text)
        )

    assert len(asked([manual(number) for number in range(3)], "heading")) == 3
    assert asked([manual(number) for number in range(4)], "heading") == []


def test_copies_of_one_section_are_no_boilerplate():
    same = [
        document(f"{n}", heading("A title here"), heading("Copied heading", 2), paragraph("Equal text."))
        for n in range(9)
    ]
    assert len(asked(same, "heading")) == 9


def test_blocks_that_recur_on_many_pages_are_left_out():
    pages = [
        document(f"{n}", heading("Cats"), paragraph("Home | About us"), paragraph(f"Own text {n}.")) for n in range(5)
    ]
    assert [one.text for one in left_of(pages)] == [f"Cats\n\nOwn text {n}." for n in range(5)]
    assert left_of(pages[:4]) == pages[:4]


def left_of(documents: Sequence[Document]) -> list[Document]:
    recurring = Recurring()
    for one in documents:
        recurring.add(one)
    return [without_recurring(one, recurring.keys()) for one in documents]


def manual(count: int, *, start: int = 0) -> list[Document]:
    """Return files with a title, a heading and prose of their own."""
    names = [
        f"{one}{other}" for one in ("alpha", "beta", "gamma", "delta") for other in ("tron", "plex", "node", "bit")
    ]
    return [
        document(
            f"{name}.md",
            heading(f"The {name} manual"),
            paragraph(f"All that {name} does is written here in {name} words."),
            heading(f"Starting {name} up", 2),
            paragraph(
                f"Turn {name} on and wait a while. Then {name} blinks five times in green. Now {name} is ready to go."
            ),
        )
        for name in names[start : start + count]
    ]


def passage_texts(collection) -> dict[str, str]:
    return dict(zip(collection.passage_ids, collection.passages, strict=True))


def test_no_file_and_no_query_is_on_both_sides():
    found, settings = harvested(manual(16))
    sides = split_documents(found, settings)
    files = [one["file"] for one in sides.train.metadata]
    assert set(files) & set(sides.test_files) == set()
    assert {normalised(q) for q in sides.train.queries} & {normalised(q) for q in sides.test.queries} == set()
    assert len(sides.test.passages) == len(found.passages)
    assert {query.split("-")[0] for query in sides.test.query_ids} == {"heading", "title"}
    assert "cloze" in {query.split("-")[0] for query in sides.train.query_ids}
    assert split_documents(found, settings).test == sides.test


def test_a_query_stands_nowhere_in_what_it_is_trained_to_find():
    blocks = [
        Block("item", f"{word} option: It makes the {word} thing that you want in a good way.", label=f"{word} option")
        for word in ("red", "green", "blue")
    ]
    found, settings = harvested([*manual(16), document("options.md", heading("Options of it"), *blocks)])
    for sides in (
        split_documents(found, settings),
        split_documents(found, settings.model_copy(update={"split_seed": 3})),
    ):
        texts = passage_texts(sides.train)
        queries = dict(zip(sides.train.query_ids, sides.train.queries, strict=True))
        assert any(query.startswith("cloze") for query in queries)
        for query, judged in sides.train.qrels.items():
            for passage in judged:
                assert normalised(queries[query]) not in normalised(texts[passage])


def test_headings_stand_before_a_passage_but_for_those_that_ask_for_it():
    found, settings = harvested(manual(16))
    texts = passage_texts(split_documents(found, settings).test)
    assert "The alphatron manual\nTurn alphatron on" in "".join(texts.values())
    assert not any(text.startswith("The alphatron manual > ") for text in texts.values())
    found, settings = harvested(manual(16), heading_path=False)
    assert "manual\n" not in "".join(passage_texts(split_documents(found, settings).test).values())


def test_a_heading_that_a_link_quotes_does_not_stand_before_the_passage_that_it_leads_to():
    links = (
        ("Chapter 2, “Starting alphatron up”", "alphatron.md#up"),
        ("more of The betatron manual", "betatron.md#up"),
    )
    files = [
        Document.of(
            one.file, [replace(b.block, anchors=("up",)) if b.block.level == 2 else b.block for b in one.blocks]
        )
        for one in manual(16)
    ]
    found, settings = harvested([*files, document("links.md", paragraph("See there.", links=links))])
    own = {one.query: one for one in found.pairs if one.source == "link"}
    assert list(own) == ["Starting alphatron up", "more of The betatron manual"]
    texts = passage_texts(split_documents(found, settings).test)
    (started,) = [text for one, text in texts.items() if one.startswith("betatron.md") and "Turn betatron" in text]
    assert "The betatron manual" not in started and "The deltatron manual\nTurn deltatron" in "".join(texts.values())


def test_passages_of_the_test_side_are_whole():
    found, settings = harvested(manual(16), heading_path=False)
    assert "cloze" in {pair.source for pair in found.pairs}
    assert list(split_documents(found, settings).test.passages) == [one.text for one in found.passages]


def test_what_is_almost_a_passage_of_the_test_side_is_not_trained_on():
    own = manual(16)
    licence = (
        "You may copy this and that and all of it as long as you keep the notice of the author in each of the copies."
    )
    files = [
        Document.of(
            one.file, [*(b.block for b in one.blocks), heading("Copying it all", 2), paragraph(licence + f" {n}")]
        )
        for n, one in enumerate(own)
    ]
    found, settings = harvested(files)
    sides = split_documents(found, settings)
    assert sides.near_copies >= 15
    assert not any("You may copy" in text for text in sides.train.passages)
    judged = [
        sides.test.qrels[q]
        for q, text in zip(sides.test.query_ids, sides.test.queries, strict=True)
        if "Copying" in text
    ]
    assert all(len(one) == 16 for one in judged)
    without = split_documents(found, settings.model_copy(update={"near_duplicates": 0.0}))
    assert without.near_copies == 0 and any("You may copy" in text for text in without.train.passages)


def test_copies_of_a_file_are_one():
    own = manual(16)
    copies = [Document.of(f"old/{one.file}", [b.block for b in one.blocks]) for one in own]
    found, settings = harvested([*own, *copies])
    sides = split_documents(found, settings)
    assert sides.copies == len(found.passages) // 2
    assert not any(one.startswith("old/") for one in sides.test.passage_ids)
    train = {normalised(text) for text in sides.train.passages}
    asked_for = {passage for judged in sides.test.qrels.values() for passage in judged}
    assert not train & {normalised(text) for one, text in passage_texts(sides.test).items() if one in asked_for}


def test_one_file_is_split_by_its_headings():
    blocks = [block.block for one in manual(16) for block in one.blocks]
    found, settings = harvested([Document.of("book.md", blocks)])
    sides = split_documents(found, settings)
    assert all(one.startswith("book.md > The ") for one in sides.test_files)
    assert sides.train.queries and sides.test.queries


def test_too_few_pairs_are_refused():
    found, settings = harvested(manual(2))
    with pytest.raises(
        InputError, match=r"^docs: got 6 pairs \(2 heading, 2 title, 2 cloze\) of 2 files, wanted at least 20$"
    ):
        split_documents(found, settings, name="docs")


def test_a_folder_is_harvested_with_all_its_files_counted(tmp_path: Path):
    folder_of(tmp_path, {"a.md": "# A good title\n\nSome text.\n", "b.html": "", "c.pdf": b"%PDF"})
    calls: list[tuple[int, int]] = []
    found = harvest_documents(
        tmp_path, DocumentSettings(max_tokens=20), words, on_file=lambda done, total: calls.append((done, total))
    )
    assert (found.read, [one.path for one in found.unread], calls) == (["a.md"], ["b.html", "c.pdf"], [(1, 2), (2, 2)])
    assert found.by_source() == {**dict.fromkeys(SOURCES, 0), "title": 1}
    assert [isinstance(one, Passage) for one in found.passages] == [True]
    assert [isinstance(one, Pair) for one in found.pairs] == [True]


def test_the_hash_of_a_folder_is_that_of_its_documents(tmp_path: Path):
    folder_of(tmp_path, {"a.md": "a"})
    first = documents_hash(tmp_path)
    folder_of(tmp_path, {"b.png": b"b"})
    assert documents_hash(tmp_path) == first
    folder_of(tmp_path, {"a.md": "c"})
    assert documents_hash(tmp_path) != first


def test_a_passage_of_code_or_rows_alone_says_so():
    documents = manual(12)
    code = Block("code", "def add(a, b):\n    return a + b", label="Return the sum of two numbers")
    rows = [Block("row", f"cat {number} | mouse {number}") for number in range(3)]
    mixed = [paragraph("A table of cats."), Block("row", "owl | fig")]
    documents += [document("a.md", heading("One"), code, heading("Two"), *rows, heading("Three"), *mixed)]
    found = split_documents(*harvested(documents))
    kinds = {about["headings"][-1]: about.get("kind") for about in found.test.metadata if about["file"] == "a.md"}
    assert kinds == {"One": "code", "Two": "rows", "Three": None}
    assert {about.get("kind") for about in found.test.metadata if about["file"] != "a.md"} == {None}
