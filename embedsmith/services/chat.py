"""Chat over HTTP: any server that speaks OpenAI's `POST …/chat/completions`.

Each answer is written into a journal when it comes, under a key that depends on everything that was asked. A killed
run that is started again pays only for the answers that are missing. The prompts leave this machine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from embedsmith.data.locks import Lock, waiting
from embedsmith.errors import InputError, ModelError
from embedsmith.progress import Progress, silent
from embedsmith.services.endpoint import Endpoint
from embedsmith.services.journal import Journal
from embedsmith.services.requests import Failing, Refused, Service
from embedsmith.settings import Settings, fingerprint

_THIS_ONE_ONLY = frozenset({400, 413, 422, 500, 502, 503, 504})
"""Answers that may mean one question, which is too long or breaks the server, and not all of them."""
_UNLIKELY_FIRST, _UNLIKELY = 3, 20
"""Questions in a row without an answer, at the start and later, after which it is not the questions."""
_TEMPLATE_TOKENS = 64
"""What a server's chat template is taken to add to a prompt, when tokens are set aside."""


class ServerSettings(Settings):
    """How a server is asked; no answer depends on it, so a run that was cut short may go on with other values."""

    budget_tokens: int | None = Field(None, gt=0)
    """Tokens of prompts and answers that the command may cost, earlier attempts included. When the next request might
    exceed them it stops with what is there; with a larger budget the same command goes on."""
    concurrency: int = Field(8, gt=0)
    """Requests under way at once."""
    timeout_s: float = Field(300.0, gt=0)
    """Seconds after which a request counts as lost."""
    retries: int = Field(6, ge=0)
    """Times that a request is sent again after the server was busy or failed, waiting longer each time."""


@dataclass(frozen=True)
class Question:
    """One prompt, and how it is to be answered."""

    prompt: str
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    """Two questions that differ in nothing else are two questions."""


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    cut_off: bool
    """Whether it had more to say when `max_tokens` were reached."""
    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        """What it cost."""
        return self.prompt_tokens + self.answer_tokens


_KINDS_OF_ANSWER = {"text": str, "cut_off": bool, "prompt_tokens": int, "answer_tokens": int}
"""Fields of an answer as the journal holds it."""


class Chat:
    """A chat model behind a URL: concurrent, patient, within a budget, and never paid twice for one answer."""

    def __init__(
        self, where: Endpoint, journal: Path, *, key: str | None = None, settings: ServerSettings | None = None
    ) -> None:
        """Open the journal; nothing is sent yet.

        Args:
            journal: file of the answers.
            key: sent as a bearer token, and written nowhere.

        Raises:
            InputError: the journal is damaged.
        """
        self._settings = settings or ServerSettings()
        self._where = where
        self._service = Service(
            where,
            "chat/completions",
            key=key,
            timeout_s=self._settings.timeout_s,
            retries=self._settings.retries,
        )
        self._path = journal
        self._name = fingerprint([where.url, where.model])
        self._journal = Journal(journal)
        self._counted: set[str] = set()
        self.tokens = 0
        """What all answers so far have cost, now or in an earlier attempt."""
        self.failures: list[str] = []
        """What the server said in the place of an answer, once for each question that it would not answer."""
        self.is_spent = False
        """Whether the budget has ended the questions."""

    def ask(
        self, questions: Sequence[Question], *, what: str = "ask", on_progress: Progress = silent
    ) -> list[Answer | None]:
        """Return the answers, in the order of the questions; None where there is none, because of the budget or else.

        Args:
            what: the work's name in the progress.

        Raises:
            Refused: the server takes no question: a wrong URL, model or key.
            Failing: it cannot be reached, is busy for too long, or fails again and again.
            ModelError: what it says is no chat, again and again.
        """
        keys = [self._key(question) for question in questions]
        wanted = dict(zip(keys, questions, strict=True))

        def tell(holder: str) -> None:
            on_progress(what, 0, len(wanted), f"waits for {holder}, which is asking the same model")

        # One process at a time asks a model into a journal: the next one finds the answers and pays for none of them.
        with waiting(Lock.beside(self._path.with_name(f"{self._path.name}.{self._name}")), tell):
            self._journal.refresh()
            self._ask(wanted, what, on_progress)
        return [self._answer_of(key) for key in keys]

    def _ask(self, wanted: dict[str, Question], what: str, on_progress: Progress) -> None:
        """Ask the questions that the journal has no answer to, by their keys."""
        for key in wanted:
            self._count(key)
        missing = [key for key in wanted if key not in self._counted]
        done = len(wanted) - len(missing)
        under_way: dict[Future[None], str] = {}
        failed_in_a_row = 0
        given_up = threading.Event()
        pool = ThreadPoolExecutor(max_workers=self._settings.concurrency)

        def settle() -> None:
            nonlocal done, failed_in_a_row
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                key = under_way.pop(future)
                error = future.exception()
                failed_in_a_row = failed_in_a_row + 1 if error else 0
                if error:
                    self._excuse(error, failed_in_a_row)
                self._count(key)
                done += 1
            on_progress(what, done, len(wanted), f"{self.tokens:,} tokens")

        try:
            on_progress(what, done, len(wanted), f"{self.tokens:,} tokens")
            for key in missing:
                while under_way and not self._has_room(wanted[key], [wanted[other] for other in under_way.values()]):
                    settle()
                if not self._affords(wanted[key], []):
                    self.is_spent = True
                    break
                under_way[pool.submit(self._answer, key, wanted[key], given_up)] = key
            while under_way:
                settle()
        finally:
            given_up.set()
            # What is under way is paid for: it is waited for, and written down.
            pool.shutdown(cancel_futures=True)

    def _has_room(self, question: Question, others: list[Question]) -> bool:
        """Return whether a question may be asked beside those under way."""
        # Alone until an answer has come: a wrong URL, model or key is then one failed request.
        at_once = self._settings.concurrency if self._counted else 1
        return len(others) < at_once and self._affords(question, others)

    def _affords(self, question: Question, others: list[Question]) -> bool:
        """Return whether the budget holds one more question, and those under way, at the most that they may cost."""
        if self._settings.budget_tokens is None:
            return True
        most = sum(_most_tokens(one) for one in [question, *others])
        return self.tokens + most <= self._settings.budget_tokens

    def _excuse(self, error: BaseException, in_a_row: int) -> None:
        """Note that one question has no answer, or raise what means all of them."""
        status = getattr(error, "status", None)
        mild = isinstance(error, _NoChat) or (isinstance(error, Refused | Failing) and status in _THIS_ONE_ONLY)
        if not mild or in_a_row >= (_UNLIKELY if self._counted else _UNLIKELY_FIRST):
            raise error
        self.failures.append(str(error))

    def _answer(self, key: str, question: Question, given_up: threading.Event) -> None:
        """Ask one question, and write the answer down."""
        body = {
            "model": self._where.model,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
        }
        answer = _chat(self._service.ask(body, given_up), question.prompt, self._where.name)
        self._journal.add(key, asdict(answer))

    def _key(self, question: Question) -> str:
        """Return what an answer is kept under."""
        return fingerprint([self._where.url, self._where.model, asdict(question)])

    def _count(self, key: str) -> None:
        """Count what an answer has cost, once."""
        answer = self._answer_of(key)
        if answer and key not in self._counted:
            self._counted.add(key)
            self.tokens += answer.tokens

    def _answer_of(self, key: str) -> Answer | None:
        """Return an answer that the journal holds.

        Raises:
            InputError: what it holds is none.
        """
        return answer_in(self._journal, key, self._path)


