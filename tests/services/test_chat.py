"""The chat client against a real server on this machine, which is busy, broken, wrong or expensive."""

import json
import os
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from embedsmith.errors import InputError, ModelError
from embedsmith.services.chat import Answer, Chat, Question, ServerSettings
from embedsmith.services.endpoint import endpoint
from embedsmith.services.requests import Failing, Refused
from tests import forks
from tests.servers import ChatServer

KEY = "sk-never-to-be-seen"
QUESTIONS = [Question(f"question {number}", max_tokens=10) for number in range(20)]


def chat(server: ChatServer, folder: Path, *, key: str | None = None, **settings) -> Chat:
    settings = ServerSettings(**{"concurrency": 3, "retries": 1, **settings})
    return Chat(endpoint(server.name), folder / "answers.jsonl", key=key, settings=settings)


def said(answers: list[Answer | None]) -> list[str | None]:
    return [answer and answer.text for answer in answers]


def test_answers_come_in_the_order_of_the_questions(chat_server, tmp_path):
    asked = chat(chat_server, tmp_path)
    answers = asked.ask(QUESTIONS)
    assert said(answers) == [f"you said: question {number}" for number in range(20)]
    assert answers[0] == Answer("you said: question 0", cut_off=False, prompt_tokens=2, answer_tokens=4)
    assert (asked.tokens, asked.failures, asked.is_spent) == (120, [], False)
    _, path, headers, body = chat_server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "toy/model",
        "messages": [{"role": "user", "content": "question 0"}],
        "max_tokens": 10,
        "temperature": 0.0,
        "seed": 0,
    }
    assert "Authorization" not in headers


def test_questions_run_at_once_but_the_first_alone_and_not_more_than_allowed(chat_server, tmp_path):
    chat_server.delay_s = 0.02
    chat(chat_server, tmp_path).ask(QUESTIONS)
    assert chat_server.most_at_once == 3
    times = [when for when, *_ in chat_server.requests]
    assert times[1] - times[0] >= 0.02


def test_no_answer_is_paid_for_twice(chat_server, tmp_path):
    chat(chat_server, tmp_path).ask([*QUESTIONS[:5], QUESTIONS[0]])
    assert len(chat_server.requests) == 5
    again = chat(chat_server, tmp_path)
    assert None not in again.ask(QUESTIONS)
    assert sorted(chat_server.prompts) == sorted(question.prompt for question in QUESTIONS)
    assert again.tokens == 120  # what the first attempt paid counts


@pytest.mark.parametrize(
    "other",
    [
        Question("question 0", max_tokens=11),
        Question("question 0", max_tokens=10, temperature=1.0),
        Question("question 0", max_tokens=10, seed=1),
        Question("question 0 ", max_tokens=10),
    ],
)
def test_a_question_that_differs_in_anything_is_another_question(chat_server, tmp_path, other):
    chat(chat_server, tmp_path).ask([QUESTIONS[0]])
    chat(chat_server, tmp_path).ask([other])
    assert len(chat_server.requests) == 2


def test_an_answer_of_another_model_is_not_used(chat_server, tmp_path):
    chat(chat_server, tmp_path).ask(QUESTIONS[:1])
    other = endpoint(chat_server.name.replace("toy", "other"))
    Chat(other, tmp_path / "answers.jsonl").ask(QUESTIONS[:1])
    assert len(chat_server.requests) == 2


def test_the_budget_is_not_exceeded_and_a_larger_one_goes_on(chat_server, tmp_path):
    # A question costs 6 tokens, and may cost 10 + 64 + the bytes of the prompt.
    asked = chat(chat_server, tmp_path, budget_tokens=120)
    answers = asked.ask(QUESTIONS)
    assert asked.is_spent
    assert asked.tokens <= 120
    assert said(answers[:6]) == [f"you said: question {number}" for number in range(6)]
    assert answers[8:] == [None] * 12
    paid = len(chat_server.requests)
    assert paid * 6 == asked.tokens
    assert said(chat(chat_server, tmp_path, budget_tokens=120).ask(QUESTIONS)) == said(answers)
    assert len(chat_server.requests) == paid
    rest = chat(chat_server, tmp_path, budget_tokens=1000)
    assert None not in rest.ask(QUESTIONS)
    assert (rest.is_spent, rest.tokens, len(chat_server.requests)) == (False, 120, 20)


