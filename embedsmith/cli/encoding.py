"""The command that turns texts into vectors: encode."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.cli.options import settings_of, with_options
from embedsmith.models.settings import ChunkSettings, Dtype, Role
from embedsmith.progress import duration


@command(app, device=True, overwrites="vectors")
@with_options(chunks=ChunkSettings)
def encode(
    model: Annotated[str, typer.Argument(help="A run, a folder, a hub id or package:NAME/path.")],
    texts: Annotated[
        Path, typer.Argument(help="JSON lines, Parquet, CSV with texts and ids; or a file of plain lines.")
    ],
    *,
    chunks: dict[str, Any],
    out: Annotated[Path, typer.Option(help="File to write: .parquet, or .npy with the ids in .ids.json beside it.")],
    role: Annotated[Role, typer.Option(help="Which instruction and length the model gives the texts.")] = "passage",
    dimensions: Annotated[
        int | None, typer.Option(help="Keep as many of the first numbers of each vector, at length 1.")
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Precision; auto is bfloat16 where the hardware has it, on a CPU for matmuls of longer texts."
        ),
    ] = "auto",
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the layers, on a GPU: half a minute, then faster. For large models."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a file of texts into a file of vectors.

    Given again after it was cut short, it goes on where it stopped.

    Examples:
        embedsmith encode runs/model passages.jsonl --out passages.parquet
        embedsmith encode runs/model queries.txt --role query --out queries.npy
        embedsmith encode runs/model manuals.jsonl --chunk --out chunks.parquet
    """
    from embedsmith.serving.encode import encode as encode_texts

    with console.progress() as on_progress:
        done = encode_texts(
            model,
            texts,
            out=out,
            role=role,
            dtype=dtype,
            dimensions=dimensions,
            compile=compile,
            chunks=settings_of(ChunkSettings, chunks),
            on_progress=on_progress,
        )
    if as_json:
        console.print_json(vars(done))
        return
    console.line(
        f"wrote {done.file}: {done.texts:,} vectors of {done.dimensions} dimensions in {duration(done.seconds)}"
    )
    console.line(_opened(Path(done.file)))
    other, role_of_other = ("QUERIES", "query") if role == "passage" else ("PASSAGES", "passage")
    same = ["--dtype", dtype] if dtype != "auto" else []
    same += ["--dimensions", str(dimensions)] if dimensions else []
    beside = out.with_name(f"{other.lower()}{out.suffix}")
    console.next_steps(
        f"{typed()} {shlex.join(['encode', model, other, '--role', role_of_other, *same, '--out', str(beside)])}"
    )


def _opened(path: Path) -> str:
    """Return the line of Python that reads a file of vectors.

    >>> _opened(Path("a.npy"))
    'open it: numpy.load("a.npy")'
    """
    module = "numpy.load" if path.suffix == ".npy" else "pandas.read_parquet"
    return f"open it: {module}({json.dumps(str(path), ensure_ascii=False, allow_nan=False)})"
