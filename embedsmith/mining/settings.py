"""Settings of mining; importing them loads no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedsmith.models.settings import MINILM, Dtype
from embedsmith.settings import Settings

MethodName = Literal["naive", "shifted", "abs", "marginpos", "percpos"]


class MethodSettings(Settings):
    """Which candidates may be negatives."""

    method: MethodName = "percpos"
    """naive: all; shifted: all but the first ones; abs: those under `threshold`; marginpos: those under the positive's
    score minus `margin`; percpos: those under `ratio` of the positive's score."""
    ratio: float = Field(0.95, gt=0)
    """percpos: share of the positive's score. 0.95 is the paper's best (table 3)."""
    margin: float = Field(0.05, ge=0)
    """marginpos: distance from the positive's score. 0.05 is the paper's best."""
    threshold: float = 0.7
    """abs: the highest score of a negative. 0.7 is the paper's best."""
    shift: int = Field(10, ge=0)
    """shifted: number of best candidates that are left out, after exclusion. 10 is the paper's best."""


class SelectionSettings(MethodSettings):
    """Which candidates become negatives, and how many."""

    negatives: int = Field(4, gt=0)
    """Negatives for each query. A query with fewer safe candidates keeps fewer; none is ever filled up."""


class MiningSettings(SelectionSettings):
    """Which teacher looks for negatives, how deep, and what is taken."""

    teacher: str = MINILM
    """Model that scores the candidates: as in `--student`, or `bm25`."""
    depth: int = Field(100, gt=0)
    """Candidates for each query, before anything is dropped."""
    teacher_max_tokens: int | None = Field(None, gt=0)
    """Tokens of a text that the teacher reads; its own limit by default."""
    teacher_dtype: Dtype = "auto"
    """Precision of the teacher. `auto`: bfloat16 where the hardware has it."""
