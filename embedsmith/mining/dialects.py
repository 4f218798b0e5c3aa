"""Training examples in the files that other training libraries read.

    jsonl, parquet                                              our own: ids, scores, teachers and ranks, all of it
    st-triplet, st-n-tuple, st-labeled-pair, st-labeled-list    sentence-transformers: a .parquet file
    flagembedding                                               FlagEmbedding: a .jsonl file
    tevatron-legacy                                             Tevatron, texts in the rows: a .jsonl file
    tevatron                                                    Tevatron, ids in the rows: a folder with a corpus
    nemo                                                        NeMo Automodel, ids in the rows: a folder with a corpus

Each is whole or absent. What a dialect cannot say is left out and counted, never filled up: an example without
negatives (a random passage is no hard negative), without a score where scores are asked for, or, in `st-n-tuple`, where
all rows have the same number of negatives, with fewer than that; and negatives beyond it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

from embedsmith.data.examples import (
    Example,
    iter_examples,
    writable,
    write_examples,
    write_examples_parquet,
)
from embedsmith.errors import InputError, SettingsError, did_you_mean
from embedsmith.mining.dialect_files import (
    DialectSettings,
    all_passages,
    write_flagembedding,
    write_labeled_lists,
    write_labeled_pairs,
    write_n_tuples,
    write_nemo,
    write_tevatron,
    write_tevatron_legacy,
    write_triplets,
)


@dataclass(frozen=True)
class Written:
    """What became of the examples."""

    path: Path
    rows: int
    left_out: dict[str, int]
    """Examples that were left out, by reason."""
    negatives: int | None = None
    """Negatives of every row, where the dialect wants one number for all."""
    cut: int = 0
    """Negatives that were left out beyond that number, of examples that were written."""


@dataclass(frozen=True)
class Dialect:
    """A dialect, and what can be said in it."""

    write: Callable[[Path, Iterator[Example], DialectSettings], int]
    """Writes a file or a folder; returns the number of rows."""
    suffix: str = ""
    """How the file's name ends; empty: a folder."""
    scores: bool = True
    instruction: bool = False
    lone_positives: bool = False
    """Whether a query without negatives makes rows."""
    same_length: bool = False
    """Whether each row has the same number of negatives."""


def write_dialect(
    name: str, path: Path, examples: Iterable[Example], settings: DialectSettings | None = None
) -> Written:
    """Write examples in a dialect to a file, or to a folder that does not exist or is empty.

    Raises:
        SettingsError: there is no such dialect, or it cannot say what the settings ask for.
        InputError: an example that no file can hold, none is left to write, the folder is not empty, or, where there is
            a corpus, two passages have one id.
    """
    settings = settings or DialectSettings()
    dialect = _dialect(name, path, settings)
    if not dialect.same_length:
        return _written(dialect, path, examples, settings)
    with TemporaryDirectory() as scratch:
        # What can be read only once is read twice from a copy: the number is known when all have been seen.
        if iter(examples) is examples:
            copy = Path(scratch) / "examples.jsonl"
            write_examples(copy, writable(examples, path))
            examples = ExampleFile(copy)
        wanted = settings.negatives or _best_length(examples, settings)
        return _written(dialect, path, examples, settings.model_copy(update={"negatives": wanted}))


@dataclass(frozen=True)
class ExampleFile:
    """The examples of a file, which can be read again and again."""

    path: Path

    def __iter__(self) -> Iterator[Example]:
        return iter_examples(self.path)


def _best_length(examples: Iterable[Example], settings: DialectSettings) -> int:
    """Return the number of negatives with which most are written, where each row has as many; 0 where there are none.

    With one more negative in each row, rows that have fewer are left out.
    """
    rows: Counter[int] = Counter()
    for example in examples:
        usable = example.negatives
        if settings.scores:
            usable = list(takewhile(lambda passage: passage.score is not None, usable))
        rows[len(usable)] += len(example.positives)
    enough, best = 0, (0, 0)
    for length in sorted(rows, reverse=True):
        enough += rows[length]
        best = max(best, (length * enough, -length))  # with as many negatives rather more queries
    return -best[1]


