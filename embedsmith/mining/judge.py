"""A judge for mined negatives: a chat model reads each one, and what answers its query is excluded from then on.

MINED/judge/answers.jsonl     what was paid for, whatever was selected from MINED since
MINED/judge/verdicts.jsonl    what it said of each pair
RUN/judge.json                the share of false negatives of one run, as the last judge sees it

Source: Moreira et al., NV-Retriever, https://arxiv.org/abs/2407.15831, section 4.5; the prompt is ours.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from embedsmith.data.examples import Example, Passage, iter_examples
from embedsmith.data.files import remove_partials_of, write_json, write_jsonl
from embedsmith.data.locks import Lock, waiting
from embedsmith.errors import RunError
from embedsmith.generation.passages import beginning
from embedsmith.generation.settings import JudgeSettings
from embedsmith.generation.templates import Template, read_templates
from embedsmith.generation.verdicts import Verdict, verdict_of
from embedsmith.mining.verdicts import judge_folder, judgement_path, read_verdicts
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.origin import check_origin
from embedsmith.runs.run import finished, read_manifest
from embedsmith.services.chat import Chat, Question, ServerSettings
from embedsmith.services.endpoint import endpoint, key_for
from embedsmith.settings import fingerprint

_GIVEN = "given"
"""Stands in the place of a teacher where the data brought the negative along."""


@dataclass(frozen=True)
class Judged:
    """What a judge has said of one kind of pair."""

    asked: int
    yes: int
    no: int
    unclear: int
    """Neither yes nor no."""
    unanswered: int
    """No answer: the budget is spent, or the server would not take the question."""

    @property
    def share(self) -> float | None:
        """Share of yes among yes and no; None where there is neither."""
        return round(self.yes / (self.yes + self.no), 4) if self.yes + self.no else None


@dataclass(frozen=True)
class Judgement:
    """What a judge has said of a run."""

    judge: str
    prompt: str
    """Fingerprint of the prompt that it was asked with."""
    queries: int
    """Queries whose negatives were judged."""
    negatives: Judged
    """`share` is the share of false negatives."""
    first: Judged
    """Of them, each query's first."""
    positives: Judged
    """Known positives, of which a good judge says yes."""
    queries_with_false_negatives: int
    failures: list[str]
    """What the server said in the place of an answer."""
    tokens: int
    budget_spent: bool

    @property
    def cannot_tell(self) -> bool:
        """Whether the judge says yes to known positives hardly more often than to negatives."""
        positives, negatives = self.positives.share, self.negatives.share
        return positives is not None and negatives is not None and positives < negatives + 0.1


@dataclass(frozen=True)
class _Pair:
    """A query and a passage that may answer it."""

    query_id: str
    query: str
    passage_id: str
    passage: str


@draws_bars
def judge(
    run: str | Path,
    *,
    settings: JudgeSettings,
    server: ServerSettings | None = None,
    prompts: str | Path | None = None,
    on_progress: Progress = silent,
    progress: bool = True,
) -> Judgement:
    """Ask a chat model which mined negatives of a run answer their query after all.

    What it has said once, of this run or of another selection from the same candidates, is not asked again. `select`
    excludes from then on what any judge has said yes to.

    Args:
        run: a finished run of `mine` or `select`.
        settings: which judge, and what it is asked.
        server: how it is asked.
        prompts: a folder with a `judge.txt` in the place of ours.
        on_progress: called with the progress of the work, in place of bars.
        progress: draw bars, where there is a terminal or a notebook.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
        ConnectionError: the server cannot be reached, or is busy or failing for too long.
    """
    run = Path(run)
    _check(run)
    template = read_templates({"judge": ["query", "passage"]}, prompts)["judge"]
    where = endpoint(settings.url)
    key = key_for(where)
    examples = _drawn(list(iter_examples(run / "negatives.jsonl")), settings.queries, settings.seed)
    negatives = [_negatives(example) for example in examples]
    known = _drawn(examples, settings.positives, settings.seed)
    positives = [_pair(example, example.positives[0]) for example in known]
    pairs = list({(pair.query_id, pair.passage_id): pair for own in [*negatives, positives] for pair in own}.values())
    chat = Chat(where, judge_folder(run) / "answers.jsonl", key=key, settings=server)
    answers = chat.ask(
        [_question(template, pair, settings) for pair in pairs], what=f"ask {where.model}", on_progress=on_progress
    )
    verdicts: dict[tuple[str, str], Verdict] = {
        (pair.query_id, pair.passage_id): verdict_of(answer)
        for pair, answer in zip(pairs, answers, strict=True)
        if answer
    }
    judged = {(pair.query_id, pair.passage_id) for own in negatives for pair in own}
    _write(run, where.name, template, {pair: verdict for pair, verdict in verdicts.items() if pair in judged})
    found = Judgement(
        judge=where.name,
        prompt=fingerprint(template.text),
        queries=len(examples),
        negatives=_counted([pair for own in negatives for pair in own], verdicts),
        first=_counted([own[0] for own in negatives if own], verdicts),
        positives=_counted(positives, verdicts),
        queries_with_false_negatives=sum(
            any(verdicts.get((pair.query_id, pair.passage_id)) == "yes" for pair in own) for own in negatives
        ),
        failures=chat.failures[:10],
        tokens=chat.tokens,
        budget_spent=chat.is_spent,
    )
    write_json(judgement_path(run), plain(found))
    return found


