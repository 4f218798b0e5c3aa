"""Settings of mining; importing them loads no model library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from embedsmith.errors import did_you_mean
from embedsmith.models.settings import MINILM
from embedsmith.settings import Seed, Settings
from embedsmith.teachers.named import has_vectors, is_rescorer
from embedsmith.teachers.settings import TeacherSettings

MethodName = Literal["naive", "shifted", "abs", "marginpos", "percpos", "twodistances"]
SamplerName = Literal["top", "uniform", "softmax", "top1", "window"]
EnsembleName = Literal["first", "cross", "intra", "intra-dedup", "rrf", "fuse", "pca"]

METHODS: tuple[str, ...] = get_args(MethodName)


class MethodSettings(Settings):
    """Which candidates may be negatives."""

    method: str = "percpos"
    """naive: all; shifted: all but the first ones; abs: those under `threshold`; marginpos: those under the positive's
    score minus `margin`; percpos: those under `ratio` of the positive's score; twodistances: those nearer to the query
    than the positive is, and than they are to the positive (with `--ensemble pca`). Joined by `+`, all must agree."""
    ratio: float = Field(0.95, gt=0)
    """percpos: share of the positive's score. 0.95 is the paper's best (table 3); its sweep goes to 1.05."""
    margin: float = Field(0.05, ge=0)
    """marginpos: distance from the positive's score. 0.05 is the paper's best."""
    threshold: float = 0.7
    """abs: the score that a negative stays under. 0.7 is the paper's best."""
    shift: int = Field(10, ge=0)
    """shifted: number of best candidates that are left out, after exclusion. 10 is the paper's best."""
    floor: float | None = None
    """The score that a negative must reach, with any method."""
    positive: Literal["min", "max", "mean", "each"] = "min"
    """The positive that a query with several is measured by: the lowest score, the highest, their mean, or each one in
    a row of its own. The paper does not say; the lowest is the safest, and what other miners take."""
    neighbour: float | None = Field(None, gt=-1, le=1)
    """Drop a candidate whose cosine with a positive passage reaches this: what is that close to an answer often is one.
    Measured by the first teacher that has vectors."""
    neighbour_ratio: float | None = Field(None, gt=0)
    """The same with a limit that follows the data: this share of the query's own cosine with that positive. At 1 a
    candidate may not be nearer to the positive than the query is. With `neighbour`, the higher limit counts."""
    veto: bool = False
    """Drop a candidate that any teacher puts above its own ceiling, whichever teacher proposed it."""
    veto_deviations: float | None = None
    """Drop a candidate that another teacher than the first one scores this many standard deviations above its mean
    over the corpus: teachers of different kinds seldom take the same passage for an answer by mistake. With `veto`,
    a teacher must do both: a ceiling is no evidence where the positive shares no word with the query."""

    @field_validator("method")
    @classmethod
    def _known_methods(cls, value: str) -> str:
        """Refuse a method that does not exist."""
        for name in value.split("+"):
            if name not in METHODS:
                raise ValueError(f'no method "{name}"{did_you_mean(name, METHODS)}; there are {", ".join(METHODS)}')
        return value

    @property
    def methods(self) -> list[str]:
        """The methods that must agree."""
        return self.method.split("+")


class SamplerSettings(Settings):
    """Which of the candidates that may be negatives are taken."""

    sampler: SamplerName = "top"
    """top: the best; uniform: any of the `sample_from` best; softmax: of those, by the softmax of their scores; top1:
    the best one, the others by softmax; window: any whose rank after exclusion lies in the window."""
    sample_from: int = Field(10, gt=0)
    """uniform, softmax, top1: how many of the best are drawn from. 10 is the paper's best."""
    sampler_temperature: float = Field(1.0, gt=0)
    """softmax, top1: divides the scores. The paper names a softmax over the scores and no temperature."""
    window_first: int = Field(30, gt=0)
    """window: first rank. 30 to 100 is SFR-Embedding's, as the paper cites it."""
    window_last: int = Field(100, gt=0)
    """window: last rank."""
    mining_seed: Seed = 0
    """Seed of everything that is drawn at random."""


