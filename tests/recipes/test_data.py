"""A recipe on data of several kinds: cleaned, converted, mined, blended, scored after each stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.examples import read_examples
from embedsmith.errors import InputError
from embedsmith.evaluation.scoring import read_scored
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.convert import convert as convert_labelled
from embedsmith.prepare.converters.settings import ConvertSettings
from embedsmith.recipes import run as run_module
from embedsmith.recipes.labelled_scores import scoring_of
from embedsmith.recipes.plan import plan_of_recipe
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.runs.run import Run, read_manifest
from embedsmith.runs.scores import read_scores
from embedsmith.training.batches import BatchPlan, Source
from embedsmith.training.settings import StageSettings

pytestmark = pytest.mark.slow

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape"]
PLACES = ["mat", "log", "tree", "lake"]


def collection(name: str, animals: list[str]) -> Collection:
    pairs = [(animal, place) for animal in animals for place in PLACES]
    return Collection.of(
        name=name,
        passage_ids=[f"d{n}" for n in range(24)],
        passages=[f"the {animal} is on the {place}" for animal in ANIMALS for place in PLACES],
        query_ids=[f"{name}{n}" for n in range(len(pairs))],
        queries=[f"find the {animal} of the {place}" for animal, place in pairs],
        qrels={
            f"{name}{n}": {f"d{ANIMALS.index(animal) * 4 + PLACES.index(place)}": 1}
            for n, (animal, place) in enumerate(pairs)
        },
    )


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_llama: Path) -> Recipe:
    folder = tmp_path_factory.mktemp("sets")
    write_beir(folder / "animals", {"train": collection("q", ANIMALS[:4]), "test": collection("t", ANIMALS[4:])})
    jsonl(
        folder / "intents" / "train.jsonl",
        [{"text": f"my {animal} {n}", "label": animal} for animal in ANIMALS for n in range(5)],
    )
    test = [{"text": text, "label": text.split()[1]} for text in ("MY cat 0", "a dog of mine", "one owl")]
    jsonl(folder / "intents" / "test.jsonl", test)
    jsonl(
        folder / "sts" / "train.jsonl",
        [
            {"sentence1": f"a {animal} runs", "sentence2": f"the {animal} is running", "score": 5.0}
            for animal in ANIMALS
        ],
    )
    return Recipe(
        name="several",
        data={
            "animals": DataSettings(path=str(folder / "animals"), max_examples=10),
            "intents": DataSettings(
                path=str(folder / "intents"),
                convert=ConvertSettings(task="classification", negatives=2, instruction_for="banking77"),
                mined=False,
                against=[str(folder / "intents")],
                contamination=ContaminationSettings(near_duplicates=0),
            ),
            "sts": DataSettings(path=str(folder / "sts"), convert=ConvertSettings(task="sts", negatives=2), share=0.25),
        },
        mining=MiningSettings(teachers=["bm25"], method="naive", negatives=2, depth=10),
        student=StudentSettings(
            name=str(tiny_llama), instruction="Find the animal", latents=4, heads=2, query_max_tokens=96
        ),
        stages=[
            StageSettings(name="retrieval", data=["animals"], steps=2, batch_size=4, learning_rate=1e-2),
            StageSettings(name="generalist", steps=4, batch_size=8, in_batch=False, hard_negatives=2),
        ],
        evaluation=EvaluationSettings(baselines=[]),
    )


@pytest.fixture(scope="module")
def notes() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def run(recipe: Recipe, notes, tmp_path_factory) -> Run:
    def note(what: str, done: int, total: int, note: str = "") -> None:
        notes.append((what, done, total))

    return run_recipe(recipe, out=tmp_path_factory.mktemp("runs") / "several", on_progress=note)


def test_each_stage_is_scored(run: Run):
    scores = read_scores(run.folder).metrics_of("animals")
    assert list(scores) == ["teacher", "before", "after retrieval", "after"]
    assert scores["after retrieval"] != scores["before"]
    # BM25 has no vectors to classify.
    labelled = read_scores(run.folder).metrics_of("intents")
    assert list(labelled) == ["before", "after retrieval", "after"]
    assert labelled["after"].keys() == {"accuracy", "f1"}
    assert "| after retrieval | " in (run.folder / "report.md").read_text()


def test_a_student_that_encodes_labelled_data_tells_of_it(run: Run, notes):
    for label in ("before", "after retrieval", "after"):
        what = f"encode passages with the student {label}"
        assert {(what, 30, 30), (what, 3, 3)} <= set(notes)


def test_labelled_data_are_cleaned_and_converted_into_the_run(run: Run):
    intents = read_examples(run.folder / "data" / "intents" / "examples.jsonl")
    assert len(intents) == 29
    texts = {text.casefold() for e in intents for text in (e.query, *(p.text for p in (*e.positives, *e.negatives)))}
    assert "my cat 0" not in texts
    counts = read_manifest(run.folder)["counts"]
    assert counts["contamination intents"] == {"rows": 30, "kept": 29, "removed": 1, "negatives": 0, "normalised": 1}
    assert counts["conversion intents"]["random_negatives"] == 58
    assert counts["conversion sts"]["examples"] == 12
    assert counts["conversion sts"]["mined_negatives"] > 0


def test_what_a_stage_saw_is_noted_and_was_foretold(run: Run, recipe: Recipe):
    counts = read_manifest(run.folder)["counts"]
    assert counts["queries of stage retrieval"] == {"animals": 8}
    seen = counts["queries of stage generalist"]
    assert sum(seen.values()) == 32
    assert 2 <= seen["sts"] <= 14
    plan = plan_of_recipe(recipe)
    first, second = plan.stages
    assert {part.data: part.queries for part in first.blend} == counts["queries of stage retrieval"]
    assert [(part.data, part.examples) for part in second.blend] == [("animals", 10), ("intents", 29), ("sts", 12)]
    assert [(data.name, data.removed) for data in plan.data] == [("animals", 0), ("intents", 1), ("sts", 0)]


def test_every_query_has_the_instruction_of_its_data(run: Run, recipe: Recipe):
    sources = run_module._sources(run.folder, "mined", recipe, list(recipe.data))
    for source in sources:
        plan = BatchPlan([source], steps=1, batch_size=4, hard_negatives=2, in_batch=False, seed=0)
        task = {
            "animals": "Find the animal",
            "intents": "Given a online banking query, find the corresponding intents",
            "sts": "Retrieve semantically similar text",
        }[source.name]
        prompt = f"Instruct: {task}\nQuery: "
        assert all(text.startswith(prompt) for text in plan[0].queries)
        assert plan[0].prompt_chars == [len(prompt)] * 4
        passages = prompt if source.name != "animals" else "the"
        assert all(text.startswith(passages) for text in plan[0].passages)
        assert not any(text.startswith("Instruct") for text in plan[0].bare_passages)


def test_a_recipe_s_instruction_goes_before_that_of_the_examples(run: Run, recipe: Recipe):
    changed = recipe.data["sts"].model_copy(update={"instruction": "Other words"})
    other = recipe.model_copy(update={"data": {**recipe.data, "sts": changed}})
    (source,) = run_module._sources(run.folder, "mined", other, ["sts"])
    assert isinstance(source, Source)
    assert source.prompts_of(source.examples[0]) == ("Instruct: Other words\nQuery: ",) * 2


def test_a_run_that_was_cut_short_converts_nothing_again(recipe: Recipe, tmp_path: Path, monkeypatch):
    def cut_short(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "score_before", cut_short)
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out=out)
    before = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*.jsonl")}
    assert {path.name for path in before} == {"examples.jsonl", "clean.jsonl", "clean.jsonl.removed.jsonl"}
    for name in ("convert", "decontaminate"):
        monkeypatch.setattr(f"embedsmith.recipes.data.{name}", lambda *_, **__: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out=out)
    assert {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*.jsonl")} == before


def pairs_of(folder: Path, labels: list) -> Path:
    """Write two splits of premises and hypotheses; the first label is that of what follows."""
    rows = [
        {"premise": f"the {animal} sleeps", "hypothesis": f"the {other} rests", "label": labels[animal != other]}
        for animal in ANIMALS
        for other in ANIMALS
    ]
    jsonl(folder / "train.jsonl", rows)
    jsonl(folder / "test.jsonl", rows)
    return folder


@pytest.mark.parametrize(
    ("labels", "convert"),
    [
        (["entailment", "contradiction"], {"task": "nli"}),
        ([0, 1], {"task": "nli", "labels": "0=entailment,1=contradiction"}),
        ([1, 0], {"task": "nli", "labels": "1=entailment,*=negative"}),
        (["same", "other"], {"task": "pairs", "positive_labels": ["same"]}),
    ],
)
def test_a_recipe_scores_labels_for_what_it_trains_on_them_for(tmp_path, tiny_llama, labels, convert):
    folder = pairs_of(tmp_path / "nli", labels)
    settings = DataSettings.parse({"path": str(folder), "convert": {**convert, "negatives": 1}}, where="test")
    scoring = scoring_of(settings)
    scored = read_scored(folder, scoring.task, scoring).columns
    out = tmp_path / "out.jsonl"
    found = convert_labelled(folder, out=out, settings=settings.convert)
    positive = {(first, second) for first, second, label in zip(*scored.values(), strict=True) if label}
    trained = {(example.query, passage.text) for example in read_examples(out) for passage in example.positives}
    assert len(positive) == len(ANIMALS)
    recipe = Recipe(data={"nli": settings}, student=StudentSettings(name=str(tiny_llama)))
    assert plan_of_recipe(recipe).data[0].labels == found.labels_told
    assert f"{labels[0]} = " in found.labels_told
    assert trained - {(second, first) for first, second in trained if convert["task"] == "pairs"} <= positive
    assert found.meanings == read_scored(folder, scoring.task, scoring).meanings.plain()


@pytest.mark.parametrize(("split", "label"), [("test", 0.5), ("test", 0), ("train", 0)])
def test_labels_that_cannot_be_told_are_refused_before_anything_is_trained(
    tmp_path, tiny_llama, split, label, monkeypatch
):
    folder = pairs_of(tmp_path / "nli", ["entailment", "contradiction"])
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    jsonl(folder / f"{split}.jsonl", [{**row, "label": label if n % 2 else 1} for n, row in enumerate(rows)])
    recipe = Recipe.parse(
        {"data": {"nli": {"path": str(folder), "convert": {"task": "nli"}}}, "student": {"name": str(tiny_llama)}},
        where="test",
    )
    monkeypatch.setattr(run_module, "train_into", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(run_module, "score_before", lambda *_: pytest.fail("scored"))
    with pytest.raises(
        InputError, match=rf"{split}\.jsonl:\d: (the labels are 1, 0, which is ambiguous|the label is 0\.5)"
    ):
        run_recipe(recipe, out=tmp_path / "run")
