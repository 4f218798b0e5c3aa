"""What stands before a text of mteb's tasks, and what mteb keeps of our models."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest

from embedsmith.data.labelled import Labelled
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.contender import Contender
from embedsmith.evaluation.evaluate import evaluate_into, score_benchmark
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import load
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import read_scores
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


def sts(name: str = "TinySts", scores: tuple[float, ...] = (3.0, 1.0, 2.0)) -> Labelled:
    rows = {"sentence1": ["a cat", "the dog", "red apple"], "sentence2": ["the cat", "a file", "green pear"]}
    return Labelled(name, "sts", "test", {**rows, "score": list(scores)}, {}, 0)


NAME = f"TinySts-{sts().content_hash()}"


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
    files = sorted((tmp_path / "mteb" / "results").glob(f"embedsmith__*/*/{NAME}.json"))
    # Two models of one name do not share a result.
    assert len(files) == 2
    results = [mteb.results.TaskResult.from_disk(path) for path in files]
    scores = {round(each["scores"][NAME]["cosine_spearman"], 4) for each in (found, other)}
    assert {round(result.get_score(), 4) for result in results} == scores
    assert found["data"][NAME]["task"] == "STS"
    main = found["scores"][NAME]["cosine_spearman"]
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
    board = read_scores(out)
    assert list(board.scores) == [str(pairs), NAME]
    assert board.data[NAME].task == "STS"
    assert board.means["model"].keys() == {"tasks", "types", "STS"}
    assert list(out.glob(f"mteb/results/*/*/{NAME}.json"))
    assert read_manifest(out)["status"] == "finished"


def test_prompts_are_put_back_when_something_fails(tiny_bert):
    model = load(str(tiny_bert))
    before = dict(model.prompts)
    with pytest.raises(KeyboardInterrupt), prompted(model, query="a: ", passage="b: "):
        assert (model.prompt_of("query"), model.prompt_of("passage")) == ("a: ", "b: ")
        raise KeyboardInterrupt
    assert model.prompts == before


@pytest.mark.slow
def test_names_of_mteb_are_found_and_others_refused_with_the_nearest():
    assert [task.metadata.name for task in benchmarks.tasks_named("SciFact")] == ["SciFact"]
    assert len(benchmarks.tasks_named("MTEB(eng, v2)")) == 41
    with pytest.raises(InputError, match=r'no benchmark or task "SciFac" \(did you mean "SciFact"\?\)'):
        benchmarks.tasks_named("SciFac")
    with pytest.raises(InputError, match=r'"MTEB\(eng, v3\)" \(did you mean "MTEB\(eng, v2\)"\?\)'):
        benchmarks.tasks_named("MTEB(eng, v3)")


def test_without_a_network_one_line_says_so(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://localhost:9")
    with pytest.raises(OSError, match="STSBenchmark: its data is not here, and the hub gives none: Couldn't reach"):
        score_benchmark(contender(tiny_bert, tmp_path), "STSBenchmark", cache=tmp_path / "mteb")


def test_a_template_without_a_place_for_the_instruction_is_refused(tiny_bert, tmp_path):
    with pytest.raises(SettingsError, match=r"template: 'query: ' has no \{instruction\} in it"):
        contender(tiny_bert, tmp_path).mteb_model("query: ")
    (tmp_path / "run.trec").write_text("q Q0 d 1 1 x\n")
    with pytest.raises(SettingsError, match=r"run\.trec: a run file holds no model for SciFact"):
        score_benchmark(Contender(str(tmp_path / "run.trec")), "SciFact")


def found_by_mteb(model, task, folder: Path) -> float:
    """Return the score that mteb itself gives a model, with its cache in a folder."""
    cache = mteb.ResultCache(folder)
    found = mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)
    return round(found.task_results[0].get_score(), 5)  # its files have six digits


def test_mteb_keeps_data_sets_of_one_name_apart(tiny_bert, tmp_path):
    model = load(str(tiny_bert))
    tasks = [task_of_labelled(sts(scores=scores)) for scores in ((3.0, 1.0, 2.0), (1.0, 3.0, 2.0))]
    apart = [found_by_mteb(model, task, tmp_path / str(place)) for place, task in enumerate(tasks)]
    assert apart[0] != apart[1]
    assert [found_by_mteb(model, task, tmp_path / "shared") for task in [*tasks, *tasks]] == [*apart, *apart]
    assert len(list((tmp_path / "shared").rglob("TinySts-*.json"))) == 2


@pytest.mark.parametrize("name", ["SciFact", "STSBenchmark"])
def test_data_with_the_name_of_a_task_of_mteb_is_not_taken_for_it(name):
    assert task_of_labelled(sts(name)).metadata.name not in {name, mteb.get_task(name).metadata.name}


MODEL_CHANGES = {
    "another model": lambda model: model[0].model.embeddings.word_embeddings.weight.data.neg_(),
    "prompt": lambda model: model.prompts.update({"STS": "the red apple "}),
    "length": lambda model: model.set_max_tokens(query=3, passage=3),
    "dimensions": lambda model: setattr(model, "truncate_dim", 2),
    "pooling": lambda model: setattr(model[1], "pooling_mode", "cls"),
    "configuration": lambda model: setattr(model.backbone.encoder.layer[0].output.LayerNorm, "eps", 100.0),
}


@pytest.mark.parametrize("change", MODEL_CHANGES)
def test_mteb_keeps_loaded_models_apart(change, tiny_bert, tmp_path):
    rows = {"sentence1": [f"the {a} on the {b}" for a in ("cat", "dog", "log", "mat") for b in ("list", "file", "log")]}
    rows["sentence2"] = [f"{text} and a reader of numbers"[place:] for place, text in enumerate(rows["sentence1"])]
    data = Labelled("Wide", "sts", "test", {**rows, "score": [float(n * 7 % 12) for n in range(12)]}, {}, 0)
    task = task_of_labelled(data)
    model = load(str(tiny_bert))
    right = found_by_mteb(model, task, tmp_path / "shared")
    MODEL_CHANGES[change](model)
    alone = found_by_mteb(model, task, tmp_path / "alone")
    assert alone != right
    assert found_by_mteb(model, task, tmp_path / "shared") == alone
    assert found_by_mteb(load(str(tiny_bert)), task, tmp_path / "shared") == right


def test_a_model_in_another_folder_shares_what_mteb_keeps_of_it(tiny_bert, tmp_path, monkeypatch):
    place = tmp_path / "elsewhere" / tiny_bert.name
    shutil.copytree(tiny_bert, place)
    task = task_of_labelled(sts())
    first = found_by_mteb(load(str(tiny_bert)), task, tmp_path / "mteb")

    def forbidden(*args, **keywords):
        raise AssertionError("scored again")

    monkeypatch.setattr(mteb.abstasks.AbsTaskSTS, "evaluate", forbidden)
    assert found_by_mteb(load(str(place)), task, tmp_path / "mteb") == first


def test_a_loaded_models_name_is_in_mtebs_form_and_leaves_the_written_card_as_it_is(tiny_bert, tmp_path):
    model = load(str(tiny_bert))
    card = model.model_card_data
    assert card.model_name == f"embedsmith/{tiny_bert.name}"
    before = card.base_model_revision
    model.save(str(tmp_path / "model"))
    title = next(line for line in (tmp_path / "model" / "README.md").read_text().splitlines() if line.startswith("# "))
    assert title == "# EmbeddingModel"
    assert before not in (tmp_path / "model" / "README.md").read_text()
    assert (card.model_name, card.base_model_revision) == ("embedsmith/model", before)
    card.model_name = "me/mine"
    assert card.model_name == "me/mine"


def test_a_local_data_set_has_the_prompt_that_a_model_has_for_its_name():
    task = task_of_labelled(sts()).metadata
    assert prompt_for(task, None, {"TinySts": "same: ", "STS": "other: "}, None) == "same: "


def test_a_task_whose_data_has_changed_is_scored_again(tiny_bert, tmp_path, monkeypatch):
    found = []
    for scores, revision in (((3.0, 1.0, 2.0), "1"), ((1.0, 3.0, 2.0), "2")):
        task = task_of_labelled(sts(scores=scores))
        # As mteb's own tasks are: of one name, whatever the revision of their data.
        task.metadata = task.metadata.model_copy(
            update={"name": "Public", "dataset": {"path": "some/where", "revision": revision}}
        )
        monkeypatch.setattr(benchmarks, "tasks_named", lambda name, task=task: [task])
        found.append(score_benchmark(contender(tiny_bert, tmp_path), "any", cache=tmp_path / "mteb")["scores"])
    assert found[0] != found[1]
