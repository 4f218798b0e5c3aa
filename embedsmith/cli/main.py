"""The `embedsmith` command."""

from __future__ import annotations

import errno
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from embedsmith import __version__
from embedsmith.cli import console
from embedsmith.cli.options import settings_of, with_options
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.dialects import DIALECTS, DialectSettings
from embedsmith.data.source import SourceSettings
from embedsmith.errors import EmbedsmithError
from embedsmith.mining.settings import MiningSettings, SelectionSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.pipeline.quickstart import StudentName
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.settings import StageSettings

app = typer.Typer(
    name="embedsmith",
    help="Mine hard negatives, train LLM embedding models with them, and measure what they are worth.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `embedsmith quickstart`. Your own data: `mine`, then `train`, then `evaluate`. What was mined: "
    "`audit` it, `select` again in seconds, `write` it for another library.",
)

Data = Annotated[
    str,
    typer.Argument(
        help="A BEIR folder, a file of pairs (JSON lines, Parquet, CSV), a folder of `datasets`, or hf:OWNER/NAME."
    ),
]
Out = Annotated[Path, typer.Option(help="Run folder to write; one that was cut short goes on.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option(help="Seed of new weights, batches and dropout.")]

_INTERRUPTED = 130
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The parent of all that is wrong with a command line; Typer does not export it."""

_METRICS = ["ndcg@10", "recall@10", "mrr@10"]


@app.command()
def quickstart(
    source: Annotated[
        str, typer.Option(help="Folder of Python files; `stdlib` is the standard library of the running Python.")
    ] = "stdlib",
    student: Annotated[
        StudentName, typer.Option(help="minilm: fine-tune all-MiniLM-L6. smollm2: make an NV-Embed of SmolLM2-135M.")
    ] = "minilm",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/quickstart-STUDENT. A cut-short run goes on.")
    ] = None,
    seed: Seed = 0,
    verbose: Annotated[bool, typer.Option(help="Name the files that could not be read.")] = False,
    as_json: Json = False,
) -> None:
    """Build a code-search model for Python code: harvest, mine, train, evaluate.

    Pairs are the first sentence of a docstring and the function without it; evaluation is on modules never seen.
    """
    import torch

    from embedsmith.pipeline.forge import forge
    from embedsmith.pipeline.quickstart import quickstart_recipe

    recipe = quickstart_recipe(source=source, student=student, seed=seed, on_gpu=torch.cuda.is_available())
    folder = out or Path("runs") / recipe.name
    with console.progress() as tell:
        run = forge(recipe, out=folder, command="quickstart", on_progress=tell)
    _show_skipped(folder, verbose=verbose)
    search_hint = "open a zip file and list its members" if source == "stdlib" else _example_query(folder)
    _show_forged(run, as_json=as_json, search_hint=search_hint)


_TEACHER_FLAGS: dict[str, str | None] = {
    "mining.teachers": "teacher",
    "mining.weights": "weight",
    "selection.weights": "weight",
    "teacher.dtype": "teacher-dtype",
    "teacher.max_tokens": "teacher-max-tokens",
    "teacher.query_prompt": "teacher-query-prompt",
    "teacher.passage_prompt": "teacher-passage-prompt",
    "teacher.batch_size": "teacher-batch-size",
    "teacher.seed": "teacher-seed",
    "source.exclude_qrels": "exclude-qrels",
    "columns.query": "query-column",
    "columns.positive": "positive-column",
    "columns.negative": "negative-column",
    "columns.query_id": "query-id-column",
    "columns.positive_id": "positive-id-column",
}


@app.command()
@with_options(
    flags=_TEACHER_FLAGS, source=SourceSettings, columns=ColumnSettings, mining=MiningSettings, teacher=TeacherSettings
)
def mine(
    data: Data,
    out: Out,
    source: dict[str, Any],
    columns: dict[str, Any],
    mining: dict[str, Any],
    teacher: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Mine hard negatives for your queries: RUN/negatives.jsonl."""
    from embedsmith.pipeline.mine import mine as mine_run

    with console.progress() as tell:
        run = mine_run(
            data,
            out=out,
            settings=settings_of(MiningSettings, {**mining, "teacher_settings": settings_of(TeacherSettings, teacher)}),
            source=settings_of(SourceSettings, {**source, "columns": settings_of(ColumnSettings, columns)}),
            on_skip=console.note,
            on_plan=console.print_plan,
            on_progress=tell,
        )
    _show_mined(run, as_json=as_json)


@app.command()
@with_options(flags=_TEACHER_FLAGS, selection=SelectionSettings)
def select(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run of `mine` or `select`.")],
    out: Out,
    selection: dict[str, Any],
    target_false_negatives: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Choose ratio, margin or threshold by the audit: the hardest with at most this rate."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Select negatives again, by another method, from what `mine` found. No model is loaded.

    What is not given stays as it was in RUN.
    """
    from embedsmith.pipeline.mine import select_again

    run = select_again(source, out=out, changes=selection, target_false_negatives=target_false_negatives)
    settings = run.manifest["settings"]
    if target_false_negatives is not None and not as_json:
        found = run.manifest["counts"]["calibration"]
        console.out.print(
            f"{settings['method']} ratio {settings['ratio']}, margin {settings['margin']}, threshold "
            f"{settings['threshold']}: false-negative rate {found['false_negative_rate']:.3f}, hardness "
            f"{found['hardness']:.3f}, full rows {found['full_rows']:.2f}",
            markup=False,
        )
    _show_mined(run, as_json=as_json)


@app.command()
def audit(
    run: Annotated[Path, typer.Argument(help="A run of `mine` or `select`.")],
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the positive that is kept; figures are means.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure how many mined negatives are positives after all, for every method side by side.

    Of each query with several positives one is kept and the others are hidden. What is mined and hidden is a false
    negative. No model and no judge is asked.
    """
    from embedsmith.pipeline.audit import audit_run

    found = audit_run(run, seed=seed, draws=draws)
    if as_json:
        console.print_json({"run": str(run), "methods": {name: vars(row) for name, row in found.items()}})
        return
    console.out.print(
        console.figures_table(
            f"Hold-out audit of {run}: {next(iter(found.values())).queries:,} queries with several positives",
            {
                name: [
                    f"{row.false_negative_rate:.3f} ± {row.spread:.3f}",
                    f"{row.hardness:.3f}",
                    f"{row.full_rows:.2f}",
                ]
                for name, row in found.items()
            },
            ["false-negative rate", "hardness", "full rows"],
        )
    )


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run of `mine` or `select`.")],
    as_json: Json = False,
) -> None:
    """Write RUN/report.html: scores, losses, rules, suspected false negatives and samples to read, in one page.

    It opens in any browser, without a network. With --json its numbers are printed.
    """
    from embedsmith.pipeline.mining_report import write_mining_report

    path, numbers = write_mining_report(run)
    if as_json:
        console.print_json({"run": str(run), "report": str(path), **numbers})
        return
    console.out.print(str(path), markup=False)


@app.command()
@with_options(writing=DialectSettings)
def write(
    run: Annotated[Path, typer.Argument(help="A run of `mine` or `select`.")],
    out: Annotated[Path, typer.Option(help="File to write; for tevatron and nemo a folder.")],
    writing: dict[str, Any],
    dialect: Annotated[str, typer.Option(help=f"One of {', '.join(DIALECTS)}.")] = "jsonl",
    as_json: Json = False,
) -> None:
    """Write what was mined in the form that another training library reads.

    What a dialect cannot say is left out and counted, never filled up.
    """
    from embedsmith.pipeline.write import write as write_run

    written = write_run(run, out=out, dialect=dialect, settings=settings_of(DialectSettings, writing))
    if as_json:
        console.print_json({"path": str(written.path), "rows": written.rows, "left_out": written.left_out})
        return
    console.out.print(f"{written.rows:,} rows in {written.path}", markup=False)
    for reason, number in written.left_out.items():
        console.out.print(f"left out: {number:,} queries with {reason}", markup=False)


def _show_mined(run: Any, *, as_json: bool) -> None:
    """Show what a run of `mine` or `select` found, and what to do next."""
    counts = run.manifest["counts"]["mining"]
    if as_json:
        calibration = run.manifest["counts"].get("calibration")
        extra = {"settings": run.manifest["settings"], "calibration": calibration} if calibration else {}
        console.print_json({"run": str(run.folder), "seconds": run.seconds, **counts, **extra})
        return
    rare = {"filled up": counts["filled"], "dropped": counts["dropped"]}
    console.out.print(
        f"{counts['negatives']:,} negatives for {counts['queries']:,} queries: {counts['full']:,} have all "
        f"{run.manifest['settings']['negatives']}, {counts['short']:,} fewer, {counts['none']:,} none"
        + "".join(f", {number:,} {what}" for what, number in rare.items() if number)
        + f" ({run.seconds:,.0f} s)"
    )
    for teacher, recall in run.manifest["counts"].get("recall", {}).items():
        console.out.print(f"approximate search with {teacher}: recall {recall:.3f} against exact", markup=False)
    folder = shlex.quote(str(run.folder))
    console.out.print(f"next: {_typed()} train {folder} --out runs/model", markup=False)
    console.out.print(f"      {_typed()} audit {folder}", markup=False)


@app.command()
@with_options(flags={"student.name": "student", "stage.name": None}, student=StudentSettings, stage=StageSettings)
def train(
    source: Annotated[Path, typer.Argument(metavar="RECIPE.yaml|RUN", help="A recipe, or a run of `mine`.")],
    out: Out,
    student: dict[str, Any],
    stage: dict[str, Any],
    seed: Annotated[int | None, typer.Option(help="Seed; the recipe's, or 0.")] = None,
    as_json: Json = False,
) -> None:
    """Train a student on mined negatives, or carry out a whole recipe from data to scores."""
    if source.suffix in (".yaml", ".yml"):
        _train_recipe(source, out, {**student, **stage}, seed, as_json)
        return
    from embedsmith.pipeline.train import train as train_run

    with console.progress() as tell:
        run = train_run(
            source,
            out=out,
            student=settings_of(StudentSettings, student),
            stage=settings_of(StageSettings, stage),
            seed=seed or 0,
            on_progress=tell,
        )
    if as_json:
        console.print_json({"run": str(out), "seconds": run.seconds, "model": run.manifest["counts"]["model"]})
        return
    console.out.print(f"trained {out / 'model'} in {run.seconds:,.0f} s", markup=False)
    console.out.print(f"next: {_typed()} evaluate {shlex.quote(str(out))} DATA", markup=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a folder, a hub id, package:NAME/path, or bm25.")],
    data: Annotated[list[Path], typer.Argument(help="BEIR folders, or files of pairs (JSON lines, Parquet, CSV).")],
    split: Annotated[str | None, typer.Option(help="Split of a BEIR folder; test where there is one.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="Keep vectors here; a run keeps its own.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model's retrieval: nDCG@10, recall@10, MRR@10."""
    from embedsmith.pipeline.evaluate import evaluate as scores_of

    with console.progress() as tell:
        scores = {
            str(path): scores_of(model, path, split=split, vectors=vectors, on_progress=tell).mean for path in data
        }
    if as_json:
        console.print_json({"scores": scores})
        return
    console.out.print(console.scores_table(f"Scores of {model}", scores, _METRICS))


@app.command()
def search(
    run: Annotated[Path, typer.Argument(help="A run with a trained model, such as the quickstart's.")],
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many passages.")] = 5,
    data: Annotated[
        Path | None, typer.Option(help="Corpus to search; by default the code the run was made of.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the code that a quickstart was made of, with the model that it trained."""
    from embedsmith.pipeline.find import find

    with console.progress(show=False) as tell:
        hits = find(run, query, k=k, data=data, on_progress=tell)
    if as_json:
        console.print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        where = hit.metadata
        is_code = {"file", "line", "name"} <= where.keys()
        passage = " ".join(hit.text[:100].split())
        place = f"{where['file']}:{where['line']} {where['name']}" if is_code else f"{hit.id}: {passage}"
        console.out.print(f"{hit.score:.3f}  {place}", markup=False)


def _train_recipe(path: Path, out: Path, overrides: dict[str, Any], seed: int | None, as_json: bool) -> None:
    """Carry out a recipe and show what came of it."""
    from embedsmith.errors import SettingsError
    from embedsmith.pipeline.forge import forge
    from embedsmith.pipeline.recipe import read_recipe

    if overrides:
        name = next(iter(overrides))
        flag = "student" if name == "name" else name.replace("_", "-")
        raise SettingsError(f"--{flag}: a recipe has its own settings", hint=f"change them in {path}")
    recipe = read_recipe(path)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    with console.progress() as tell:
        run = forge(recipe, out=out, on_progress=tell)
    _show_forged(run, as_json=as_json, search_hint="")


def _show_forged(run: Any, *, as_json: bool, search_hint: str) -> None:
    """Show the scores of a recipe's run, and what to try next."""
    from embedsmith.data.files import read_json

    path = run.folder / "scores.json"
    scores = read_json(path) if path.is_file() else {}
    if as_json:
        flat = next(iter(scores.values())) if len(scores) == 1 else {"scores": scores}
        console.print_json({**flat, "seconds": run.seconds, "run": str(run.folder)})
        return
    for name, rows in scores.items():
        order = [*(label for label in rows if label not in ("before", "after")), "before", "after"]
        rows = {label: rows[label] for label in order if label in rows}
        unseen = ", queries of modules never seen" if (run.folder / "data" / name / "test").is_dir() else ""
        console.out.print(console.scores_table(f"Scores on {name}{unseen}", rows, _METRICS))
    folder = shlex.quote(str(run.folder))
    console.out.print(f"{run.seconds:,.0f} s. Read {run.folder / 'report.md'}. Next:", markup=False)
    if search_hint:
        console.out.print(f"  {_typed()} search {folder} {shlex.quote(search_hint)}", markup=False)
    for name in scores:
        if (run.folder / "data" / name / "test").is_dir():
            console.out.print(f"  {_typed()} evaluate {folder} {folder}/data/{name}/test", markup=False)
    console.out.print(f"  {_typed()} train {folder}/recipe.yaml --out runs/again", markup=False)


def _typed() -> str:
    """Return how this command is to be typed: by its name, or by its path where the environment is not activated."""
    here = Path(sys.argv[0])
    if shutil.which("embedsmith") or here.name != "embedsmith":
        return "embedsmith"
    inside = here.is_absolute() and here.is_relative_to(Path.cwd())
    return shlex.quote(str(here.relative_to(Path.cwd()) if inside else here))


def _example_query(folder: Path) -> str:
    """Return something to search for in the code of a quickstart: what one of its functions says that it does."""
    from embedsmith.data.files import read_jsonl

    _, first = next(read_jsonl(folder / "data" / "code" / "test" / "queries.jsonl"))
    return str(first["text"])


def _show_skipped(folder: Path, *, verbose: bool) -> None:
    """Say how many files could not be read, and which on request."""
    from embedsmith.data.files import read_json

    skipped = read_json(folder / "data" / "code" / "done.json")["skipped"]
    if skipped:
        more = "" if verbose else " (--verbose names them)"
        console.err.print(f"{len(skipped):,} files could not be read{more}", markup=False)
    for row in skipped if verbose else ():
        place = row["path"] if row["line"] is None else f"{row['path']}:{row['line']}"
        console.err.print(f"  {place}: {row['reason']}", markup=False)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.out.print(f"embedsmith {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run the command line; turn what went wrong into one line and an exit code."""
    console.quiet_libraries()
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        # Without a message the help was printed in its place.
        if message := cast(typer.BadParameter, error).format_message():
            console.print_error(message, "--help shows the arguments and options")
        sys.exit(2)
    except EmbedsmithError as error:
        console.print_error(str(error), error.hint)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "free some space; the same command goes on where it stopped" if error.errno == errno.ENOSPC else ""
        console.print_error(f"{where}{error.strerror or error}", hint)
        sys.exit(1)
    if code == _INTERRUPTED:
        console.print_error("interrupted", "give the same command again; it goes on where it stopped")
    sys.exit(code or 0)
