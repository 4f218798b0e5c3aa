"""A server that makes one of the usual mistakes is told which, and no other; the mistakes are made without our code."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

from embedsmith.errors import InputError, ModelError, SettingsError
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.golden import GOLDEN
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.serving.verify.verify import verify
from tests.servers import Server, serving

QUERY, PASSAGE = "find the answer of the reader: ", "passage of the dog: "


class VectorServer(Server):
    """Answers with `encode(texts, kind)`, by the protocol of the path; kind is `input_type` or `prompt_name`."""

    def __init__(self, encode: Callable[[list[str], str | None], np.ndarray]) -> None:
        super().__init__()
        self.encode = encode

    def answer(self, body):
        path = self.requests[-1][1]
        texts = body.get("input") or body.get("inputs") or body.get("texts")
        rows = self.encode(texts, body.get("input_type") or body.get("prompt_name"))
        if path == "/embed":
            return rows.tolist()
        if path == "/api/embed":
            return {"embeddings": rows.tolist()}
        if path == "/v2/embed":
            return {"embeddings": {"float": rows.tolist()}}
        assert path == "/v1/embeddings"
        if body["encoding_format"] == "base64":
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        else:
            rows = rows.tolist()
        # Not in the order of the texts: each says whose it is.
        return {"data": [{"index": place, "embedding": row} for place, row in reversed([*enumerate(rows)])]}

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(scope="module")
def decoder(tiny_llama_bos_eos, tmp_path_factory) -> Path:
    """A bidirectional decoder with mean pooling, tokens around each text, and a prompt for each role."""
    folder = tmp_path_factory.mktemp("decoder") / "model"
    settings = StudentSettings(
        name=str(tiny_llama_bos_eos),
        attention="bidirectional",
        pooling="mean",
        query_max_tokens=96,
        passage_max_tokens=112,
    )
    model = build_student(settings, device="cpu")
    model.set_prompt("query", QUERY)
    model.set_prompt("passage", PASSAGE)
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def projected(tiny_bert, tmp_path_factory) -> Path:
    """An encoder with a Dense layer of the same width behind its pooling, and no prompt."""
    folder = tmp_path_factory.mktemp("projected") / "model"
    torch.manual_seed(3)
    student = build_student(StudentSettings(name=str(tiny_bert), query_max_tokens=64, passage_max_tokens=64))
    model = EmbeddingModel(modules=[student[0], Pooling(32, "mean"), Dense(32, 32), Normalize()], device="cpu")
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def masking(tiny_llama, tmp_path_factory) -> Path:
    """A decoder that leaves its instruction out of the pool, with latent attention."""
    folder = tmp_path_factory.mktemp("masking") / "model"
    latent = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find the code"}
    build_student(StudentSettings(name=str(tiny_llama), **latent, query_max_tokens=96), device="cpu").save(str(folder))
    return folder


def plain(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def encoded(model: SentenceTransformer, texts: list[str], **options) -> np.ndarray:
    """Vectors of texts as they come, each cut where its role's are: a server knows the role by the prompt."""
    rows = []
    for text in texts:
        if "max_seq_length" not in options:
            model.max_seq_length = 96 if text.startswith(QUERY) else 112
        rows.append(model.encode([text], prompt="")[0])
    return np.stack(rows)


def with_server(encode, folder, **options):
    with serving(VectorServer(lambda texts, kind: encode(texts))) as server:
        return verify(server.name, model=str(folder), **options)


def whats(found) -> dict[str, list[str]]:
    return {role: [finding.what for finding in read.findings] for role, read in found.roles.items()}


def both(what: str) -> dict[str, list[str]]:
    return {"query": [what], "passage": [what]}


def test_a_right_server_is_right_in_every_protocol(decoder, no_key):
    model = plain(decoder)
    for path, options in (
        ("/v1#m", {}),
        ("/v1#m", {"protocol": "vllm"}),
        ("#m", {"protocol": "tei"}),
        ("/embed", {}),
        ("/api/embed#m", {}),
        ("#m", {"protocol": "ollama"}),
    ):
        with serving(VectorServer(lambda texts, kind: encoded(model, texts))) as server:
            found = verify(server.root + path, model=str(decoder), **options)
        assert found.is_right and whats(found) == {"query": [], "passage": []}
        assert all(read.texts >= 20 and read.lowest_cosine > 1 - 1e-5 for read in found.roles.values())
        sent = [text for *_, body in server.requests for text in body.get("input") or body["inputs"]]
        assert sum(text.startswith(QUERY) for text in sent) >= 20


