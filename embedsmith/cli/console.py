"""What the commands print: progress on stderr, results on stdout, errors in one line."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
)
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from embedsmith.collector import keep
from embedsmith.data.shown import one_line, shown, shown_json
from embedsmith.errors import SettingsError
from embedsmith.progress import Paces, duration
from embedsmith.settings import without_passwords


class _Console(Console):
    """A console that texts do not control, whoever wrote them: names of files, passages, answers of servers."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is shown; tables measure it so, too."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed: what has not come through `render_str`, a bar's description, is looked at here."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


# Without emoji: in the name static:package:wordllama rich sees the picture of a package.
# No markup either: in a name such as [red] or [/] rich would see a style, eat it or fail.
out = _Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
err = _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)

_PLAIN_EVERY_S = 60.0
_LOGGERS = ("mteb", "datasets", "huggingface_hub", "sentence_transformers", "accelerate")


@dataclass
class _Voice:
    """How much is said of what the user has asked for."""

    quiet: bool = False
    verbose: bool = False
    agrees: bool = False
    """Questions are answered with yes, unasked."""


_voice = _Voice()


def begin() -> None:
    """Speak as much as usual, until a command says otherwise."""
    _voice.quiet = _voice.verbose = _voice.agrees = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _is_unicode(stream):
            stream.reconfigure(errors="backslashreplace")  # what it cannot write is written out, and is no error


def _is_unicode(stream: Any) -> bool:
    """Return whether a stream writes every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def say_less() -> None:
    """Print results and errors only."""
    _voice.quiet = True


def say_more() -> None:
    """Print what the libraries have to say too, and where an error arose."""
    _voice.verbose = True
    os.environ["TRANSFORMERS_VERBOSITY"] = "warning"
    warnings.resetwarnings()
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    for library in (*_LOGGERS, "embedsmith"):
        logging.getLogger(library).setLevel(logging.INFO)


def say_yes() -> None:
    """Answer every question with yes."""
    _voice.agrees = True


def is_verbose() -> bool:
    """Return whether everything is to be printed."""
    return _voice.verbose


def let_the_first_process_speak() -> None:
    """Keep all processes but the first one silent, where a launcher has started several."""
    out.quiet = err.quiet = os.environ.get("RANK", "0") != "0"


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, and nothing else."""
    if not out.quiet:
        is_ascii = not _is_unicode(sys.stdout)  # a file that Windows writes has one of its old encodings
        sys.stdout.write(shown_json(json.dumps(value, ensure_ascii=is_ascii, allow_nan=False)) + "\n")
    # A program that asks one thing after the other waits for each answer.
    sys.stdout.flush()


def styled(text: Text) -> None:
    """Print one line of help."""
    out.print(text)


def line(text: str) -> None:
    """Print one line of the results, whatever line breaks the names in it have."""
    out.print(one_line(text))


def line_beside(text: str) -> None:
    """Print one line beside the results."""
    if not _voice.quiet:
        err.print(one_line(text))


def next_steps(*commands: str) -> None:
    """Print what to type next, the likeliest first."""
    if not _voice.quiet:
        for number, command in enumerate(commands):
            line(("      " if number else "next: ") + command)


def print_error(message: str, hint: str) -> None:
    """Print one line that says what is wrong, and one with the remedy."""
    if _voice.verbose:
        traceback.print_exc()
    err.print(f"error: {one_line(without_passwords(message))}", style="bold red", markup=False)
    if hint:
        err.print(f"hint: {one_line(hint)}", markup=False)


def note(message: str) -> None:
    """Print one line beside the results."""
    if not _voice.quiet:
        err.print(f"note: {one_line(message)}", markup=False)


def print_plan(plan: Any) -> None:
    """Print what a mining run is going to do."""
    if _voice.quiet:
        return
    teachers = one_line(", ".join(plan.teachers))
    err.print(
        f"plan: {plan.queries:,} queries, {plan.passages:,} passages, searched by {teachers}; "
        f"about {plan.memory_bytes / 2**30:.1f} GiB of memory",
        markup=False,
    )
    for work in plan.encodings:
        err.print(
            f"  encode {work.texts:,} texts with {one_line(work.teacher)}: about {work.tokens:,} tokens, "
            f"{duration(work.seconds)} on one device; {work.vector_bytes / 1e6:,.0f} MB of vectors on disk",
            markup=False,
        )


