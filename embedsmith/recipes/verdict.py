"""What a recipe's run came to, in words: whether training helped on the queries of each test, and what finds more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedsmith.evaluation.compare import METRIC
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.evaluation.significance import Difference, compare_paired
from embedsmith.runs.named import ELSEWHERE
from embedsmith.runs.scores import HYBRID, read_scores

_FEW = 200
"""Queries below which a gain of a few hundredths is hard to tell from chance."""


@dataclass(frozen=True)
class Verdict:
    """The trained model against its start on one data set."""

    data: str
    difference: Difference
    better: dict[str, float]
    """What scores higher than the trained model, such as `bm25` -> its mean nDCG@10; the highest first."""

    @property
    def helped(self) -> bool:
        """Whether the gain is more than chance among the queries makes."""
        return self.difference.low > 0

    def lines(self) -> list[str]:
        """Return it in sentences, one a line.

        >>> change = Difference(90, 0.486, 0.532, 0.046, 0.01, 0.083, 0.01, 30, 20, 40)
        >>> Verdict("manuals", change, {}).lines()
        ['manuals: training helped: ndcg@10 from 0.486 to 0.532, +0.046, 95% interval +0.010 to +0.083, 90 queries']
        """
        found = self.difference
        figures = (
            f"{METRIC} from {found.a:.3f} to {found.b:.3f}, {found.mean:+.3f}, 95% interval {found.low:+.3f} to "
            f"{found.high:+.3f}, {found.queries:,} queries"
        )
        if self.data == ELSEWHERE:
            return _elsewhere(found, figures)
        if self.helped:
            lines = [f"{self.data}: training helped: {figures}"]
        elif found.high < 0:
            lines = [
                f"{self.data}: training made it worse: {figures}",
                "  keep the model as it was, or train less: --set stages.0.learning_rate=1e-5, or fewer steps",
            ]
        else:
            few = f"{found.queries:,} queries are few for a test; " if found.queries < _FEW else ""
            lines = [
                f"{self.data}: whether training helped is not known: {figures}",
                f"  {few}try more data, more steps (--minutes, --set stages.0.steps=…), or another --student",
            ]
        if HYBRID in self.better:
            lines.append(
                f"  BM25 and the trained model together find more: {METRIC} {self.better[HYBRID]:.3f} (search --hybrid)"
            )
        if "bm25" in self.better:
            lines.append(f"  BM25 alone finds more: {METRIC} {self.better['bm25']:.3f}")
        return lines


def _elsewhere(found: Difference, figures: str) -> list[str]:
    """Return what training has cost on what it was not for.

    >>> worse = Difference(90, 0.562, 0.532, -0.03, -0.05, -0.01, 0.01, 30, 20, 40)
    >>> _elsewhere(worse, "figures")[0]
    'elsewhere (functions of the standard library, not trained on): worse than before training: figures'
    """
    where = f"{ELSEWHERE} (functions of the standard library, not trained on)"
    if found.high < 0:
        return [
            f"{where}: worse than before training: {figures}",
            "  if it matters, train less: --set stages.0.learning_rate=1e-5, or fewer steps",
        ]
    return [f"{where}: {'better than before training' if found.low > 0 else 'no loss beyond chance'}: {figures}"]


def verdicts(run: Path) -> list[Verdict]:
    """Return the verdict on each test of a run whose student was scored before and after training.

    Args:
        run: folder of a finished run of a recipe.

    Raises:
        InputError, RunError: scores are missing or damaged.
    """
    board, found = read_scores(run), []
    for name in board.scores:
        files = board.per_query_files(name)
        if not {"before", "after"} <= files.keys():
            continue
        before, after = (read_per_query(run / files[label]) for label in ("before", "after"))
        if METRIC not in after.metrics:
            continue
        own = before.values(METRIC)[before.rows_of(after)]
        means = {label: scores.get(METRIC, 0.0) for label, scores in board.metrics_of(name).items()}
        others = {label: mean for label, mean in means.items() if not label.startswith(("before", "after"))}
        better = {label: mean for label, mean in others.items() if mean > means["after"]}
        ordered = dict(sorted(better.items(), key=lambda one: -one[1]))
        found.append(Verdict(name, compare_paired(own, after.values(METRIC)), ordered))
    return found