def test_a_server_that_puts_the_prompts_itself_is_right_when_it_is_asked_so(decoder, no_key):
    model = plain(decoder)

    def encode(texts, kind):
        model.max_seq_length = 96 if kind == "query" else 112
        return model.encode(texts, prompt={"query": QUERY, "document": PASSAGE}[kind])

    for path, protocol in (("/v1#m", "openai"), ("/v1#m", "vllm"), ("#m", "tei")):
        with serving(VectorServer(encode)) as server:
            found = verify(server.root + path, model=str(decoder), protocol=protocol, prompts="server")
            assert found.is_right, whats(found)
            assert not any(text.startswith(QUERY) for *_, body in server.requests for text in str(body))


def no_prompt(texts):
    return [text.removeprefix(QUERY).removeprefix(PASSAGE) for text in texts]


def lengths_of(texts):
    return [96 if text.startswith(QUERY) else 112 for text in texts]


def of_ids(model, texts, *, first, last):
    """Vectors by transformers itself, without tokens that the tokenizer adds before or after a text."""
    rows = []
    for text, longest in zip(texts, lengths_of(texts), strict=True):
        ids = model.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        ids = ids[1:] if first else ids
        ids = ids[:-1] if last else ids
        with torch.inference_mode():
            states = model[0].model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(rows)


def doubled(model, texts):
    """Vectors of texts that begin with BOS, as a chat template writes it, and get another one by the tokenizer."""
    rows = []
    for text, longest in zip(texts, lengths_of(texts), strict=True):
        ids = model.tokenizer(model.tokenizer.bos_token + text, truncation=True, max_length=longest)["input_ids"]
        assert ids[:2] == [model.tokenizer.bos_token_id] * 2
        with torch.inference_mode():
            states = model[0].model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(rows)


def cut_at(model, texts, tokens):
    model.max_seq_length = tokens
    return model.encode(texts, prompt="")


def other_prompts(texts):
    return [PASSAGE + text[len(QUERY) :] if text.startswith(QUERY) else QUERY + text[len(PASSAGE) :] for text in texts]


def apart(model, texts, read):
    """Vectors of texts that are read otherwise than sent, each cut where what was sent is."""
    rows = []
    for text, longest in zip(texts, lengths_of(texts), strict=True):
        model.max_seq_length = longest
        rows.append(model.encode(read([text]), prompt="")[0])
    return np.stack(rows)


def pooled(model, mode):
    return SentenceTransformer(modules=[model[0], Pooling(32, mode), Normalize()], device="cpu")


def causal(model):
    model[0].model.config.is_causal = True
    return model


