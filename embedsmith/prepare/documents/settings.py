"""How documents are cut into passages, and which pairs are made of them."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from pydantic import Field, field_validator

from embedsmith.settings import Seed, Settings

PairSource: TypeAlias = Literal["heading", "title", "question", "link", "definition", "cloze", "code"]

SOURCES: tuple[PairSource, ...] = get_args(PairSource)


class PassageSettings(Settings):
    """How long passages are, and what stands in them."""

    max_tokens: int | None = Field(None, gt=0)
    """Tokens of a passage, as the student counts them; by default as many as the student reads of one."""
    overlap_tokens: int = Field(0, ge=0)
    """Tokens at the end of a passage, in whole sentences, that the next one of its section begins with."""
    heading_path: bool = True
    """Put the headings that a passage stands under before it, but for those that are its queries."""

    @property
    def limit(self) -> int:
        """Tokens of a passage, once the student has said how many it reads."""
        assert self.max_tokens is not None
        return self.max_tokens


class PairSettings(PassageSettings):
    """How documents are cut, and which pairs are made of them."""

    weights: dict[PairSource, float] = {}
    """Source of pairs -> the share of them that is trained on, drawn at random: 1 for all, 0 for none. By default all,
    but of cloze a quarter. The test keeps all sources, so runs with other weights are comparable."""
    found_within: int | None = Field(None, gt=0)
    """Train on a query only if one of its passages is among this many that the first teacher finds for it, of those
    that are trained on. By default on all queries."""
    generators: list[str] = []
    """Models that write queries for the passages that are trained on, in turns: a hub id, a folder, package:NAME/path
    or a GGUF file, in this process, or a chat model as https://HOST/v1#MODEL."""
    written_for: int = Field(300, gt=0)
    """`generators`: passages that queries are written for, at most, drawn at random."""
    near_duplicates: float = Field(0.8, ge=0, le=1)
    """Jaccard share of 3-word shingles from which on two passages are one answer. 0 for none."""
    max_passages: int | None = Field(None, gt=0)
    """Passages that are mined and scored, at most, of whole files drawn at random; all by default. Search is over
    all of them in any case."""

    @field_validator("weights")
    @classmethod
    def _are_shares(cls, value: dict[PairSource, float]) -> dict[PairSource, float]:
        """Refuse what is no share."""
        for source, weight in value.items():
            if not 0 <= weight <= 1:
                raise ValueError(f"{source}: {weight} is no share: 0 to 1")
        return value

    def weight(self, source: PairSource) -> float:
        """Return the share of a source's pairs that is trained on.

        >>> PairSettings(weights={"link": 0.5}).weight("link"), PairSettings().weight("cloze")
        (0.5, 0.25)
        """
        return self.weights.get(source, 0.25 if source == "cloze" else 1.0)


class DocumentSettings(PairSettings):
    """What becomes of a folder of documents, and how much of it is held out."""

    split_seed: Seed = 0
    """Seed of the choice of test files, and of the pairs that are drawn."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the pairs aimed at for the test side, which takes whole files."""
