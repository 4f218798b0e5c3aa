"""What a recipe needs, looked at before any of it is done: a mistake in its last step costs seconds, not a night.

Opened and thrown away: every teacher, every baseline, the student with each stage's adapters. Read: both sides of
every data set, the sets that they are cleaned against, labelled data as they are converted and scored. Nothing is
encoded and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.collection import Collection
from embedsmith.data.examples import iter_examples
from embedsmith.errors import EmbedsmithError, InputError, SettingsError
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.generation.writers import check_writers
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.mine import read_source
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.adapters import add_adapters
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.late import check_chunks
from embedsmith.models.settings import ChunkSettings
from embedsmith.prepare.convert import Drafted
from embedsmith.prepare.decontaminate import check_evaluation_set
from embedsmith.recipes.data import drafted_of, evaluation_side
from embedsmith.recipes.harvested import check_harvest
from embedsmith.recipes.labelled_scores import scoring_of
from embedsmith.recipes.own_queries import read_own_queries
from embedsmith.recipes.recipe import DataSettings, Recipe, prompt_of, remined
from embedsmith.recipes.written import query_settings
from embedsmith.runs.run import Run
from embedsmith.settings import fingerprint
from embedsmith.teachers.named import has_vectors, is_rescorer, open_encoder, open_teacher
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.training.blend import draw_shares
from embedsmith.training.settings import StageSettings
from embedsmith.training.train import before_the_first_open_stage
from embedsmith.variables import Written, filled

_WHOLE = ChunkSettings()
"""Passages are not cut."""


@dataclass(frozen=True)
class Opened:
    """What is known of a data set that was looked at."""

    train: Collection | None = None
    """What is mined; None where nothing is, or where it has to be made first."""
    listed: Listed | None = None
    test: Collection | None = None
    scoring: ScoringSettings | None = None
    """How the test split of labelled data is scored."""
    drafted: Drafted | None = None
    """Labelled data, before negatives are found and before evaluation sets are taken out."""
    examples: int | None = None
    """Training examples, None where they cannot be counted yet."""
    negatives: bool = True
    """Whether its examples have negatives, or get some."""
    scores: bool = True
    """Whether a teacher has scored them, or will."""


class Preconditions:
    """Looks at what recipes need; what several of them have in common is looked at once."""

    def __init__(self, on_skip: Callable[[str], None] | None = None) -> None:
        """Begin with nothing seen.

        Args:
            on_skip: called, for each data set, with what of it is left out and what its labels mean.
        """
        self._on_skip = on_skip
        self._told: set[str] = set()
        self._opened: dict[str, Opened] = {}
        self._widths: dict[str, int | None] = {}
        self._trainable: set[str] = set()

    def check(self, recipe: Recipe, run: Run) -> dict[str, Opened]:
        """Return what is known of each data set of a recipe that can be carried out.

        Args:
            run: the recipe's, whose finished stages are not looked at.

        Raises:
            InputError, ModelError, SettingsError: a step could not be done; names the data set, stage or model.
        """
        data = {}
        for name, settings in recipe.data.items():
            with _named(f"data {name}"):
                prompt_of(recipe, settings)
                data[name] = self._look_at(name, settings)
                _check_round_trip(settings, recipe.mining)
                if train := data[name].train:
                    _check_candidates(train, recipe.mining)
        widths = self._open_models(recipe, data)
        for stage in recipe.stages:
            used = {name: data[name] for name in stage.data or recipe.data}
            _check_stage(stage, recipe, used)
        self._open_student(recipe, run, widths)
        return data

    def _look_at(self, name: str, settings: DataSettings) -> Opened:
        """Return what is known of a data set, which is opened unless it was for another recipe."""
        key = settings.fingerprint()
        if key not in self._opened:
            written = Written(settings)
            with written.errors():
                self._opened[key] = _opened(name, settings, lambda line: self._tell(written(line)))
        return self._opened[key]

    def _tell(self, line: str) -> None:
        """Pass a line on; one that several readers of a data set report is passed on once."""
        if self._on_skip and line not in self._told:
            self._told.add(line)
            self._on_skip(line)

    def _open_models(self, recipe: Recipe, data: dict[str, Opened]) -> dict[str, int | None]:
        """Open every teacher and baseline that a step asks for; return the widths of the teachers' vectors."""
        mines = any(
            settings.format != "examples" and (not settings.convert or settings.mined)
            for settings in recipe.data.values()
        )
        scores = any(opened.test or opened.scoring for opened in data.values())
        scores |= any(settings.is_harvested for settings in recipe.data.values())
        reading = recipe.mining.teacher_settings
        widths = {name: self._open(name, reading) for name in recipe.mining.teachers if mines}
        if scores:
            dtype = {"dtype": recipe.evaluation.dtype}
            self._open(recipe.mining.teachers[0], reading.model_copy(update=dtype), recipe.evaluation.chunks)
            for name in recipe.evaluation.baselines:
                self._open(name, TeacherSettings().model_copy(update=dtype), recipe.evaluation.chunks)
        return widths

    def _open(self, name: str, reading: TeacherSettings, chunks: ChunkSettings = _WHOLE) -> int | None:
        """Open a named model once and let go of it; return the width of its vectors, None where it tells of none."""
        key = fingerprint([name, reading.fingerprint(), chunks.fingerprint()])
        if key not in self._widths:
            self._widths[key] = _width_of(name, reading, chunks)
        return self._widths[key]

    def _open_student(self, recipe: Recipe, run: Run, widths: dict[str, int | None]) -> None:
        """Open the student, and put on it what each stage does."""
        finished = [stage.name for stage in recipe.stages if (run.folder / "stages" / stage.name).is_dir()]
        stages = [stage.model_dump(mode="json") for stage in recipe.stages]
        chunks = recipe.evaluation.chunks
        key = fingerprint(
            [recipe.student.fingerprint(), stages, widths, chunks.fingerprint(), str(run.folder) if finished else None]
        )
        if key in self._trainable:
            return
        model = before_the_first_open_stage(run, recipe.student, recipe.stages, seed=recipe.seed)
        _check_widths(recipe, model, widths)
        if chunks.chunk:
            with _named("evaluation: the student"):
                check_chunks(model, chunks)
        for stage in recipe.stages:
            if stage.lora_rank:
                with _named(f"stage {stage.name}"):
                    add_adapters(model, **stage.adapters)
        self._trainable.add(key)


