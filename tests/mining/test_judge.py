"""A judge reads the negatives of a run; what it says of them is kept, and what answers its query is excluded."""

import json
from collections import Counter
from pathlib import Path

import pytest

from embedsmith.data.examples import read_examples
from embedsmith.errors import InputError, RunError
from embedsmith.generation.settings import JudgeSettings
from embedsmith.mining.exclusions import Fate
from embedsmith.mining.judge import judge
from embedsmith.mining.mine import mine
from embedsmith.mining.page import write_mining_report
from embedsmith.mining.select import read_mined, select_again
from embedsmith.mining.selection import select
from embedsmith.mining.settings import MiningSettings
from embedsmith.mining.verdicts import false_negatives, judge_folder, read_verdicts
from embedsmith.pages.page import percent
from embedsmith.services.chat import ServerSettings
from tests.vectors.test_store import in_processes

ANIMALS, PLACES = ["cat", "dog", "owl", "bat"], ["mat", "log", "tree"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"query": f"find the {a} of the {p}", "positive": f"the {a} on the {p}"} for a in ANIMALS for p in PLACES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mined(pairs: Path, tmp_path: Path) -> Path:
    settings = MiningSettings(teachers=["bm25"], method="naive", negatives=3)
    return mine(pairs, out=tmp_path / "mined", settings=settings).folder


def says_yes_to_owls(prompt: str) -> str:
    """Return the verdict of a judge who takes every owl for an answer, and the right passage too."""
    query, passage = prompt.split("\n")[0], prompt.split("\n")[2]
    right = query.split()[3] in passage and query.split()[6] in passage
    return "Yes." if "owl" in passage or right else "no"


def settings_for(server, **others) -> JudgeSettings:
    return JudgeSettings(url=server.name, **others)


def ids(run: Path) -> dict[str, list[str]]:
    return {row.query_id: [negative.id for negative in row.negatives] for row in read_examples(run / "negatives.jsonl")}


def test_the_share_of_false_negatives_is_the_judges(chat_server, mined):
    chat_server.say = says_yes_to_owls
    found = judge(mined, settings=settings_for(chat_server, positives=5))
    rows = read_examples(mined / "negatives.jsonl")
    owls = [["owl" in negative.text for negative in row.negatives] for row in rows]
    assert (found.negatives.asked, found.negatives.yes, found.negatives.unclear) == (36, sum(map(sum, owls)), 0)
    assert found.negatives.share == round(sum(map(sum, owls)) / 36, 4)
    assert found.first.share == round(sum(row[0] for row in owls) / 12, 4)
    assert found.queries_with_false_negatives == sum(map(any, owls))
    assert (found.positives.asked, found.positives.share, found.cannot_tell) == (5, 1.0, False)
    assert json.loads((mined / "judge.json").read_text())["false_negative_share"] == found.negatives.share


def test_what_the_judge_says_answers_is_excluded_from_then_on(chat_server, mined, tmp_path):
    chat_server.say = says_yes_to_owls
    before = ids(mined)
    judge(mined, settings=settings_for(chat_server))
    excluded = false_negatives(mined)
    assert excluded
    run = select_again(mined, out=tmp_path / "after")
    after = ids(run.folder)
    for query, passage in excluded:
        assert passage in before[query]
        assert passage not in after[query]
    assert run.manifest["counts"]["mining"]["excluded_by_judge"] == len(excluded)
    assert ids(mined) == before
    # Others take their places, and they are judged with what is known already.
    asked = len(chat_server.requests)
    new = {(query, passage) for query, own in after.items() for passage in own if passage not in before[query]}
    again = judge(run.folder, settings=settings_for(chat_server, positives=0))
    assert len(chat_server.requests) == asked + len(new)
    assert again.negatives.asked == 36
    assert judge_folder(run.folder) == mined / "judge"


def test_the_report_of_a_selection_knows_the_verdicts_that_it_was_made_with(chat_server, mined, tmp_path):
    chat_server.say = says_yes_to_owls
    without = select_again(mined, out=tmp_path / "without").folder
    judge(mined, settings=settings_for(chat_server))
    after = select_again(mined, out=tmp_path / "after").folder
    for run in (mined, without, after):
        one = read_mined(run)
        selection = select(one.candidates, one.settings, listed=one.excluded(one.settings))
        taken = [[one.collection.passage_ids[row] for row in rows if row >= 0] for rows in selection.rows.tolist()]
        assert taken == list(ids(run).values())
        assert (Fate.JUDGED in selection.fates) == (run == after)
    assert "answers the query, as a judge has said" in write_mining_report(after)[0].read_text()


def test_the_page_of_a_run_shows_what_the_judge_said(chat_server, mined):
    before, numbers = write_mining_report(mined)
    assert numbers["judge"] is None
    assert "Does the passage answer the query?" not in before.read_text()
    chat_server.say = says_yes_to_owls
    found = judge(mined, settings=settings_for(chat_server))
    path, numbers = write_mining_report(mined)
    assert numbers["judge"]["false_negative_share"] == found.negatives.share
    page = path.read_text()
    section = page[page.index('<h2 id="judge">') : page.index('<h2 id="suspects">')]
    for kind in (found.negatives, found.first, found.positives):
        row = f'<td class="n">{kind.yes}</td><td class="n">{kind.no}</td><td class="n">0</td><td class="n">0</td>'
        assert f'<td class="n">{percent(kind.share)}</td>{row}' in section
    # Each query once, with a passage that the judge said yes to and no other.
    queries = [query for query, own in ids(mined).items() if any((query, one) in false_negatives(mined) for one in own)]
    assert section.count("<h4>Negative") == min(len(queries), 10)
    assert section.count("the owl on the") >= section.count("<h4>Negative")
    assert f"The judge takes {percent(found.negatives.share)} of the negatives for answers" in page
    # Another selection has not been judged.
    assert write_mining_report(select_again(mined, out=mined.parent / "after").folder)[1]["judge"] is None


