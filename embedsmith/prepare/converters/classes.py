"""Classes: a text and its label, made a query whose positive is another text of the class, or the label.

NV-Embed v2 takes examples where v1 took labels; two classes are distinguished by their labels in both (section 4.2).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from embedsmith.data.labelled_rows import LabelledText
from embedsmith.data.normalised import normalised
from embedsmith.data.pair_labels import read_labels
from embedsmith.errors import InputError
from embedsmith.prepare.converters.drafts import Converted, Draft, PassagePool, rows_of
from embedsmith.prepare.converters.settings import ConvertSettings


def convert_classes(
    texts: Iterable[LabelledText], settings: ConvertSettings, label_texts: Mapping[str, str] | None = None
) -> Converted:
    """Return drafts by example or by label, as the settings say.

    Args:
        texts: every row.
        settings: style, caps and seed.
        label_texts: label -> its text; by default made of its name.

    Raises:
        InputError: there are not two labels, or a label has no text.
    """
    rows, kept, dropped = 0, [], Counter[str]()
    seen: set[tuple[str, str]] = set()
    for item in texts:
        rows += 1
        key = (normalised(item.text), item.label)
        if key in seen:
            dropped["the same text and label again"] += 1
            continue
        seen.add(key)
        kept.append(item)
    labels = list(dict.fromkeys(item.label for item in kept))
    if len(labels) < 2:
        raise InputError(
            f"all {rows:,} texts have the label {', '.join(labels)}" if rows else "no labelled texts",
            hint="two labels are needed; name their column with --label-column",
        )
    kept, over = _capped(kept, settings.max_per_label, seed=settings.convert_seed)
    dropped["beyond max_per_label"] += over
    if is_by_label(settings, len(labels)):
        names = {label: label_text(label, label_texts) for label in labels}
        return _by_label(kept, names, rows, dropped)
    return _by_example(kept, rows, dropped, seed=settings.convert_seed)


def is_by_label(settings: ConvertSettings, labels: int) -> bool:
    """Return whether the text of the label stands for the class."""
    return settings.style == "label" or (settings.style == "auto" and settings.task == "classification" and labels == 2)


def label_text(label: str, texts: Mapping[str, str] | None = None) -> str:
    """Return the words that stand for a label.

    >>> label_text("card_arrival"), label_text("talk.politics.mideast"), label_text("BookRestaurant")
    ('card arrival', 'talk politics mideast', 'Book Restaurant')
    >>> label_text("1", {"0": "not toxic", "1": "toxic"})
    'toxic'

    Raises:
        InputError: the label is not among those that have a text, or is a number.
    """
    if texts is not None:
        if label not in texts:
            raise InputError(
                f'no text for the label "{label}"; there are texts for {len(texts)} labels',
                hint="give every label its text",
            )
        return texts[label]
    if re.fullmatch(r"[-+]?[0-9.]+", label):
        raise InputError(
            f'the label "{label}" says nothing', hint="give the labels' texts: --labels 0=harmless,1=toxic, or a file"
        )
    spaced = re.sub(r"[\s_.:/-]+", " ", label).strip()
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", spaced) or label


def read_label_texts(labels: str | Path) -> dict[str, str]:
    """Return the texts of labels, as `read_labels` takes them.

    Raises:
        InputError: as `read_labels`, or two labels have the same text.
    """
    texts = read_labels(str(labels))
    twice = next((text for text, count in Counter(map(normalised, texts.values())).items() if count > 1), None)
    if twice is not None:
        raise InputError(f'{labels}: two labels have the text "{twice}"', hint="give every label a text of its own")
    return texts


def _capped(texts: list[LabelledText], limit: int | None, *, seed: int) -> tuple[list[LabelledText], int]:
    """Return at most so many texts of each label, in their order, and how many are left out."""
    if limit is None:
        return texts, 0
    of_label: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(texts):
        of_label[item.label].append(number)
    draw = np.random.default_rng((seed, 0x1ABE1))
    kept: list[int] = []
    for numbers in of_label.values():
        kept += numbers if len(numbers) <= limit else draw.choice(numbers, limit, replace=False).tolist()
    return [texts[number] for number in sorted(kept)], len(texts) - len(kept)


def _by_label(texts: list[LabelledText], names: Mapping[str, str], rows: int, dropped: Counter[str]) -> Converted:
    """Return drafts whose positives are labels; the other labels may be negatives."""
    pool = PassagePool()
    row_of = {label: pool.add(name, f"label:{label}") for label, name in names.items()}
    if len(pool) < len(row_of):
        raise InputError("two labels have the same text", hint="give each its own with --labels")
    labels_of: dict[str, list[int]] = defaultdict(list)
    for item in texts:
        labels_of[normalised(item.text)].append(row_of[item.label])
    drafts = [
        Draft(
            place=item.place,
            query_id=item.place,
            query=item.text,
            positives=[row_of[item.label]],
            negatives=[],
            negative_places=[],
            # A text that stands in the data under two labels has two right ones.
            excluded=rows_of(labels_of[normalised(item.text)]),
        )
        for item in texts
    ]
    return Converted(drafts, pool, rows, dropped)


def _by_example(texts: list[LabelledText], rows: int, dropped: Counter[str], *, seed: int) -> Converted:
    """Return drafts whose positives are other texts of the class; texts of other classes may be negatives."""
    pool = PassagePool()
    own = [pool.add(item.text, item.place) for item in texts]
    members: dict[str, list[int]] = defaultdict(list)
    labels_of: dict[int, list[str]] = defaultdict(list)
    for item, row in zip(texts, own, strict=True):
        members[item.label].append(row)
        labels_of[row].append(item.label)
    shared: dict[tuple[str, ...], Int64[np.ndarray, " E"]] = {}
    draw = np.random.default_rng((seed, 0xE8A))
    drafts = []
    for item, row in zip(texts, own, strict=True):
        others = members[item.label]
        if len(others) < 2:
            dropped["the only text of its label"] += 1
            continue
        # One place is the text's own: the draw skips it.
        place = int(draw.integers(len(others) - 1))
        positive = others[place] if others[place] != row else others[-1]
        labels = tuple(labels_of[row])
        if labels not in shared:
            shared[labels] = rows_of(other for label in labels for other in members[label])
        drafts.append(Draft(item.place, item.place, item.text, [positive], [], [], shared[labels]))
    return Converted(drafts, pool, rows, dropped)
