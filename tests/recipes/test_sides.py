"""A recipe's data have two sides, of whatever kind they are: both are read in one way, and kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from embedsmith.data import labelled, load
from embedsmith.data.collection import Collection
from embedsmith.data.columns import ColumnSettings
from embedsmith.data.labelled_rows import LabelledColumns
from embedsmith.data.load import load_collection
from embedsmith.data.tables import saved_tables
from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.compare import compare
from embedsmith.mining.settings import MiningSettings
from embedsmith.models.settings import StudentSettings
from embedsmith.prepare.contamination import ContaminationSettings
from embedsmith.prepare.converters.settings import ConvertSettings
from embedsmith.prepare.decontaminate import decontaminate
from embedsmith.progress import silent
from embedsmith.recipes.data import clean, evaluation_side, training_side
from embedsmith.recipes.labelled_scores import scoring_of
from embedsmith.recipes.recipe import DataSettings, EvaluationSettings, Recipe
from embedsmith.recipes.run import run_recipe
from embedsmith.runs.run import Run
from embedsmith.runs.scores import read_scores
from embedsmith.training.settings import StageSettings

ANIMALS = {"train": ["cat", "dog", "owl", "bat"], "dev": ["eel", "ape"], "test": ["hen", "yak", "cat"]}
COLUMNS = ColumnSettings(query="ask", positive="reply")


def save(folder: Path, splits: dict[str, list[dict]]) -> Path:
    """Write a folder as `save_to_disk` of `datasets` does."""
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(folder / split / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
        (folder / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        (folder / split / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(animals: list[str]) -> list[dict]:
    """Rows in columns of their own, one of which cannot be used."""
    return [*({"ask": f"where is the {a}", "reply": f"the {a} is here"} for a in animals), {"ask": " ", "reply": "x"}]


def beir(folder: Path) -> Path:
    """A BEIR folder with a judgement of a passage that lies beside it, and one of nothing."""
    every = sorted({animal for animals in ANIMALS.values() for animal in animals})
    lines(folder / "corpus.jsonl", [{"_id": f"d-{a}", "text": f"the {a} is here"} for a in every])
    asked = [(split, a) for split, animals in ANIMALS.items() for a in animals]
    lines(folder / "queries.jsonl", [{"_id": f"{split}-{a}", "text": f"where is the {a}"} for split, a in asked])
    (folder / "qrels").mkdir()
    for split, animals in ANIMALS.items():
        judged = [f"{split}-{a}\td-{a}\t1\n" for a in animals]
        judged += [f"{split}-{animals[0]}\tmore-1\t1\n", f"{split}-{animals[0]}\tnowhere\t1\n"]
        (folder / "qrels" / f"{split}.tsv").write_text("".join(judged))
    return folder


@pytest.fixture(params=["datasets", "hub", "BEIR"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSettings:
    """A data set with three splits, a corpus beside it, and rows that cannot be used."""
    corpus = lines(tmp_path / "more.jsonl", [{"id": f"more-{n}", "text": f"another animal {n}"} for n in range(5)])
    if request.param == "BEIR":
        return DataSettings(path=str(beir(tmp_path / "beir")), corpus=str(corpus), skip_bad=True)
    folder = save(tmp_path / "saved", {split: pairs(animals) for split, animals in ANIMALS.items()})
    path = str(folder)
    if request.param == "hub":
        path = "hf:owner/animals"
        for module in (load, labelled):
            monkeypatch.setattr(module, "hub_tables", lambda name, split: saved_tables(folder))
    return DataSettings(path=path, columns=COLUMNS, corpus=str(corpus), skip_bad=True)


def judged(collection: Collection) -> dict[str, set[str]]:
    """Return the texts of each query's positives."""
    return {
        collection.queries[collection.query_index[query]]: {
            collection.passages[collection.passage_index[passage]] for passage in collection.positives(query)
        }
        for query in collection.query_ids
    }


def asked(*splits: str) -> set[str]:
    return {f"where is the {animal}" for split in splits for animal in ANIMALS[split]}


@pytest.mark.parametrize("split", ["test", "dev", "dev,test"])
def test_both_sides_are_read_as_the_settings_say(data: DataSettings, tmp_path: Path, split: str):
    data = data.model_copy(update={"test_split": split})
    found = evaluation_side(tmp_path, "animals", data)
    wanted = {"columns": data.columns, "corpus": data.corpus, "skip_bad": True}
    assert found == load_collection(data.path, split=split, **wanted)
    assert found
    assert judged(found).keys() == asked(*split.split(","))
    assert "another animal 4" in set(found.passages)
    train, listed = training_side(tmp_path, "animals", data)
    assert train == load_collection(data.path, split="train", **wanted)
    assert not len(listed.queries)


def test_a_side_that_is_not_there_is_none_where_nobody_asked_for_it(data: DataSettings, tmp_path: Path):
    for wrong, said in (
        ("tset", 'no split "tset" to evaluate on .did you mean "test"'),
        ("test,dve", 'no split "dve"'),
    ):
        with pytest.raises(InputError, match=said):
            evaluation_side(tmp_path, "animals", data.model_copy(update={"test_split": wrong}))
    assert evaluation_side(tmp_path, "animals", data.model_copy(update={"test_split": None})) is None
    file = DataSettings(path=str(lines(tmp_path / "pairs.jsonl", pairs(["cat"]))), columns=COLUMNS)
    assert evaluation_side(tmp_path, "pairs", file) is None
    with pytest.raises(InputError, match=r'pairs.jsonl: no split "dev" to evaluate on') as caught:
        evaluation_side(tmp_path, "pairs", file.model_copy(update={"test_split": "dev"}))
    assert "a file has no splits" in caught.value.hint


