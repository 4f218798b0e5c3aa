"""Who writes: chat models behind URLs and language models in this process, one or several that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from embedsmith.generation.settings import WriterSettings
from embedsmith.models.names import find_model
from embedsmith.progress import Progress, silent
from embedsmith.services.chat import Answer, Chat, Question, ServerSettings
from embedsmith.services.endpoint import endpoint, is_url, key_for


class Writer(Protocol):
    """What questions are asked of."""

    @property
    def tokens(self) -> int:
        """What all answers have cost, of earlier attempts too."""

    @property
    def failures(self) -> list[str]:
        """Why questions have no answer."""

    @property
    def is_spent(self) -> bool:
        """Whether a budget has ended the questions."""

    def ask(
        self, questions: Sequence[Question], *, what: str = "ask", on_progress: Progress = silent
    ) -> list[Answer | None]:
        """Return the answers, in the order of the questions; None where there is none."""


def check_writers(settings: WriterSettings) -> None:
    """Refuse a writer that is not there; none is opened or asked.

    Raises:
        ModelError: there is no such model on this machine, or a URL is none.
        SettingsError: the key for a URL cannot be sent.
    """
    if settings.url:
        endpoint(settings.url)  # what is no URL is not taken for a model of this machine
    for name in settings.writers:
        if is_url(name):
            key_for(endpoint(name))
        else:
            find_model(name)


def open_writers(names: Sequence[str], journal: Path, server: ServerSettings | None) -> Writers:
    """Return the writers of some names: https://HOST/v1#MODEL, or a model of this machine, not opened yet.

    Raises:
        InputError, ModelError: the journal is damaged; a URL is none.
    """
    settings = server or ServerSettings()
    if settings.budget_tokens and (paid := sum(map(is_url, names))) > 1:
        settings = settings.model_copy(update={"budget_tokens": max(1, settings.budget_tokens // paid)})
    found: list[Writer] = []
    for name in names:
        if is_url(name):
            where = endpoint(name)
            found.append(Chat(where, journal, key=key_for(where), settings=settings))
        else:
            from embedsmith.generation.local import LocalChat  # loads torch, which a URL needs not

            found.append(LocalChat(name, journal, batch=settings.concurrency))
    return Writers(found)


class Writers:
    """Several writers as one: the first question goes to the first of them, the second to the second, and so on."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        """Take turns among some writers."""
        self._writers = writers

    @property
    def tokens(self) -> int:
        """What all answers have cost."""
        return sum(writer.tokens for writer in self._writers)

    @property
    def failures(self) -> list[str]:
        """Why questions have no answer."""
        return [failure for writer in self._writers for failure in writer.failures]

    @property
    def is_spent(self) -> bool:
        """Whether a budget has ended the questions."""
        return any(writer.is_spent for writer in self._writers)

    def ask(
        self, questions: Sequence[Question], *, what: str = "ask", on_progress: Progress = silent
    ) -> list[Answer | None]:
        """Return the answers, in the order of the questions; None where there is none.

        Raises:
            InputError, ModelError, ConnectionError: see the writers.
        """
        count = len(self._writers)
        answers: list[Answer | None] = [None] * len(questions)
        for place, writer in enumerate(self._writers):
            own = f"{what} ({place + 1} of {count})" if count > 1 else what
            answers[place::count] = writer.ask(questions[place::count], what=own, on_progress=on_progress)
        return answers