class EnsembleSettings(Settings):
    """How several teachers act as one."""

    ensemble: EnsembleName = "first"
    """first: the first teacher decides; cross: a teacher drawn for each query; intra: each teacher's best in turn, the
    same passage perhaps twice; intra-dedup: the next best instead; rrf: reciprocal rank fusion; fuse: the weighted sum
    of scores, each standardised over the corpus; pca: vectors joined and reduced."""
    weights: list[float] = []
    """fuse: one for each teacher, in their order; all the same when not given."""
    pca_variance: float = Field(0.95, gt=0, le=1)
    """pca: share of the variance that is kept."""

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, value: list[float]) -> list[float]:
        """Refuse a weight that would turn a teacher's order round."""
        for weight in value:
            if weight < 0:
                raise ValueError(f"a teacher's weight is {weight:g}, wanted 0 or more")
        return value


class SelectionSettings(MethodSettings, SamplerSettings, EnsembleSettings):
    """Which candidates become negatives, and how many."""

    negatives: int = Field(4, gt=0)
    """Negatives for each query."""
    short: Literal["keep", "drop", "random"] = "keep"
    """A query with fewer safe candidates: keep it with those; drop it; or fill up with random passages that pass every
    exclusion and were no candidates. Which one happened stands in each row."""
    keep_negatives: bool = False
    """Keep the negatives that the data brings along, before the mined ones."""
    near_duplicates: float | None = Field(None, gt=0, le=1)
    """Exclude a candidate whose words overlap with a positive's by this Jaccard share of 3-word shingles, estimated by
    MinHash to within 0.03 (standard error). 0.8 is common."""

    def model_post_init(self, context: Any) -> None:
        """Refuse what does not go together, before anything is read or encoded."""
        for misfit in self._misfits():
            raise ValueError(misfit)

    def _misfits(self) -> Iterator[str]:
        """Yield what does not go together."""
        if self.weights and not any(self.weights):
            yield "weights: all are 0, and then no teacher says anything"
        if self.window_first > self.window_last:
            yield f"window_first: {self.window_first} lies behind window_last, {self.window_last}"
        if self.floor is not None and "abs" in self.methods and self.floor >= self.threshold:
            yield f"floor: no score reaches {self.floor:g} and stays under the threshold, {self.threshold:g}"


class MiningSettings(SelectionSettings):
    """Which teachers look for negatives, how deep, and what is taken."""

    teachers: list[str] = Field([MINILM], min_length=1)
    """Model that scores the candidates: as in `--student`, `bm25`, `random`, `cross-encoder:MODEL` or the URL of an
    embeddings service. Give it again for several."""
    depth: int = Field(100, gt=0)
    """Candidates of each teacher for each query, before anything is dropped."""
    teacher_settings: TeacherSettings = TeacherSettings()
    """How the teachers read texts."""

    def _misfits(self) -> Iterator[str]:
        """Yield what does not go together."""
        yield from super()._misfits()
        names = ", ".join(self.teachers)
        if len(set(self.teachers)) < len(self.teachers):
            yield "a teacher is named twice"
        if self.weights and len(self.weights) != len(self.teachers):
            yield f"weights: {len(self.weights)} for {len(self.teachers)} teachers"
        if all(map(is_rescorer, self.teachers)):
            yield f"teachers: {names} only rescores; name one that searches beside it, such as bm25"
        if self.veto_deviations is not None and len(self.teachers) == 1:
            yield f"veto_deviations: asks another teacher than the first, and there is only {names}"
        if "twodistances" in self.methods and self.ensemble != "pca":
            yield "method: twodistances compares distances in joined vectors; set ensemble: pca"
        # The joined vectors of `pca` search too.
        found = self.depth * (sum(not is_rescorer(name) for name in self.teachers) + (self.ensemble == "pca"))
        if self.sampler == "window" and self.window_first > found:
            yield f"window_first: {self.window_first} lies behind all candidates, {found}; raise depth"
        if "shifted" in self.methods and self.shift >= found:
            yield f"shift: {self.shift} leaves out all candidates, {found}; raise depth"
        if not any(map(has_vectors, self.teachers)):
            need = {"neighbour": self.neighbour, "neighbour_ratio": self.neighbour_ratio}
            asked = [name for name, limit in need.items() if limit is not None]
            asked += ["ensemble: pca"] * (self.ensemble == "pca")
            yield from (
                f"{name}: none of the teachers has vectors ({names}); name an embedding model" for name in asked
            )
