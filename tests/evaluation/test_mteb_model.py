"""What stands before a text of mteb's tasks, and what mteb keeps of our models."""

import json
from pathlib import Path

import pytest

from embedsmith.data.labelled import Labelled
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel, load
from embedsmith.pipeline.contender import Contender
from embedsmith.pipeline.evaluate import evaluate_into, score_benchmark
from embedsmith.pipeline.runs import read_manifest
from embedsmith.teachers.settings import TeacherSettings

mteb = pytest.importorskip("mteb")

from embedsmith.evaluation import benchmarks  # noqa: E402
from embedsmith.evaluation.local_tasks import task_of_labelled  # noqa: E402
from embedsmith.evaluation.mteb_model import prompt_for, prompted  # noqa: E402

QUERY, DOCUMENT = mteb.types.PromptType.query, mteb.types.PromptType.document
TEMPLATE = "Instruct: {instruction}\nQuery: "
OWN = {"query": "Instruct: Find code\nQuery: ", "document": ""}
CLAIM = "Given a claim, find documents that refute the claim"


@pytest.mark.parametrize(
    ("task", "side", "prompts", "template", "wanted"),
    [
        # A model without instructions: its own prompts for queries and documents, nothing before other texts.
        ("ArguAna", QUERY, {"query": "query: ", "document": "passage: "}, None, "query: "),
        ("ArguAna", DOCUMENT, {"query": "query: ", "document": "passage: "}, None, "passage: "),
        ("STSBenchmark", None, {"query": "query: ", "document": "passage: "}, None, ""),
        # Its own prompt for a task or a type of task comes first.
        ("STSBenchmark", None, {"STS": "same: "}, None, "same: "),
        ("STSBenchmark", None, {"STS": "same: ", "STSBenchmark": "b: "}, TEMPLATE, "b: "),
        # A model with instructions: the task's, on all but documents.
        ("ArguAna", QUERY, OWN, TEMPLATE, f"Instruct: {CLAIM}\nQuery: "),
        ("ArguAna", DOCUMENT, OWN, TEMPLATE, ""),
        (
            "Banking77Classification",
            None,
            OWN,
            TEMPLATE,
            "Instruct: Given a online banking query, find the corresponding intents\nQuery: ",
        ),
        # A task without one has that of its type, but for retrieval what the model was trained with.
        ("STSBenchmark", None, OWN, TEMPLATE, "Instruct: Retrieve semantically similar text.\nQuery: "),
        ("CQADupstackGamingRetrieval.v2", QUERY, OWN, TEMPLATE, None),
    ],
)
def test_the_prompt_follows_the_model_and_the_task(task, side, prompts, template, wanted):
    if wanted is None:
        data = Labelled("x", "reranking", "test", {"query": ["a"], "positive": [["b"]], "negative": [["c"]]}, {}, 0)
        assert prompt_for(task_of_labelled(data).metadata, side, prompts, template) == OWN["query"]
    else:
        assert prompt_for(mteb.get_task(task).metadata, side, prompts, template) == wanted


def sts() -> Labelled:
    rows = {"sentence1": ["a cat", "the dog", "red apple"], "sentence2": ["the cat", "a file", "green pear"]}
    return Labelled("TinySts", "sts", "test", {**rows, "score": [3.0, 1.0, 2.0]}, {}, 0)


def contender(model: Path, folder: Path, **reading) -> Contender:
    return Contender(str(model), reading=TeacherSettings(dtype="float32", **reading), vectors=folder / "vectors")


@pytest.fixture
def local_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of one task that is on this machine."""
    monkeypatch.setattr(benchmarks, "tasks_named", lambda name: [task_of_labelled(sts())])


@pytest.fixture
def prompts_seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompt of every call that encodes texts."""
    seen: list[str] = []
    embed_each = EmbeddingModel.embed_each

    def noted(self, lists, role, **keywords):
        seen.append(self.prompt_of(role))
        return embed_each(self, lists, role, **keywords)

    monkeypatch.setattr(EmbeddingModel, "embed_each", noted)
    return seen


