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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from embedsmith.data.normalised import normalised
from embedsmith.data.sentences import sentences
from embedsmith.prepare.documents.blocks import Document
from embedsmith.prepare.documents.passages import Passage
from embedsmith.prepare.documents.questions import is_question
from embedsmith.prepare.documents.settings import DocumentSettings, PairSource

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


@dataclass(frozen=True)
class Pair:
    """A query, and the passages that answer it, by their place among all."""

    source: PairSource
    query: str
    passages: tuple[int, ...]
    taken_out: str = ""
    """What is taken out of the passage before it is trained on."""


def pairs_of(documents: Sequence[Document], passages: Sequence[Passage], settings: DocumentSettings) -> list[Pair]:
    """Return all pairs of some documents, without those that are nobody's question.

    Args:
        documents: as they were cut.
        passages: of them all.
        settings: the seed of the draw of sentences.
    """
    places = _Places(documents, passages)
    found: list[Pair] = []
    for document in documents:
        found += [*_headings(document, places), *_links(document, places)]
    found += [pair for number, passage in enumerate(passages) for pair in _within(number, passage, settings)]
    return [pair for pair in _without_boilerplate(found, passages) if is_informative(pair.query)]


def drawn_by_weight(pairs: Sequence[Pair], settings: DocumentSettings) -> list[bool]:
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


class _Places:
    """Where the passages of a section, of a file and of what a link names are."""

    def __init__(self, documents: Sequence[Document], passages: Sequence[Passage]) -> None:
        self.passages = passages
        self._sections: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._files: dict[str, list[int]] = defaultdict(list)
        self._anchors: dict[tuple[str, str], tuple[int, int]] = {}
        for number, passage in enumerate(passages):
            self._sections[passage.file, passage.section].append(number)
            self._files[passage.file].append(number)
        for document in documents:
            section = 0
            for one in document.blocks:
                section += one.block.kind == "heading"
                for anchor in one.block.anchors:
                    self._anchors.setdefault((document.file, anchor), (section, one.start))

    def section(self, file: str, number: int) -> list[int]:
        """Return the passages of a section."""
        return self._sections.get((file, number), [])

    def file(self, file: str) -> list[int]:
        """Return the passages of a file."""
        return self._files.get(file, [])

    def target(self, file: str, href: str) -> int | None:
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
            own = self.file(there)
            return own[0] if own and there != file else None
        found = self._anchors.get((there, unquote(parts.fragment)))
        if found is None:
            return None
        section, start = found
        own = self.section(there, section)
        return next((number for number in own if self.passages[number].end > start), None)


def _headings(document: Document, places: _Places) -> Iterator[Pair]:
    """Yield a pair for each heading that has text right under it; the first of the highest level is the title."""
    headings = [one.block for one in document.blocks if one.block.kind == "heading"]
    highest = min((block.level for block in headings), default=0)
    title = next((place for place, block in enumerate(headings) if block.level == highest), -1)
    is_titled = sum(block.level == highest for block in headings) == 1
    for place, block in enumerate(headings):
        own = places.section(document.file, place + 1)
        is_title = is_titled and place == title
        if is_title:
            own = (own or places.section(document.file, place + 2))[:1]
        if 0 < len(own) <= _LONGEST_SECTION:
            source: PairSource = "question" if is_question(block.text) else "title" if is_title else "heading"
            yield Pair(source, block.text, tuple(own))


def _links(document: Document, places: _Places) -> Iterator[Pair]:
    """Yield a pair for each link that leads to another place of the folder."""
    for one in document.blocks:
        for said, href in one.block.links:
            target = places.target(document.file, href)
            if target is not None and said:
                passage = places.passages[target]
                is_here = passage.file == document.file and passage.start <= one.start < passage.end
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


def _without_boilerplate(pairs: Iterable[Pair], passages: Sequence[Passage]) -> Iterator[Pair]:
    """Yield pairs whose query does not stand over many different sections; copies of a section are one."""
    pairs = list(pairs)
    sections: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        first = passages[pair.passages[0]]
        sections[normalised(pair.query)].add(normalised(first.text))
    for pair in pairs:
        if len(sections[normalised(pair.query)]) <= _MOST_SECTIONS:
            yield pair