def test_a_budget_for_nothing_asks_nothing(chat_server, tmp_path):
    asked = chat(chat_server, tmp_path, budget_tokens=80)
    assert asked.ask(QUESTIONS) == [None] * 20
    assert (asked.is_spent, asked.tokens, chat_server.requests) == (True, 0, [])


def test_tokens_are_estimated_where_the_server_does_not_count(chat_server, tmp_path):
    chat_server.first = [(200, {}, json.dumps({"choices": [{"message": {"content": "12345678"}}]}))]
    assert chat(chat_server, tmp_path).ask(QUESTIONS[:1]) == [Answer("12345678", False, 3, 3)]


def test_an_answer_that_was_cut_off_says_so(chat_server, tmp_path):
    chat_server.finish_reason = "length"
    [answer] = chat(chat_server, tmp_path).ask(QUESTIONS[:1])
    assert answer is not None
    assert answer.cut_off


def test_an_answer_without_content_is_an_empty_one(chat_server, tmp_path):
    chat_server.say = lambda prompt: None
    assert said(chat(chat_server, tmp_path).ask(QUESTIONS[:1])) == [""]


def test_half_of_a_surrogate_pair_is_replaced(chat_server, tmp_path):
    chat_server.say = lambda prompt: "a \ud83d"
    assert said(chat(chat_server, tmp_path).ask(QUESTIONS[:1])) == ["a ?"]
    assert said(chat(chat_server, tmp_path).ask(QUESTIONS[:1])) == ["a ?"]


def test_a_busy_server_is_not_asked_again_before_it_said(chat_server, tmp_path):
    chat_server.first = [(429, {"Retry-After": "1"}, "slow down")]
    assert None not in chat(chat_server, tmp_path).ask(QUESTIONS[:3])
    assert chat_server.requests[1][0] - chat_server.requests[0][0] >= 1


def test_a_server_that_stays_busy_ends_the_work_and_what_was_answered_is_kept(chat_server, tmp_path):
    chat(chat_server, tmp_path).ask(QUESTIONS[:4])
    chat_server.first = [(429, {}, "quota")] * 20
    with pytest.raises(Failing, match=r"#toy/model: HTTP 429, after 2 attempts"):
        chat(chat_server, tmp_path).ask(QUESTIONS)
    chat_server.first = []
    before = len(chat_server.requests)
    assert None not in chat(chat_server, tmp_path).ask(QUESTIONS)
    assert len(chat_server.requests) == before + 16


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "HTTP 400: context of 2,048 tokens exceeded"), (500, "HTTP 500, after 1 attempts")],
)
def test_a_question_that_the_server_cannot_take_is_left_out_and_told(chat_server, tmp_path, status, message):
    chat(chat_server, tmp_path).ask(QUESTIONS[:1])
    chat_server.first = [(status, {}, "context of 2,048 tokens exceeded")] * 2
    asked = chat(chat_server, tmp_path, concurrency=1, retries=0)
    answers = asked.ask(QUESTIONS[:5])
    assert [answer is None for answer in answers] == [False, True, True, False, False]
    assert [message in failure for failure in asked.failures] == [True, True]


def test_a_server_that_takes_no_question_at_all_is_an_error_after_three(chat_server, tmp_path):
    chat_server.first = [(400, {}, "no such thing")] * 9
    with pytest.raises(Refused, match="HTTP 400: no such thing"):
        chat(chat_server, tmp_path).ask(QUESTIONS)
    assert len(chat_server.requests) == 3


def test_a_server_that_takes_no_more_questions_is_an_error(chat_server, tmp_path):
    chat(chat_server, tmp_path).ask(QUESTIONS[:1])
    chat_server.first = [(500, {}, "")] * 99
    many = [Question(f"another {number}", max_tokens=10) for number in range(40)]
    with pytest.raises(Failing, match="HTTP 500, after 1 attempts"):
        chat(chat_server, tmp_path, retries=0).ask([*QUESTIONS[:1], *many])
    assert 20 <= len(chat_server.requests) - 1 <= 23


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_one_failed_request(chat_server, tmp_path, status):
    chat_server.first = [(status, {}, f"{KEY} is no key")] * 9
    with pytest.raises(Refused, match=f"HTTP {status}: … is no key") as caught:
        chat(chat_server, tmp_path, key=KEY).ask(QUESTIONS)
    assert len(chat_server.requests) == 1
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_key_is_sent_and_written_nowhere(chat_server, tmp_path):
    chat(chat_server, tmp_path, key=KEY).ask(QUESTIONS)
    assert {headers["Authorization"] for _, _, headers, _ in chat_server.requests} == {f"Bearer {KEY}"}
    assert KEY not in (tmp_path / "answers.jsonl").read_text()


