"""Every file that a reader once stumbled over, and files that it reads well: a result, or one line with a remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedsmith.errors import EmbedsmithError
from tests.attacks.fuzz import Place
from tests.attacks.readers import READERS
from tests.attacks.reading import SEEDS, checked

KEPT = [(folder.parent.name, folder.name) for folder in sorted(SEEDS.glob("*/*"))]


@pytest.fixture(scope="module")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    places: dict[str, Place] = {}

    def find(name: str) -> Place:
        if name not in places:
            places[name] = Place(READERS[name], tmp_path_factory.mktemp(name))
        return places[name]

    return find


def test_every_reader_has_something_to_read():
    assert {name for name, _ in KEPT} <= READERS.keys()
    assert {name for name, reader in READERS.items() if reader.base is None} <= {name for name, _ in KEPT}


@pytest.mark.parametrize("reader", [name for name, reader in READERS.items() if reader.base])
def test_what_we_write_ourselves_is_read(reader: str, place_of: Callable[[str], Place]):
    place = place_of(reader)
    assert any(place.seeds(reader)), "no file of the base is changed"
    place.read({})


@pytest.mark.parametrize(("reader", "seed"), KEPT)
def test_a_seed_is_read_or_refused_in_one_line(reader: str, seed: str, place_of: Callable[[str], Place]):
    place = place_of(reader)
    try:
        place.read(place.loaded(SEEDS / reader / seed))
    except EmbedsmithError as error:
        checked(error)


def test_a_seed_is_small():
    assert [path for path in SEEDS.rglob("*") if path.is_file() and path.stat().st_size > 8000] == []


def test_no_seed_names_a_folder_of_the_machine_that_made_it():
    assert [path for path in SEEDS.rglob("*") if path.is_file() and b"/tmp" in path.read_bytes()] == []