def scores_table(title: str, rows: dict[str, dict[str, float]], metrics: list[str]) -> Table:
    """Return a table of scores, one row each."""
    table = Table(title=one_line(title), title_justify="left")
    table.add_column("", overflow="fold")
    for metric in metrics:
        table.add_column(one_line(metric), justify="right", overflow="fold")
    for label, scores in rows.items():
        table.add_row(one_line(label), *(f"{scores[metric]:.3f}" if metric in scores else "" for metric in metrics))
    return table


def figures_table(title: str, rows: dict[str, list[str]], columns: list[str]) -> Table:
    """Return a table of figures that are written out already, one row each."""
    table = Table(title=one_line(title), title_justify="left")
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(one_line(column), justify="right", overflow="fold")
    for label, figures in rows.items():
        table.add_row(*map(one_line, [label, *figures]))
    return table


def lines(prompt: str) -> Iterator[str]:
    """Yield the lines of the standard input that are not empty; at a terminal each is asked for with a prompt."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            err.print(prompt, end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def confirmed(question: str) -> bool:
    """Return whether the user says yes to a question, or has said so beforehand.

    Raises:
        SettingsError: there is no terminal to ask on.
    """
    if _voice.agrees:
        return True
    if not sys.stdin.isatty():
        raise SettingsError(f"{question} There is no terminal to ask on", hint="say it beforehand: --yes")
    err.print(f"{one_line(question)} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Leave cycles of dead objects lying within the block, until `progress` begins work that may make large ones.

    Importing torch, transformers and sentence-transformers makes millions of objects that stay. To look through them
    again and again takes two fifths of the time, and of what `search` takes for one query. `progress` spares them from
    then on, when the interpreter ends too, which is another second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def quiet_libraries() -> None:
    """Keep the model libraries' own bars, notices and hub chatter out of the output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, it is so too, and warns of every process we start
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    theirs = r"(torch|transformers|sentence_transformers|accelerate|gguf|mteb|sklearn)\b.*"
    warnings.filterwarnings("ignore", module=theirs)
    for library in _LOGGERS:
        logging.getLogger(library).setLevel(logging.ERROR)


@contextlib.contextmanager
def progress(*, show: bool = True) -> Iterator[Any]:
    """Yield a progress function: a bar for each piece of work, or plain lines where there is no terminal."""
    if not gc.isenabled():  # see `quick_imports`
        keep()
        gc.enable()
    if not show or _voice.quiet:
        yield lambda what, done, total, note="": None
        return
    if not err.is_terminal:
        yield _PlainProgress()
        return
    columns = (
        _Yielding("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        _Yielding("{task.fields[note]}"),
    )
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}
        paces = Paces()

        def update(what: str, done: int, total: int, note: str = "") -> None:
            what, note = one_line(what), one_line(note)
            moment = paces.update(what, done, total)
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note, pace="")
            if moment.begins:
                bars.reset(tasks[what], total=total, completed=done)
            bars.update(tasks[what], completed=done, total=total, note=note, pace=moment.pace)

        yield update


class _Yielding(TextColumn):
    """A text that is cut where a line has no room for all: the longer of two first, and never the time that is left."""

    def __init__(self, text: str) -> None:
        super().__init__(text, markup=False, table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class _PlainProgress:
    """Lines of a log: the first and the last of each piece of work, and as many between as somebody reads.

    Lines are a minute apart or more. Each has a tenth of the work behind it, or a quarter of the time: a night's work
    tells soon how long it will take, and leaves some thirty lines.
    """

    def __init__(self) -> None:
        self._paces = Paces()
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        moment = self._paces.update(what, done, total)
        if not moment.begins and done < total:
            then, before = self._last[what]
            since = moment.elapsed_s - then
            if since < _PLAIN_EVERY_S or (since < moment.elapsed_s / 5 and done - before < total / 10):
                return
        self._last[what] = moment.elapsed_s, done
        said = ", ".join(filter(None, [f"{what}: {done:,} of {total:,}", moment.pace]))
        err.print(one_line("; ".join(filter(None, [said, note]))), markup=False)
