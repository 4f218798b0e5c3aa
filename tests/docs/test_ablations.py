"""`docs/ablations.md` lists every ablation of the repository, and its table is that of the results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def test_every_ablation_of_the_repository_stands_on_the_page():
    listed = re.findall(r"^\| `([\w-]+\.yaml)` \|", PAGE, re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "recipes" / "ablations").glob("*.yaml"))


def test_the_table_of_methods_is_that_of_the_results():
    asked = {"naive": "naive", "shifted": "shifted 10", "abs": "abs 0.7", "marginpos": "marginpos 0.05"}
    asked["percpos"] = "percpos 0.95"
    for name, called in asked.items():
        shown = numbers(PAGE, rf"`{name}`.*?")
        mean, seeds, *sets = numbers(RESULTS, re.escape(called))
        assert [float(cell) for cell in shown[:5]] == pytest.approx(
            [float(cell) for cell in (mean, seeds, *sets[:3])], abs=0.0006
        ), name


def numbers(text: str, row: str) -> list[str]:
    found = re.search(rf"^\| {row} \| (\**0\.\d.*) \|$", text, re.M)
    assert found, row
    return [cell.strip(" *") for cell in found[1].split("|")]
