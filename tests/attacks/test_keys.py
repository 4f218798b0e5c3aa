"""Keys go where the user says: a recipe from anybody does not decide it."""

import sys
import traceback
from pathlib import Path

import pytest

from embedsmith.cli.main import main
from embedsmith.errors import EmbedsmithError, ModelError, SettingsError
from embedsmith.mining.settings import MiningSettings
from embedsmith.recipes.recipe import Recipe
from embedsmith.services.endpoint import Caller, calling, endpoint, key_for
from tests.servers import serving
from tests.teachers.test_remote import EmbeddingServer

pytestmark = pytest.mark.usefixtures("no_key")

OPENAI, OURS = "sk-openai-key", "sk-embedsmith-key"


@pytest.fixture
def keys(no_key, monkeypatch) -> None:
    """Both keys, and a host that may have one of them."""
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI)
    monkeypatch.setenv("EMBEDSMITH_API_KEY", OURS)
    monkeypatch.setenv("EMBEDSMITH_API_HOSTS", "listed.org, [::1], localhost")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://API.OpenAI.com:443/v1", OPENAI),
        ("http://api.openai.com/v1", None),
        ("https://api.openai.com.evil.org/v1", None),
        ("https://evil.org/api.openai.com/v1", None),
        ("https://other.org/v1", None),
        ("https://listed.org/v1", OURS),
        ("https://LISTED.org:8000/v1", OURS),
        ("https://not-listed.org/v1", None),
        ("https://sub.listed.org/v1", None),
        ("http://listed.org/v1", None),
        ("https://named.org/v1", OURS),
        ("http://named.org/v1", None),
        ("http://localhost:8000/v1", OURS),
        ("http://127.0.0.1:8000/v1", None),
        ("http://127.0.0.2.evil.org/v1", None),
    ],
)
@pytest.mark.usefixtures("keys")
def test_a_key_is_sent_to_its_own_hosts_and_never_in_clear_over_a_network(url, key):
    with calling(Caller(key_hosts=frozenset({"named.org"}))):
        assert key_for(endpoint(f"{url}#model")) == key


@pytest.mark.usefixtures("keys")
def test_openai_gets_its_own_key_where_both_are_set_and_the_other_where_the_user_named_it(monkeypatch):
    where = endpoint("https://api.openai.com/v1#m")
    with calling(Caller(key_hosts=frozenset({"api.openai.com"}))):
        assert key_for(where) == OPENAI
        monkeypatch.delenv("OPENAI_API_KEY")
        assert key_for(where) == OURS
    assert key_for(where) is None


RECIPE = """
data: {{toy: {{path: {data}}}}}
mining: {{teachers: ["{teacher}"], negatives: 1, depth: 5}}
student: {{name: {student}, pooling: mean}}
stages: [{{steps: 1, batch_size: 4}}]
evaluation: {{before: false, baselines: []}}
"""


