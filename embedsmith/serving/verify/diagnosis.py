"""Which of the usual mistakes explains the vectors of another program, for the texts of one role.

A mistake explains the vectors if it gives them for every text, up to rounding. Single mistakes come first, then two at
once. Where no mistake explains all texts, one that explains all but the longest is combined with another length at
which texts are cut, which is searched for.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from embedsmith.models.golden import GoldenText
from embedsmith.models.settings import Role
from embedsmith.progress import Progress, silent
from embedsmith.serving.verify.reading import OWN, Reader, Reading, pairs_of
from embedsmith.serving.verify.settings import TEXTS

TOLERANCE = 1e-5
"""Of one minus a cosine: float32 computed by other kernels stays below a tenth of it."""
_LENGTH = 0.01
"""By which share the length of a vector may be off: in bfloat16 it is by half of that."""
_ROUNDINGS = 4.0
"""How many times our own error of bfloat16 another program may make: its kernels round at other places."""
_HALF = 1 / 64
"""An error of float16 beside one of bfloat16: an eighth of it, squared."""
_PROBED = 5
"""Texts that a mistake is tried on before all are."""
_QUANTISED = 0.95
_STARTS = 4
"""Lengths around which one is searched for."""
_GRID = (8, 16, 32, 64, 100, 128, 200, 250, 256, 300, 384, 400, 500, 510, 512, 700, 768, 1000, 1024, 1500, 2000, 2048)


@dataclass(frozen=True)
class Finding:
    """What is to be said of the vectors of a role."""

    what: str
    """In words."""
    is_wrong: bool
    cosine: float
    """The lowest one with the right vector among these texts."""
    explained: float | None
    """The lowest one with the vector that the mistake gives; None where none was computed."""
    texts: tuple[str, ...]
    """Names of the texts."""


def diagnose(
    reader: Reader | None,
    role: Role,
    texts: Sequence[GoldenText],
    wanted: Float32[np.ndarray, "N D"],
    got: Float32[np.ndarray, "N E"],
    *,
    tolerance: float = TOLERANCE,
    on_progress: Progress = silent,
) -> list[Finding]:
    """Return what is wrong with the vectors of some texts of a role, or worth knowing; nothing where they are right.

    Args:
        reader: our own model, which computes what mistakes give; None without one.
        role: of the texts.
        texts: that both read.
        wanted: the right vectors.
        got: the other program's, of the same texts; they may have other dimensions.
        tolerance: of one minus a cosine.
        on_progress: called with the progress of the work.
    """
    found = _lengths(texts, wanted, got)
    if wanted.shape[1] == got.shape[1]:
        wrong = _distances(wanted, got) > tolerance
        if not wrong.any():
            return found
    elif _is_beginning(wanted, got, tolerance):
        what = f"vectors of the first {got.shape[1]:,} of {wanted.shape[1]:,} dimensions"
        return [*found, Finding(what, True, 1.0, None, tuple(text.name for text in texts))]
    case = _Case(reader, role, texts, wanted, got, tolerance, on_progress)
    return [*found, case.finding()]


class _Case:
    """Wrong vectors of the texts of one role."""

    def __init__(
        self,
        reader: Reader | None,
        role: Role,
        texts: Sequence[GoldenText],
        wanted: Float32[np.ndarray, "N D"],
        got: Float32[np.ndarray, "N E"],
        tolerance: float,
        on_progress: Progress,
    ) -> None:
        self.reader, self.role, self.texts, self.wanted, self.got = reader, role, texts, wanted, got
        self.tolerance, self.on_progress = tolerance, on_progress
        self.same_width = wanted.shape[1] == got.shape[1]
        self.off = _distances(wanted, got) if self.same_width else np.full(len(texts), 2.0)
        self.tokens = [reader.tokens(text.text, role) if reader else 0 for text in texts]
        """Of each text with its prompt, uncut."""
        self.order: list[int] = np.argsort(self.tokens, kind="stable").tolist()
        """Places of the texts, the shortest first."""
        starts = range(0, len(texts), TEXTS)
        longest = [max(self.tokens[start : start + TEXTS]) for start in starts]
        self.beside = [longest[place // TEXTS] for place in range(len(texts))]
        """Tokens of the longest text of the request with each."""

    def finding(self) -> Finding:
        """Return what explains the vectors."""
        if self.reader is None:
            return self._said("other vectors; --model names what could explain them", None)
        singles = list(self.reader.readings(self.role))
        exact = self._explained([OWN, *singles], self.tolerance)
        if exact:
            return exact
        rounding = self._rounding()
        if self.same_width and self.off.max() <= rounding:
            half = rounding * _HALF
            what = "float16" if self.off.max() <= half else "bfloat16"
            return replace(self._said(f"rounded as in {what}", None), is_wrong=False)
        # Short texts are probes of pairs: few of them pass, and only those are computed for all texts.
        return (
            self._explained(pairs_of(singles), self.tolerance)
            or self._explained([OWN, *singles], rounding)
            or self._explained(pairs_of(singles), rounding)
            or self._unexplained(singles)
        )

    def _explained(self, readings: Iterable[Reading], tolerance: float) -> Finding | None:
        """Return the first mistake that gives the vectors, with another length of texts where that is needed."""
        tried = list(readings)
        for number, reading in enumerate(tried, start=1):
            self.on_progress(f"try mistakes on {self.role} texts", number, len(tried))
            if not self._passes(reading, tolerance):
                continue
            distances = self._distances(reading)
            bad: list[int] = np.flatnonzero(distances > tolerance).tolist()
            if not bad:
                if reading != OWN:
                    return self._found(reading, distances, tolerance)
            elif cut := self._other_length(reading, bad, tolerance):
                distances[bad] = [self._distance(place, cut) for place in bad]
                return self._found(cut, distances, tolerance)
        return None

    def _found(self, reading: Reading, distances: Float64[np.ndarray, " N"], tolerance: float) -> Finding:
        assert self.reader
        what = self.reader.said(reading)
        if reading.max_tokens:
            own = self.reader.model.contract_length(self.role)
            is_uncut = reading.max_tokens >= max(self.tokens)
            what = (
                what.replace(f"texts are cut at {reading.max_tokens} tokens", "texts are not cut") if is_uncut else what
            )
            what += f" (the model: at {own})"
        if tolerance > self.tolerance and np.nanmax(distances) > self.tolerance:
            what += ", rounded"
        return self._said(what, 1.0 - float(np.nanmax(distances)))

    def _said(self, what: str, explained: float | None) -> Finding:
        wrong: list[int] = np.flatnonzero(self.off > self.tolerance).tolist()
        names = tuple(self.texts[place].name for place in wrong)
        return Finding(what, True, 1.0 - float(self.off.max()) if self.same_width else float("nan"), explained, names)

    def _unexplained(self, readings: Sequence[Reading]) -> Finding:
        """Return what is nearest, where nothing explains the vectors."""
        assert self.reader
        if not self.same_width:
            what = f"vectors of {self.got.shape[1]:,} dimensions (the model: {self.wanted.shape[1]:,}): another model?"
            return self._said(what, None)
        if self.off.max() < 1 - _QUANTISED:
            return self._said("no usual mistake gives these vectors, which are near: weights quantised?", None)
        tried = ((self._distances(reading), reading) for reading in [OWN, *readings])
        scored = [(float(np.nanmedian(found)), reading) for found, reading in tried if not np.isnan(found).all()]
        distance, nearest = min(scored, key=lambda pair: pair[0])
        if distance > 0.5:
            return self._said("no usual mistake gives these vectors: another model?", None)
        said = "the right vectors are nearest" if nearest == OWN else f"nearest: {self.reader.said(nearest)}"
        return self._said(f"no usual mistake gives these vectors; {said}, median cosine {1 - distance:.4f}", None)

    def _passes(self, reading: Reading, tolerance: float) -> bool:
        """Return whether a mistake gives the vectors of the shortest texts; one that gives none explains nothing."""
        distances = np.array([self._distance(place, reading) for place in self.order[:_PROBED]])
        return not np.isnan(distances).all() and bool(np.nanmax(distances) <= tolerance)

    def _distances(self, reading: Reading) -> Float64[np.ndarray, " N"]:
        """Return how far the vectors are from those that a mistake gives; not a number where it gives none."""
        return np.array([self._distance(place, reading) for place in range(len(self.texts))])

    def _distance(self, place: int, reading: Reading) -> float:
        """Return how far a vector is from the one that a mistake gives; not a number where it gives none."""
        assert self.reader
        if reading == OWN and self.same_width:
            return float(self.off[place])
        vector = self.reader.vector(self.texts[place].text, self.role, reading, beside=self.beside[place])
        if vector is None:
            return float("nan")
        if len(vector) != self.got.shape[1]:
            return 2.0
        return float(_distances(vector[None], self.got[place : place + 1])[0])

    def _rounding(self) -> float:
        """Return how far a vector may be off by rounding to bfloat16."""
        short = replace(OWN, is_short=True)
        assert self.reader
        vectors = [self.reader.vector(text.text, self.role, short) for text in self.texts]
        errors = [
            _distances(vector[None], right[None])[0]
            for vector, right in zip(vectors, self.wanted, strict=True)
            if vector is not None
        ]
        return max(self.tolerance, _ROUNDINGS * float(max(errors, default=0.0)))

    def _other_length(self, reading: Reading, bad: Sequence[int], tolerance: float) -> Reading | None:
        """Return a mistake with the length at which texts are cut that explains the longest texts too."""
        reader = self.reader
        assert reader
        if not reader.has_backbone:
            return None
        tokens = self.tokens
        good = [tokens[place] for place in range(len(tokens)) if place not in set(bad)]
        if min(tokens[place] for place in bad) < max(good, default=0):
            return None
        probe = max(bad, key=lambda place: tokens[place])
        most = min(tokens[probe], reader.longest(self.role))
        # A cut after the tokens were added loses the last one.
        for base in (reading, replace(reading, without="last")) if reading.without is None else (reading,):
            if length := self._length(base, probe, most, tolerance):
                found = replace(base, max_tokens=length)
                if np.nanmax([self._distance(place, found) for place in bad]) <= tolerance:
                    return found
        return None

    def _length(self, reading: Reading, probe: int, most: int, tolerance: float) -> int | None:
        """Return at how many tokens a text must be cut to get its vector; None where no length does it."""
        assert self.reader
        known: dict[int, float] = {}

        def distance(tokens: int) -> float:
            if tokens not in known:
                found = self._distance(probe, replace(reading, max_tokens=tokens))
                known[tokens] = 2.0 if np.isnan(found) else found
            return known[tokens]

        own = self.reader.model.contract_length(self.role) or most
        usual = {*_GRID, *range(own - 3, own + 4), most}
        grid = sorted(tokens for tokens in usual if 3 <= tokens <= most)
        # The nearest one of a few is not always beside the right one.
        for best in _valleys(grid, distance)[:_STARTS]:
            around = grid
            while distance(best) > tolerance:
                place = around.index(best)
                low, high = around[max(place - 1, 0)], around[min(place + 1, len(around) - 1)]
                around = sorted({*np.linspace(low, high, 9).astype(int).tolist(), best})
                if set(around) <= known.keys():
                    break
                best = min(around, key=distance)
            if distance(best) <= tolerance:
                return best
        return None


def _valleys(grid: Sequence[int], distance: Callable[[int], float]) -> list[int]:
    """Return the numbers whose distance is not above that of the next ones on either side, the nearest first.

    >>> _valleys([1, 2, 3, 4, 5], {1: 3.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: 0.5}.get)
    [5, 2]
    """
    padded = [float("inf"), *map(distance, grid), float("inf")]
    low = [number for place, number in enumerate(grid) if padded[place + 1] <= min(padded[place], padded[place + 2])]
    return sorted(low, key=distance)


def _distances(one: Float32[np.ndarray, "N D"], two: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, " N"]:
    """Return one minus the cosine of each pair of vectors, in float64.

    >>> _distances(np.array([[1, 0], [1, 1]], np.float32), np.array([[2, 0], [-1, -1]], np.float32)).round(6)
    array([0., 2.])
    """
    one64, two64 = one.astype(np.float64), two.astype(np.float64)
    lengths = np.linalg.norm(one64, axis=1) * np.linalg.norm(two64, axis=1)
    return np.maximum(0.0, 1.0 - (one64 * two64).sum(axis=1) / lengths)


def _is_beginning(wanted: Float32[np.ndarray, "N D"], got: Float32[np.ndarray, "N E"], tolerance: float) -> bool:
    """Return whether vectors are the first numbers of the right ones."""
    width = got.shape[1]
    return width < wanted.shape[1] and bool((_distances(wanted[:, :width], got) <= tolerance).all())


def _lengths(
    texts: Sequence[GoldenText], wanted: Float32[np.ndarray, "N D"], got: Float32[np.ndarray, "N E"]
) -> list[Finding]:
    """Return what there is to say of the lengths of vectors."""
    right, found = (np.linalg.norm(each.astype(np.float64), axis=1) for each in (wanted, got))
    off: list[int] = np.flatnonzero(np.abs(found / right - 1) > _LENGTH).tolist()
    if not off:
        return []
    names = tuple(texts[place].name for place in off)
    cosine = 1.0 - float(_distances(wanted, got).max()) if wanted.shape == got.shape else float("nan")
    if np.allclose(right, 1, atol=_LENGTH):
        what = f"vectors are not normalised: lengths of {found.min():.3g} to {found.max():.3g}, wanted 1"
        return [Finding(what, True, cosine, None, names)]
    if np.allclose(found, 1, atol=_LENGTH):
        return [Finding("vectors have length 1, which the model does not give them", False, cosine, None, names)]
    return [Finding("vectors have other lengths", True, cosine, None, names)]
