"""The command that puts models behind HTTP: serve."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedsmith.cli.app import app
from embedsmith.cli.commands import command
from embedsmith.cli.options import settings_of, with_options
from embedsmith.models.settings import Dtype
from embedsmith.serving.server.settings import ServeSettings


@command(app, device=True)
@with_options(limits=ServeSettings)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Runs, folders, hub ids, package:NAME/path or cross-encoder:MODEL; one or several."
        ),
    ],
    *,
    limits: dict[str, Any],
    name: Annotated[
        list[str] | None, typer.Option(help="How clients call each model, in their order; by default the last part.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    corpus: Annotated[
        str | None,
        typer.Option(help="Passages for /v1/search: a file, a BEIR folder, or `run` for what the run was made of."),
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Precision; auto is bfloat16 where the hardware has it, on a CPU for matmuls of longer texts."
        ),
    ] = "auto",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, each with its own models.")] = 1,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line of JSON for each request to stderr, without texts.")
    ] = False,
) -> None:
    """Serve models by OpenAI's protocol, with the prompts, lengths and masks that they were trained with.

    `input_type` of a request, or a model called NAME:query, says how texts are read; passages are the default.

    Examples:
        embedsmith serve runs/model
        embedsmith serve runs/manuals --corpus run --port 9000
        embedsmith serve runs/model cross-encoder:runs/judge --name manuals --name judge
    """
    from embedsmith.serving.server.named import Served

    served = Served(tuple(models), tuple(name or ()), dtype, corpus)
    served.checked()  # before torch is imported, which takes seconds
    from embedsmith.serving.server.running import serve as serve_models

    code = serve_models(
        served, settings_of(ServeSettings, limits), host=host, port=port, workers=workers, logs=access_log
    )
    if code:
        raise typer.Exit(code)
