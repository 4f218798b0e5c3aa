"""A language model in this process: its answers, their draws, and how it goes on after a kill."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.errors import ModelError
from embedsmith.generation import local
from embedsmith.generation.local import LocalChat, written_by
from embedsmith.generation.writers import Writers, open_writers
from embedsmith.models.causal import open_causal
from embedsmith.services.chat import Question, ServerSettings

PROMPTS = ["The cat sat on", "A dog", "the owl and the cat sat on the mat", "one more"]


def questions(temperature: float = 0.0, *, seed: int = 0, max_tokens: int = 6) -> list[Question]:
    return [Question(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed) for prompt in PROMPTS]


def test_the_best_tokens_are_those_of_the_model_alone(tiny_writer: Path, tmp_path: Path):
    opened = open_causal(str(tiny_writer))
    answers = LocalChat(str(tiny_writer), tmp_path / "answers.jsonl").ask(questions())
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        tokens = opened.tokens_of(prompt)
        own: list[int] = []
        while len(own) < 6:
            with torch.inference_mode():
                best = int(opened.model(torch.tensor([tokens + own])).logits[0, -1].argmax())
            if best in opened.ends:
                break
            own.append(best)
        assert answer
        assert answer.text == opened.tokenizer.decode(own, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.answer_tokens) == (len(tokens), len(own))
        assert answer.cut_off == (len(own) == 6)


def test_what_is_drawn_does_not_depend_on_the_batch(tiny_writer: Path, tmp_path: Path):
    together = LocalChat(str(tiny_writer), tmp_path / "a.jsonl", batch=4).ask(questions(1.0))
    alone = LocalChat(str(tiny_writer), tmp_path / "b.jsonl", batch=1).ask(questions(1.0))
    assert together == alone
    other = LocalChat(str(tiny_writer), tmp_path / "c.jsonl").ask(questions(1.0, seed=1))
    assert [one.text for one in other if one] != [one.text for one in alone if one]


def test_tokens_are_drawn_as_often_as_the_softmax_says(tiny_writer: Path):
    opened = open_causal(str(tiny_writer))
    tokens = opened.tokens_of("A dog")
    with torch.inference_mode():
        logits = opened.model(torch.tensor([tokens])).logits[0, -1]
    expected = torch.softmax(logits / 0.7, dim=0).numpy()
    count = 1000
    drawn = local._Drawn([tokens] * count, [Question("", 1, 0.7, seed) for seed in range(count)])
    found = Counter(drawn(torch.empty(0), logits.repeat(count, 1)).argmax(dim=1).tolist())
    likely = np.argsort(-expected)[:5]
    for token in likely:
        spread = (expected[token] * (1 - expected[token]) / count) ** 0.5
        assert found[int(token)] / count == pytest.approx(float(expected[token]), abs=4 * float(spread))


def test_a_killed_run_writes_only_what_is_missing(tiny_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = LocalChat(str(tiny_writer), tmp_path / "whole.jsonl", batch=1).ask(questions(1.0))
    written: list[int] = []

    def until_the_third(opened, prompts, asked):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(len(prompts))
        return written_by(opened, prompts, asked)

    journal = tmp_path / "answers.jsonl"
    monkeypatch.setattr(local, "written_by", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        LocalChat(str(tiny_writer), journal, batch=1).ask(questions(1.0))
    assert len(journal.read_text().splitlines()) == 2
    monkeypatch.setattr(local, "written_by", lambda *given: written.append(len(given[1])) or written_by(*given))
    again = LocalChat(str(tiny_writer), journal, batch=1)
    assert again.ask(questions(1.0)) == whole
    assert len(written) == 4
    assert again.tokens == sum(one.tokens for one in whole if one)


def test_a_prompt_that_is_too_long_has_no_answer(tiny_writer: Path, tmp_path: Path):
    chat = LocalChat(str(tiny_writer), tmp_path / "answers.jsonl")
    long, short = chat.ask([Question("a cat " * 200, max_tokens=4), Question("a cat", max_tokens=4)])
    assert long is None and short is not None
    assert len(chat.failures) == 1 and "it reads 128" in chat.failures[0]


def test_several_writers_take_turns(tiny_writer: Path, tmp_path: Path, chat_server):
    chat_server.say = lambda prompt: f"said of {prompt}"
    writers = open_writers([chat_server.name, str(tiny_writer)], tmp_path / "answers.jsonl", None)
    answers = writers.ask(questions())
    local_ones = LocalChat(str(tiny_writer), tmp_path / "other.jsonl").ask(questions()[1::2])
    assert [one.text for one in answers[::2] if one] == [f"said of {prompt}" for prompt in PROMPTS[::2]]
    assert answers[1::2] == local_ones
    assert writers.tokens == sum(one.tokens for one in answers if one)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 4


def test_a_budget_is_shared_by_what_is_paid(tmp_path: Path):
    names = ["https://a.example/v1#m", "https://b.example/v1#m", "org/model"]
    writers: Writers = open_writers(names, tmp_path / "answers.jsonl", ServerSettings(budget_tokens=100))
    assert [one._settings.budget_tokens for one in writers._writers[:2]] == [50, 50]


def test_a_chat_template_stands_around_the_prompt(tiny_writer: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_writer, tmp_path / "writer"))
    said = "{% for one in messages %}[{{ one.role }}] {{ one.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(said + "{% if add_generation_prompt %} >{% endif %}")
    opened = open_causal(str(folder))
    assert opened.tokenizer.decode(opened.tokens_of("a cat")) == "[user] a cat >"


def test_an_encoder_writes_nothing(tiny_bert: Path):
    with pytest.raises(ModelError, match=r"cannot be opened to write text|no tensor"):
        open_causal(str(tiny_bert))


def test_a_decoder_without_its_head_is_refused(tiny_llama: Path):
    config = json.loads((tiny_llama / "config.json").read_text())
    assert not config.get("tie_word_embeddings")
    with pytest.raises(ModelError, match=r"no tensor 'lm_head\.weight'"):
        open_causal(str(tiny_llama))
