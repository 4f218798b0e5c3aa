"""Judgements of a person on what a run's model finds: a test of queries that people ask, made in minutes.

RUN/judged/judgements.jsonl   what was said of each query, a line each; nothing that was said is asked again
RUN/judged/corpus.jsonl, queries.jsonl, qrels/judged.tsv   a BEIR folder, to evaluate models on
RUN/judged/qrels.trec         the same judgements as trec_eval reads them

What is judged is pooled from the trained model, its start and BM25. It is shown in an order that does not tell which of
them found it, else the judgements would favour one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.data.trec import write_judgements
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opened import in_run
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.progress import Progress, silent
from embedsmith.runs.named import seed_of
from embedsmith.runs.run import finished
from embedsmith.services.journal import Journal
from embedsmith.serving.search import Corpus, Finder, Hit, corpus_of_run
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.dense import DenseTeacher

JUDGED = "judged"
"""Folder of a run, and split of its BEIR folder."""


class Judging:
    """A run's passages and what was said of them.

    Args:
        run: a finished run with a model.
        data: the corpus; by default what the run was made of.
        each: passages that each of the three finders gives to be judged.
        on_progress: called with the progress of the work.

    Raises:
        InputError: a line of the judgements is damaged.
        RunError: the run is missing, not finished, or has no corpus of its own.
    """

    def __init__(
        self, run: str | Path, *, data: str | Path | None = None, each: int = 5, on_progress: Progress = silent
    ) -> None:
        manifest = finished(run)
        self.folder = Path(run) / JUDGED
        self._each = each
        self._corpus: Corpus = corpus_of_run(Path(run), data)
        self._finder = Finder(run, data=data, on_progress=on_progress)
        self._words = BM25(self._corpus.texts, BM25Settings(), ties=self._corpus.ties, on_progress=on_progress)
        self._start = _start(Path(run), manifest)
        self._start_index = DenseTeacher(
            self._start,
            self._corpus.texts,
            name="the start",
            folder=Path(run) / "vectors",
            ties=self._corpus.ties,
            on_progress=on_progress,
        )
        self.folder.mkdir(exist_ok=True)
        self._journal = Journal(self.folder / "judgements.jsonl")

    def is_judged(self, query: str) -> bool:
        """Return whether a query has been judged, by this process or another one."""
        self._journal.refresh()
        return self._journal.get(_key(query)) is not None

    def pool(self, query: str) -> list[Hit]:
        """Return the passages to judge for a query, without repeats, in an order drawn by the query alone.

        Raises:
            InputError: the query is empty.
        """
        hits = {hit.id: hit for hit in self._finder.find(query, self._each)}
        vector = self._start.embed([query], "query")
        rows = [
            *self._start_index.search_vectors(vector, [query], self._each)[0][0].tolist(),
            *self._words.search([query], self._each)[0][0].tolist(),
        ]
        for row in rows:
            if row >= 0:
                hits.setdefault(self._corpus.ids[row], self._finder.hit(row, 0.0))
        return sorted(hits.values(), key=lambda hit: hashlib.sha256(f"{query}\n{hit.id}".encode()).digest())

    def note(self, query: str, pool: Sequence[Hit], relevant: Iterable[str]) -> None:
        """Keep what was said of a query: at once, so that nothing is lost where the process ends.

        Args:
            query: as it was asked.
            pool: what was shown.
            relevant: ids of the passages in it that answer the query.
        """
        grades = {hit.id: 0 for hit in pool} | dict.fromkeys(relevant, 1)
        self._journal.add(_key(query), {"query": query, "grades": grades})

    def write(self) -> int:
        """Write all judgements as a BEIR folder and for trec_eval; return how many queries have an answer.

        Queries of which nothing that was shown is an answer say nothing of a model, and are left out.
        """
        self._journal.refresh()
        entries = [entry for entry in self._journal.entries() if any(entry["grades"].values())]
        if not entries:
            return 0
        known = set(self._corpus.ids)
        qrels = {
            f"{JUDGED}-{number}": {passage: grade for passage, grade in entry["grades"].items() if passage in known}
            for number, entry in enumerate(entries, start=1)
        }
        collection = Collection.of(
            name=JUDGED,
            passage_ids=self._corpus.ids,
            passages=self._corpus.texts,
            query_ids=list(qrels),
            queries=[entry["query"] for entry in entries],
            qrels=qrels,
            metadata=self._corpus.metadata or (),
        )
        write_beir(self.folder, {JUDGED: collection})
        write_judgements(self.folder / "qrels.trec", qrels)
        return len(entries)


def _key(query: str) -> str:
    return hashlib.sha256(normalised(query).encode()).hexdigest()[:16]


def _start(run: Path, manifest: dict[str, Any]) -> EmbeddingModel:
    """Return the model that the run began with, which reads texts as the trained one does."""
    student = StudentSettings.parse(manifest["settings"]["student"], where=f"{run}/manifest.json: student")
    model = build_student(in_run(student, run), seed=seed_of(run, manifest))
    model.use_dtype("auto")
    return model
