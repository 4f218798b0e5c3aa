"""What the label of two texts means: entailed, neutral, contradicted.

Every reader of labelled data asks `meanings_of`, in conversion as in scoring. Numbers alone are ambiguous: 0 is
entailment in SNLI, MultiNLI and GLUE's RTE, and the contrary in other sets. A label of unknown meaning
is an error that names `--labels`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import yaml

from embedsmith.data.bad_rows import Unusable
from embedsmith.data.files import check_regular
from embedsmith.data.json_text import json_of
from embedsmith.data.labels import INTEGER, label_of
from embedsmith.data.plain_yaml import plain_yaml
from embedsmith.errors import InputError, did_you_mean
from embedsmith.settings import is_row


class Relation(Enum):
    """What a pair says of its second text: does it answer the first?"""

    ANSWERS = 1
    MIGHT = 0
    DOES_NOT = -1


class Meaning(NamedTuple):
    """What a label of two texts says."""

    word: str
    relation: Relation


_WORDS = {
    Relation.ANSWERS: ("entailment", "positive", "entails", "entailed", "duplicate", "equivalent", "relevant"),
    Relation.MIGHT: ("neutral", "-"),
    Relation.DOES_NOT: (
        "contradiction",
        "negative",
        "not_entailment",
        "contradictory",
        "contradicts",
        "not_entailed",
        "not_duplicate",
        "not_equivalent",
        "not_relevant",
        "irrelevant",
    ),
}


MEANINGS = {word: Meaning(word, relation) for relation, words in _WORDS.items() for word in words}


_PUBLISHED = {"0": "entailment", "1": "neutral", "2": "contradiction", "-1": "-"}
"""Numbers of SNLI, MultiNLI, XNLI and ANLI as published; -1 and - are pairs on which the annotators did not agree."""


_OF_PAIRS = {"1": "positive", "0": "negative"}


_REST = "*"
"""In `--labels`, every label that is not named."""


_EXAMPLE = "--labels 0=entailment,1=neutral,2=contradiction"


class LabelRows(NamedTuple):
    """How often a label stands in the data, and where first."""

    rows: int
    place: str


def counted(labels: Iterable[tuple[str, str]]) -> dict[str, LabelRows]:
    """Return how often each label stands in the data, of (place, label) of every row.

    >>> counted([("a.csv:2", "1"), ("a.csv:3", "0"), ("a.csv:4", "1")])["1"]
    LabelRows(rows=2, place='a.csv:2')
    """
    found: dict[str, LabelRows] = {}
    for place, label in labels:
        known = found.get(label)
        found[label] = LabelRows(1, place) if known is None else known._replace(rows=known.rows + 1)
    return found


def meanings_of(
    found: Mapping[str, LabelRows],
    *,
    is_nli: bool = False,
    given: Mapping[str, str] | None = None,
    positive: Sequence[str] = (),
    names: Sequence[str] = (),
) -> dict[str, Meaning]:
    """Return what each label of pairs means.

    Words speak for themselves. Numbers are those of `names` where the data brings them along; else 0, 1 and 2 of an
    entailment are read as published, and 0 and 1 of other pairs as no and yes.

    Args:
        found: the labels of the data, by `counted`.
        is_nli: whether the pairs are premises and hypotheses.
        given: label -> word, from `--labels`; `*` stands for all others.
        positive: labels of texts that belong together; all others say that they do not.
        names: words of the labels 0, 1, 2..., as a column of `datasets` has them.

    >>> found = counted([("a:1", "0"), ("a:2", "1"), ("a:3", "2")])
    >>> [meaning.word for meaning in meanings_of(found, is_nli=True).values()]
    ['entailment', 'neutral', 'contradiction']

    Raises:
        InputError: a label has no meaning, or could have several.
    """
    if given is not None:
        return {label: _given(label, rows, given) for label, rows in found.items()}
    if positive:
        wanted = {folded(_named(label)) for label in positive}
        return {label: MEANINGS["positive" if folded(label) in wanted else "negative"] for label in found}
    words = {label: _word(label, names) for label in found}
    if not all(INTEGER.fullmatch(word) for word in words.values()):
        return {label: _in_words(label, words[label], rows) for label, rows in found.items()}
    numbers = set(words.values())
    if is_nli and numbers and numbers <= _PUBLISHED.keys() and not {"0", "1", "2"} <= numbers:
        raise InputError(
            f"{next(iter(found.values())).place}: the labels are {_listed(found)}, which is ambiguous: 0 is entailment "
            "in GLUE's RTE, 1 is in other sets",
            hint="say which: --labels 0=entailment,1=contradiction, or --labels 0=contradiction,1=entailment",
        )
    table = _PUBLISHED if is_nli else _OF_PAIRS
    for label, rows in found.items():
        if words[label] not in table:
            these = "entailment, neutral or contradiction, or 0, 1 and 2" if is_nli else "0 and 1"
            raise InputError(
                f'{rows.place}: the label "{label}", wanted {these}; there are {_listed(found)}',
                hint=f"say what each label means: {_EXAMPLE}; scores are for --task sts",
            )
    return {label: MEANINGS[table[words[label]]] for label in found}


def in_words(found: Mapping[str, LabelRows], meanings: Mapping[str, Meaning]) -> str:
    """Return in a line what labels are taken for, the most frequent first.

    >>> found = counted([("a:1", "0"), ("a:2", "0"), ("a:3", "entailment")])
    >>> in_words(found, {"0": Meaning("contradiction", Relation.DOES_NOT), "entailment": MEANINGS["entailment"]})
    '0 = contradiction: 2 rows; entailment = positive: 1 row'
    """
    parts = []
    for label, rows in sorted(found.items(), key=lambda item: -item[1].rows):
        word = meanings[label].word
        if word == folded(label):
            word = {1: "positive", 0: "left out", -1: "negative"}[meanings[label].relation.value]
        parts.append(f"{label} = {word}: {rows.rows:,} row{'' if rows.rows == 1 else 's'}")
    return "; ".join(parts)


def read_labels(labels: str) -> dict[str, str]:
    """Return what labels mean: `0=entailment,1=neutral`, or a file with a mapping in YAML or JSON, or with a list.

    >>> read_labels("0=not toxic,1.0=toxic")
    {'0': 'not toxic', '1': 'toxic'}

    Raises:
        InputError: the file is missing, is not YAML, or holds something else; a label has two meanings.
    """
    is_file = Path(labels).is_file()
    if not is_file and "=" in labels:
        # A comma may stand in a text: what follows one is a label only if it has an equals sign too.
        pairs = [part.partition("=") for part in re.split(r",(?=[^,=]*=)", labels)]
        if not all(label.strip() and text.strip() for label, _, text in pairs):
            raise InputError(f"--labels {labels}: not LABEL=MEANING, with commas between", hint=f"write {_EXAMPLE}")
        entries = [(label, text.strip()) for label, _, text in pairs]
    else:
        entries = _of_file(labels)
    found: dict[str, str] = {}
    for label, text in entries:
        name = _named(label)
        if name in found:
            raise InputError(f'{labels}: the label "{name}" stands there twice', hint="give every label one meaning")
        found[name] = text
    return found


def _of_file(path: str) -> list[tuple[str, str]]:
    """Return the labels of a file and their texts."""
    check_regular(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        # JSON has a parser of its own: YAML allows no tab before a value.
        # YAML's scalars are read as texts: `no` would become false.
        value = json_of(text) if _is_json(text) else plain_yaml(text, as_texts=True)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such file, and not LABEL=MEANING", hint=f"check the path, or write {_EXAMPLE}"
        ) from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, wanted a file of labels", hint='write {"label": "its text"}') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise InputError(f"{path}: not YAML: {reason}", hint='write {"label": "its text"}') from None
    entries = [(str(number), text) for number, text in enumerate(value)] if isinstance(value, list) else []
    if isinstance(value, dict):
        entries = list(value.items())
    if not entries or not all(isinstance(text, str) and text.strip() for _, text in entries):
        raise InputError(f"{path}: not the texts of labels", hint='write {"label": "its text"}, or a list of texts')
    return entries


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _given(label: str, rows: LabelRows, given: Mapping[str, str]) -> Meaning:
    """Return what the caller says that a label means."""
    text = given.get(label, given.get(_REST))
    if text is None:
        raise InputError(
            f'{rows.place}: the label "{label}" is not among those that --labels names: {_listed(given)}'
            f"{did_you_mean(label, given)}",
            hint="give every label its meaning; *=… stands for all others",
        )
    word = folded(text)
    if word not in MEANINGS:
        raise InputError(
            f'--labels: the meaning "{text}" of the label "{label}" is unknown{did_you_mean(word, MEANINGS)}',
            hint="wanted entailment, neutral or contradiction; or positive and negative",
        )
    return MEANINGS[word]


def _in_words(label: str, word: str, rows: LabelRows) -> Meaning:
    """Return what a label says that is a word."""
    if word not in MEANINGS:
        raise InputError(
            f'{rows.place}: the label "{label}", wanted entailment, neutral or contradiction, or 0 and 1'
            f"{did_you_mean(word, MEANINGS)}",
            hint=f"say what each label means: {_EXAMPLE}",
        )
    return MEANINGS[word]


def _named(label: str) -> str:
    """Return the name of a label that the caller gave."""
    try:
        return label_of(label)
    except Unusable as flaw:
        raise InputError(f"--labels: {flaw}", hint=flaw.hint) from None


def _word(label: str, names: Sequence[str]) -> str:
    """Return the word, or the number, that a label stands for."""
    if names and label == "-1":
        return "-"  # as `datasets` writes that there is no label
    return folded(names[int(label)] if is_row(label, len(names)) else label)


def folded(label: str) -> str:
    """Return a label as words are compared.

    >>> folded("Not-Entailment"), folded("-")
    ('not_entailment', '-')
    """
    text = label.strip().casefold()
    if len(text) < 2 or INTEGER.fullmatch(text):
        return text
    return re.sub(r"^non_", "not_", re.sub(r"[\s_-]+", "_", text))


def _listed(labels: Iterable[str]) -> str:
    """Return the first labels with commas between."""
    every = list(labels)
    return ", ".join(every[:6]) + (f" and {len(every) - 6:,} more" if len(every) > 6 else "")
