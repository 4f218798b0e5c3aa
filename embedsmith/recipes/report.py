"""The report of a run, in Markdown: what was scored, mined and trained, with negatives to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from embedsmith.data.examples import read_examples
from embedsmith.data.files import atomic_write
from embedsmith.pages.markdown import block, code, inline
from embedsmith.progress import duration
from embedsmith.recipes.data import examples_file
from embedsmith.recipes.recipe import Recipe
from embedsmith.recipes.verdict import verdicts
from embedsmith.runs.run import Run
from embedsmith.runs.scores import read_scores
from embedsmith.training.report import read_steps

SHOWN_METRICS = ("ndcg@10", "recall@10", "mrr@10")
_SAMPLES = 5


def write_report(run: Run, recipe: Recipe) -> None:
    """Write RUN/report.md."""
    with atomic_write(run.folder / "report.md") as file:
        file.write("\n".join(_lines(run, recipe)) + "\n")


def _lines(run: Run, recipe: Recipe) -> Iterator[str]:
    """Yield the report's lines."""
    yield f"# {inline(recipe.name)}"
    yield ""
    yield f"{duration(run.seconds)} of work; seed {recipe.seed}; {_versions(run.manifest)}."
    for name, scores in read_scores(run.folder).metrics().items():
        yield from ("", f"## Scores on {inline(name)}", "")
        metrics = shown_metrics(scores)
        rows = [[label, *(_number(values.get(metric)) for metric in metrics)] for label, values in scores.items()]
        yield from _table(["", *metrics], rows)
    for verdict in verdicts(run.folder):
        yield ""
        yield from (inline(line.strip()) + "  " for line in verdict.lines())
    yield from ("", "## Counts", "")
    for part, counts in run.manifest["counts"].items():
        yield f"- {inline(part)}: " + ", ".join(
            f"{inline(key.replace('_', ' '))} {_counted(value)}" for key, value in counts.items()
        )
    yield from ("", "## Time", "")
    yield "- " + ", ".join(f"{name} {duration(seconds)}" for name, seconds in run.manifest["seconds"].items())
    yield from ("", "## Training", "")
    yield from _training(run.folder / "steps.jsonl")
    yield from ("", "## Mined negatives to read", "")
    for name in recipe.data:
        yield from _samples(examples_file(run.folder, "mined", recipe, name))


def _counted(value: Any) -> str:
    """Return a count, or counts by name.

    >>> _counted(1200), _counted({"0": {"means": "neutral", "rows": 1200}}), _counted(None)
    ('1,200', '(0 (means neutral, rows 1,200))', 'None')
    """
    if isinstance(value, Mapping):
        return f"({', '.join(f'{inline(name)} {_counted(inner)}' for name, inner in value.items())})"
    return f"{value:,}" if isinstance(value, int | float) else inline(str(value))


def _number(value: float | None) -> str:
    """Return a score as it stands in a table; nothing where there is none."""
    return "" if value is None else f"{value:.3f}"


def _versions(manifest: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())


def shown_metrics(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return what is shown of the scores of one data set: a few metrics of retrieval, or all of another task.

    >>> shown_metrics({"before": {"ndcg@10": 0.5, "map@100": 0.4, "mrr@10": 0.3}, "after": {"ndcg@10": 0.6}})
    ['ndcg@10', 'mrr@10']
    >>> shown_metrics({"before": {"accuracy": 0.5, "f1": 0.4}})
    ['accuracy', 'f1']
    """
    first = next(iter(scores.values()))
    return [metric for metric in SHOWN_METRICS if metric in first] or list(first)


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| " + " | ".join(map(inline, head)) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(inline, row)) + " |"


def _training(path: Path) -> Iterator[str]:
    """Yield a table of the steps in tenths, with the lengths of the gradients."""
    steps = read_steps(path)
    tenth = max(1, len(steps) // 10)
    rows = []
    for start in range(0, len(steps), tenth):
        some = steps[start : start + tenth]
        average = {key: mean(row[key] for row in some) for key in ("loss", "accuracy", "gradient_norm", "seconds")}
        pooling = mean(row["pooling_gradient_norm"] for row in some)
        rows.append(
            [
                some[0]["stage"],
                f"{some[0]['step']}-{some[-1]['step']}",
                f"{average['loss']:.3f}",
                f"{average['accuracy']:.1%}",
                f"{average['gradient_norm']:.2f}",
                f"{pooling:.2f}",
                f"{average['seconds']:.2f}",
            ]
        )
    yield from _table(["stage", "steps", "loss", "accuracy", "gradient", "pooling's gradient", "s/step"], rows)


def _samples(path: Path) -> Iterator[str]:
    """Yield some queries with their best positive and hardest negative."""
    examples = [example for example in read_examples(path) if example.negatives]
    for example in examples[:: max(1, len(examples) // _SAMPLES)][:_SAMPLES]:
        positive, negative = example.positives[0], example.negatives[0]
        yield f"**{inline(example.query)}**"
        for label, passage in (("positive", positive), ("negative", negative)):
            score = "" if passage.score is None else f" {passage.score:.3f}"
            yield from ("", f"{label} {code(passage.id)}{score}", "", block(passage.text[:400]))
        yield ""
