"""The model card: one form for what training writes and for what an export carries on.

A card is a front matter, a head with the title, and sections. An export keeps the sections that it finds, and replaces
those that it knows better.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from embedsmith.data.shown import one_line
from embedsmith.pages.markdown import inline

USE = "Use"


@dataclass(frozen=True)
class ModelCard:
    """A model card in parts."""

    head: str
    """The front matter, the title and what stands below it."""
    sections: tuple[tuple[str, str], ...] = ()
    """Heading and text of each section, in their order."""

    @classmethod
    def new(cls, title: str, about: str, **front: Any) -> ModelCard:
        """Return a card without sections.

        Args:
            title: in Markdown.
            about: what stands below it, in Markdown.
            front: of the front matter.

        >>> print(ModelCard.new("A model", "Small.", license="mit").text())
        ---
        license: mit
        ---
        <BLANKLINE>
        # A model
        <BLANKLINE>
        Small.
        <BLANKLINE>
        """
        return cls(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n{about}")

    @classmethod
    def of(cls, text: str) -> ModelCard:
        """Return a card that is there already; a heading within a block of code is none.

        >>> ModelCard.of("# A\\n\\n## Use\\n\\n```\\n## no heading\\n```\\n").sections
        (('Use', '```\\n## no heading\\n```'),)
        """
        parts: list[tuple[str, list[str]]] = [("", [])]
        fence = ""
        for line in text.splitlines():
            marks = line[: len(line) - len(line.lstrip("`"))]
            if len(marks) >= 3 and not fence:
                fence = marks
            elif fence and line.strip() == marks and len(marks) >= len(fence):
                fence = ""
            if line.startswith("## ") and not fence:
                parts.append((line.removeprefix("## ").strip(), []))
            else:
                parts[-1][1].append(line)
        (_, head), *sections = [(heading, "\n".join(lines).strip()) for heading, lines in parts]
        return cls(head, tuple(sections))

    def with_section(self, heading: str, lines: Iterable[str]) -> ModelCard:
        """Return the card with a section at its end, in place of one of the same heading; without lines it is gone.

        Args:
            heading: in Markdown.
            lines: in Markdown.

        >>> card = ModelCard("# A", (("Use", "old"), ("Data", "texts")))
        >>> card.with_section("Use", ["new"]).sections
        (('Data', 'texts'), ('Use', 'new'))
        """
        others = tuple(section for section in self.sections if section[0] != heading)
        text = "\n".join(lines).strip()
        return ModelCard(self.head, (*others, (heading, text)) if text else others)

    def text(self) -> str:
        """Return the card as the text of a file."""
        sections = (f"## {heading}\n\n{text}" for heading, text in self.sections)
        return "\n\n".join([self.head.strip(), *sections]) + "\n"


def with_scores(card: ModelCard, scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> ModelCard:
    """Return a card with a table of scores for each data set.

    Args:
        card: to add them to.
        scores: data set -> model -> metric -> value.
    """
    for name, rows in scores.items():
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        table = [f"| | {' | '.join(map(inline, metrics))} |", "| --- " * (len(metrics) + 1) + "|"]
        for label, row in rows.items():
            table.append(f"| {inline(label)} | {' | '.join(_number(row.get(metric)) for metric in metrics)} |")
        card = card.with_section(f"Scores on {inline(name)}", table)
    return card


def use(folder: str, *, is_plain: bool, needs_code: bool = False) -> Iterator[str]:
    """Yield how a model is opened and used.

    Args:
        folder: the name that it is opened by.
        is_plain: whether sentence-transformers opens it; else embedsmith does.
        needs_code: whether it does so with `trust_remote_code=True` alone.
    """
    opened = json.dumps(one_line(folder), ensure_ascii=False)
    yield "```python"
    if is_plain:
        trust = ", trust_remote_code=True" if needs_code else ""
        yield from ("from sentence_transformers import SentenceTransformer", "")
        yield f"model = SentenceTransformer({opened}{trust})"
    else:
        yield from ("import embedsmith", "", f"model = embedsmith.load({opened})")
    yield from ('queries, passages = model.encode_query(["…"]), model.encode_document(["…"])', "```")


def _number(value: float | None) -> str:
    """Return a score as it stands in a table; nothing where there is none."""
    return "" if value is None else f"{value:.3f}"
