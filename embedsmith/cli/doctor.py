"""The command that says what is installed and found here: doctor."""

from __future__ import annotations

import typer

from embedsmith.cli import console
from embedsmith.cli.app import Json, app
from embedsmith.cli.commands import command


@command(app)
def doctor(as_json: Json = False) -> None:
    """Show what is installed and found here: hardware, versions, extras, caches, the hub.

    Values of keys are not shown. The exit code is 1 where something is broken that the core needs.

    Examples:
        embedsmith doctor
        embedsmith doctor --json
    """
    from embedsmith.diagnosis.doctor import doctor as diagnose

    found = diagnose()
    if as_json:
        console.print_json(found.facts)
    else:
        for line in str(found).split("\n"):
            console.line(line)
    if not found.ok:
        raise typer.Exit(1)
