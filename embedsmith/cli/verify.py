"""The command that checks vectors of other programs: verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, app
from embedsmith.cli.commands import command
from embedsmith.serving.verify.settings import PromptsBy, ServerProtocol


@command(app, device=True)
def verify(
    program: Annotated[
        str,
        typer.Argument(
            metavar="URL#MODEL|FOLDER", help="A server, a folder for plain sentence-transformers, or a file.onnx."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="RUN|FOLDER", help="Your model, whose vectors are right; by default the folder itself."),
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="A golden.json in place of the model: says what is wrong, but not why.")
    ] = None,
    protocol: Annotated[
        ServerProtocol, typer.Option(help="Of the server; auto is by its URL: openai unless it says another one.")
    ] = "auto",
    prompts: Annotated[
        PromptsBy | None,
        typer.Option(
            help="Who puts the prompts before texts: client, as most servers want it, or server, by input_type or "
            "prompt_name. A folder does it by default."
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that lies in the folder, as the model wants it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a server, or another library, computes your model's vectors.

    Texts of golden.json are sent there. Where vectors differ, it tries the usual mistakes: prompts, pooling, attention,
    lengths, missing tokens or layers. The exit code is 0 where vectors are right, up to rounding, and 2 otherwise.

    Examples:
        embedsmith verify http://localhost:8000/v1#my-model --model runs/model
        embedsmith verify http://localhost:8080 --protocol tei --prompts server --model runs/model
        embedsmith verify my-model
    """
    from embedsmith.serving.verify.verify import verify as verify_program

    with console.progress() as on_progress:
        found = verify_program(
            program,
            model=model,
            golden=golden,
            protocol=protocol,
            prompts=prompts,
            trust_remote_code=trust_remote_code,
            on_progress=on_progress,
        )
    if as_json:
        console.print_json(found.plain())
    else:
        _show(found)
    if not found.is_right:
        raise typer.Exit(2)


def _show(found: Any) -> None:
    """Print a table with a row for each role, and a line for each thing that was found."""
    rows = {
        role: [
            str(read.texts),
            str(len(read.refused)),
            "" if read.lowest_cosine is None else f"{read.lowest_cosine:.6f}",
            "right" if read.is_right else "wrong",
        ]
        for role, read in found.roles.items()
    }
    console.out.print(
        console.figures_table(
            f"{found.program}, prompts by the {found.prompts}", rows, ["texts", "refused", "lowest cosine", "vectors"]
        )
    )
    for role, read in found.roles.items():
        for finding in read.findings:
            console.line(f"{'wrong' if finding.is_wrong else 'note'}: {role}: {finding.what}{_numbers(finding)}")
        for name, why in list(read.refused.items())[:_SHOWN]:
            console.line(f'note: {role}: refuses the text "{name}": {why}')
    for note in found.notes:
        console.note(note)


def _numbers(finding: Any) -> str:
    """Return in which texts something was found, and by which cosines."""
    names = ", ".join(f'"{name}"' for name in finding.texts[:_SHOWN])
    more = f" and {len(finding.texts) - _SHOWN} more" if len(finding.texts) > _SHOWN else ""
    cosine = f"; cosine {finding.cosine:.6f}" if finding.cosine == finding.cosine else ""
    explained = "" if finding.explained is None else f", {finding.explained:.6f} with that mistake"
    return f"{cosine}{explained}; texts: {names}{more}"


_SHOWN = 3
