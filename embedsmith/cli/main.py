"""The `embedsmith` command."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, cast

import typer

# Importing a module of commands adds them.
from embedsmith.cli import ablate as ablate
from embedsmith.cli import build as build
from embedsmith.cli import compare as compare
from embedsmith.cli import console
from embedsmith.cli import converting as converting
from embedsmith.cli import doctor as doctor
from embedsmith.cli import encoding as encoding
from embedsmith.cli import export as export
from embedsmith.cli import generation as generation
from embedsmith.cli import mining as mining
from embedsmith.cli import recipes as recipes
from embedsmith.cli import scoring as scoring
from embedsmith.cli import searching as searching
from embedsmith.cli import serve as serve
from embedsmith.cli import training as training
from embedsmith.cli import verify as verify
from embedsmith.cli.app import app
from embedsmith.errors import EmbedsmithError, SettingsError
from embedsmith.services.endpoint import Caller, calling, hosts_in
from embedsmith.settings import HALF
from embedsmith.version import __version__

# The order of the help: what a newcomer types first, then data's way from texts to scores.
_PANELS = {
    "Start": ["quickstart", "build", "search", "doctor"],
    "Mining": ["mine", "audit", "select", "judge", "report", "export-negatives"],
    "Training": ["train", "run", "encode", "export-model", "verify", "serve"],
    "Scores": ["evaluate", "compare", "ablate"],
    "Data": ["convert", "decontaminate", "synthesize"],
}
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}


def _in_order(app: typer.Typer) -> typer.Typer:
    """Put the commands into their panels of the help."""
    for command in app.registered_commands:
        name = str(command.name or getattr(command.callback, "__name__", ""))
        command.name, command.rich_help_panel = name, _PANEL_OF[name]
    for group in app.registered_groups:
        group.rich_help_panel = _PANEL_OF[group.name or ""]
    app.registered_commands.sort(key=lambda command: list(_PANEL_OF).index(command.name or ""))
    return app


_in_order(app)

_INTERRUPTED = 130
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The parent of all that is wrong with a command line; Typer does not export it."""


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.line(f"embedsmith {__version__}")
        raise typer.Exit()


def _remedy(error: OSError) -> str:
    """Return what to do about something that is nobody's mistake."""
    goes_on = "the same command goes on where it stopped"
    if isinstance(error, (ConnectionError, TimeoutError)):
        return f"check the URL, the network and the server; {goes_on}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space; {goes_on}"
    if isinstance(error, PermissionError):
        return "ask for the right to read or write it, or name another"
    return f"mend what the system says, and give the command again; {goes_on}"


def _refuse_odd_bytes(words: list[str]) -> None:
    """Raise SettingsError where an argument holds bytes that no file of ours may: a NUL, or what is not UTF-8."""
    for word in words:
        if "\0" in word:
            raise SettingsError(f"{word}: a NUL byte, which no path may hold", hint="leave it out")
        if HALF.search(word):
            raise SettingsError(
                f"{word!r}: not UTF-8, and a run could not note it", hint="rename the file, or write the text as UTF-8"
            )


def main() -> None:
    """Run the command line; turn what went wrong into one line and an exit code."""
    console.begin()
    console.quiet_libraries()
    console.let_the_first_process_speak()
    try:
        _refuse_odd_bytes(sys.argv[1:])
        caller = Caller(key_hosts=hosts_in(sys.argv[1:]), on_contact=console.note)
        with console.quick_imports(), calling(caller):
            code = app(standalone_mode=False)
    except _UsageError as error:
        # Without a message the help was printed in its place.
        if message := cast(typer.BadParameter, error).format_message():
            console.print_error(message.replace("Value error, ", ""), "--help shows the arguments and options")
        sys.exit(2)
    except EmbedsmithError as error:
        console.print_error(str(error), error.hint)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        console.print_error(f"{where}{error.strerror or error}", _remedy(error))
        sys.exit(1)
    if code == _INTERRUPTED:
        console.print_error("interrupted", "give the same command again; it goes on where it stopped")
    sys.exit(code or 0)