MISTAKES = {
    "no prompt before the text": lambda model, texts: apart(model, texts, no_prompt),
    "the prompt twice before the text": lambda model, texts: apart(
        model, texts, lambda some: [(QUERY if text.startswith(QUERY) else PASSAGE) + text for text in some]
    ),
    "the prompt of the other role before the text": lambda model, texts: apart(model, texts, other_prompts),
    "pools the first token (the model: the mean of the tokens)": lambda model, texts: encoded(
        pooled(model, "cls"), texts
    ),
    "pools the last token (the model: the mean of the tokens)": lambda model, texts: encoded(
        pooled(model, "lasttoken"), texts
    ),
    "attention is causal": lambda model, texts: encoded(causal(model), texts),
    "the token before the text (BOS, CLS) is missing": lambda model, texts: of_ids(
        model, texts, first=True, last=False
    ),
    "the token after the text (EOS, SEP) is missing": lambda model, texts: of_ids(model, texts, first=False, last=True),
    "the token before the text (BOS, CLS) stands there twice": lambda model, texts: doubled(model, texts),
    "the tokens that the tokenizer adds are missing": lambda model, texts: of_ids(model, texts, first=True, last=True),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_named_and_no_other(decoder, no_key, what):
    model = plain(decoder)
    found = with_server(lambda texts: MISTAKES[what](model, texts), decoder)
    assert not found.is_right
    assert whats(found) == both(what)
    for read in found.roles.values():
        assert read.findings[0].cosine < 0.999 < 1 - 1e-5 < read.findings[0].explained


@pytest.mark.parametrize(
    ("tokens", "said"), [(40, "cut at 40 tokens"), (77, "cut at 77 tokens"), (128, "cut at 128 tokens")]
)
def test_the_length_at_which_texts_are_cut_is_found(decoder, no_key, tokens, said):
    model = plain(decoder)
    found = with_server(lambda texts: cut_at(model, texts, tokens), decoder)
    assert whats(found) == {
        "query": [f"texts are {said} (the model: at 96)"],
        "passage": [f"texts are {said} (the model: at 112)"],
    }
    assert "one word" not in found.roles["query"].findings[0].texts
    assert "the longest" in found.roles["query"].findings[0].texts


def test_two_mistakes_at_once_are_both_named(decoder, no_key):
    model = plain(decoder)
    twice = pooled(model, "cls")
    found = with_server(lambda texts: apart(twice, texts, no_prompt), decoder)
    expected = "no prompt before the text and pools the first token (the model: the mean of the tokens)"
    assert whats(found) == both(expected)


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("padding", [True, "max_length"])
def test_padding_on_the_left_is_named(tiny_bert, tmp_path, no_key, padding, mode):
    """The mask is right, yet positions, and the place that is pooled first, are counted from the padding."""
    folder = tmp_path / "model"
    student = build_student(StudentSettings(name=str(tiny_bert), query_max_tokens=48, passage_max_tokens=48))
    EmbeddingModel(modules=[student[0], Pooling(32, mode), Normalize()], device="cpu").save(str(folder))
    model = plain(folder)
    model.tokenizer.padding_side = "left"

    def encode(texts):
        given = model.tokenizer(texts, padding=padding, truncation=True, max_length=48, return_tensors="pt")
        with torch.inference_mode():
            states = model[0].model(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        vectors = states[:, 0] if mode == "cls" else (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(vectors, dim=1).numpy()

    found = with_server(encode, folder)
    assert whats(found) == both("texts are padded on the left, and their places are counted from the padding")


@pytest.mark.slow
def test_another_length_is_found_beside_a_mistake(decoder, no_key):
    model = plain(decoder)
    found = with_server(lambda texts: cut_at(model, no_prompt(texts), 50), decoder)
    assert whats(found)["query"] == ["no prompt before the text and texts are cut at 50 tokens (the model: at 96)"]


def test_vectors_that_are_not_normalised_are_named_and_their_directions_right(decoder, no_key):
    model = plain(decoder)
    bare = SentenceTransformer(modules=[model[0], model[1]], device="cpu")
    found = with_server(lambda texts: encoded(bare, texts), decoder)
    for (what,) in whats(found).values():
        assert what.startswith("vectors are not normalised: lengths of ")
    assert found.roles["query"].findings[0].cosine > 1 - 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_noted_and_is_no_mistake(decoder, no_key, dtype):
    model = plain(decoder).to(getattr(torch, dtype))
    found = with_server(lambda texts: encoded(model, texts), decoder)
    assert found.is_right
    said = {what for role in whats(found).values() for what in role}
    assert said == {"rounded as in bfloat16"} if dtype == "bfloat16" else said <= {"rounded as in float16"}


def test_a_dense_layer_that_is_left_out_is_named(projected, no_key):
    model = plain(projected)
    without = SentenceTransformer(modules=[model[0], model[1], model[3]], device="cpu")
    without.max_seq_length = 64
    found = with_server(lambda texts: without.encode(texts), projected)
    assert whats(found) == both("the layers after the pooling (Dense) are left out")


def test_an_instruction_that_is_pooled_is_named(masking, no_key):
    """A plain server gets it as a part of the text, so it cannot leave it out."""
    model = load(str(masking), device="cpu")

    def encode(texts):
        return model.embed(texts, "passage")

    model.set_max_tokens(query=96, passage=96)
    with serving(VectorServer(lambda texts, kind: encode(texts))) as server:
        found = verify(server.name, model=str(masking))
    assert whats(found)["query"] == ["the prompt is pooled, which the model leaves out"]


def test_latent_attention_that_is_left_out_is_named(masking, no_key):
    model = load(str(masking), device="cpu")
    model[1] = Pooling(32, "mean")

    def encode(texts, kind):
        return model.embed(texts, "query" if kind == "query" else "passage")

    with serving(VectorServer(encode)) as server:
        found = verify(server.name, model=str(masking), prompts="server")
    assert whats(found) == both("pools the mean of the tokens (the model: LatentAttentionPooling)")


def test_only_the_first_dimensions_are_named(decoder, no_key):
    model = plain(decoder)
    found = with_server(lambda texts: encoded(model, texts)[:, :16], decoder)
    assert [what for what in whats(found)["query"] if "dimensions" in what] == [
        "vectors of the first 16 of 32 dimensions"
    ]


@pytest.mark.slow
def test_another_model_is_said_to_be_one(decoder, projected, no_key):
    model = plain(projected)
    found = with_server(lambda texts: model.encode(texts), decoder)
    assert all(what == ["no usual mistake gives these vectors: another model?"] for what in whats(found).values())


def test_tokens_that_no_text_has_are_not_said_to_be_missing_or_doubled(masking, projected, no_key):
    """The tokenizer adds none: without them there is no other vector, which explains nothing."""
    model = plain(projected)
    found = with_server(lambda texts: model.encode(texts), masking)
    for (what,) in whats(found).values():
        assert what.startswith("no usual mistake gives these vectors")
        assert "the token before" not in what and "the token after" not in what and "tokenizer" not in what


def test_base64_that_holds_other_numbers_is_named(projected, no_key):
    model = plain(projected)

    class Swapped(VectorServer):
        def answer(self, body):
            found = super().answer(body)
            if body["encoding_format"] == "base64":
                for row in found["data"]:
                    numbers = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
                    row["embedding"] = base64.b64encode(np.roll(numbers, 1).tobytes()).decode()
            return found

    with serving(Swapped(lambda texts, kind: model.encode_query(texts))) as server:
        found = verify(server.name, model=str(projected))
    assert whats(found) == both("in base64 the server gives other vectors than as numbers")


def test_texts_that_a_server_refuses_are_named_and_the_others_compared(projected, no_key):
    model = plain(projected)

    with serving(VectorServer(lambda texts, kind: model.encode_query(texts))) as server:
        server.refuse = lambda body: any(len(text.split()) > 100 for text in body["input"])
        found = verify(server.name, model=str(projected))
    assert found.is_right
    assert set(found.roles["query"].refused) == {"the longest", "150 words"}
    assert "HTTP 413" in found.roles["query"].refused["the longest"]


def test_golden_vectors_alone_tell_whether_and_not_why(decoder, no_key):
    model = plain(decoder)
    with serving(VectorServer(lambda texts, kind: encoded(model, texts))) as server:
        assert verify(server.name, golden=decoder / GOLDEN).is_right
    with serving(VectorServer(lambda texts, kind: encoded(pooled(model, "cls"), texts))) as server:
        found = verify(server.name, golden=decoder / GOLDEN)
    assert whats(found) == both("other vectors; --model names what could explain them")


def test_golden_vectors_of_another_model_are_refused(decoder, projected, no_key):
    with pytest.raises(ModelError, match=r'the vector of ".*" \(query\) is not that of'):
        verify("http://127.0.0.1:9/v1#m", model=str(decoder), golden=projected / GOLDEN)


def test_a_folder_without_golden_vectors_is_verified_by_its_model(decoder, no_key, tmp_path):
    copy = tmp_path / "copy"
    load(str(decoder), device="cpu").save(str(copy))
    (copy / GOLDEN).unlink()
    found = verify(str(copy))
    assert found.is_right and any("its vectors were computed now" in note for note in found.notes)


def test_a_folder_is_right_in_plain_sentence_transformers(decoder, projected):
    for folder in (decoder, projected):
        found = verify(str(folder))
        assert found.is_right and found.prompts == "server", whats(found)


def test_a_changed_folder_is_compared_with_the_model_that_is_named(decoder, tmp_path):
    changed = load(str(decoder), device="cpu")
    changed[1] = Pooling(32, "lasttoken")
    changed.save(str(tmp_path / "changed"))
    found = verify(str(tmp_path / "changed"), model=str(decoder))
    assert whats(found) == both("pools the last token (the model: the mean of the tokens)")


def test_code_of_a_folder_runs_only_if_it_is_trusted(masking, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"needs the code in modeling_embedsmith\.py"):
        verify(str(masking))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "code"))
    assert verify(str(masking), trust_remote_code=True).is_right


def test_what_is_right_must_be_said(no_key):
    with pytest.raises(SettingsError, match="nothing says which vectors are right"):
        verify("http://127.0.0.1:9/v1#m")
    with pytest.raises(SettingsError, match="Ollama applies no prompts"):
        verify("http://127.0.0.1:9#m", protocol="ollama", prompts="server")
    with pytest.raises(InputError, match="no such file"):
        verify("http://127.0.0.1:9/v1#m", golden=Path("nowhere.json"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[:-1], "got 0 vectors for 1 texts|got 15 vectors for 16 texts"),
        (lambda rows: [[float("nan")] * 32 for _ in rows], "a vector is not finite"),
        (lambda rows: [[1e300] * 32 for _ in rows], "a vector is not finite"),
        (lambda rows: [[0.0] * 32 for _ in rows], "a vector of zeros"),
        (lambda rows: [row[: 5 + place] for place, row in enumerate(rows)], "not embeddings"),
        (lambda rows: [{} for _ in rows], "not embeddings"),
        (lambda rows: [[[1.0]]] * len(rows), r"has shape \(16, 1, 1\)"),
    ],
)
def test_a_hostile_answer_is_refused_in_one_line(projected, no_key, spoil, message):
    model = plain(projected)

    class Hostile(VectorServer):
        def answer(self, body):
            return spoil(model.encode(body["inputs"]).tolist())

    with serving(Hostile(lambda texts, kind: np.zeros(0))) as server, pytest.raises(ModelError, match=message) as error:
        verify(server.root, model=str(projected), protocol="tei")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [("[" * 10**6, "not embeddings"), ("{}", "not embeddings"), ("3", "not embeddings"), (" " * 2**26, "more than")],
)
def test_an_answer_of_another_kind_or_without_end_is_refused(projected, no_key, answer, message):
    with serving(VectorServer(lambda texts, kind: np.zeros(0))) as server:
        server.first = [(200, {}, answer)]
        with pytest.raises(ModelError, match=message):
            verify(server.name, model=str(projected))


