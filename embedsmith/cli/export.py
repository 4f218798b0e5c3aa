"""The command that hands a model on: export-model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, app, typed
from embedsmith.cli.commands import command
from embedsmith.models.settings import Dtype, Layout


@command(app, device=True, overwrites="model")
def export(
    model: Annotated[str, typer.Argument(metavar="RUN", help="A run, a folder, a hub id or package:NAME/path.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist, or be empty.")],
    merge: Annotated[bool, typer.Option("--merge", help="Merge low-rank adapters into the weights.")] = False,
    layout: Annotated[
        Layout, typer.Option(help="sentence-transformers, or nv-embed: the layout of NVIDIA's released checkpoints.")
    ] = "sentence-transformers",
    dtype: Annotated[Dtype, typer.Option(help="Precision of the weights.")] = "float32",
    as_json: Json = False,
) -> None:
    """Copy a trained model into a folder of its own, which other libraries open.

    The folder is opened again and compared before it is in its place: it gives the same vectors.

    Examples:
        embedsmith export-model runs/model --out my-model
        embedsmith export-model runs/model --out my-model --dtype bfloat16 --merge
    """
    from embedsmith.serving.export import export as export_model

    with console.progress() as on_progress:
        done = export_model(model, out=out, merge=merge, layout=layout, dtype=dtype, on_progress=on_progress)
    if as_json:
        console.print_json(vars(done))
        return
    what = f"{done.parameters:,} parameters, {done.bytes / 1e6:,.0f} MB"
    console.line(f"wrote {done.folder}: {what}; vectors differ by {done.largest_difference:.1e}")
    if done.layout == "nv-embed" or done.adapters:
        console.line(f'open it: embedsmith.load("{done.folder}")')
    else:
        trust = ", trust_remote_code=True" if done.needs_code else ""
        console.line(f'open it: SentenceTransformer("{done.folder}"{trust})')
    console.next_steps(f"{typed()} evaluate {shlex.quote(done.folder)} DATA")