@pytest.mark.parametrize("split", [None, "train,dev", "all"])
def test_what_is_against_a_data_set_is_taken_out_of_the_rows_that_are_mined(
    data: DataSettings, tmp_path: Path, split: str | None
):
    against = save(
        tmp_path / "against",
        {"train": [{"text": "where is the dog"}], "test": [{"text": "Where is the CAT"}, {"text": " "}]},
    )
    plain = data.model_copy(update={"split": split})
    data = plain.model_copy(
        update={"against": [str(against)], "contamination": ContaminationSettings(near_duplicates=0)}
    )
    with Run.open(tmp_path / "run", command="train", settings=plain, inputs={}) as run:
        clean(run, "animals", data, silent)
        found, _ = training_side(run.folder, "animals", data)
        again, _ = training_side(run.folder, "animals", data)
    assert found == again
    left = judged(found)
    before = judged(training_side(tmp_path, "animals", plain)[0])
    assert before.keys() - left.keys() == {"where is the cat"}
    assert {query: before[query] for query in left} == left
    assert {"another animal 1", "another animal 4"} <= set(found.passages)


def test_a_bad_row_stops_the_cleaning_unless_it_may_be_left_out(data: DataSettings, tmp_path: Path):
    against = lines(tmp_path / "eval.jsonl", [{"text": "where is the cat"}])
    data = data.model_copy(update={"against": [str(against)], "skip_bad": False, "corpus": None})
    with Run.open(tmp_path / "run", command="train", settings=data, inputs={}) as run:
        with pytest.raises(InputError, match=r"no text|unknown passage id"):
            clean(run, "animals", data, silent)
        run.finish()


def test_decontaminate_counts_what_it_leaves_out_and_takes_the_test_split_of_a_datasets_folder(tmp_path: Path):
    sets = save(tmp_path / "sets", {"train": [{"text": "a"}, {"text": "b"}], "test": [{"text": "b"}, {"text": ""}]})
    notes: list[str] = []
    rows = lines(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}, {"text": None}, {"text": "c"}])
    found = decontaminate(rows, against=[sets], out=tmp_path / "out.jsonl", skip_bad=True, on_skip=notes.append)
    assert (found.rows, found.kept, found.removed) == (3, 2, 1)
    assert [line.split(",")[0] for line in notes] == ['2 rows skipped for "no text"']
    with pytest.raises(InputError, match="test: row 2: no text"):
        decontaminate(rows, against=[sets], out=tmp_path / "again.jsonl")


def test_data_of_the_hub_with_columns_and_a_corpus_are_evaluated_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
):
    folder = save(tmp_path / "saved", {split: pairs(animals) for split, animals in ANIMALS.items()})
    monkeypatch.setattr(load, "hub_tables", lambda name, split: saved_tables(folder))
    corpus = lines(tmp_path / "more.jsonl", [{"id": f"m{n}", "text": f"another animal {n}"} for n in range(5)])
    recipe = Recipe(
        data={"animals": DataSettings(path="hf:o/animals", columns=COLUMNS, corpus=str(corpus), skip_bad=True)},
        mining=MiningSettings(teachers=["bm25"], method="naive", negatives=1, depth=5),
        student=StudentSettings(name=str(tiny_bert)),
        stages=[StageSettings(steps=1, batch_size=4, dtype="float32", report_to="none", learning_rate=1e-2)],
        evaluation=EvaluationSettings(dtype="float32"),
    )
    run = run_recipe(recipe, out=tmp_path / "run")
    assert read_scores(run.folder).metrics_of("animals").keys() == {"bm25", "teacher", "before", "after"}
    (found,) = compare(run.folder, against="bm25")
    assert found.difference.queries == 3
    notes = [*found.wins, *found.losses]
    assert notes
    assert {query.query for query in notes} <= asked("test")
    assert all(query.answer and query.answer.text for query in notes)


@pytest.mark.parametrize("kind", ["datasets", "hub", "folder"])
def test_labelled_data_of_every_kind_are_scored_on_their_test_split(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("mteb")
    rows = {
        split: [{"words": f"my {a}", "label": f"l{n % 2}"} for n, a in enumerate(animals)]
        for split, animals in ANIMALS.items()
    }
    path = str(save(tmp_path / "saved", rows))
    if kind == "hub":
        folder, path = tmp_path / "saved", "hf:owner/animals"
        for module in (load, labelled):
            monkeypatch.setattr(module, "hub_tables", lambda name, split: saved_tables(folder))
    if kind == "folder":
        path = str(tmp_path / "files")
        for split, own in rows.items():
            lines(tmp_path / "files" / f"{split}.jsonl", own)
    data = DataSettings(
        path=path, convert=ConvertSettings(task="classification"), labelled_columns=LabelledColumns(text="words")
    )
    for split in ("test", "dev"):
        scoring = scoring_of(data.model_copy(update={"test_split": split}))
        assert scoring
        assert (scoring.task, scoring.split, scoring.columns.text) == ("classification", split, "words")
    assert scoring_of(data.model_copy(update={"test_split": None})) is None
    with pytest.raises(InputError, match='no split "evl"'):
        scoring_of(data.model_copy(update={"test_split": "evl"}))
    with pytest.raises(SettingsError, match="labelled data are scored on one split, test_split is dev,test"):
        scoring_of(data.model_copy(update={"test_split": "dev,test"}))
