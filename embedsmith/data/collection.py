"""A collection: passages, queries and which passage answers which query.

Shapes: N passages, Q queries.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from embedsmith.settings import fingerprint

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Collection:
    """Passages, queries and judgements (qrels) of one split, all in memory.

    >>> c = Collection(name="toy", passage_ids=["d1"], passages=["a cat"], query_ids=["q1"], queries=["cat?"],
    ...                qrels={"q1": {"d1": 1}})
    >>> c.positives("q1")
    ['d1']
    """

    name: str
    passage_ids: list[str]
    passages: list[str]
    """N texts, title and text joined by `join_title`."""
    query_ids: list[str]
    """Q ids: the queries that have at least one judgement above 0 in the split."""
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    """query id -> passage id -> grade; 0 is judged and not relevant."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    """N objects that the corpus carried beside its texts (where a function stands, say), or none at all."""

    @cached_property
    def passage_index(self) -> dict[str, int]:
        """Passage id -> row."""
        return {passage_id: row for row, passage_id in enumerate(self.passage_ids)}

    def content_hash(self) -> str:
        """Return a hash of every id, text and judgement.

        >>> def toy(text):
        ...     return Collection("toy", ["d1"], [text], ["q1"], ["cat?"], {"q1": {"d1": 1}})
        >>> toy("a cat").content_hash() == toy("a cat").content_hash() != toy("a dog").content_hash()
        True
        """
        return fingerprint([self.passage_ids, self.passages, self.query_ids, self.queries, self.qrels])

    def positives(self, query_id: str) -> list[str]:
        """Return the ids of the passages that answer a query, in corpus order."""
        relevant = [passage_id for passage_id, grade in self.qrels.get(query_id, {}).items() if grade > 0]
        return sorted(relevant, key=self.passage_index.__getitem__)


def join_title(title: str, text: str) -> str:
    """Return the string that stands for a passage everywhere: mining, training, evaluation and search.

    >>> join_title("Cats", "They purr.")
    'Cats They purr.'
    >>> join_title("", "They purr.")
    'They purr.'
    """
    return f"{title} {text}".strip() if title else text


def normalised(text: str) -> str:
    """Return a text without differences of case, width and white space.

    Two texts that are equal after this are the same text for exclusion, splits and false in-batch negatives.

    >>> normalised("  The\\n CAT ") == normalised("the cat")
    True
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