def plain(found: Judgement) -> dict[str, object]:
    """Return a judgement as plain values, with its shares."""
    return {
        **asdict(found),
        "false_negative_share": found.negatives.share,
        "false_negative_share_of_first": found.first.share,
        "positives_confirmed": found.positives.share,
        "cannot_tell": found.cannot_tell,
    }


def _check(run: Path) -> None:
    """Refuse what is no finished run of `mine` or `select`."""
    manifest = read_manifest(run)
    if manifest["command"] not in ("mine", "select"):
        raise RunError(
            f"{run}: made by `{manifest['command']}`, wanted a run of `mine` or `select`",
            hint="mine first: embedsmith mine DATA --out RUN",
        )
    finished(run)
    check_origin(run)


def _drawn(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """Return some of the examples, drawn at random, in their order."""
    if count is None or count >= len(examples):
        return list(examples)
    return [examples[row] for row in sorted(random.Random(seed).sample(range(len(examples)), count))]


def _negatives(example: Example) -> list[_Pair]:
    """Return a query's mined negatives."""
    return [_pair(example, passage) for passage in example.negatives if passage.teacher != _GIVEN]


def _pair(example: Example, passage: Passage) -> _Pair:
    return _Pair(example.query_id, example.query, passage.id, passage.text)


def _question(template: Template, pair: _Pair, settings: JudgeSettings) -> Question:
    """Return what is asked about a pair."""
    values = {"query": pair.query, "passage": beginning(pair.passage, settings.passage_characters)}
    return Question(
        template.filled(values, random.Random(f"{settings.seed} {pair.query_id} {pair.passage_id}")),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
    )


def _counted(pairs: Sequence[_Pair], verdicts: dict[tuple[str, str], Verdict]) -> Judged:
    """Return how often each verdict was given."""
    counts = Counter(verdicts.get((pair.query_id, pair.passage_id), "unanswered") for pair in pairs)
    return Judged(len(pairs), counts["yes"], counts["no"], counts["unclear"], counts["unanswered"])


def _write(run: Path, judge: str, template: Template, verdicts: dict[tuple[str, str], Verdict]) -> None:
    """Add verdicts to those that are there; the same judge's word on the same pair replaces the earlier one."""
    prompt = fingerprint(template.text)
    path = judge_folder(run) / "verdicts.jsonl"
    # Another judge may be adding its own.
    with waiting(Lock.beside(path)):
        remove_partials_of(path)
        kept = {(row["judge"], row["prompt"], row["query_id"], row["passage_id"]): row for row in read_verdicts(run)}
        for (query_id, passage_id), verdict in verdicts.items():
            kept[judge, prompt, query_id, passage_id] = {
                "query_id": query_id,
                "passage_id": passage_id,
                "verdict": verdict,
                "judge": judge,
                "prompt": prompt,
            }
        write_jsonl(path, kept.values())
