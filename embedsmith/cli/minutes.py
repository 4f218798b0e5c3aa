"""`--minutes`: a recipe cut to what this machine does in that time, shown before it begins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedsmith.cli import console
from embedsmith.errors import SettingsError
from embedsmith.progress import duration


def in_minutes(
    recipe: Any, minutes: float, out: Path | None, *, dry_run: bool, as_json: bool
) -> tuple[Any, dict[str, Any] | None]:
    """Return the recipe to carry out, and what its run keeps of the plan; show the plan.

    Args:
        recipe: what is asked for.
        out: the run folder; one that was cut short goes on with what was chosen for it.
        dry_run: only show it, on stdout.

    Raises:
        SettingsError: it cannot be done in time, and the user does not want to wait longer.
    """
    from embedsmith.recipes.minutes import begun, fitted

    if out and not dry_run and (chosen := begun(out, recipe)):
        return chosen, None
    with console.progress() as on_progress:
        plan = fitted(recipe, minutes, on_skip=console.note, on_progress=on_progress)
    if as_json and dry_run:
        figures = {"seconds": plan.total, "minutes": minutes, "in_time": plan.is_in_time, "changes": plan.changes}
        console.print_json(
            {**figures, "estimate": asdict(plan.estimate), "data": [asdict(one) for one in plan.read.plans]}
        )
        return plan.recipe, None
    show = console.line if dry_run else console.line_beside
    for line in lines_of(plan):
        show(line)
    if not plan.is_in_time:
        needed = f"the least that is worth it takes {duration(plan.total)}, more than {minutes:g} minutes"
        if dry_run:
            show(f"plan: {needed}")
        elif not console.confirmed(f"{needed}. Go on?"):
            raise SettingsError(needed, hint=f"give it --minutes {plan.total / 60 + 1:.0f}, or --yes")
    return plan.recipe, plan.note(recipe)


def lines_of(plan: Any) -> list[str]:
    """Return what is going to be done, and how long each part takes, line by line."""
    recipe, estimate = plan.recipe, plan.estimate
    lines = []
    for data in plan.read.plans:
        size = f"{data.passages:,} passages" if data.to_be_mined else f"{data.negatives:,} negatives"
        settings = recipe.data[data.name]
        parts = {"functions": settings.max_functions, "passages": settings.documents.max_passages}
        part = "".join(f"; {most:,} {what} of it" for what, most in parts.items() if most)
        lines.append(f"plan: data {data.name}: {data.queries:,} queries, {size}{part}")
    reading = recipe.mining.teacher_settings.max_tokens
    lines.append(
        f"plan: passages of at most {recipe.student.passage_max_tokens} tokens"
        + (f" ({reading} for the teacher)" if reading not in (None, recipe.student.passage_max_tokens) else "")
    )
    for stage, steps, seconds in zip(recipe.stages, estimate.steps, estimate.seconds_a_step, strict=True):
        most = stage.passage_max_tokens or recipe.student.passage_max_tokens
        lines.append(
            f"plan: stage {stage.name}: {steps:,} steps of {stage.batch_size * stage.accumulation} queries, "
            f"{duration(seconds)} each; passages of at most {most} tokens"
        )
    parts = {"reading": estimate.reading, "mining": estimate.mining, "training": estimate.training}
    parts["scoring"] = estimate.scoring
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    lines.append(f"plan: {times}; about {duration(plan.total)} in all, and {estimate.memory_gib:.1f} GiB")
    return lines