def _written(dialect: Dialect, path: Path, examples: Iterable[Example], settings: DialectSettings) -> Written:
    """Write what can be said, and return what became of all."""
    left_out: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    rows = dialect.write(path, _usable(examples, path, dialect, settings, left_out, cut), settings)
    length = settings.negatives if dialect.same_length else None
    return Written(path, rows, dict(left_out), length, cut.total() if dialect.same_length else 0)


def _dialect(name: str, path: Path, settings: DialectSettings) -> Dialect:
    """Return the dialect of a name, which can say what the settings ask for."""
    if name not in DIALECTS:
        raise SettingsError(
            f'no dialect "{name}"{did_you_mean(name, DIALECTS)}', hint=f"dialects: {', '.join(DIALECTS)}"
        )
    dialect = DIALECTS[name]
    # FlagEmbedding skips a file of any other name without a word.
    if dialect.suffix and path.suffix != dialect.suffix:
        raise SettingsError(
            f'{path}: "{name}" is a {dialect.suffix} file', hint=f"write to {path.with_suffix(dialect.suffix)}"
        )
    for wish in ("scores", "instruction"):
        if getattr(settings, wish) and not getattr(dialect, wish):
            can = ", ".join(other for other, known in DIALECTS.items() if getattr(known, wish))
            raise SettingsError(f'"{name}" has no place for {wish}', hint=f"leave it unset, or choose from {can}")
    return dialect


def _usable(
    examples: Iterable[Example],
    path: Path,
    dialect: Dialect,
    settings: DialectSettings,
    left_out: Counter[str],
    cut: Counter[str],
) -> Iterator[Example]:
    """Yield the examples that make rows, with as many negatives as are wanted; count what is left out."""
    wanted, kept, most = settings.negatives, False, 0
    for example in writable(examples, path):
        has = len(example.negatives)
        most = max(most, has)
        if wanted is not None and has > wanted:
            example = replace(example, negatives=example.negatives[:wanted])
        if not has and not dialect.lone_positives:
            left_out["no negatives"] += 1
        elif dialect.same_length and has < (wanted or 0):
            left_out[f"fewer than {wanted} negatives"] += 1
        elif settings.scores and any(passage.score is None for passage in all_passages(example)):
            left_out["a passage without a score"] += 1
        else:
            kept = True
            cut["negatives"] += has - len(example.negatives)
            yield example
    if not kept:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items()) or "there are none"
        hint = "mine negatives first: embedsmith mine DATA --out RUN"
        if most and wanted and most < wanted:
            hint = f"ask for {most} negatives: no query has more"
        elif most and settings.scores:
            hint = "write without scores, or mine with a teacher that scores all passages"
        raise InputError(f"{path}: no examples to write: {reasons}", hint=hint)


DIALECTS: dict[str, Dialect] = {
    "jsonl": Dialect(lambda path, examples, _: write_examples(path, examples), ".jsonl", lone_positives=True),
    "parquet": Dialect(
        lambda path, examples, _: write_examples_parquet(path, examples), ".parquet", lone_positives=True
    ),
    "st-triplet": Dialect(write_triplets, ".parquet"),
    "st-n-tuple": Dialect(write_n_tuples, ".parquet", same_length=True),
    "st-labeled-pair": Dialect(write_labeled_pairs, ".parquet", lone_positives=True),
    "st-labeled-list": Dialect(write_labeled_lists, ".parquet"),
    "flagembedding": Dialect(write_flagembedding, ".jsonl", instruction=True),
    "tevatron-legacy": Dialect(write_tevatron_legacy, ".jsonl"),
    "tevatron": Dialect(write_tevatron, scores=False),
    "nemo": Dialect(write_nemo, instruction=True),
}
"""The dialects by name."""