def answer_in(journal: Journal, key: str, path: Path) -> Answer | None:
    """Return an answer that a journal holds, None where it holds none.

    Args:
        key: of the question.
        path: of the journal, for errors.

    Raises:
        InputError: what it holds is none.
    """
    entry = journal.get(key)
    if entry is None:
        return None
    kinds = {name: type(value) for name, value in entry.items()}
    if kinds != _KINDS_OF_ANSWER or min(entry["prompt_tokens"], entry["answer_tokens"]) < 0:
        raise InputError(
            f"{path}: what it holds under {key} is no answer of a chat",
            hint="remove the line; what it held is asked again",
        )
    return Answer(**entry)


class _NoChat(ModelError):
    """An answer that is no chat."""


def _most_tokens(question: Question) -> int:
    """Return the most that a question may cost: no tokenizer makes more tokens than there are bytes.

    >>> _most_tokens(Question("a cat", max_tokens=10))
    79
    """
    return len(question.prompt.encode()) + _TEMPLATE_TOKENS + question.max_tokens


def _chat(answer: bytes, prompt: str, name: str) -> Answer:
    """Return what an answer says.

    >>> body = b'{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7}}'
    >>> _chat(body, "a cat?", "toy")
    Answer(text='yes', cut_off=False, prompt_tokens=7, answer_tokens=1)

    Raises:
        ModelError: it is not JSON, or holds no choice.
    """
    try:
        body = json.loads(answer)
        choice = body["choices"][0]
        content = choice["message"].get("content")
        usage = body.get("usage") or {}
        # JSON can hold half of a surrogate pair, and no file can.
        text = "" if content is None else content.encode("utf-8", "replace").decode()
        return Answer(
            text=text,
            cut_off=choice.get("finish_reason") == "length",
            prompt_tokens=_count_of(usage.get("prompt_tokens"), prompt),
            answer_tokens=_count_of(usage.get("completion_tokens"), text),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _NoChat(
            f"{name}: not a chat answer ({type(error).__name__}: {error})", hint="the mistake is the server's"
        ) from None


def _count_of(said: Any, text: str) -> int:
    """Return the tokens that a server has counted, or about as many as a text has."""
    return said if type(said) is int and said >= 0 else len(text.encode()) // 4 + 1
