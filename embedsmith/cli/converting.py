"""The commands that prepare training data: convert, decontaminate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import TEACHER_FLAGS, Json, app
from embedsmith.cli.options import Given, settings_of, with_options
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.mining.settings import MiningSettings
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.converters.settings import TASKS, ConvertSettings
from embedsmith.teachers.settings import TeacherSettings

_FLAGS: dict[str, str | None] = {
    "convert.task": None,
    "convert.positive_labels": "positive-label",
    **{f"columns.{name}": f"{name}-column" for name in LabelledColumns.model_fields},
    "mining.teachers": "teacher",
    "mining.negatives": None,
    "mining.keep_negatives": None,
    "mining.short": None,
    "mining.weights": "weight",
    "mining.threshold": "mining-threshold",
    **TEACHER_FLAGS,
}


@app.command()
@with_options(
    flags=_FLAGS, convert=ConvertSettings, columns=LabelledColumns, mining=MiningSettings, teacher=TeacherSettings
)
def convert(
    data: Annotated[
        str,
        typer.Argument(
            help="A file of rows (JSON lines, Parquet, CSV), a folder with one for each split, a folder of `datasets`, "
            "or hf:OWNER/NAME."
        ),
    ],
    task: Annotated[str, typer.Option(help=f"What the labels say: {', '.join(TASKS)}.")],
    out: Annotated[Path, typer.Option(help="File to write: Parquet where it ends in .parquet, else JSON lines.")],
    convert: Given,
    columns: Given,
    mining: Given,
    teacher: Given,
    split: Annotated[
        str | None,
        typer.Option(help="Split; several with commas between, or `all`. By default train where there is one."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave out rows that cannot be used, and count them.")] = False,
    as_json: Json = False,
) -> None:
    """Make training examples of labelled texts: classes, pairs, entailments, reranking sets.

    Negatives come from the data where it gives them, then from the texts that are no answer: mined with --teacher,
    else drawn at random. `train RECIPE` reads the file as `format: examples`.
    """
    from embedsmith.errors import SettingsError
    from embedsmith.prepare.convert import convert as convert_data

    if (mining or teacher) and "teachers" not in mining:
        flag = [*mining.flags.values(), *teacher.flags.values()][0]
        raise SettingsError(f"{flag} is for mined negatives", hint="name what mines them: --teacher MODEL, or bm25")
    if "method" in mining:
        convert.setdefault("trust_labels", False)
    with console.progress() as on_progress:
        found = convert_data(
            data,
            out=out,
            settings=settings_of(ConvertSettings, convert, task=task),
            columns=settings_of(LabelledColumns, columns),
            split=split,
            mining=settings_of(MiningSettings, mining, teacher_settings=settings_of(TeacherSettings, teacher))
            if mining
            else None,
            skip_bad=skip_bad,
            on_skip=console.note,
            on_progress=on_progress,
        )
    if as_json:
        console.print_json({**asdict(found), "path": str(found.path)})
        return
    by = f" by {found.by} of {found.labels:,} labels" if found.by else ""
    console.line(f"{found.examples:,} examples{by} in {found.path}")
    console.line(f"{found.rows:,} rows: {found.positives:,} made examples")
    if found.meanings:
        console.line(f"labels: {found.labels_told}")
    if found.negatives:
        console.line(f"  {found.negatives:,} gave negatives to others")
    for reason, count in found.dropped.items():
        console.line(f"  {count:,} dropped: {reason}")
    sources = ", ".join(f"{count:,} {name}" for name, count in found.negatives_by.items()) or "none"
    short = f"; {found.short:,} examples have fewer than asked for" if found.short else ""
    console.line(f"negatives: {sources}{short}")
    sides = "queries and passages" if found.symmetric else "queries"
    console.line(f"instruction of {sides}: {found.instruction or '(none)'}")


@app.command()
@with_options(flags={"contamination.columns": "column"}, contamination=ContaminationSettings)
def decontaminate(
    train: Annotated[
        str,
        typer.Argument(help="Training data: examples, pairs, labelled texts (a file, or a folder of splits), or BEIR."),
    ],
    against: Annotated[
        list[str], typer.Option(help="Evaluation set, of any of these forms; give it again for several.")
    ],
    out: Annotated[
        Path, typer.Option(help="File to write, of the kind of TRAIN or .jsonl; of a BEIR folder a folder.")
    ],
    contamination: dict[str, Any],
    split: Annotated[str | None, typer.Option(help="Split of TRAIN. By default train where there is one.")] = None,
    against_split: Annotated[
        str | None, typer.Option(help="Split of the evaluation sets. By default test where there is one.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave out rows that cannot be used, of TRAIN and of evaluation sets, and count them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove training rows whose texts occur in evaluation sets: to the letter, normalised, or almost.

    What is removed, and why, is listed in CLEAN.removed.jsonl.
    """
    from embedsmith.prepare.decontaminate import decontaminate as decontaminate_data

    with console.progress() as on_progress:
        found = decontaminate_data(
            train,
            against=against,
            out=out,
            settings=settings_of(ContaminationSettings, contamination),
            split=split,
            against_split=against_split,
            skip_bad=skip_bad,
            on_skip=console.note,
            on_progress=on_progress,
        )
    if as_json:
        console.print_json({**asdict(found), "path": str(found.path), "removed_path": str(found.removed_path)})
        return
    console.line(f"{found.rows:,} rows: {found.kept:,} kept in {found.path}, {found.removed:,} removed")
    for what, counts in (("in", found.by_data), ("same text", found.by_how)):
        for name, count in counts.items():
            console.line(f"  {count:,} {what}: {name}")
    if found.negatives:
        console.line(f"{found.negatives:,} negatives taken out of examples that are kept")
    console.line(f"all of them: {found.removed_path}")