def test_results_lie_in_mtebs_own_form_under_a_revision_of_the_models(local_benchmark, tiny_bert, tmp_path):
    found = score_benchmark(contender(tiny_bert, tmp_path), "any", cache=tmp_path / "mteb")
    other = score_benchmark(contender(tiny_bert, tmp_path, max_tokens=3), "any", cache=tmp_path / "mteb")
    files = sorted((tmp_path / "mteb" / "results").glob("embedsmith__*/*/TinySts.json"))
    # Two models of one name do not share a result.
    assert len(files) == 2
    results = [mteb.results.TaskResult.from_disk(path) for path in files]
    scores = {round(each["scores"]["TinySts"]["cosine_spearman"], 4) for each in (found, other)}
    assert {round(result.get_score(), 4) for result in results} == scores
    assert found["data"]["TinySts"]["task"] == "STS"
    main = found["scores"]["TinySts"]["cosine_spearman"]
    assert found["means"] == {"tasks": main, "types": main, "STS": main}


def test_a_benchmark_that_was_scored_is_not_scored_again(local_benchmark, tiny_bert, tmp_path, monkeypatch):
    first = score_benchmark(contender(tiny_bert, tmp_path), "any", cache=tmp_path / "mteb")

    def forbidden(*args, **keywords):
        raise AssertionError("scored again")

    monkeypatch.setattr(mteb.abstasks.AbsTaskSTS, "evaluate", forbidden)
    assert score_benchmark(contender(tiny_bert, tmp_path), "any", cache=tmp_path / "mteb") == first


def test_a_model_with_instructions_reads_those_of_mteb(local_benchmark, tiny_llama, tmp_path, prompts_seen):
    model = load(str(tiny_llama))
    model.set_prompt("query", OWN["query"])
    instructed = Contender(str(tiny_llama), vectors=tmp_path, encoder=model)
    score_benchmark(instructed, "any", cache=tmp_path / "mteb")
    assert set(prompts_seen) == {"Instruct: Retrieve semantically similar text.\nQuery: "}
    assert model.prompts["query"] == OWN["query"]
    prompts_seen.clear()
    score_benchmark(instructed, "any", template="{instruction} ", cache=tmp_path / "mteb")
    assert set(prompts_seen) == {"Retrieve semantically similar text. "}


def test_a_benchmark_is_written_beside_data(local_benchmark, tiny_bert, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "the cat", "positive": "a cat"}\n{"query": "the dog", "positive": "a dog"}\n')
    out = tmp_path / "out"
    evaluate_into(out, contender(tiny_bert, tmp_path), [str(pairs)], ScoringSettings(), benchmark="any")
    found = json.loads((out / "scores.json").read_text())
    assert list(found["scores"]) == [str(pairs), "TinySts"]
    assert found["means"].keys() == {"tasks", "types", "STS"}
    assert list(out.glob("mteb/results/*/*/TinySts.json"))
    assert read_manifest(out)["status"] == "finished"


def test_prompts_are_put_back_when_something_fails(tiny_bert):
    model = load(str(tiny_bert))
    before = dict(model.prompts)
    with pytest.raises(KeyboardInterrupt), prompted(model, query="a: ", passage="b: "):
        assert (model.prompt_of("query"), model.prompt_of("passage")) == ("a: ", "b: ")
        raise KeyboardInterrupt
    assert model.prompts == before


def test_names_of_mteb_are_found_and_others_refused_with_the_nearest():
    assert [task.metadata.name for task in benchmarks.tasks_named("SciFact")] == ["SciFact"]
    assert len(benchmarks.tasks_named("MTEB(eng, v2)")) == 41
    with pytest.raises(InputError, match=r'no benchmark or task "SciFac" \(did you mean "SciFact"\?\)'):
        benchmarks.tasks_named("SciFac")
    with pytest.raises(InputError, match=r'"MTEB\(eng, v3\)" \(did you mean "MTEB\(eng, v2\)"\?\)'):
        benchmarks.tasks_named("MTEB(eng, v3)")


def test_without_a_network_one_line_says_so(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.constants, "ENDPOINT", "http://localhost:9")
    with pytest.raises(OSError, match="STSBenchmark: its data is not here, and the hub gives none: Couldn't reach"):
        score_benchmark(contender(tiny_bert, tmp_path), "STSBenchmark", cache=tmp_path / "mteb")


def test_a_template_without_a_place_for_the_instruction_is_refused(tiny_bert, tmp_path):
    with pytest.raises(SettingsError, match=r"template: 'query: ' has no \{instruction\} in it"):
        contender(tiny_bert, tmp_path).mteb_model("query: ")
    (tmp_path / "run.trec").write_text("q Q0 d 1 1 x\n")
    with pytest.raises(SettingsError, match=r"run\.trec: a run file holds no model for SciFact"):
        score_benchmark(Contender(str(tmp_path / "run.trec")), "SciFact")
