"""Hidden files, which systems put beside others' (`._test.csv`, `.DS_Store`), are no data, whoever lists a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedsmith.data.beir import splits, write_beir
from embedsmith.data.collection import Collection
from embedsmith.data.files import visible, write_json
from embedsmith.data.labelled import read_labelled, task_of
from embedsmith.data.load import known_splits, load_collection, load_tables, table_splits
from embedsmith.evaluation.compare import sides_of
from embedsmith.generation.templates import Template, read_templates, write_templates
from embedsmith.models.names import find_model
from embedsmith.models.opening import load
from embedsmith.prepare.code import CodeSettings, harvest
from embedsmith.recipes.shelf import identity_of_files
from embedsmith.serving.search import corpus_of_run
from tests.scored import write_labelled


def with_hidden(folder: Path) -> None:
    """Put hidden files, and hidden copies of files and folders, into a folder and those below it."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for path in list(place.iterdir()):
            if path.is_file():
                (place / f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
                (place / f".0{path.name}").write_bytes(path.read_bytes())
        (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (place / ".pytorch_model.bin").write_bytes(b"\x80")
    for place in [path for path in folder.rglob("*") if path.is_dir()]:
        shutil.copytree(place, place.with_name(f".{place.name}.1a2b3c4d.partial"))


TOY = Collection.of(
    name="toy", passage_ids=["d"], passages=["a"], query_ids=["q"], queries=["?"], qrels={"q": {"d": 1}}
)


def beir(folder: Path) -> None:
    write_beir(folder, {"dev": TOY, "test": TOY})


def of_beir(folder: Path) -> Any:
    return splits(folder), known_splits(folder), load_collection(folder, split="all").qrels


def tables(folder: Path) -> None:
    for split, labels in (("train", "ab"), ("test", "ba")):
        rows = "".join(f"text {label},{label}\n" for label in labels)
        (folder / f"{split}.csv").write_text(f"text,label\n{rows}")


def of_tables(folder: Path) -> Any:
    names = [table.name for table in load_tables(folder, "all")]
    return table_splits(folder), names, task_of(folder), read_labelled(folder, "classification").columns


def code(folder: Path) -> None:
    body = "\n".join(f"    x = {number}" for number in range(5))
    (folder / "inner").mkdir()
    for name in ("a", "inner/b"):
        (folder / f"{name}.py").write_text(f'def f():\n    """Return the number of all that there is."""\n{body}\n')


def of_code(folder: Path) -> Any:
    return harvest(CodeSettings(source=str(folder)))


def run(folder: Path) -> None:
    beir(folder / "data" / "toy" / "test")
    write_labelled(folder, "after", [{"query_id": "q", "ndcg@10": 0.5}])
    write_json(folder / "manifest.json", {"command": "evaluate", "status": "finished", "inputs": {}, "settings": {}})


def of_run(folder: Path) -> Any:
    return sides_of(folder), list(corpus_of_run(folder, None).texts)


def prompts(folder: Path) -> None:
    write_templates(folder, {"queries": Template("Ask about {{passage}}.")})


def of_prompts(folder: Path) -> Any:
    return read_templates({"queries": ["passage"]}, folder)


FOLDERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "BEIR": (beir, of_beir),
    "tables": (tables, of_tables),
    "code": (code, of_code),
    "run": (run, of_run),
    "prompts": (prompts, of_prompts),
    "files": (tables, identity_of_files),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_with_hidden_files_is_read_as_without(tmp_path, kind):
    make, read = FOLDERS[kind]
    (tmp_path / ".hidden" / "data").mkdir(parents=True)
    folder = tmp_path / ".hidden" / "data"  # the folder itself may lie in a hidden one
    make(folder)
    before = read(folder)
    with_hidden(folder)
    assert read(folder) == before


def test_a_model_with_hidden_files_is_the_model_without(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    with_hidden(folder)
    assert find_model(str(folder)).kind == "folder"
    before, after = (load(str(path)).embed(["a cat"], "passage") for path in (tiny_bert, folder))
    assert before.tolist() == after.tolist()


def test_hidden_is_what_has_a_hidden_part_below_the_folder(tmp_path):
    folder = tmp_path / ".a"
    for name in ("b/c.txt", ".d/e.txt", "f/.g.txt", "h.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = visible(folder, "**/*.txt")
    assert [path.relative_to(folder).as_posix() for path in found] == ["b/c.txt", "h.txt"]
    assert visible(tmp_path / "nowhere") == []
