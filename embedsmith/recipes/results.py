"""What a recipe returns: a run with its model and its scores.

run.model      the trained model, a SentenceTransformer
run.scores     data set -> model -> metric -> value
print(run)     the main score of each model on each data set
"""

from __future__ import annotations

from embedsmith.pages.tables import Figures
from embedsmith.runs.scores import read_scores
from embedsmith.training.results import TrainedRun


class RecipeRun(TrainedRun):
    """A finished run of a recipe; `RecipeRun.read(folder)` is one that is there already."""

    @property
    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """All scores: data set -> what was scored (`before`, `after`, `teacher`, a baseline) -> metric -> value.

        Raises:
            InputError, RunError: the file RUN/scores.json is damaged.
        """
        return read_scores(self.folder).metrics()

    def figures(self) -> Figures:
        """Return the main score of each model on each data set; the losses where nothing was scored."""
        rows = []
        for name, labels in self.scores.items():
            for label, metrics in labels.items():
                metric, value = next(iter(metrics.items()))
                rows.append([name, label, metric, f"{value:.4f}"])
        if not rows:
            return super().figures()
        return Figures(f"{self.manifest.get('command')}: {self.folder}", ["data", "model", "metric", "score"], rows)
