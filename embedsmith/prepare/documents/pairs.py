"""Pairs of a query and what answers it, without a language model: from how documents are written.

    heading      a heading -> its section
    title        the title of a document -> its lead
    question     a heading or a paragraph that asks -> what follows
    link         the text of a link -> the passage that it leads to
    definition   a term -> the text that is set off under it
    cloze        a sentence -> the passage that it was taken out of (inverse cloze, https://arxiv.org/abs/1906.00300)
    code         a comment or docstring -> its code

What is nobody's question is dropped: of fewer than two words, or standing over more than three different sections, as
"See also" does. A query must not stand in its passage, or words are all that is learned: headings are no part of their
sections, and a term or a sentence that is a query is taken out of its passage, on the side that is trained on. What is
only a query because it was taken out is never tested with: in a whole passage, BM25 finds it to the letter.
"""

from __future__ import annotations

import posixpath
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from embedsmith.data.sentences import Tokens, sentences
from embedsmith.data.spool import JsonSpool
from embedsmith.data.texts import digest
from embedsmith.prepare.documents.blocks import Document
from embedsmith.prepare.documents.passages import Passage, passages_of
from embedsmith.prepare.documents.questions import is_question
from embedsmith.prepare.documents.settings import DocumentSettings, PairSource
from embedsmith.prepare.documents.spooled import Pair, Pairs, Passages

TRAINED_ONLY = frozenset({"definition", "cloze"})
"""Sources whose queries are taken out of their passages."""

_LONGEST_SECTION = 5
"""Passages of a section that are all answers to its heading; a longer one is about more than that."""

_MOST_SECTIONS = 3
"""Different sections that one query may have; what has more is boilerplate."""

_MOST_CHARS = 300
_CLOZE_WORDS = (6, 40)
_IS_A = re.compile(
    r"^(?:(?:An?|The) )?(?!(?:This|That|These|Those|It|There|Here|If|On|In|At|For|As|By|To|With|When|You|We|They|Note"
    r"|All|Each|Some|One|Another|Such|What|Which|Where|How|And|But|Or)\b)"
    r"((?:[\w.+-]+ ){0,3}[\w.+-]+) (?:is|are) (?=an? )"
)
_REFERENCE = re.compile(r"^(?:[^\W\d]+ )?[A-Z]?\d+(?:\.\d+)*\.?[,:]? (?=[“„\"'‘「«])")
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def pairs_of(
    documents: Iterable[Document], settings: DocumentSettings, tokens: Tokens, *, folder: Path | None = None
) -> tuple[Passages, Pairs]:
    """Return the passages of some documents, and all pairs of them without those that are nobody's question.

    Args:
        documents: each is looked at once.
        settings: how they are cut; the seed of the draw of sentences.
        tokens: a text in, how many tokens the student makes of it out.
        folder: on whose disk passages and pairs lie.
    """
    passages, outlines = Passages(folder), _Outlines(folder)

    def within() -> Iterator[Pair]:
        for document in documents:
            outlines.add(document)
            for passage in passages_of(document, settings, tokens):
                yield from _within(passages.add(passage), passage, settings)

    inner = Pairs(within(), folder=folder)
    found = Pairs(chain(outlines.pairs(passages), inner), folder=folder)
    return passages, _questions(found, passages)


def drawn_by_weight(pairs: Iterable[Pair], settings: DocumentSettings) -> list[bool]:
    """Return for each pair whether it is taken; the weight of one source does not change what is drawn of another."""
    drawn = random.Random(settings.split_seed)
    return [drawn.random() < settings.weight(pair.source) for pair in pairs]


def is_informative(query: str) -> bool:
    """Tell whether somebody might search by a text: two words, or four characters of a script without spaces.

    >>> [is_informative(query) for query in ("Overview", "Install Debian", "猫", "検索エンジン", "1.2 3.4")]
    [False, True, False, True, False]
    """
    if len(query) > _MOST_CHARS:
        return False
    words = [word for word in query.split() if any(letter.isalpha() for letter in word)]
    letters = sum(letter.isalpha() for letter in query)
    return (len(words) >= 2 and letters >= 6) or (letters >= 4 and len(_SPACELESS.findall(query)) >= 4)


class _Outlines:
    """Headings, links and anchors of documents, kept until all passages are known that they may lead to."""

    def __init__(self, folder: Path | None) -> None:
        self._rows = JsonSpool(folder)
        self._keys, self._sections, self._starts = array("Q"), array("i"), array("i")

    def add(self, document: Document) -> None:
        """Take note of a document."""
        headings: list[tuple[str, int]] = []
        links: list[tuple[int, str, str]] = []
        for one in document.blocks:
            if one.block.kind == "heading":
                headings.append((one.block.text, one.block.level))
            links += [(one.start, said, href) for said, href in one.block.links]
            for anchor in one.block.anchors:
                self._keys.append(_key_of(document.file, anchor))
                self._sections.append(len(headings))
                self._starts.append(one.start)
        self._rows.put([document.file, headings, links])

    def pairs(self, passages: Passages) -> Iterator[Pair]:
        """Yield the pairs of headings and of links, document by document."""
        targets = _Targets(passages, self._keys, self._sections, self._starts)
        for file, headings, links in self._rows.values():
            yield from _headings(file, headings, passages)
            yield from _links(file, links, targets)


