"""The commands that prepare training data: convert, decontaminate."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import TEACHER_FLAGS, Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.help import READING
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
    "convert.threshold": "sts-threshold",
    **TEACHER_FLAGS,
}


@command(
    app, device=True, cluster=True, renamed={"--threshold": "--sts-threshold", "--memory-gib": "--search-memory-gib"}
)
@with_options(
    flags=_FLAGS,
    first=["convert.labels", "mining.teachers", "convert.negatives", "convert.instruction"],
    convert=ConvertSettings,
    columns=LabelledColumns,
    mining=MiningSettings,
    teacher=TeacherSettings,
)
def convert(
    data: Annotated[
        str,
        typer.Argument(
            help="A file of rows (JSON lines, Parquet, CSV), a folder with one for each split, a folder of `datasets`, "
            "or hf:OWNER/NAME."
        ),
    ],
    task: Annotated[str, typer.Option(metavar=f"[{'|'.join(TASKS)}]", help="What the labels say.")],
    out: Annotated[Path, typer.Option(help="File to write: Parquet where it ends in .parquet, else JSON lines.")],
    convert: Given,
    columns: Given,
    mining: Given,
    teacher: Given,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split; several with commas between, or `all`. By default train where there is one.",
            rich_help_panel=READING,
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave out rows that cannot be used, and count them.", rich_help_panel=READING)
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn labelled texts (classes, scored pairs, entailments, reranking sets) into training examples.

    Negatives come from the data where it gives them, then from the texts that are no answer: mined with --teacher,
    else drawn at random. `train` reads the file; a recipe does as `format: examples`.

    Examples:
        embedsmith convert intents.csv --task classification --out examples.jsonl
        embedsmith convert nli.jsonl --task nli --teacher bm25 --out examples.jsonl
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
    console.next_steps(f"{typed()} train {shlex.quote(str(found.path))} --out runs/model")


@command(app, renamed={"--passages": "--match-passages", "--no-passages": "--no-match-passages"})
@with_options(
    flags={"contamination.columns": "column", "contamination.passages": "match-passages"},
    contamination=ContaminationSettings,
)
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
    split: Annotated[
        str | None,
        typer.Option(help="Split of TRAIN. By default train where there is one.", rich_help_panel=READING),
    ] = None,
    against_split: Annotated[
        str | None,
        typer.Option(help="Split of the evaluation sets. By default test where there is one.", rich_help_panel=READING),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            help="Leave out rows that cannot be used, of TRAIN and of evaluation sets, and count them.",
            rich_help_panel=READING,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove training rows whose texts occur in evaluation sets: to the letter, normalised, or almost.

    What is removed, and why, is listed in CLEAN.removed.jsonl.

    Examples:
        embedsmith decontaminate train.jsonl --against sts-benchmark --out clean.jsonl
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
    console.next_steps(f"{typed()} mine {shlex.quote(str(found.path))} --out runs/mined")
