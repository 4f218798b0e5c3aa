"""What all commands have in common: how they are shown, options of how they run, and names of an earlier version."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from embedsmith.cli import console
from embedsmith.cli.devices import use_device
from embedsmith.cli.help import RUNNING, show_command, show_group
from embedsmith.cli.options import value_name
from embedsmith.cli.overwriting import Kind, make_room
from embedsmith.cluster.running import on_cluster

ALIASES = {"write": "export-negatives", "export": "export-model"}
"""Shorter names of commands, which say less."""

VARIABLES = {
    "EMBEDSMITH_API_KEY": "Key for the hosts that a command names, and those in EMBEDSMITH_API_HOSTS.",
    "EMBEDSMITH_API_HOSTS": "Hosts that may get it too, with commas between.",
    "OPENAI_API_KEY": "Key for api.openai.com, and for no other host.",
    "EMBEDSMITH_DATA": "Folder of data sets that `evaluate --before-and-after` scores beside yours.",
    "EMBEDSMITH_VECTORS": "Folder where `evaluate` keeps vectors; as its --vectors.",
    "EMBEDSMITH_SERVE_KEY": "Key that clients of `serve` must send; without it everybody is answered.",
    "EMBEDSMITH_CPU": "`plain` turns our CPU kernels off, to check a result against plain torch.",
    "CUDA_VISIBLE_DEVICES": "Which GPUs there are; as --device.",
    "HF_TOKEN, HF_HOME": "Of the Hugging Face hub: your token, and where models are kept.",
}
"""Environment variable -> what it does."""

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="[cpu|cuda|cuda:N|mps]",
        help="Where models run; by default a GPU where there is one.",
        rich_help_panel=RUNNING,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="[local|local:N|auto|HOST:PORT]",
        help="Have the workers of a Ray cluster encode and search; the same bytes. By default this process does.",
        rich_help_panel=RUNNING,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Remove what --out holds, and begin anew; asks first.", rich_help_panel=RUNNING),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.", rich_help_panel=RUNNING)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.", rich_help_panel=RUNNING)]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print what libraries say too, and where an error arose.", rich_help_panel=RUNNING
    ),
]


class Command(TyperCommand):
    """A command with our help, which knows how its options were called in an earlier version."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old flag -> the flag that is meant."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help."""
        show_command(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return what is left of the words of a command line, whose options may be called as they once were."""
        return super().parse_args(ctx, list(self._as_of_now(args)))

    def _as_of_now(self, words: list[str]) -> Iterator[str]:
        """Yield the words of a command line with today's flags."""
        for word in words:
            flag, equals, value = word.partition("=")
            if new := self.renamed.get(flag):
                console.note(f"{flag} of `{self.name}` is called {new} now")
            yield f"{new or flag}{equals}{value}"


class Commands(TyperGroup):
    """A group of commands with our help; some have a second, shorter name."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help."""
        show_group(self, ctx, variables={} if ctx.parent else VARIABLES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by one of its names."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


def command(
    app: typer.Typer,
    *,
    device: bool = False,
    cluster: bool = False,
    overwrites: bool | Kind = False,
    usual_out: Callable[[Mapping[str, Any]], Path] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command to an application, with options of how it runs beside its own.

    Args:
        app: the application, or a group of it.
        device: whether a model may run in it.
        cluster: whether a cluster may encode and search for it.
        overwrites: whether --out is a run folder, or what else it is, which --overwrite may remove.
        usual_out: where the run lies without --out, by what else was given.
        renamed: old flag -> the flag that is meant, for scripts of an earlier version.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        more = {"quiet": Quiet, "verbose": Verbose}
        if overwrites:
            more = {"overwrite": Overwrite, "yes": Yes, **more}

        def run(**values: Any) -> None:
            if values.pop("verbose"):
                console.say_more()
            if values.pop("quiet"):
                console.say_less()
            if device and (name := values.pop("device")):
                use_device(name)
            if overwrites:
                if values.pop("yes"):
                    console.say_yes()
                if values.pop("overwrite"):
                    others = {key: value for key, value in values.items() if key not in ("out", "cluster")}
                    place = values["out"] or (usual_out and usual_out(values))
                    make_room(place and Path(place), others, kind="run" if overwrites is True else overwrites)
            with on_cluster(values.pop("cluster") if cluster else None):
                function(**values)

        added = [_keyword("device", Device, None)] if device else []
        added += [_keyword("cluster", Cluster, None)] if cluster else []
        added += [_keyword(name, annotation, False) for name, annotation in more.items()]
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        for parameter in signature.parameters.values():
            _call_value(parameter.annotation)
        cls = type("Command", (Command,), {"renamed": renamed or {}})
        name = next((new for old, new in ALIASES.items() if old == function.__name__), None)
        app.command(name, cls=cls)(run)
        return run

    return decorate


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _call_value(annotation: Any) -> None:
    """Give the value of a command's option a name for the help, by its type, where it has none."""
    for one in getattr(annotation, "__metadata__", ()):
        if isinstance(one, OptionInfo) and not one.metavar:
            one.metavar = value_name(annotation.__origin__)