class _Targets:
    """Where links lead."""

    def __init__(self, passages: Passages, keys: array[int], sections: array[int], starts: array[int]) -> None:
        self.passages = passages
        # Of two anchors with one name the first counts.
        self._keys, first = np.unique(np.array(keys, np.uint64), return_index=True)
        self._sections, self._starts = np.array(sections, np.int32)[first], np.array(starts, np.int32)[first]

    def of(self, file: str, href: str) -> int | None:
        """Return the passage that a link leads to, None where that is not one of the folder's."""
        try:
            parts = urlsplit(href)
        except ValueError:
            return None
        if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
            return None
        path = unquote(parts.path)
        there = posixpath.normpath(posixpath.join(posixpath.dirname(file), path)) if path else file
        if not parts.fragment:
            own = self.passages.of_file(there)
            return own[0] if own and there != file else None
        key = np.uint64(_key_of(there, unquote(parts.fragment)))
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            return None
        section, start = int(self._sections[place]), int(self._starts[place])
        own = self.passages.of_section(there, section)
        return next((number for number in own if self.passages.place(number)[2] > start), None)


def _key_of(file: str, anchor: str) -> int:
    """Return 64 bits of hash of an anchor."""
    return int.from_bytes(digest(f"{file}\0{anchor}".encode("utf-8", "surrogatepass"))[:8], "little")


def _headings(file: str, headings: Sequence[tuple[str, int]], passages: Passages) -> Iterator[Pair]:
    """Yield a pair for each heading that has text right under it; the first of the highest level is the title."""
    highest = min((level for _, level in headings), default=0)
    title = next((place for place, (_, level) in enumerate(headings) if level == highest), -1)
    is_titled = sum(level == highest for _, level in headings) == 1
    for place, (text, _) in enumerate(headings):
        own = passages.of_section(file, place + 1)
        is_title = is_titled and place == title
        if is_title:
            own = (own or passages.of_section(file, place + 2))[:1]
        if 0 < len(own) <= _LONGEST_SECTION:
            source: PairSource = "question" if is_question(text) else "title" if is_title else "heading"
            yield Pair(source, text, tuple(own))


def _links(file: str, links: Sequence[tuple[int, str, str]], targets: _Targets) -> Iterator[Pair]:
    """Yield a pair for each link that leads to another place of the folder."""
    for at, said, href in links:
        target = targets.of(file, href)
        if target is not None and said:
            there, start, end = targets.passages.place(target)
            is_here = there == file and start <= at < end
            if not is_here and not re.match(r"\w+:|www\.|/", said):
                yield Pair("link", _without_number(said), (target,))


def _without_number(said: str) -> str:
    """Return the text of a link without the number of a section before it, and without quotes around it.

    >>> _without_number("Section 6.3.1, “The policy Command”"), _without_number("「仮想コンソール」")
    ('The policy Command', '仮想コンソール')
    """
    numbered = _REFERENCE.match(said)
    return (said[numbered.end() :] if numbered else said).strip("“”„\"'‘’「」«» ") or said


def _within(number: int, passage: Passage, settings: DocumentSettings) -> Iterator[Pair]:
    """Yield the pairs that are made of a passage alone."""
    sentence = None
    for one in passage.blocks:
        block = one.block
        whole = passage.start <= one.start and one.end <= passage.end
        if block.kind == "code":
            if block.label and one.start >= passage.start:
                yield Pair("code", block.label, (number,))
            continue
        if not whole or block.kind == "row":
            continue
        if block.label and block.text.startswith(f"{block.label}:"):
            yield Pair("definition", block.label, (number,), f"{block.label}:")
        elif defined := _IS_A.match(block.text):
            yield Pair("definition", f"What is {defined[1]}?", (number,), defined[0])
    said = [passage.text[start:end] for start, end in sentences(passage.text)]
    prose = [one for one in said if _CLOZE_WORDS[0] <= _words(one) <= _CLOZE_WORDS[1]]
    if len(said) >= 3 and prose and all(one.block.kind != "code" for one in passage.blocks):
        # Another one with another seed, and the same one whatever other files there are.
        sentence = random.Random(f"{settings.split_seed} {passage.text}").choice(prose)
        yield Pair("cloze", sentence, (number,), sentence)


def _words(text: str) -> int:
    """Return about how many words a text has; two characters are one where there are no spaces."""
    spaceless = len(_SPACELESS.findall(text))
    return len(text.split()) + spaceless // 2


def _questions(pairs: Pairs, passages: Passages) -> Pairs:
    """Return pairs that somebody might ask, whose query does not stand over many different sections.

    Copies of a section are one.
    """
    if not len(pairs):
        return pairs
    sections = passages.first_alike()[pairs.firsts]
    different = np.unique(pairs.queries * len(passages) + sections) // len(passages)
    is_few = (np.bincount(different) <= _MOST_SECTIONS)[pairs.queries]
    asked = (row for row in np.flatnonzero(is_few).tolist() if is_informative(pairs[row].query))
    return pairs.kept(np.fromiter(asked, np.int64))
