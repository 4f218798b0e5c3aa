"""Files of our own folders that were edited or damaged: each is refused by its name, and by what does not fit in it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from embedsmith.data.files import write_array, write_json, write_jsonl
from embedsmith.errors import EmbedsmithError, ModelError, RunError
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.models.library_errors import LibraryErrors
from embedsmith.recipes.ablation.mining import read_mining
from embedsmith.recipes.shelf import Shelf
from embedsmith.runs.named import named_data, seed_of, source_of_run
from embedsmith.runs.run import read_manifest
from embedsmith.runs.scores import read_scores
from embedsmith.teachers.chance import Chance
from embedsmith.teachers.kept import KeptScores
from embedsmith.training.checkpoints import load_optimizer, load_weights, read_state, save_optimizer, write_checkpoint
from embedsmith.training.report import read_steps

ODD: dict[str, Any] = {
    "a text": "x",
    "a list": [1],
    "a switch": True,
    "a number that is none": float("nan"),
    "a number beyond floats": 10**400,
    "a mapping": {"x": []},
}


def write_plain(path: Path, value: Any) -> None:
    """Write JSON with numbers that JSON does not have, as another program does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n")


def whole_step() -> dict[str, Any]:
    """Return a row of the log of steps."""
    from dataclasses import MISSING, fields

    from embedsmith.training.report import StepReport

    return {
        field.name: "one" if field.name == "stage" else 1.0 for field in fields(StepReport) if field.default is MISSING
    }


def refused(read: Callable[[], Any], match: str) -> None:
    with pytest.raises(EmbedsmithError, match=match) as caught:
        read()
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 1


def test_a_log_of_steps_is_read(tmp_path: Path):
    write_jsonl(tmp_path / "steps.jsonl", [whole_step()])
    assert read_steps(tmp_path / "steps.jsonl") == [whole_step()]


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_log_of_steps_with_another_value_is_refused(tmp_path: Path, value: Any):
    write_plain(tmp_path / "steps.jsonl", {**whole_step(), "loss": value})
    # What no number is, and no JSON, is refused by the reader of lines.
    refused(lambda: read_steps(tmp_path / "steps.jsonl"), r"steps\.jsonl:1: ")


def test_a_log_of_steps_with_an_unknown_name_is_refused(tmp_path: Path):
    write_plain(tmp_path / "steps.jsonl", {**whole_step(), "odd": 1})
    refused(lambda: read_steps(tmp_path / "steps.jsonl"), r"no report of a step: nothing fits under 'odd'")


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("whole", [True, False])
def test_figures_of_mined_negatives_with_another_value_are_refused(tmp_path: Path, value: Any, whole: bool):
    figures = {"hardness": 0.5, "false_negatives": None}
    write_plain(tmp_path / "mined" / "figures.json", {"animals": figures})
    assert read_mining(tmp_path)["animals"].hardness == 0.5
    write_plain(tmp_path / "mined" / "figures.json", {"animals": value if whole else {**figures, "hardness": value}})
    refused(lambda: read_mining(tmp_path), r"figures\.json: no figures of mined negatives")


ABOUT = {
    "candidates": ({"guide": None}, "guide", [True, {"teacher": "a\nb", "queries": "q", "passages": "p"}, {"x": 1}]),
    "stages": ({"steps": [], "counts": {}}, "steps", [None, "x", [{"stage": 1}], [3]]),
    "scores": ({"model_hash": None}, "model_hash", [1, ["x"], {}]),
}


@pytest.mark.parametrize("kind", ABOUT)
def test_what_is_known_of_a_result_on_the_shelf_is_checked(tmp_path: Path, kind: str):
    good, name, odd = ABOUT[kind]
    (tmp_path / "result.txt").write_text("x")
    shelf = Shelf(tmp_path / "shelf")
    shelf.keep(kind, {"a": 1}, tmp_path / "result.txt", about=good)
    assert shelf.about(kind, {"a": 1}) == {"identity": {"a": 1}, **good}
    (path,) = (tmp_path / "shelf").rglob("about.json")
    for value in odd:
        write_plain(path, {"identity": {"a": 1}, **good, name: value})
        refused(lambda: shelf.about(kind, {"a": 1}), rf"not what is known of {kind}: nothing fits under {name}")
    write_plain(path, [1])
    refused(lambda: shelf.about(kind, {"a": 1}), "nothing fits under identity")


