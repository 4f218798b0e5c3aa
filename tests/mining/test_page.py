"""The page of a mining run: whole, safe whatever the texts hold, and true to the numbers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embedsmith import MiningSettings
from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection
from embedsmith.errors import RunError
from embedsmith.mining.mine import mine
from embedsmith.mining.page import FATES, mining_report, write_mining_report
from embedsmith.mining.select import select_again
from embedsmith.pages.charts import Series, histogram_svg, round_ticks
from embedsmith.runs.run import read_manifest

EVIL = "<script>alert(1)</script> \"'&amp; </svg></details><img src=http://example.org/x onerror=alert(2)> "
VOID = {"meta"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; a tag that is closed out of order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Thirty queries with two positives each, every text of which wants out of its place."""
    folder = tmp_path_factory.mktemp("data") / "a<b>&c"
    topics = ["cat", "dog", "owl", "bat", "eel", "ape"]
    passages = [f"{EVIL} the {topic} number {n} " + f"of the {topic} " * (60 if n == 4 else 1)
                for topic in topics for n in range(10)]  # fmt: skip
    collection = Collection.of(
        name="evil",
        passage_ids=[f"<p{row}>" for row in range(60)],
        passages=passages,
        query_ids=[f"<q{row}>" for row in range(30)],
        queries=[f"{EVIL} where is the {topics[row % 6]} number {row // 6}" for row in range(30)],
        qrels={f"<q{row}>": {f"<p{row % 6 * 10 + n}>": 1 for n in (row // 6, row // 6 + 5)} for row in range(30)},
    )
    write_beir(folder, {"train": collection})
    out = tmp_path_factory.mktemp("runs") / "mined"
    mine(folder, out=out, settings=MiningSettings(teachers=["bm25", "random"], method="naive", depth=20))
    return out


def test_the_page_runs_and_fetches_nothing_whatever_the_texts_hold(run: Path):
    path = mining_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "srcset") or name.startswith("on")]
    assert {value for name, value in page.attributes if name == "href" and not value.startswith("#")} == set()
    assert "url(" not in path.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in page.words
    assert "<q0>" in page.words


def test_the_page_can_be_used_by_keyboard_and_by_ear(run: Path):
    text = mining_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("svg") == page.tags.count("figure") == page.tags.count("figcaption") == 3
    labels = [value for name, value in page.attributes if name == "aria-label" and "median" in value]
    assert len(labels) == 3
    ids = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for name, value in page.attributes if name == "href"} <= ids
    assert {value for name, value in page.attributes if name == "aria-labelledby"} <= ids
    assert ("lang", "en") in page.attributes
    assert all(table.count("<th scope=") > 1 for table in text.split("<table")[1:])


def test_the_numbers_are_plain_and_those_of_the_run(run: Path):
    path, numbers = write_mining_report(run)
    counts = read_manifest(run)["counts"]["mining"]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == json.loads(json.dumps(numbers))
    assert numbers["counts"] == counts
    assert numbers["queries"] == 30
    assert set(numbers["audit"]) >= {"naive", "percpos", "this run"}
    assert numbers["audit"]["this run"]["queries"] == 30
    assert numbers["by_ratio"][0]["query_id"].startswith("<q")
    assert f"{counts['negatives']:,}" in path.read_text(encoding="utf-8")


def test_the_same_run_makes_the_same_page(run: Path):
    assert mining_report(run).read_bytes() == mining_report(run).read_bytes()
    assert not list(run.glob("*.partial"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "abs", "threshold": -100.0}, "No negative was taken."),
        ({"method": "abs", "threshold": -100.0, "short": "random"}, "a random passage"),
        ({"method": "abs", "threshold": -100.0, "short": "drop"}, "dropped, for lack of negatives"),
        ({"near_duplicates": 0.5}, "almost the words of a positive"),
        ({"positive": "each"}, "one a positive"),
        ({"ensemble": "intra"}, "By random"),
        ({"ensemble": "rrf", "method": "shifted", "shift": 3}, "among the first ones"),
    ],
    ids=["none", "filled", "dropped", "near", "each", "intra", "rrf"],
)
def test_every_way_of_selecting_has_a_page(run: Path, tmp_path: Path, changes: dict, words: str):
    select_again(run, out=tmp_path / "again", changes=changes)
    path, numbers = write_mining_report(tmp_path / "again")
    assert words in Page(path.read_text(encoding="utf-8")).words
    json.dumps(numbers, allow_nan=False)


def test_a_query_with_one_positive_each_has_no_audit(tmp_path: Path):
    rows = [{"query": f"where is cat {n}", "positive": f"cat {n} is here"} for n in range(20)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine(data, out=tmp_path / "run", settings=MiningSettings(teachers=["bm25"], method="naive"))
    path, numbers = write_mining_report(tmp_path / "run")
    assert numbers["audit"] is None
    assert numbers["agreement"] == []
    assert "Hold-out" not in path.read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="not a run folder"):
        mining_report(tmp_path)


def test_every_fate_has_words():
    from embedsmith.mining.exclusions import Fate

    assert set(FATES) == set(Fate) - {Fate.ABSENT}


def test_a_histogram_draws_each_count_to_scale_and_escapes_its_words():
    svg = histogram_svg(
        "a<b", [0.0, 1.0, 2.0, 3.0], [Series("<i>", [4, 0, 2])], x_label="x&y", y_label="rows", marks=[(1.5, "<m>")]
    )
    page = Page(svg)
    heights = [float(value) for name, value in page.attributes if name == "height"]
    assert page.tags.count("rect") == 2
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.11)
    assert {"i", "m"} & set(page.tags) == set()
    assert "<m>" in page.words


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.31, 0.87), (0, 123_456), (0, 1e-9), (11.2, 11.3)])
def test_ticks_span_their_range_in_a_few_round_steps(low: float, high: float):
    ticks = round_ticks(low, high)
    assert ticks[0] <= low + 1e-9 * (high - low)
    assert ticks[-1] >= high - 1e-9 * (high - low)
    assert 3 <= len(ticks) <= 8
