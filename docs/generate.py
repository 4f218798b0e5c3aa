"""Writes what the site takes from the code: pictures of the methods, and the references of command line and Python.

    python docs/generate.py

The pictures are kept in the repository, for readers on GitHub; a test says when they are out of date. References and
notebooks are not: `make docs` writes their pages before the site is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import typer

import embedsmith
from embedsmith.cli import help
from embedsmith.cli import main as _commands  # noqa: F401  registers every command
from embedsmith.cli.app import app
from embedsmith.mining.methods import ceiling, first_rank
from embedsmith.mining.settings import MethodSettings

DOCS = Path(__file__).parent

POSITIVE = 0.80
CANDIDATES = (0.86, 0.81, 0.785, 0.765, 0.755, 0.74, 0.70, 0.685, 0.65, 0.61, 0.57, 0.52)
"""Scores of the pictures' query."""
FALSE = {0, 2}
"""Candidates that are in truth answers."""
NEGATIVES = 4
METHODS = {
    "naive": MethodSettings(method="naive"),
    "shifted": MethodSettings(method="shifted", shift=3),
    "abs": MethodSettings(method="abs", threshold=0.7),
    "marginpos": MethodSettings(method="marginpos", margin=0.05),
    "percpos": MethodSettings(method="percpos", ratio=0.9),
}
SAID = {
    "naive": "naive: the best, whatever they score",
    "shifted": "shifted: the first 3 are left out",
    "abs": "abs: under 0.7, for every query",
    "marginpos": "marginpos: under the positive's 0.80 minus 0.05",
    "percpos": "percpos: under 90% of the positive's 0.80",
}

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 720, 118, 20, 20
_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #333 }
  .axis { stroke: #999 } .small { font-size: 12px; fill: #666 }
  .taken { fill: #c2410c } .dropped { fill: #bbb } .easy { fill: none; stroke: #999 }
  .false { fill: none; stroke: #b91c1c; stroke-width: 2 } .positive { fill: #2f6fb3 }
  .ceiling { stroke: #b91c1c; stroke-dasharray: 5 4 } .over { fill: #b91c1c; opacity: .08 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } .small { fill: #aaa } .dropped { fill: #666 } }
"""


def method_picture(name: str) -> str:
    """Return one query on a line of scores: its positive, what a method drops and what is taken."""
    settings = METHODS[name]
    limit = float(ceiling(np.array([POSITIVE], np.float32), settings)[0])
    skipped = first_rank(settings)
    allowed = [rank for rank, score in enumerate(CANDIDATES) if rank >= skipped and score < limit]
    taken = set(allowed[:NEGATIVES])

    def x(score: float) -> float:
        return round(_LEFT + (score - 0.5) / 0.4 * (_WIDTH - _LEFT - _RIGHT), 1)

    parts = [f'<text x="{_LEFT}" y="20">{escape(SAID[name])}</text>']
    if np.isfinite(limit):
        parts.append(f'<rect class="over" x="{x(limit)}" y="34" width="{x(0.9) - x(limit):.1f}" height="52"/>')
        parts.append(f'<line class="ceiling" x1="{x(limit)}" x2="{x(limit)}" y1="34" y2="86"/>')
        parts.append(f'<text class="small" x="{x(limit) + 4:.1f}" y="46">ceiling {limit:.2f}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="70" y2="70"/>')
    ticks = (0.5, 0.6, 0.7, 0.8, 0.9)
    parts += [f'<text class="small" x="{x(tick)}" y="104" text-anchor="middle">{tick:.1f}</text>' for tick in ticks]
    for rank, score in enumerate(CANDIDATES):
        kind = "taken" if rank in taken else "easy" if rank in allowed else "dropped"
        parts.append(f'<circle class="{kind}" cx="{x(score)}" cy="70" r="6"/>')
        if rank in FALSE:
            parts.append(f'<circle class="false" cx="{x(score)}" cy="70" r="10"/>')
    at = x(POSITIVE)
    parts.append(f'<path class="positive" d="M{at - 8:.1f} 54h16l-8 11z"/>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">\n'
        f"<title>{escape(SAID[name])}</title>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def cli_reference() -> str:
    """Return a page with every command, its arguments and its options."""
    lines = [
        "# Command line",
        "",
        "Written from the code. `embedsmith COMMAND --help` prints the same. Every command takes `--help`.",
        "",
    ]
    for name, command in _walk("embedsmith", typer.main.get_command(app)):
        text, examples = help.said(command.help or "")
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        words = [help.name_of(one) if one.required else f"[{help.name_of(one)}]" for one in arguments]
        lines += [f"## {name}", "", text, "", "```text", " ".join([name, "[OPTIONS]", *words]), "```", ""]
        if examples:
            lines += ["**Examples**", "", "```text", *examples, "```", ""]
        if arguments:
            lines += ["| argument | what |", "| --- | --- |"]
            lines += [f"| `{help.name_of(one)}` | {_cell(help.about(one))} |" for one in arguments]
            lines += [""]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        for panel, inside in help.panels_of(options).items():
            lines += [f"**{panel}**", "", "| option | what |", "| --- | --- |"]
            lines += [f"| {_flags(help.typed_option(one))} | {_cell(help.about(one))} |" for one in inside]
            lines += [""]
    return "\n".join(lines)


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command below one, by the words that call it."""
    for word, below in command.commands.items():
        if below.hidden:
            continue
        if getattr(below, "commands", None):
            yield from _walk(f"{name} {word}", below)
        else:
            yield f"{name} {word}", below


def _flags(typed: str) -> str:
    """Return an option and its value as they stand in a table: a choice of many is broken between them."""
    flags, _, value = typed.partition(" [")
    return f"`{flags}`" + (" " + ", ".join(f"`{one}`" for one in value.rstrip("].").split("|")) if value else "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("{", "&#123;")


PARTS = {
    "Mine": [
        "mine",
        "MiningRun",
        "select",
        "audit",
        "Audits",
        "judge",
        "report",
        "Report",
        "write",
        "MiningSettings",
        "SelectionSettings",
    ],
    "Train": ["train", "TrainedRun", "StudentSettings", "StageSettings", "build_student"],
    "Evaluate": ["evaluate", "Scores", "ScoringSettings", "compare", "Comparison", "mteb_task"],
    "Use a model": ["load", "EmbeddingModel", "encode", "search", "export", "verify"],
    "Recipes": ["run", "RecipeRun", "read_recipe", "Recipe", "ablate", "read_ablation"],
    "Data": ["load_collection", "SourceSettings", "ColumnSettings", "convert", "ConvertSettings", "decontaminate"],
    "Chat models": ["synthesize_queries", "synthesize_tasks", "QuerySettings", "TaskSettings", "JudgeSettings"],
}
"""Public names in the order of the page; what is in none of them stands at the end."""


def python_reference() -> str:
    """Return a page with every public name, for mkdocstrings to fill."""
    placed = {name for names in PARTS.values() for name in names}
    parts = {**PARTS, "Others": [name for name in embedsmith.__all__ if name not in placed]}
    lines = [
        "# Python",
        "",
        "All of this is in the package: `import embedsmith`, then `embedsmith.mine`. Libraries are loaded when used.",
        "",
    ]
    for title, names in parts.items():
        lines += [f"## {title}", ""]
        for name in names:
            home, _, inner = embedsmith._HOMES[name].partition(":")
            lines += [f"::: embedsmith.{home}.{inner or name}", "    options:", f"      heading: embedsmith.{name}"]
            lines += [f"      toc_label: {name}", ""]
    return "\n".join(lines)


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Return a notebook as a page."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"]).strip("\n")
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([*parts, f"[The notebook]({name})"]) + "\n"


def main() -> None:
    """Write everything."""
    for name in METHODS:
        (DOCS / "images" / f"method-{name}.svg").write_text(method_picture(name), encoding="utf-8")
    (DOCS / "reference").mkdir(exist_ok=True)
    (DOCS / "reference" / "cli.md").write_text(cli_reference(), encoding="utf-8")
    (DOCS / "reference" / "python.md").write_text(python_reference(), encoding="utf-8")
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        page = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.name)
        path.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
