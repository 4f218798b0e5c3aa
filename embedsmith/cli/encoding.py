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


@command(app, device=True, cluster=True, overwrites="vectors")
@with_options(chunks=ChunkSettings)
def encode(
    model: Annotated[str, typer.Argument(help="A run, a folder, a hub id or package:NAME/path.")],
    texts: Annotated[
        Path, typer.Argument(help="JSON lines, Parquet, CSV with texts and ids; or a file of plain lines.")
    ],
    *,
    chunks: dict[str, Any],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="File to write: .parquet, or .npy with the ids in .ids.json beside it. Or a folder of Parquet files: "
            "FOLDER/ or s3://BUCKET/FOLDER.",
        ),
    ],
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
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Encode the K-th of N parts, as one of N jobs on machines that share --out; the last one writes it.",
        ),
    ] = None,
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
            shard=shard,
            on_progress=on_progress,
        )
    if as_json:
        console.print_json(vars(done))
        return
    if done.shards_left:
        console.line(
            f"part {shard} is encoded; {done.shards_left:,} shards of other parts are not, so {done.file} waits"
        )
        return
    console.line(
        f"wrote {done.file}: {done.texts:,} vectors of {done.dimensions} dimensions in {duration(done.seconds)}"
    )
    console.line(_opened(done.file))
    other, role_of_other = ("QUERIES", "query") if role == "passage" else ("PASSAGES", "passage")
    same = ["--dtype", dtype] if dtype != "auto" else []
    same += ["--dimensions", str(dimensions)] if dimensions else []
    beside = _beside(out, other.lower())
    console.next_steps(
        f"{typed()} {shlex.join(['encode', model, other, '--role', role_of_other, *same, '--out', beside])}"
    )


def _opened(file: str) -> str:
    """Return the line of Python that reads vectors.

    >>> _opened("a.npy")
    'open it: numpy.load("a.npy")'
    """
    module = "numpy.load" if file.endswith(".npy") else "pandas.read_parquet"
    return f"open it: {module}({json.dumps(file, ensure_ascii=False, allow_nan=False)})"


def _beside(out: str, name: str) -> str:
    """Return where the vectors of the other side could lie.

    >>> _beside("runs/passages.npy", "queries"), _beside("s3://bucket/passages", "queries"), _beside("a/", "queries")
    ('runs/queries.npy', 's3://bucket/queries', 'queries/')
    """
    folder, _, last = out.rstrip("/").rpartition("/")
    suffix = "" if "://" in out else "/" if out.endswith("/") else Path(last).suffix
    return f"{folder}/{name}{suffix}" if folder else f"{name}{suffix}"
