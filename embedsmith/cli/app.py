"""The application that every command joins, and what several commands take and say."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.commands import Commands
from embedsmith.cli.help import RUNNING

app = typer.Typer(
    name="embedsmith",
    help="Mine hard negatives, train LLM embedding models with them, and measure what they are worth.",
    no_args_is_help=True,
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `embedsmith quickstart`. Your own data: `mine`, then `train`, then `evaluate`. What was mined: "
    "`audit` it, `select` again in seconds, `export-negatives` for another library. `embedsmith COMMAND --help` has "
    "examples; --install-completion lets your shell complete names and options.",
)

Data = Annotated[
    str,
    typer.Argument(
        help="A BEIR folder, a file of pairs (JSON lines, Parquet, CSV), a folder of `datasets`, or hf:OWNER/NAME."
    ),
]
MinedRun = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run of `mine` or `select`; of a recipe's run, RUN/mined/NAME or RUN/remined/STAGE/NAME."
    ),
]
Out = Annotated[Path, typer.Option(help="Run folder to write; one that was cut short goes on.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.", rich_help_panel=RUNNING),
]
MOST_SEED = 2**31 - 1
"""As `embedsmith.settings.Seed` has it."""
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of new weights, batches and dropout.")]

TEACHER_FLAGS: dict[str, str | None] = {
    "teacher.dtype": "teacher-dtype",
    "teacher.max_tokens": "teacher-max-tokens",
    "teacher.query_prompt": "teacher-query-prompt",
    "teacher.passage_prompt": "teacher-passage-prompt",
    "teacher.batch_size": "teacher-batch-size",
    "teacher.seed": "teacher-seed",
    "teacher.memory_gib": "search-memory-gib",
}
"""Options of a teacher beside others that would have the same names."""

METRICS = ["ndcg@10", "recall@10", "mrr@10"]
"""What is shown of retrieval scores."""


def typed() -> str:
    """Return how this command is to be typed: by its name, or by its path where the environment is not activated."""
    here = Path(sys.argv[0])
    if shutil.which("embedsmith") or here.name != "embedsmith":
        return "embedsmith"
    inside = here.is_absolute() and here.is_relative_to(Path.cwd())
    return shlex.quote(str(here.relative_to(Path.cwd()) if inside else here))
