"""A language model in this process that answers questions as a chat server does: in batches, into the same journal.

An answer is drawn by the question's own seed: the token with the highest logit / temperature + Gumbel noise is a sample
of the softmax (Maddison et al., A* sampling, https://arxiv.org/abs/1411.0030). So which questions share a batch, and
where a killed run goes on, decides nothing but the last bits of a sum.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsmith.data.locks import Lock, waiting
from embedsmith.models.causal import CausalModel, open_causal
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.progress import Progress, silent
from embedsmith.services.chat import Answer, Question, answer_in
from embedsmith.services.journal import Journal
from embedsmith.settings import fingerprint


class LocalChat:
    """A language model of this machine, asked as `embedsmith.services.chat.Chat` is; it is opened when it is asked."""

    is_spent = False
    """A budget is for what is paid."""

    def __init__(self, name: str, journal: Path, *, batch: int = 8) -> None:
        """Open the journal.

        Args:
            name: of the model, see `embedsmith.models.names`.
            journal: file of the answers.
            batch: questions that are answered at once.

        Raises:
            InputError: the journal is damaged.
        """
        self.name = name
        self._path = journal
        self._journal = Journal(journal)
        self._batch = batch
        self._opened: CausalModel | None = None
        self.tokens = 0
        """Of all prompts and answers so far, now or in an earlier attempt."""
        self.failures: list[str] = []
        """Why a question has no answer, once for each."""

    def ask(
        self, questions: Sequence[Question], *, what: str = "ask", on_progress: Progress = silent
    ) -> list[Answer | None]:
        """Return the answers, in the order of the questions; None where a question is too long for the model.

        Args:
            what: the work's name in the progress.

        Raises:
            ModelError: the model cannot be opened, or its chat template cannot be rendered.
            InputError: the journal is damaged.
        """
        opened = self._model()
        keys = [fingerprint([opened.identity, asdict(question)]) for question in questions]
        wanted = dict(zip(keys, questions, strict=True))

        def tell(holder: str) -> None:
            on_progress(what, 0, len(wanted), f"waits for {holder}, which is asking the same model")

        name = fingerprint([self.name])
        with waiting(Lock.beside(self._path.with_name(f"{self._path.name}.{name}")), tell):
            self._journal.refresh()
            missing = {key: one for key, one in wanted.items() if self._journal.get(key) is None}
            self._answer(opened, missing, what, on_progress)
        answers = {key: answer_in(self._journal, key, self._path) for key in wanted}
        self.tokens += sum(answer.tokens for answer in answers.values() if answer)
        return [answers[key] for key in keys]

    def _model(self) -> CausalModel:
        if self._opened is None:
            self._opened = open_causal(self.name)
        return self._opened

    def _answer(self, opened: CausalModel, missing: dict[str, Question], what: str, on_progress: Progress) -> None:
        """Answer questions, those of about equal length together, and write each batch down."""
        prompts = {key: opened.tokens_of(question.prompt) for key, question in missing.items()}
        readable = []
        for key, tokens in prompts.items():
            if len(tokens) + missing[key].max_tokens > opened.context:
                self.failures.append(
                    f"{self.name}: a prompt of {len(tokens):,} tokens and an answer of {missing[key].max_tokens:,}; it "
                    f"reads {opened.context:,}"
                )
            else:
                readable.append(key)
        readable.sort(key=lambda key: (missing[key].max_tokens, missing[key].temperature, len(prompts[key])))
        started, written = time.monotonic(), 0
        on_progress(what, 0, len(readable))
        for first in range(0, len(readable), self._batch):
            batch = readable[first : first + self._batch]
            with LibraryErrors(self.name, "cannot write", hint="try a smaller --concurrency, or another model"):
                answers = written_by(opened, [prompts[key] for key in batch], [missing[key] for key in batch])
            for key, answer in zip(batch, answers, strict=True):
                self._journal.add(key, asdict(answer))
                written += answer.answer_tokens
            rate = written / max(1e-9, time.monotonic() - started)
            on_progress(what, first + len(batch), len(readable), f"{rate:,.0f} tokens/s written")


def written_by(opened: CausalModel, prompts: Sequence[list[int]], questions: Sequence[Question]) -> list[Answer]:
    """Return what a model answers to some prompts at once, each with its own seed."""
    from transformers import GenerationConfig

    most = max(question.max_tokens for question in questions)
    width = max(map(len, prompts))
    pad = min(opened.ends, default=0)
    device = opened.model.device
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    config = GenerationConfig(
        max_new_tokens=most, do_sample=False, eos_token_id=sorted(opened.ends) or None, pad_token_id=pad
    )
    with torch.inference_mode():
        out = opened.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=[_Drawn(prompts, questions)]
        )
    return [
        _answer(opened, one.tolist(), len(prompt), question.max_tokens)
        for one, prompt, question in zip(out[:, width:], prompts, questions, strict=True)
    ]


class _Drawn:
    """Makes the best token a draw of the softmax, by the seed of each question; at temperature 0 the best it is."""

    def __init__(self, prompts: Sequence[list[int]], questions: Sequence[Question]) -> None:
        self._temperatures = [question.temperature for question in questions]
        self._drawn = [
            np.random.default_rng(_seed(prompt, question.seed))
            for prompt, question in zip(prompts, questions, strict=True)
        ]

    def __call__(self, _: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return logits with noise."""
        noise = np.stack(
            [
                temperature * drawn.gumbel(size=logits.shape[-1]).astype(np.float32)
                for temperature, drawn in zip(self._temperatures, self._drawn, strict=True)
            ]
        )
        return logits + torch.from_numpy(noise).to(logits)


def _seed(prompt: list[int], seed: int) -> int:
    """Return the seed of a question: two with one seed have draws of their own."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:8], "big")


def _answer(opened: CausalModel, tokens: list[int], prompt_tokens: int, most: int) -> Answer:
    """Return what was written, to its end."""
    end = next((place for place, token in enumerate(tokens) if token in opened.ends), None)
    own: Any = tokens[:most] if end is None or end >= most else tokens[:end]
    text = opened.tokenizer.decode(own, skip_special_tokens=True)
    return Answer(
        text=text.encode("utf-8", "replace").decode(),
        cut_off=end is None or end >= most,
        prompt_tokens=prompt_tokens,
        answer_tokens=len(own),
    )
