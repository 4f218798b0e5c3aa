"""What the papers tell a model about each task, by the task's name in MTEB.

`task:FiQA2018` as an instruction stands for FiQA's. Of a task whose sides are alike, passages get it too.

Source: NV-Embed, the released `instructions.json` (retrieval, STS, summaries); E5-Mistral, its public evaluation code
(Banking77, Emotion), whose instructions NV-Embed's paper lists for what is not retrieval.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedsmith.errors import SettingsError, did_you_mean

PREFIX = "task:"


@dataclass(frozen=True)
class Task:
    """What is asked in a task."""

    instruction: str
    symmetric: bool = False
    """Whether passages get the instruction too: both sides are texts of the same kind."""


_CLAIM = Task("Given a claim, retrieve documents that support or refute the claim")
_ANSWER = Task("Given a question, retrieve passages that answer the question")
_STS = Task("Retrieve semantically similar text", symmetric=True)

TASKS: dict[str, Task] = {
    "ArguAna": _CLAIM,
    "Banking77Classification": Task("Given a online banking query, find the corresponding intents", symmetric=True),
    "ClimateFEVER": Task(
        "Given a claim about climate change, retrieve documents that support or refute the claim",
    ),
    "DBPedia": Task("Given a query, retrieve relevant entity descriptions from DBPedia"),
    "EmotionClassification": Task(
        "Classify the emotion expressed in the given Twitter message into one of the six emotions: anger, fear, joy, "
        "love, sadness, and surprise",
        symmetric=True,
    ),
    "FEVER": _CLAIM,
    "FiQA2018": Task("Given a financial question, retrieve relevant passages that answer the query"),
    "HotpotQA": Task("Given a multi-hop question, retrieve documents that can help answer the question"),
    "MSMARCO": Task("Given a web search query, retrieve relevant passages that answer the query"),
    "NFCorpus": Task("Given a question, retrieve relevant documents that answer the question"),
    "NQ": _ANSWER,
    "QuoraRetrieval": Task(
        "Given a question, retrieve questions that are semantically equivalent to the given question", symmetric=True
    ),
    "SCIDOCS": Task(
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper",
    ),
    "STS": _STS,
    "SciFact": Task("Given a scientific claim, retrieve documents that support or refute the claim"),
    "SummEval": Task("Given a news summary, retrieve other semantically similar summaries", symmetric=True),
    "TRECCOVID": Task("Given a query on COVID-19, retrieve documents that answer the query"),
    "Touche2020": _ANSWER,
}


def task_of(instruction: str) -> Task:
    """Return the task that an instruction names, or one that is asked in these words.

    >>> task_of("task:NQ").instruction
    'Given a question, retrieve passages that answer the question'
    >>> task_of("task:STS").symmetric
    True
    >>> task_of("Find code")
    Task(instruction='Find code', symmetric=False)

    Raises:
        SettingsError: no task of that name is known; gives the nearest.
    """
    if not instruction.startswith(PREFIX):
        return Task(instruction)
    name = instruction.removeprefix(PREFIX)
    # STS12 to STS22, STSBenchmark: one instruction for all.
    found = TASKS.get(name) or (_STS if name.startswith("STS") else None)
    if found is None:
        raise SettingsError(
            f'instruction: unknown task "{name}"{did_you_mean(name, TASKS)}', hint=f"known: {', '.join(TASKS)}"
        )
    return found
