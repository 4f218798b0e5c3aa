"""A recipe carried out: data, mining, scores before, training, scores after; each once, however often it is cut short.

RUN/data/NAME/train, test   BEIR folders of harvested code
RUN/mined/NAME/             candidates.npz and negatives.jsonl of each data set
RUN/vectors/                every vector that was needed, by fingerprint
RUN/model/                  the trained model
RUN/scores.json             scores of each data set: before, after, teacher, baselines
RUN/scores/NAME/WHAT.jsonl  the same for each query, to compare runs by
RUN/report.md               all of it to read
RUN/report.html             the scores with intervals, and the queries won and lost
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedsmith import __version__
from embedsmith.data.beir import write_beir
from embedsmith.data.code_search import CodeSettings, harvest, sources_hash, split
from embedsmith.data.collection import Collection
from embedsmith.data.examples import read_examples
from embedsmith.data.files import read_json, write_json
from embedsmith.data.load import known_splits, load_collection
from embedsmith.evaluation.metrics import score_run
from embedsmith.evaluation.per_query import per_query_path, read_per_query, write_per_query
from embedsmith.evaluation.retrieval import rank
from embedsmith.mining.ensembles import PCA
from embedsmith.models.embedder import EmbeddingModel, load, resolve_dtype
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student
from embedsmith.pipeline.evaluation_report import write_evaluation_report
from embedsmith.pipeline.mine import mine_into
from embedsmith.pipeline.recipe import DataSettings, Recipe
from embedsmith.pipeline.report import write_report
from embedsmith.pipeline.runs import Run
from embedsmith.pipeline.shelf import Shelf, identity_of_model, once, shared_stages
from embedsmith.pipeline.train import train_into
from embedsmith.progress import Progress, silent
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.named import Teacher, open_teacher
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.batches import Source


@dataclass(frozen=True)
class Prepared:
    """One data set of a recipe, ready to be mined and scored."""

    name: str
    settings: DataSettings
    train: Collection
    test: Collection | None


def forge(
    recipe: Recipe,
    *,
    out: str | Path,
    command: str = "train",
    shelf: Shelf | None = None,
    on_progress: Progress = silent,
) -> Run:
    """Carry out a recipe into a run folder; one that was cut short goes on.

    Args:
        recipe: what to do.
        out: the run folder.
        command: the command's name, which the folder remembers.
        shelf: what other runs have made of the same things, and where this one leaves what it makes.
        on_progress: told of the work.

    Raises:
        InputError, ModelError, RunError, SettingsError: see `embedsmith.errors`.
    """
    with Run.open(out, command=command, settings=recipe, inputs={}) as run:
        if shelf:
            run.vectors = shelf.vectors
        prepared = [_prepare(run, name, settings, shelf, on_progress) for name, settings in recipe.data.items()]
        for data in prepared:
            folder = run.folder / "mined" / data.name
            with once(shelf, "candidates", partial(_candidates_of, recipe, data.train), folder / "candidates"):
                selection = mine_into(run, folder, data.train, recipe.mining, on_progress=on_progress)
            run.count(f"mining {data.name}", selection.counts)
        _score_before(run, recipe, prepared, shelf, on_progress)
        sources = [_source(run, recipe, data) for data in prepared]
        with shared_stages(shelf, run, recipe.student, recipe.stages, sources, seed=recipe.seed):
            train_into(run, sources, recipe.student, recipe.stages, seed=recipe.seed, on_progress=on_progress)
        _score_after(run, recipe, prepared, on_progress)
        write_report(run, recipe)
        if (run.folder / "scores").is_dir():
            write_evaluation_report(run.folder)
        run.finish()
    return run


def _source(run: Run, recipe: Recipe, data: Prepared) -> Source:
    """Return the examples that were mined for a data set, as training reads them."""
    return Source(
        data.name,
        read_examples(run.folder / "mined" / data.name / "negatives.jsonl"),
        prompt=_student_of(recipe, data).prompt,
        weight=data.settings.weight,
    )


def _prepare(run: Run, name: str, settings: DataSettings, shelf: Shelf | None, on_progress: Progress) -> Prepared:
    """Return the collections of one data set; code is harvested once, into the run."""
    if settings.format == "code":
        folder = run.folder / "data" / name
        code = CodeSettings(source=settings.path, split_seed=settings.split_seed, test_share=settings.test_share)
        with once(shelf, "code", lambda: [code.model_dump(), sources_hash(code), __version__], folder):
            if not (folder / "done.json").is_file():
                with run.timed("harvest"):
                    _harvest(run, folder, name, code, on_progress)
        return Prepared(
            name,
            settings,
            train=load_collection(folder / "train", split="train"),
            test=load_collection(folder / "test", split="test"),
        )
    path = settings.path
    known = known_splits(path)
    train = load_collection(path, split=settings.split or ("train" if "train" in known else None))
    test = load_collection(path, split=settings.test_split) if settings.test_split in known else None
    return Prepared(name, settings, train, test)


def _harvest(run: Run, folder: Path, name: str, code: CodeSettings, on_progress: Progress) -> None:
    """Write the train and the test side of a source tree as BEIR folders."""
    found = harvest(code, on_file=lambda done, total: on_progress(f"read {code.source}", done, total))
    sides = split(found, code)
    write_beir(folder / "train", {"train": sides.train})
    write_beir(folder / "test", {"test": sides.test})
    skipped = [{"path": s.path, "line": s.line, "reason": s.reason} for s in found.skipped]
    counts = {
        "functions": len(found.functions),
        "files_skipped": len(skipped),
        "passages": len(sides.test.passages),
        "train_queries": len(sides.train.queries),
        "test_queries": len(sides.test.queries),
        "several_positives": sum(len(sides.train.positives(q)) > 1 for q in sides.train.query_ids),
    }
    run.count(f"data {name}", counts)
    # Written last: without it the harvest was cut short and is done again.
    write_json(folder / "done.json", {"skipped": skipped, "test_modules": sides.test_modules})


def _candidates_of(recipe: Recipe, collection: Collection) -> Any:
    """Return all that a collection's candidates depend on."""
    mining = recipe.mining
    return {
        "collection": collection.content_hash(),
        "teachers": [identity_of_model(name) for name in mining.teachers],
        "reading": mining.teacher_settings.model_dump(mode="json"),
        "depth": mining.depth,
        "joined": mining.pca_variance if mining.ensemble == PCA else None,
        "version": __version__,
    }


