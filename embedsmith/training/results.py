"""What `train` returns: a run whose model can be taken on in memory.

run.model      the trained model, a SentenceTransformer
print(run)     the loss of each stage
"""

from __future__ import annotations

from functools import cached_property
from statistics import mean

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import load
from embedsmith.pages.tables import Figures
from embedsmith.runs.run import Run
from embedsmith.training.report import read_steps


class TrainedRun(Run):
    """A finished run that trained a model; `TrainedRun.read(folder)` is one that is there already."""

    @cached_property
    def model(self) -> EmbeddingModel:
        """The trained model, opened when it is first asked for.

        Raises:
            ModelError: the folder RUN/model is gone or damaged.
        """
        return load(str(self.folder / "model"))

    def figures(self) -> Figures:
        """Return the steps of each stage, with the mean loss of its first and its last tenth."""
        stages: dict[str, list[float]] = {}
        for row in read_steps(self.folder / "steps.jsonl"):
            stages.setdefault(row["stage"], []).append(row["loss"])
        rows = []
        for name, losses in stages.items():
            tenth = max(1, len(losses) // 10)
            ends = (losses[:tenth], losses[-tenth:])
            rows.append([name, f"{len(losses):,}", *(f"{mean(end):.4f}" for end in ends)])
        title = f"{self.manifest.get('command')}: {self.folder}"
        return Figures(title, ["stage", "steps", "first loss", "last loss"], rows)
