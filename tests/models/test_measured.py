"""Which library multiplies float32: measured once a machine, and the same in every process after that."""

import json

import pytest
import torch

from embedsmith.models import measured
from embedsmith.models.measured import Speeds, multiplies_wide, speeds
from embedsmith.models.precision import onednn_multiplies


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in measured._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    speeds.cache_clear()
    yield
    speeds.cache_clear()


def kept(tmp_path):
    return list((tmp_path / "embedsmith").glob("float32-*.json"))


@pytest.mark.skipif(not onednn_multiplies(torch.float32), reason="needs a torch with oneDNN")
def test_both_libraries_are_measured_once_and_the_next_process_reads_it(monkeypatch, tmp_path):
    first = speeds()
    assert all(1 < speed < 10_000 for speed in first)
    (path,) = kept(tmp_path)
    monkeypatch.setattr(measured, "_measure", lambda: pytest.fail("measured again"))
    speeds.cache_clear()
    assert speeds() == first
    path.write_text(json.dumps({"torch": 10.0, "onednn": 20.0}))
    speeds.cache_clear()
    assert speeds() == Speeds(10.0, 20.0)
    assert multiplies_wide(torch.device("cpu"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"torch": "fast", "onednn": 1}', '{"torch": 1}'])
def test_a_damaged_file_is_measured_anew(monkeypatch, tmp_path, content):
    monkeypatch.setattr(measured, "_measure", lambda: Speeds(3.0, 4.0))
    assert speeds() == (3.0, 4.0)
    (path,) = kept(tmp_path)
    path.write_text(content)
    speeds.cache_clear()
    monkeypatch.setattr(measured, "_measure", lambda: Speeds(5.0, 4.0))
    assert speeds() == (5.0, 4.0)
    assert json.loads(path.read_text()) == {"torch": 5.0, "onednn": 4.0}


def test_another_torch_or_another_limit_of_instructions_is_another_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(measured, "_measure", lambda: Speeds(3.0, 4.0))
    speeds()
    monkeypatch.setattr(torch, "__version__", "99.0")
    speeds.cache_clear()
    speeds()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    speeds.cache_clear()
    speeds()
    assert len(kept(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(measured, "_measure", lambda: Speeds(3.0, 4.0))
    assert speeds() == (3.0, 4.0)
    assert not multiplies_wide(torch.device("cuda"))
