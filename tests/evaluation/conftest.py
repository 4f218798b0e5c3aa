"""Data that several tests of scores are made on."""

from pathlib import Path

import pytest

from embedsmith.data.beir import write_beir
from embedsmith.data.collection import Collection

ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape", "hen", "yak"]


@pytest.fixture(scope="module")
def beir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beir") / "animals"
    sides = {
        side: Collection.of(
            name="animals",
            passage_ids=ANIMALS,
            passages=[f"the {animal} sat on the mat" for animal in ANIMALS],
            query_ids=[f"{side} {animal}" for animal in ANIMALS],
            queries=[f"{side} where is the {animal}" for animal in ANIMALS],
            qrels={f"{side} {animal}": {animal: 1} for animal in ANIMALS},
        )
        for side in ("train", "test")
    }
    write_beir(folder, sides)
    return folder