@pytest.fixture
def pairs(tmp_path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("query,positive\n" + "".join(f"what is {n}?,it is {n}\n" for n in range(20)))
    return path


def run(monkeypatch, *words: object) -> int:
    """Give a command, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["embedsmith", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("listed", "sent"), [("other.org", None), ("127.0.0.1", f"Bearer {OURS}")])
@pytest.mark.usefixtures("keys")
def test_a_recipe_alone_gets_no_key(tmp_path, tiny_bert, pairs, monkeypatch, listed, sent):
    monkeypatch.setenv("EMBEDSMITH_API_HOSTS", listed)
    recipe = tmp_path / "recipe.yaml"
    with serving(EmbeddingServer()) as server:
        recipe.write_text(RECIPE.format(data=pairs, teacher=server.name, student=tiny_bert))
        assert run(monkeypatch, "train", recipe, "--out", tmp_path / "run") == 0
        assert {headers.get("Authorization") for _, _, headers, _ in server.requests} == {sent}


@pytest.mark.usefixtures("keys")
def test_a_host_on_the_command_line_gets_the_key_for_it_but_not_that_of_openai(tmp_path, pairs, monkeypatch, capsys):
    with serving(EmbeddingServer()) as server:
        assert run(monkeypatch, "mine", pairs, "--teacher", server.name, "--out", tmp_path / "run") == 0
        assert {headers.get("Authorization") for _, _, headers, _ in server.requests} == {f"Bearer {OURS}"}
    assert OURS not in "".join(capsys.readouterr())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or OURS.encode() not in path.read_bytes()


def test_the_user_is_told_to_which_hosts_texts_are_sent_before_the_first_one_is(monkeypatch):
    monkeypatch.setattr("embedsmith.services.requests._Connections.post", lambda self, content: sent.append(content))
    notes, sent = [], []
    with calling(Caller(on_contact=lambda line: notes.append((line, len(sent))))):
        from embedsmith.teachers.remote import RemoteModel

        models = [RemoteModel(endpoint(f"{url}/v1#m")) for url in ("https://far.org", "http://127.0.0.1:1")]
    for model in models:
        for _ in range(2):
            with pytest.raises(AttributeError, match="status"):  # nothing came back
                model.embed(["a"], "query")
    assert notes == [("texts are sent to far.org (https://far.org/v1#m), without a key", 0)]


SECRET = "pass-word-9"
SPELLINGS = [
    f"https://me:{SECRET}@a.org/v1#m",
    f"HTTPS://me:{SECRET}@a.org/v1#m",
    f"HttP://{SECRET}@a.org/v1#m",
    f" https://me:{SECRET}@a.org/v1#m",
    f"https:me:{SECRET}@a.org/v1#m",
    f"https:/me:{SECRET}@a.org/v1#m",
    f"ftp://me:{SECRET}@a.org/v1#m",
]


@pytest.mark.parametrize("url", SPELLINGS)
def test_a_password_in_a_url_is_refused_when_settings_are_parsed_and_not_repeated(url):
    values = [
        (MiningSettings, {"teachers": [url]}),
        (MiningSettings, {"teachers": url}),
        (Recipe, {"data": {"a": {"path": url}}}),
        (Recipe, {"data": {"a": {"path": "b"}}, "student": {"name": url}}),
        (Recipe, {"data": {"a": {"path": "b"}}, "evaluation": {"baselines": ["bm25", url]}}),
        (Recipe, {"data": {"a": {"path": "b"}}, "mining": {"teachers": [url]}, "stages": 3}),
    ]
    for settings, given in values:
        with pytest.raises(SettingsError, match="password") as caught:
            settings.parse(given, where="recipe.yaml")
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [*SPELLINGS, f"https://a.org/v1?key={SECRET}#m", f"https://me:1{SECRET}#a@a.org/v1#m", f"https://me:{SECRET}"],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ModelError) as caught:
        endpoint(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", SPELLINGS[:5])
def test_no_command_repeats_a_password_in_a_url(url, tmp_path, pairs, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [
        ("mine", str(pairs), "--teacher", url, "--out", "run"),
        ("evaluate", url, str(pairs)),
        ("train", "run", "--student", url, "--out", "model"),
        ("search", url, "words"),
        ("encode", url, str(pairs), "--out", "vectors.parquet"),
        ("judge", "run", "--url", url),
    ]
    for words in commands:
        assert run(monkeypatch, *words) == 2
        assert SECRET not in "".join(capsys.readouterr()), words


@pytest.mark.parametrize(
    "name",
    [
        "http://[::1#m",
        "http://a..b#m",
        "http://a..b/v1#m",
        "https:///v1#m",
        "https://#m",
        "https://a.org:99999/v1#m",
        "https://a.org:0/v1#m",
        "https://a b.org/v1#m",
        "https://%zz/v1#m",
        "https://a.org\x00/v1#m",
        "file:///etc/passwd#m",
        "ftp://a.org/x#m",
        "gopher://a.org/x#m",
        f"https://{'a' * 64}.org/v1#m",
    ],
)
def test_what_is_no_url_of_a_server_is_one_line(name):
    with pytest.raises(EmbedsmithError) as caught:
        endpoint(name)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.hint


@pytest.mark.parametrize("path", ["é", "a b", "%2e%2e"])
def test_a_path_of_any_letters_is_sent_escaped(path):
    with serving(EmbeddingServer()) as server:
        from embedsmith.teachers.remote import RemoteModel

        RemoteModel(endpoint(server.name.replace("/v1", f"/{path}"))).embed(["a"], "query")
        assert server.requests[0][1].isascii()
