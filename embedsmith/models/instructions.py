"""What the papers tell a model about a task: `task:fiqa` as an instruction stands for FiQA's.

The words are those of `embedsmith.data.instructions`. Of a task whose sides are texts of one kind, passages get the
instruction too (NV-Embed, section 4.2, of STS; its published list, of Quora): STS, duplicates, classes, clusters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedsmith.data.instructions import instruction_for

PREFIX = "task:"

_INSTRUCT = re.compile(r"(?P<head>Instruct: ).+(?P<tail>\nQuery: ?)", re.DOTALL)
"""NV-Embed's template, and that of most models with instructions."""

_RETRIEVAL = {
    "arguana",
    "climate-fever",
    "dbpedia",
    "fever",
    "fiqa",
    "hotpotqa",
    "msmarco",
    "nfcorpus",
    "nq",
    "scidocs",
    "scifact",
    "touche2020",
    "trec-covid",
}
_RERANKING = {"askubuntu", "mind", "scidocs-reranking", "stackoverflow-duplicates"}
ONE_SIDED = _RETRIEVAL | _RERANKING
"""Data sets of which queries alone get the instruction."""


@dataclass(frozen=True)
class Task:
    """What is asked in a task."""

    instruction: str
    symmetric: bool = False
    """Whether passages get the instruction too."""


def task_of(instruction: str) -> Task:
    """Return the task that an instruction names, or one that is asked in these words.

    >>> task_of("task:nq")
    Task(instruction='Given a question, retrieve passages that answer the question', symmetric=False)
    >>> task_of("task:sts").symmetric
    True
    >>> task_of("Find code")
    Task(instruction='Find code', symmetric=False)

    Raises:
        SettingsError: no task of that name is known; gives the nearest.
    """
    if not instruction.startswith(PREFIX):
        return Task(instruction)
    name = instruction.removeprefix(PREFIX)
    return Task(instruction_for(name), symmetric=name not in ONE_SIDED)


def template_of(query_prompt: str) -> str | None:
    r"""Return the template that a query prompt was made with, None where it has no instruction.

    >>> template_of("Instruct: Find code\nQuery: ")
    'Instruct: {instruction}\nQuery: '
    >>> template_of("query: ")
    """
    match = _INSTRUCT.fullmatch(query_prompt)
    return f"{match['head']}{{instruction}}{match['tail']}" if match else None
