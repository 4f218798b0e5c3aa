"""Synthetic tasks in two steps: a chat model thinks of tasks, then writes examples of each.

Source: Wang et al., Improving text embeddings with large language models, https://arxiv.org/abs/2401.00368, section
3.1; taken up by NV-Embed, https://arxiv.org/abs/2405.17428, section 4.3. The prompts are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from embedsmith.data.normalised import normalised
from embedsmith.generation.answers import Rejects, is_copy, json_in, said
from embedsmith.services.chat import Answer

_SHOWN = 500
"""Characters of an answer that is kept to be read."""
_LONGEST_TASK = 400

Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]


class Triplet(BaseModel):
    """One example of a task, as a chat model has to write it."""

    model_config = ConfigDict(frozen=True)

    query: Text
    positive: Text
    negative: Text


def tasks_in(answer: Answer, *, prompt: str, rejects: Rejects) -> Iterator[str]:
    """Yield the tasks that an answer lists.

    Args:
        prompt: what was asked, whose own examples are no new tasks.
    """
    found = json_in(said(answer.text), list)
    if found is None:
        rejects.add("cut off" if answer.cut_off else "not a JSON list", answer=answer.text[:_SHOWN])
        return
    for one in found:
        if not isinstance(one, str) or not one.strip():
            rejects.add("not a text", answer=str(one)[:_SHOWN])
        elif len(one) > _LONGEST_TASK:
            rejects.add("too long", answer=one[:_SHOWN])
        elif is_copy(one, prompt):
            rejects.add("copied from the prompt", answer=one)
        else:
            yield " ".join(one.split())


def triplet_in(answer: Answer, kind: str, *, task: str, prompt: str, rejects: Rejects) -> Triplet | None:
    """Return the example that an answer holds, None where it cannot be used.

    Args:
        kind: one of `KINDS`.
        prompt: what was asked, without the task.
    """
    found = json_in(said(answer.text), dict)
    reason = "cut off" if answer.cut_off else "not a JSON object"
    triplet = None
    if found is not None:
        try:
            triplet = _TRIPLET.validate_python(found)
        except ValidationError as error:
            reason = _in_words(error)
        else:
            reason = _flaw(triplet, kind, prompt)
    if not reason:
        return triplet
    rejects.add(reason, task=task, answer=answer.text[:_SHOWN])
    return None


_TRIPLET = TypeAdapter(Triplet)


def _in_words(error: ValidationError) -> str:
    """Return the first thing that is wrong with an object, in words that do not depend on its values."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    words = {"missing": f'no "{key}"', "string_too_short": f'"{key}" is empty'}
    return words.get(first["type"], f'"{key}" is not a text')


def _flaw(triplet: Triplet, kind: str, prompt: str) -> str:
    """Return what makes an example useless, or nothing.

    >>> _flaw(Triplet(query="cats?", positive="Cats purr.", negative="cats  PURR."), "short-long", "")
    'the negative is the positive'
    >>> _flaw(Triplet(query="Cats purr.", positive="Cats?", negative="Dogs bark."), "short-long", "")
    'the positive is shorter than the query'
    """
    query, positive, negative = map(normalised, (triplet.query, triplet.positive, triplet.negative))
    if query == positive:
        return "the positive is the query"
    if negative in (query, positive):
        return f"the negative is the {'query' if negative == query else 'positive'}"
    if any(is_copy(text, prompt) for text in (query, positive, negative)):
        return "copied from the prompt"
    if kind == "short-long" and len(positive) < len(query):
        return "the positive is shorter than the query"
    if kind == "long-short" and len(positive) > len(query):
        return "the positive is longer than the query"
    return ""