def _opened(name: str, settings: DataSettings, on_skip: Callable[[str], None]) -> Opened:
    """Open a data set as each step will."""
    data = filled(settings)
    for path in data.against:
        check_evaluation_set(path, data.contamination, skip_bad=data.skip_bad)
    if settings.is_harvested:
        check_harvest(settings)
        if data.queries is not None:
            own = read_own_queries(Path(data.queries))
            if unanswered := sum(not query.answers for query in own):
                on_skip(
                    f"{settings.queries}: {unanswered:,} of {len(own):,} queries have no answer, and are not scored; "
                    "after the run, judge what is found for them: embedsmith search RUN --judge --queries FILE"
                )
        return Opened()
    if settings.format == "examples":
        return _examples(Path(data.path))
    if data.convert:
        found = drafted_of(data, on_skip)
        scoring = scoring_of(settings, on_skip)
        count = sum(1 for _ in found.examples(data.convert))
        has = data.convert.negatives > 0
        return Opened(scoring=scoring, drafted=found, examples=count, negatives=has, scores=settings.mined and has)
    train, listed = read_source(data.path, settings.source, on_skip)
    test = evaluation_side(Path(), name, settings, on_skip)
    return Opened(train, listed, test, examples=len(train.queries))


def _examples(path: Path) -> Opened:
    """Read a file of examples to its end."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of examples", hint="check the path of the recipe's data")
    count, negatives, scores = 0, False, False
    for example in iter_examples(path):
        count += 1
        negatives |= bool(example.negatives)
        scores |= any(passage.score is not None for passage in example.negatives)
    if not count:
        raise InputError(f"{path}: no example", hint="check the path of the recipe's data")
    return Opened(examples=count, negatives=negatives, scores=scores)


def _check_round_trip(settings: DataSettings, mining: MiningSettings) -> None:
    """Refuse writers that are not there, and a first teacher that cannot find passages again."""
    own = settings.documents
    if own.generators:
        check_writers(query_settings(own, mining, seed=settings.split_seed))
    asks = "found_within" if own.found_within else "generators" if own.generators else None
    if asks and is_rescorer(mining.teachers[0]):
        raise InputError(
            f"{asks}: {mining.teachers[0]} scores passages and finds none",
            hint=f"name a teacher that searches first, or leave {asks} out",
        )


def _check_candidates(train: Collection, mining: MiningSettings) -> None:
    """Refuse a corpus in which no query can have a negative, or none as many as each must have."""
    fewest = min(len(train.positives(query)) for query in train.query_ids)
    most = len(train.passages) - fewest
    needed = mining.negatives if mining.short == "drop" else 1
    if most < needed:
        raise InputError(
            f"{train.name}: of {len(train.passages):,} passages {most:,} are no answer to a query, wanted {needed:,}",
            hint="add passages with corpus, or ask for fewer negatives",
        )


def _width_of(name: str, reading: TeacherSettings, chunks: ChunkSettings) -> int | None:
    """Open a named model; return the width of its vectors, None where it has none or a server knows it."""
    if not has_vectors(name):
        open_teacher(name, ["a"], vectors=Path(), settings=reading)
        return None
    if reading.search != "exact":
        from embedsmith.topk.approximate import open_faiss

        open_faiss()
    encoder = open_encoder(name, reading)
    if not isinstance(encoder, EmbeddingModel):
        return None
    if chunks.chunk:
        with _named(f"evaluation: {name}"):
            check_chunks(encoder, chunks)
    return encoder.get_embedding_dimension()


def _check_stage(stage: StageSettings, recipe: Recipe, data: dict[str, Opened]) -> None:
    """Refuse a stage that its data give nothing to."""
    where = f"stage {stage.name}"
    sizes = [opened.examples or 1 for opened in data.values()]
    own = [recipe.data[name] for name in data]
    with _named(where):
        draw_shares(sizes, [settings.weight for settings in own], [settings.share for settings in own])
    for name, opened in data.items():
        contrasts = (stage.in_batch and recipe.data[name].in_batch) or (stage.hard_negatives and opened.negatives)
        if stage.contrastive and not contrasts:
            raise SettingsError(
                f"{where}: {name} has nothing to be contrasted with: no negatives, and none in the batch",
                hint="set in_batch, hard_negatives, or data with negatives",
            )
    counts = [
        min(opened.examples, recipe.data[name].max_examples or opened.examples)
        for name, opened in data.items()
        if opened.examples is not None
    ]
    if len(counts) == len(data) and stage.held_out >= sum(counts):
        raise SettingsError(
            f"{where}: held_out: {stage.held_out} of {sum(counts)} examples leave none", hint="hold out fewer"
        )
    if (stage.distill_scores or stage.distill_margins) and not any(opened.scores for opened in data.values()):
        raise SettingsError(
            f"{where}: distillation from scores, but its examples have none and get none",
            hint="name data that is mined, or give positives and negatives a score",
        )
    mined = [name for name in data if recipe.data[name].format != "examples" and not recipe.data[name].convert]
    if stage.distill_vectors and not (mined and (stage.remine or any(map(has_vectors, recipe.mining.teachers)))):
        raise SettingsError(
            f"{where}: distill_vectors, but no teacher with vectors encodes its data",
            hint="name data that is mined, and a teacher that is an embedding model",
        )
    if stage.remine:
        _check_remined(where, recipe, mined, list(data))


def _check_remined(where: str, recipe: Recipe, mined: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a stage that cannot mine again with the student alone."""
    if not mined:
        raise SettingsError(
            f"{where}: remine: nothing of {', '.join(names)} is mined, it comes with its negatives",
            hint="name other data, or leave remine out",
        )
    plain = remined(recipe, recipe.data[mined[0]], recipe.student.name).model_dump(mode="json")
    MiningSettings.parse(plain, where=f"{where}: remine, with the student as the only teacher")


def _check_widths(recipe: Recipe, model: EmbeddingModel, widths: dict[str, int | None]) -> None:
    """Refuse to learn vectors that are not as wide as the student's."""
    own = model.get_embedding_dimension()
    teacher = next((name for name in widths if has_vectors(name)), None)
    width = widths[teacher] if teacher else None
    for stage in recipe.stages:
        if stage.distill_vectors and not stage.remine and width is not None and width != own:
            raise SettingsError(
                f"stage {stage.name}: distill_vectors: {teacher} has {width} dimensions, the student {own}",
                hint="use distill_scores, which asks for no equal width",
            )


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Put a place before the message of a caller's mistake within the block."""
    try:
        yield
    except EmbedsmithError as error:
        raise error.within(place) from error