MANIFEST = {"command": "train", "status": "finished"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("command", 1), ("status", None), ("settings", []), ("inputs", {"data": 3}), ("content", {"a": 1})),
        *(("versions", {"torch": 2}), ("seconds", {"mine": "long"}), ("counts", {"mining": 3}), ("trained_names", [1])),
        ("seconds", {"mine": 10**400}),
    ],
)
def test_a_manifest_with_another_value_is_refused(tmp_path: Path, name: str, value: Any):
    write_json(tmp_path / "manifest.json", MANIFEST)
    assert read_manifest(tmp_path)["command"] == "train"
    write_plain(tmp_path / "manifest.json", {**MANIFEST, name: value})
    refused(
        lambda: read_manifest(tmp_path), rf"manifest\.json: (no manifest of a run: nothing fits under {name}|not J)"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_manifest_and_scores_with_a_number_that_is_none_are_refused(tmp_path: Path, value: float):
    write_plain(tmp_path / "manifest.json", {**MANIFEST, "settings": {"mining": {"shift": value}}})
    refused(lambda: read_manifest(tmp_path), r"manifest\.json: not JSON: ")
    write_plain(tmp_path / "scores.json", {"version": 2, "data": {"a": {"task": "sts", "labels": {"x": value}}}})
    refused(lambda: read_scores(tmp_path), r"scores\.json: not JSON: ")


@pytest.mark.parametrize("data", ["x", {"a": 1}, {"a": {}}, {"a": {"path": 1}}, {"a": {"path": "p", "test_split": 1}}])
def test_the_data_sets_that_a_manifest_names_are_checked(tmp_path: Path, data: Any):
    good = {"a": {"path": "p"}}
    assert named_data(tmp_path, {"settings": {"data": good}}) == {"a": {"path": "p", "test_split": None}}
    refused(lambda: named_data(tmp_path, {"settings": {"data": data}}), "no data sets under settings.data")


@pytest.mark.parametrize("source", ["x", [], {"corpus": 1}, {"split": []}, {"skip_bad": "yes"}, {"columns": "query"}])
def test_how_a_manifest_says_that_data_were_read_is_checked(tmp_path: Path, source: Any):
    assert source_of_run(tmp_path, {"inputs": {"source": {"split": "dev"}}}) == {"split": "dev"}
    refused(lambda: source_of_run(tmp_path, {"inputs": {"source": source}}), "nothing fits under inputs.source")


@pytest.mark.parametrize("seed", [True, "1", 1.0, -1, 2**32, None, [1]])
def test_the_seed_of_a_manifest_is_checked(tmp_path: Path, seed: Any):
    assert seed_of(tmp_path, {"settings": {"seed": 7}}) == 7
    refused(lambda: seed_of(tmp_path, {"settings": {"seed": seed}}), "no seed under settings.seed")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"query_id": "q", "ndcg": 0.5}, {"query_id": "q", "ndcg": 0.5}], ':2: query "q" stands there twice'),
        ([{"query_id": "q", "ndcg": 10**400}], ':1: "ndcg" is .*, wanted a finite number'),
        ([{"query_id": "q", "ndcg": 1e300}], ':1: "ndcg" is 1e[+]300, wanted a finite number'),
        ([{"query_id": 1, "ndcg": 0.5}], ":1: not the scores of a query"),
        ([{"query_id": "q", "ndcg": 0.5, "first": "abc"}], ":1: not the scores of a query"),
        ([{"query_id": "q", "ndcg": 0.5, "first": [1]}], ":1: not the scores of a query"),
        ([{"query_id": "q"}], ":1: not the scores of a query"),
    ],
)
def test_scores_of_single_queries_are_checked(tmp_path: Path, rows: list[dict[str, Any]], match: str):
    (tmp_path / "per_query.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(lambda: read_per_query(tmp_path / "per_query.jsonl"), rf"per_query\.jsonl{match}")


class TrainerState:
    """What the Trainer writes of itself."""

    def save_to_json(self, path: str) -> None:
        Path(path).write_text("{}")


def checkpoint(folder: Path) -> tuple[torch.nn.Linear, torch.optim.AdamW]:
    """Write a checkpoint after one step of a layer."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"best": {"path": None, "loss": None}, "reports": []}
    write_checkpoint(folder, model, optimizer, trainer_state=TrainerState(), state=state)
    return model, optimizer


@pytest.mark.parametrize("file", ["state.json", "trainer_state.json"])
def test_the_state_of_a_checkpoint_that_was_changed_is_refused(tmp_path: Path, file: str):
    checkpoint(tmp_path / "checkpoint")
    assert read_state(tmp_path / "checkpoint")["reports"] == []
    path = tmp_path / "checkpoint" / file
    write_plain(path, {**json.loads(path.read_text()), "more": 1})
    refused(lambda: read_state(tmp_path / "checkpoint"), r"state\.json: it or trainer_state\.json was changed")
    path.write_text("[1]")
    refused(lambda: read_state(tmp_path / "checkpoint"), r"state\.json: it or trainer_state\.json was changed")


def test_a_checkpoint_whose_best_weights_are_gone_is_refused(tmp_path: Path):
    model, optimizer = checkpoint(tmp_path / "first")
    state = {"best": {"path": "best-1.safetensors", "loss": 0.5}}
    write_checkpoint(tmp_path / "checkpoint", model, optimizer, trainer_state=TrainerState(), state=state)
    refused(lambda: read_state(tmp_path / "checkpoint"), r"the best weights so far are gone: .*best-1\.safetensors")


def _of_another_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight|exp_avg"] = tensors["weight|exp_avg"].double()


def _of_another_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight|step"] = torch.zeros(3)


def _without_a_quantity(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["bias|exp_avg_sq"]


def _with_another_quantity(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight|momentum"] = torch.zeros(1, 2)


def _without_a_bar(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight"] = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_of_another_type, r"weight\|exp_avg is \(1, 2\) of torch\.float64, wanted \(1, 2\) of torch\.float32"),
        (_of_another_shape, r"weight\|step is \(3,\) of torch\.float32, wanted \(\) of torch\.float32"),
        (_without_a_quantity, r"not the state of AdamW: 'bias\|exp_avg_sq'"),
        (_with_another_quantity, r"not the state of AdamW: 'weight\|momentum'"),
        (_without_a_bar, r"not the state of AdamW"),
    ],
)
def test_the_optimizer_state_of_a_checkpoint_is_checked(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], match: str
):
    from safetensors.torch import load_file, save_file

    model, optimizer = checkpoint(tmp_path / "checkpoint")
    path = tmp_path / "optimizer.safetensors"
    save_optimizer(path, model, optimizer)
    load_optimizer(path, model, optimizer)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    refused(lambda: load_optimizer(path, model, optimizer), match)


def test_weights_of_a_checkpoint_of_another_shape_are_refused(tmp_path: Path):
    checkpoint(tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model.safetensors"
    refused(lambda: load_weights(path, torch.nn.Linear(3, 1)), r"weight is \(1, 2\) of .*, wanted \(1, 3\) of ")
    refused(lambda: load_weights(path, torch.nn.Linear(2, 1, bias=False)), "holds other weights than the model has")
    path.write_bytes(path.read_bytes()[:-3])
    refused(lambda: load_weights(path, torch.nn.Linear(2, 1)), r"model\.safetensors: ")


class Counting(Chance):
    """A teacher that counts how often it is asked."""

    asked = 0

    def scores(self, queries: Any, rows: np.ndarray) -> np.ndarray:
        self.asked += 1
        return super().scores(queries, rows)


@pytest.mark.parametrize(
    "damage",
    [
        np.full((2, 2), np.nan, np.float32),
        np.ones((2, 3), np.float32),
        np.ones((2, 2), np.float64),
        np.ones(4, np.float32),
    ],
    ids=["not finite", "wider", "of another type", "flat"],
)
def test_kept_scores_that_are_none_are_computed_again(tmp_path: Path, damage: np.ndarray):
    teacher = Counting(2, seed=0)
    kept = KeptScores(teacher, ["a", "b"], contract={"model": "toy"}, folder=tmp_path)
    rows = np.array([[0, 1], [1, 0]])
    known = kept.scores(["a", "b"], rows)
    kept.scores(["a", "b"], rows)
    assert teacher.asked == 1
    (path,) = tmp_path.rglob("*.npy")
    write_array(path, damage)
    assert (kept.scores(["a", "b"], rows) == known).all()
    assert teacher.asked == 2


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("a\nb"), ValueError("a\nb"), RuntimeError("a\nb"), KeyError("a"), AttributeError("a"), EOFError()),
        *(AssertionError(), ZeroDivisionError("a"), SafetensorError("a"), struct.error("a"), StrictDataclassError("a")),
        Exception("what a tokenizer raises"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_library_raises_over_a_model_is_one_line(error: Exception):
    def read() -> None:
        with LibraryErrors("toy", "cannot be opened"):
            raise error

    refused(read, "toy: cannot be opened: .")


def test_a_mistake_of_ours_and_a_line_that_is_one_already_pass():
    for error in (KeyboardInterrupt(), RunError("as it is", hint="none"), ModelError("as it is", hint="none")):
        with pytest.raises(type(error)) as caught, LibraryErrors("toy", "cannot be opened"):
            raise error
        assert caught.value is error
