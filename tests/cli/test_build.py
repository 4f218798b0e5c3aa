"""`embedsmith build` on the project's own documentation, with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedsmith.data.files import read_json

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that are kept in the repository, and one that is broken."""
    folder = tmp_path_factory.mktemp("docs") / "docs"
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("reference", "__pycache__"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4")
    return folder


@pytest.mark.slow
def test_a_folder_becomes_a_model_and_every_file_is_told_of(
    embedsmith_command, documents: Path, tiny_bert: Path, tmp_path: Path
):
    out = tmp_path / "run"
    changes = ["stages.0.steps=2", "stages.0.batch_size=4", "student.passage_max_tokens=96"]
    words = ["build", str(documents), "--out", str(out), "--student", str(tiny_bert), "--verbose"]
    done = embedsmith_command(*words, *(word for change in changes for word in ("--set", change)))
    assert done.code == 0, done.err
    read = read_json(out / "data" / "documents" / "done.json")
    pages = len(list(documents.glob("*.md")))
    assert read["counts"]["files_read"] >= pages >= 15
    assert f"{read['counts']['files_read']} files read, {len(read['skipped'])} not: " in done.err
    assert "  broken.pdf: damaged" in done.err
    assert f"{read['counts']['passages']:,} passages; " in done.err
    assert f"pairs found: {read['counts']['pairs']['heading']:,} heading, " in done.err
    assert "Scores on documents, queries of files never seen" in done.out
    assert "ndcg@10 by the source of the query" in done.out
    assert (out / "model" / "model.safetensors").is_file() and (out / "report.html").is_file()
    found = embedsmith_command("search", str(out), "mine hard negatives", "--top", "2")
    assert found.code == 0 and ".md > " in found.out