@pytest.mark.parametrize(
    "body", ["<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}']
)
def test_what_is_no_chat_answer_is_refused_when_it_comes_again_and_again(chat_server, tmp_path, body):
    chat_server.first = [(200, {}, body)] * 3
    with pytest.raises(ModelError, match="not a chat answer"):
        chat(chat_server, tmp_path).ask(QUESTIONS)
    assert len(chat_server.requests) == 3
    chat_server.first = [(200, {}, body)] * 2
    asked = chat(chat_server, tmp_path, concurrency=1)
    assert said(asked.ask(QUESTIONS[:3])) == [None, None, "you said: question 2"]
    assert len(asked.failures) == 2


def test_a_server_that_does_not_answer_in_time_is_an_error(chat_server, tmp_path):
    chat_server.delay_s = 0.5
    with pytest.raises(Failing, match="cannot be reached: timed out"):
        chat(chat_server, tmp_path, timeout_s=0.1).ask(QUESTIONS)


def test_a_server_that_is_slow_once_is_asked_again(chat_server, tmp_path):
    chat(chat_server, tmp_path).ask(QUESTIONS[:1])
    slow = [0.6]
    chat_server.say = lambda prompt: time.sleep(slow.pop() if slow else 0) or "yes"
    assert None not in chat(chat_server, tmp_path, timeout_s=0.3, concurrency=2).ask(QUESTIONS[:3])


def test_a_host_that_cannot_be_reached_is_an_error_at_once(tmp_path):
    with ChatServer() as server:
        name = server.name
    with pytest.raises(Failing, match=r"toy/model: cannot be reached: .*refused"):
        Chat(endpoint(name), tmp_path / "answers.jsonl").ask(QUESTIONS)


def test_a_damaged_journal_is_an_error(chat_server, tmp_path):
    (tmp_path / "answers.jsonl").write_text("what?\n")
    with pytest.raises(InputError, match=r"answers\.jsonl:1: a damaged line"):
        chat(chat_server, tmp_path)


ASK = """
import os, signal, sys
from pathlib import Path
from embedsmith.services import journal
from embedsmith.services.chat import Chat, Question, ServerSettings
from embedsmith.services.endpoint import endpoint

name, path, concurrency, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sync = os.fsync

def counted(file):
    # SIGKILL when an answer has just been written.
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)

journal.os.fsync = counted
chat = Chat(endpoint(name), path, settings=ServerSettings(concurrency=concurrency))
assert None not in chat.ask([Question(f"question {number}", max_tokens=10) for number in range(20)])
"""


@pytest.mark.parametrize(("concurrency", "killed_at"), [(1, 4), (4, 6)])
def test_a_killed_process_pays_again_only_for_what_was_under_way(chat_server, tmp_path, concurrency, killed_at):
    chat_server.delay_s = 0.005
    words = [chat_server.name, tmp_path / "answers.jsonl", concurrency, killed_at]
    done = forks.run(ASK, *words)
    assert done.returncode == -signal.SIGKILL
    assert None not in chat(chat_server, tmp_path).ask(QUESTIONS)
    asked = Counter(chat_server.prompts)
    assert len(asked) == 20
    # What a kill finds under way beside the answer that was just written is asked again.
    assert sum(asked.values()) - 20 <= concurrency - 1
    before = len(chat_server.requests)
    assert None not in chat(chat_server, tmp_path).ask(QUESTIONS)
    assert len(chat_server.requests) == before


def test_a_full_disk_ends_the_work_and_leaves_no_half_line(chat_server, tmp_path, monkeypatch):
    def full(file: int) -> None:
        raise OSError(28, os.strerror(28))

    chat(chat_server, tmp_path).ask(QUESTIONS[:2])
    with monkeypatch.context() as patched:
        patched.setattr("embedsmith.services.journal.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            chat(chat_server, tmp_path).ask(QUESTIONS)
    assert None not in chat(chat_server, tmp_path).ask(QUESTIONS)