def test_a_key_goes_to_no_host_that_was_not_named(projected, no_key, monkeypatch):
    monkeypatch.setenv("EMBEDSMITH_API_KEY", "sk-secret-of-somebody")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-openai")
    model = plain(projected)
    with serving(VectorServer(lambda texts, kind: model.encode_query(texts))) as server:
        verify(server.name, model=str(projected))
        assert not any("Authorization" in headers for *_, headers, _ in server.requests)
        monkeypatch.setenv("EMBEDSMITH_API_HOSTS", "127.0.0.1")
        verify(server.name, model=str(projected))
        assert server.requests[-1][2]["Authorization"] == "Bearer sk-secret-of-somebody"


def test_what_was_found_is_json(decoder, no_key):
    model = plain(decoder)
    with serving(VectorServer(lambda texts, kind: encoded(pooled(model, "cls"), texts)[:, :16])) as server:
        found = verify(server.name, golden=decoder / GOLDEN).plain()
    document = json.loads(json.dumps(found, allow_nan=False))
    assert document["is_right"] is False
    assert document["roles"]["query"]["lowest_cosine"] is None


def test_trying_mistakes_shows_progress(decoder, no_key):
    model, shown = plain(decoder), []
    with_server(
        lambda texts: encoded(pooled(model, "cls"), texts),
        decoder,
        on_progress=lambda what, done, total, note="": shown.append((what, done, total)),
    )
    tried = [(done, total) for what, done, total in shown if what == "try mistakes on query texts"]
    assert [done for done, _ in tried] == list(range(1, len(tried) + 1)) and tried[-1][0] <= tried[-1][1]
