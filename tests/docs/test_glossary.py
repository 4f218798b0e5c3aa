"""`docs/glossary.md`: in alphabetical order, each word in one to three sentences, with links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "glossary.md").read_text(encoding="utf-8")
ENTRIES = {
    term: (anchor, " ".join(text.split()))
    for term, anchor, text in re.findall(r"^\*\*(\S.*?)\*\* \{ #([\w-]+) \}\n:   (.*(?:\n    .*)*)", PAGE, re.M)
}
NAV = set(re.findall(r"\b([\w/-]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.M))

WANTED = """
    candidate, ceiling, contract, false negative, full row, gradcache, guide, hard negative, hardness, hold-out audit,
    in-batch negative, instruction, latent attention, matryoshka, method, pooling mask, recipe, run, sampler, stage,
    store, student, teacher
"""


def test_every_entry_is_read():
    assert len(ENTRIES) == PAGE.count("\n:   ") > 60


def test_the_words_are_in_alphabetical_order():
    words = [term.casefold() for term in ENTRIES]
    assert words == sorted(words)


def test_the_words_of_these_pages_are_there():
    assert {word.strip() for word in WANTED.split(",")} <= {term.casefold() for term in ENTRIES}


@pytest.mark.parametrize("term", ENTRIES)
def test_a_word_takes_one_to_three_sentences_and_its_links_exist(term: str):
    anchor, text = ENTRIES[term]
    assert anchor == re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")
    said = re.sub(r" ?\bSee \[.*", "", text)
    sentences = re.findall(r"[.?](?=\s|$|\")", said)
    assert 1 <= len(sentences) <= 3, said
    assert len(said) <= 330
    for place, inside in re.findall(r"\]\(([^)#]*)#?([\w-]*)\)", text):
        if place:
            assert place in NAV
        if inside:
            assert not place or not (DOCS / place).exists() or inside in anchors(DOCS / place), f"{place}#{inside}"
            assert place or inside in {anchor for anchor, _ in ENTRIES.values()}, inside


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w-]+", "-", title.lower().replace("`", "")).strip("-") for title in titles}
