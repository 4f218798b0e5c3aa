"""The ablation of the sources of pairs: its rows are all sources, and each source left out."""

from __future__ import annotations

from pathlib import Path

from embedsmith.prepare.documents.settings import SOURCES
from embedsmith.recipes.ablation.grid import cells_of, read_ablation

FILE = Path(__file__).parents[3] / "recipes" / "ablations" / "pair-sources.yaml"


def test_every_source_is_left_out_once_and_nothing_else_differs():
    first, *others = cells_of(read_ablation(FILE, seeds=1))
    assert first.recipe.data["documents"].documents.weights == {}
    left_out = [cell.recipe.data["documents"].documents.weights for cell in others]
    assert left_out == [{source: 0.0} for source in left_out_in_order()]
    for cell in others:
        settings = cell.recipe.data["documents"]
        same = settings.model_copy(update={"documents": settings.documents.model_copy(update={"weights": {}})})
        data = {"documents": same.model_dump(exclude_unset=False)}
        assert cell.recipe.model_copy(update={"data": {}, "name": ""}) == first.recipe.model_copy(
            update={"data": {}, "name": ""}
        )
        assert data == {"documents": first.recipe.data["documents"].model_dump(exclude_unset=False)}


def left_out_in_order() -> list[str]:
    rows = list(read_ablation(FILE, seeds=1).rows)[1:]
    assert sorted(rows) == sorted(f"no {source}" for source in SOURCES)
    return [row.removeprefix("no ") for row in rows]