def test_the_page_warns_of_a_judge_who_cannot_tell(chat_server, mined):
    chat_server.say = lambda prompt: "Yes, it does."
    judge(mined, settings=settings_for(chat_server))
    assert "its word says little" in write_mining_report(mined)[0].read_text()


def test_a_copy_of_what_answers_is_excluded_too_and_nothing_random_takes_its_place(chat_server, tmp_path):
    data = tmp_path / "beir"
    (data / "qrels").mkdir(parents=True)
    corpus = {"d1": "a cat", "d2": "the owl", "d3": "THE  owl", "d4": "a dog"}
    rows = "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in corpus.items())
    (data / "corpus.jsonl").write_text(rows)
    (data / "queries.jsonl").write_text('{"_id": "q", "text": "find the cat of the mat"}\n')
    (data / "qrels" / "train.tsv").write_text("q\td1\t1\n")
    settings = MiningSettings(teachers=["random"], method="naive", negatives=3, short="random")
    run = mine(data, out=tmp_path / "mined", settings=settings).folder
    assert len(set(ids(run)["q"]) & {"d2", "d3"}) == 1
    chat_server.say = lambda prompt: "yes" if "owl" in prompt.casefold() else "no"
    judge(run, settings=settings_for(chat_server))
    assert ids(select_again(run, out=tmp_path / "after").folder) == {"q": ["d4"]}


def test_a_verdict_is_paid_for_once_whatever_cut_the_judging_short(chat_server, mined):
    chat_server.say = says_yes_to_owls
    cut = judge(mined, settings=settings_for(chat_server, positives=0), server=ServerSettings(budget_tokens=1500))
    assert cut.budget_spent
    assert 0 < cut.negatives.unanswered < 36
    assert cut.tokens <= 1500
    whole = judge(mined, settings=settings_for(chat_server, positives=0))
    assert (whole.negatives.unanswered, len(chat_server.requests)) == (0, 36)
    assert judge(mined, settings=settings_for(chat_server, positives=0)) == whole
    assert len(chat_server.requests) == 36


def test_another_judge_is_asked_anew_and_what_either_says_counts(chat_server, mined):
    chat_server.say = says_yes_to_owls
    judge(mined, settings=settings_for(chat_server))
    owls = false_negatives(mined)
    chat_server.say = lambda prompt: "yes" if "bat" in prompt.split("\n")[2] else "no"
    other = JudgeSettings(url=chat_server.name.replace("toy", "other"))
    judge(mined, settings=other)
    assert set(owls) < set(false_negatives(mined))


def test_a_judge_who_says_yes_to_everything_is_told(chat_server, mined):
    chat_server.say = lambda prompt: "Yes, it does."
    assert judge(mined, settings=settings_for(chat_server)).cannot_tell


def test_answers_that_are_no_verdict_exclude_nothing(chat_server, mined):
    chat_server.say = lambda prompt: "As a language model"
    found = judge(mined, settings=settings_for(chat_server))
    assert (found.negatives.unclear, found.negatives.share) == (36, None)
    assert false_negatives(mined) == []


def test_some_queries_are_judged_the_same_ones_each_time(chat_server, mined):
    found = judge(mined, settings=settings_for(chat_server, queries=4, positives=0))
    assert (found.queries, found.negatives.asked) == (4, 12)
    judge(mined, settings=settings_for(chat_server, queries=4, positives=0))
    assert len(chat_server.requests) == 12


def test_what_is_no_mining_run_is_refused(chat_server, tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        judge(tmp_path / "none", settings=settings_for(chat_server))


def test_a_prompt_without_the_passage_is_refused_before_anything_is_asked(chat_server, mined, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "judge.txt").write_text("{{query}}?")
    with pytest.raises(InputError, match=r"judge\.txt: no {{passage}}"):
        judge(mined, settings=settings_for(chat_server), prompts=prompts)
    assert chat_server.requests == []


def test_two_judges_of_one_run_at_the_same_time_keep_the_verdicts_of_both(chat_server, mined):
    chat_server.say, chat_server.delay_s = says_yes_to_owls, 0.002
    names = [chat_server.name, chat_server.name.replace("toy/model", "toy/other"), chat_server.name]
    asks = [lambda name=name: judge(mined, settings=JudgeSettings(url=name)) for name in names]
    assert in_processes(*asks) == [0, 0, 0]
    rows = read_verdicts(mined)
    pairs = {(row["query_id"], row["passage_id"]) for row in rows}
    keys = [(row["judge"], row["query_id"], row["passage_id"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * len(pairs)
    # The third asks what the first one asks, and pays for nothing.
    asked = Counter((body["model"], body["messages"][0]["content"]) for *_, body in chat_server.requests)
    assert set(asked.values()) == {1}
    assert not list((mined / "judge").glob(".*"))