def _score_before(
    run: Run, recipe: Recipe, prepared: list[Prepared], shelf: Shelf | None, on_progress: Progress
) -> None:
    """Score baselines, teacher and the untrained student on every test side, those that are not scored yet."""
    with run.timed("evaluate"):
        for data in prepared:
            if not data.test:
                continue
            run.same_content(f"{data.name} (test)", data.test.content_hash())
            names = {name: name for name in recipe.evaluation.baselines} | {"teacher": recipe.mining.teachers[0]}
            for label, name in names.items():
                if label not in _scores(run).get(data.name, {}):
                    reading = recipe.mining.teacher_settings if label == "teacher" else TeacherSettings()
                    reading = reading.model_copy(update={"dtype": recipe.evaluation.dtype})
                    path = per_query_path(run.folder, data.name, label)
                    with once(shelf, "scores", partial(_baseline_of, name, reading, data.test), path):
                        if not path.is_file():
                            teacher = open_teacher(
                                name,
                                data.test.passages,
                                vectors=run.vectors,
                                settings=reading,
                                on_progress=on_progress,
                            )
                            _rank(path, teacher, data.test)
                    _note(run, data.name, label)
            if recipe.evaluation.before and "before" not in _scores(run).get(data.name, {}):
                model = build_student(recipe.student, seed=recipe.seed)
                model.to(resolve_dtype(recipe.evaluation.dtype, model.device.type))
                _score_model(run, recipe, data, "before", model, on_progress)


def _score_after(run: Run, recipe: Recipe, prepared: list[Prepared], on_progress: Progress) -> None:
    """Score the trained model on every test side that it is not scored on yet."""
    with run.timed("evaluate"):
        for data in prepared:
            if data.test and "after" not in _scores(run).get(data.name, {}):
                model = load(str(run.folder / "model"), dtype=recipe.evaluation.dtype)
                _score_model(run, recipe, data, "after", model, on_progress)


def _score_model(
    run: Run, recipe: Recipe, data: Prepared, label: str, model: EmbeddingModel, on_progress: Progress
) -> None:
    """Score an embedding model on one test side, with the data set's instruction."""
    assert data.test
    model.prompts = {**model.prompts, "query": _student_of(recipe, data).prompt or model.prompts.get("query", "")}
    name = "the student before" if label == "before" else "the trained student"
    teacher = DenseTeacher(model, data.test.passages, name=name, folder=run.vectors, on_progress=on_progress)
    _rank(per_query_path(run.folder, data.name, label), teacher, data.test)
    _note(run, data.name, label)


def _student_of(recipe: Recipe, data: Prepared) -> StudentSettings:
    """Return the student's settings with the instruction of a data set."""
    instruction = data.settings.instruction
    return recipe.student if instruction is None else recipe.student.model_copy(update={"instruction": instruction})


def _scores(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """Return what is scored so far: data set -> what -> metric -> value."""
    path = run.folder / "scores.json"
    return read_json(path) if path.is_file() else {}


def _baseline_of(name: str, reading: TeacherSettings, test: Collection) -> Any:
    """Return all that a baseline's scores depend on."""
    return {
        "collection": test.content_hash(),
        "model": identity_of_model(name),
        "reading": reading.model_dump(mode="json"),
        "version": __version__,
    }


def _rank(path: Path, teacher: Teacher, test: Collection) -> None:
    """Write what each query of a test side scores by what ranks its passages."""
    ranking = rank(teacher, test)
    write_per_query(path, score_run(ranking, test.qrels), ranking)


def _note(run: Run, data: str, label: str) -> None:
    """Add the means of what each query scored to the run's scores; what is in there is done."""
    found = read_per_query(per_query_path(run.folder, data, label))
    known = _scores(run)
    known.setdefault(data, {})[label] = {name: round(float(v.mean()), 4) for name, v in found.metrics.items()}
    write_json(run.folder / "scores.json", known)
