"""How help is shown: what most people set first at the top, a heading for each subject, eighty columns.

    -h of a command     its first lines, how it is called, examples, arguments, then the options by use
    -h of a group       its commands by panel, and the environment variables

A command's examples are in its docstring, after a line `Examples:`.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from embedsmith.cli import console

MAIN, READING, RUNNING, ADVANCED = "Options", "Reading the data", "Running", "Advanced: "
"""Panels of options: what most people set first; then these; then those that begin with the last, by subject."""

_WIDEST = 100
_HELP_AT = 27
"""Column at which an option's help begins; what is longer than that stands on a line of its own."""

_Pair = tuple[str, str]


def show_command(command: Any, ctx: Any) -> None:
    """Show the help of a command."""
    text, examples = said(command.help or "")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.get_params(ctx) if one.param_type_name == "option" and not one.hidden]
    words = [name_of(one) if one.required else f"[{name_of(one)}]" for one in arguments]
    _show(_usage(f"{ctx.command_path} [OPTIONS] {' '.join(words)}"))
    _show(_paragraphs(text))
    if examples:
        _show_panel("Examples", [(example, "") for example in examples])
    if arguments:
        _show_panel("Arguments", [(name_of(one), about(one)) for one in arguments])
    for panel, inside in panels_of(options).items():
        _show_panel(panel, [(typed_option(one), about(one)) for one in inside])


def show_group(group: Any, ctx: Any, *, variables: Mapping[str, str]) -> None:
    """Show the help of a group of commands."""
    _show(_usage(f"{ctx.command_path} [OPTIONS] COMMAND [ARGS]..."))
    _show(_paragraphs(group.help or ""))
    panels: dict[str, list[_Pair]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        panels.setdefault(command.rich_help_panel or "Commands", []).append((name, first_line(command.help or "")))
    for panel, commands in panels.items():
        _show_panel(panel, commands)
    options = [one for one in group.get_params(ctx) if not one.hidden]
    _show_panel(MAIN, [(typed_option(one), about(one)) for one in options])
    if variables:
        _show_panel("Environment variables", list(variables.items()))
    if group.epilog:
        _show(_paragraphs(group.epilog))


def said(docstring: str) -> tuple[str, list[str]]:
    r"""Return what a docstring says, and the examples in it.

    >>> said("Sing.\n\nLoudly.\n\nExamples:\n    sing --high\n    sing --low\n")
    ('Sing.\n\nLoudly.', ['sing --high', 'sing --low'])
    """
    about, _, examples = docstring.partition("\nExamples:\n")
    return about.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def first_line(docstring: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


def panels_of(options: Sequence[Any]) -> dict[str, list[Any]]:
    """Return options by their panels, in the order in which those are shown; required options first."""
    found: dict[str, list[Any]] = {panel: [] for panel in (MAIN, READING, RUNNING)}
    for one in options:
        panel = RUNNING if "--help" in one.opts else one.rich_help_panel or MAIN
        found.setdefault(panel, []).append(one)
    return {panel: sorted(inside, key=lambda one: not one.required) for panel, inside in found.items() if inside}


def typed_option(option: Any) -> str:
    """Return how an option is typed: its flags, and what stands behind them."""
    long = [flag for flag in option.opts if flag.startswith("--")]
    flags = "/".join([*long[:1], *option.secondary_opts[:1]])
    short = ", ".join(flag for flag in option.opts if flag not in long)
    value = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
    again = "..." if getattr(option, "multiple", False) else ""
    return (f"{short}, {flags}" if short else flags) + value + again


def about(parameter: Any) -> str:
    """Return what the help says of an option or an argument."""
    help_ = " ".join((parameter.help or "").split())
    is_said = parameter.default in (None, False, "", []) or "Default: " in help_ or callable(parameter.default)
    default = "" if is_said or parameter.required else f" Default: {parameter.default}."
    variable = f" Variable: {parameter.envvar}." if isinstance(parameter.envvar, str) else ""
    return ("Required. " if parameter.required else "") + help_ + default + variable


def name_of(argument: Any) -> str:
    """Return how an argument is called: an optional one of several values ends in dots."""
    name = argument.metavar or (argument.name or "").upper().replace("_", "-")
    return f"{name}..." if argument.nargs != 1 else name


def _usage(text: str) -> list[Text]:
    """Return the line that says how a command is called."""
    lines = textwrap.wrap(text, _width() - 7, break_long_words=False, break_on_hyphens=False)
    return [Text.assemble(("Usage: " if not n else "       ", "bold"), line) for n, line in enumerate(lines)]


def _paragraphs(text: str) -> list[Text]:
    """Return paragraphs, each broken into lines."""
    found: list[Text] = []
    for paragraph in text.split("\n\n"):
        found += [Text(""), *map(Text, _wrapped(paragraph, _width()))]
    return found[1:]


def _show_panel(title: str, rows: Iterable[_Pair]) -> None:
    """Show a panel: its title, and rows of two columns."""
    _show([Text(f"{title}:", style="bold"), *(line for row in rows for line in _row(*row))])


def _row(left: str, right: str) -> Iterator[Text]:
    """Yield the lines of one row."""
    room = _width() - 2
    lefts = [left] if len(left) <= room else _choices(left, room)
    rights = _wrapped(right, _width() - _HELP_AT) if right else []
    if rights and len(lefts) == 1 and len(left) <= _HELP_AT - 4:
        yield Text.assemble("  ", (left.ljust(_HELP_AT - 2), "cyan"), rights.pop(0))
    else:
        yield from (Text.assemble("  ", (line, "cyan")) for line in lefts)
    yield from (Text(" " * _HELP_AT + line) for line in rights)


def _choices(text: str, room: int) -> list[str]:
    """Return an option with more choices than a line holds on several."""
    lines = textwrap.wrap(text.replace("|", "| "), room, subsequent_indent="      ", break_on_hyphens=False)
    return [line.replace("| ", "|") for line in lines]


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines; no option is broken."""
    return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def _width() -> int:
    """Return how many columns help takes."""
    return min(shutil.get_terminal_size().columns, _WIDEST)


def _show(lines: Iterable[Text]) -> None:
    """Show lines, and an empty one."""
    for line in lines:
        console.styled(line)
    console.styled(Text(""))
