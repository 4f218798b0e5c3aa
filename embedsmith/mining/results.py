"""What `mine` and `select` return: a run whose negatives can be taken on in memory.

run.negatives             the examples, with the ids, scores and ranks of their passages
run.dataset("triplet")    a `datasets.Dataset`, as sentence-transformers and others train on
print(run)                how many there are
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from embedsmith.data.examples import Example, read_examples
from embedsmith.data.files import read_jsonl
from embedsmith.errors import InputError, SettingsError, did_you_mean
from embedsmith.mining.dialect_files import DialectSettings
from embedsmith.mining.dialects import DIALECTS, ExampleFile, Written, write_dialect
from embedsmith.pages.tables import Figures
from embedsmith.runs.origin import check_origin
from embedsmith.runs.run import Run

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger("embedsmith")

_SHORT = {name.removeprefix("st-"): name for name in DIALECTS if name.startswith("st-")}
"""Names as sentence-transformers has them -> dialects."""


class MiningRun(Run):
    """A finished run of `mine` or `select`; `MiningRun.read(folder)` is one that is there already."""

    @property
    def negatives(self) -> list[Example]:
        """Each query with its positives and its mined negatives, as in RUN/negatives.jsonl."""
        return read_examples(self._examples())

    def dataset(
        self, form: str = "triplet", *, negatives: int | None = None, scores: bool = False, instruction: str = ""
    ) -> Dataset:
        """Return the negatives as a data set of `datasets`, in the rows that another library trains on.

        What the form cannot say is left out, and logged: see `embedsmith.mining.dialects`.

        Args:
            form: `triplet`, `n-tuple`, `labeled-pair` or `labeled-list` as sentence-transformers calls them, or another
                dialect of a single file: `flagembedding`, `tevatron-legacy`, or `parquet`, which has all there is.
            negatives: of each query, the first ones; by default all, and in an n-tuple as many as most have.
            scores: with the teacher's scores.
            instruction: of the queries, in `flagembedding`.

        Raises:
            SettingsError: there is no such form, or it has no place for what is asked for.
            InputError: no example is left, or the package `datasets` is not installed.
            RunError: the run that this one selected from was mined again.
        """
        try:
            import datasets
        except ImportError:
            raise InputError(
                "a datasets.Dataset needs the package datasets", hint='pip install "embedsmith[datasets]"'
            ) from None
        name, path = _dialect(form), self._examples()
        values = {"negatives": negatives, "scores": scores, "instruction": instruction}
        settings: DialectSettings = DialectSettings.parse(values, where="dataset")
        with TemporaryDirectory(prefix="embedsmith-") as scratch:
            target = Path(scratch) / f"rows{DIALECTS[name].suffix}"
            try:
                written = write_dialect(name, target, ExampleFile(path), settings)
            except InputError as error:
                raise InputError(str(error).replace(str(target), str(self.folder)), hint=error.hint) from None
            self._log_left_out(form, written)
            if target.suffix == ".jsonl":
                return datasets.Dataset.from_list([row for _, row in read_jsonl(target)])
            import pyarrow.parquet as pq

            return datasets.Dataset(pq.read_table(target, memory_map=False))

    def figures(self) -> Figures:
        """Return how many queries have how many negatives."""
        counts = self.manifest["counts"].get("mining", {})
        names = ["queries", "negatives", "full", "short", "none", "filled", "dropped"]
        rows = [[name, f"{counts[name]:,}"] for name in names if name in counts]
        return Figures(f"{self.manifest['command']}: {self.folder}", ["", "count"], rows)

    def _examples(self) -> Path:
        """Return the file of examples, which is the origin's still."""
        check_origin(self.folder)
        return self.folder / "negatives.jsonl"

    def _log_left_out(self, form: str, written: Written) -> None:
        """Log what the form could not say."""
        for reason, count in written.left_out.items():
            _log.warning('dataset("%s"): left out %s queries with %s', form, f"{count:,}", reason)
        if written.cut:
            _log.warning(
                'dataset("%s"): left out %s negatives beyond %s of a query', form, f"{written.cut:,}", written.negatives
            )


def _dialect(form: str) -> str:
    """Return the dialect of a form that is a table of its own.

    Raises:
        SettingsError: there is none.
    """
    # The two of our own are one in memory.
    name = "parquet" if form == "jsonl" else _SHORT.get(form, form)
    forms = [*_SHORT, "flagembedding", "tevatron-legacy", "parquet"]
    if name not in DIALECTS:
        raise SettingsError(f'no form "{form}"{did_you_mean(form, forms)}', hint=f"forms: {', '.join(forms)}")
    if not DIALECTS[name].suffix:
        raise SettingsError(
            f'"{form}" is a folder with a corpus, not one table',
            hint=f'embedsmith.write(run.folder, out="FOLDER", dialect="{name}")',
        )
    return name
