"""A server's vectors are those of the model, whoever else asks meanwhile, in the shape that OpenAI's clients read."""

import base64
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from embedsmith.models.opening import load
from embedsmith.serving.server.served import ServedModel

TEXTS = ["where is the parser", "10 times 100", "the cat", "the dog sat on the log", "a", "猫が座る", "🐈 sat"]
ROLES = {"query": "query", "passage": "passage", "document": "passage", "search_query": "query"}


def wanted(model, role, texts=TEXTS):
    return load(str(model)).embed(texts, role)


@pytest.mark.parametrize("input_type", [None, *ROLES])
@pytest.mark.parametrize("name", ["plain", "latent"])
def test_vectors_are_those_of_the_model_in_the_role_that_is_asked_for(server, request, name, input_type):
    model = request.getfixturevalue("instructed" if name == "latent" else name)
    asked = {"input_type": input_type} if input_type else {}
    found = server.vectors(TEXTS, model=name, **asked)
    role = ROLES.get(input_type, "passage")
    np.testing.assert_allclose(found, wanted(model, role), atol=1e-6)
    other = wanted(model, "query" if role == "passage" else "passage")
    assert np.abs(np.array(found) - other).max() > 1e-3


def test_a_name_may_say_the_role_and_both_must_agree(server, plain):
    np.testing.assert_allclose(server.vectors(TEXTS, model="plain:query"), wanted(plain, "query"), atol=1e-6)
    answer = server.post("/v1/embeddings", input="a", model="plain:query", input_type="passage")
    assert (answer.status, answer.body["error"]["code"]) == (400, "two_roles")


def test_an_instruction_stands_where_the_models_own_stood(server, instructed):
    model = load(str(instructed))
    assert "Find the code" in model.prompt_of("query")
    model.set_prompt("query", model.prompt_of("query").replace("Find the code", "Find the cat"))
    found = server.vectors(TEXTS, model="latent", input_type="query", instruction="Find the cat")
    np.testing.assert_allclose(found, model.embed(TEXTS, "query"), atol=1e-6)
    answer = server.post("/v1/embeddings", input="a", model="plain", input_type="query", instruction="Find the cat")
    assert answer.status == 400 and "was not trained with instructions" in answer.body["error"]["message"]


def test_a_task_by_its_name_is_for_queries_alone_where_its_sides_differ(server, instructed):
    model = load(str(instructed))
    found = server.vectors(TEXTS, model="latent", input_type="passage", instruction="task:nq")
    np.testing.assert_allclose(found, model.embed(TEXTS, "passage"), atol=1e-6)
    symmetric = server.vectors(TEXTS, model="latent", input_type="passage", instruction="task:sts")
    assert np.abs(np.array(symmetric) - found).max() > 1e-3


def test_base64_and_numbers_are_the_same_bytes(server):
    floats = np.array(server.vectors(TEXTS, model="plain"), "<f4")
    rows = server.post("/v1/embeddings", input=TEXTS, model="plain", encoding_format="base64").body["data"]
    assert [row["index"] for row in rows] == list(range(len(TEXTS)))
    for row, vector in zip(rows, floats, strict=True):
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(row["embedding"]), "<f4"), vector)


def test_fewer_dimensions_are_the_first_ones_at_length_one(server, plain):
    found = np.array(server.vectors(TEXTS, model="plain", dimensions=5))
    kept = wanted(plain, "passage")[:, :5]
    np.testing.assert_allclose(found, kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-6)
    answer = server.post("/v1/embeddings", input="a", model="plain", dimensions=1000)
    assert answer.body["error"]["code"] == "too_many_dimensions"


def test_token_ids_are_the_text_that_they_stand_for(server, plain):
    tokenizer = load(str(plain)).tokenizer
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the cat", "the dog sat")]
    texts = [tokenizer.decode(one) for one in ids]
    np.testing.assert_allclose(server.vectors(ids, model="plain"), server.vectors(texts, model="plain"), atol=1e-6)
    np.testing.assert_allclose(
        server.vectors(ids[0], model="plain"), server.vectors(texts[0], model="plain"), atol=1e-6
    )
    answer = server.post("/v1/embeddings", input=[10**6], model="plain")
    assert answer.status == 400 and "another tokenizer" in answer.body["error"]["message"]


def test_usage_counts_the_tokens_that_are_read(server, plain):
    model = load(str(plain))
    texts = ["the cat", "the dog sat on the log, " * 20]
    used = server.post("/v1/embeddings", input=texts, model="plain", input_type="query").body["usage"]
    assert used == {
        "prompt_tokens": model.count_tokens(texts, "query"),
        "total_tokens": used["prompt_tokens"],
        "truncated_inputs": 1,
    }


def test_truncation_is_an_error_where_it_is_asked_for(server, serving, plain):
    long = "the dog sat on the log, " * 20
    answer = server.post("/v1/embeddings", input=["a", long], model="plain", truncate="error")
    error = answer.body["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    tokens = len(load(str(plain)).tokenizer("passage: " + long)["input_ids"])
    assert error["message"].startswith(f"input[1] has {tokens} tokens, plain reads 24: ")
    exact = server.post("/v1/tokenize", input=["the cat"], model="plain", truncate="error")
    assert exact.status == 200
    with serving(plain, truncate="error") as strict:
        assert strict.post("/v1/embeddings", input=long).status == 400
        assert strict.post("/v1/embeddings", input=long, truncate="end").status == 200


def test_a_text_of_a_million_letters_is_read_to_the_models_end(server, plain):
    long = "the dog sat on the log, " * 40_000
    (found,) = server.vectors(long, model="plain")
    np.testing.assert_allclose([found], wanted(plain, "passage", [long]), atol=1e-6)


def test_a_vector_does_not_depend_on_its_neighbours(server, plain, instructed):
    """In thirty mixes of requests at once, lengths and roles of all kinds."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["the", "cat", "sat", "on", "dog", "log"], k=rng.randint(1, 40))) for _ in range(60)]
    want = {
        (name, role): dict(zip(texts, wanted(folder, role, texts), strict=True))
        for name, folder in (("plain", plain), ("latent", instructed))
        for role in ("query", "passage")
    }

    def ask(seed):
        rng = random.Random(seed)
        name, role = rng.choice(list(want))
        some = rng.choices(texts, k=rng.choice([1, 1, 2, 5, 30]))
        found = server.vectors(some, model=name, input_type=role)
        return np.abs(np.array(found) - np.array([want[name, role][text] for text in some])).max()

    with ThreadPoolExecutor(8) as clients:
        assert max(clients.map(ask, range(200))) < 1e-6


def test_openais_own_client_gets_the_vectors(server, plain):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    found = client.embeddings.create(model="plain", input=TEXTS)
    np.testing.assert_allclose([row.embedding for row in found.data], wanted(plain, "passage"), atol=1e-6)
    assert found.usage.prompt_tokens == load(str(plain)).count_tokens(TEXTS, "passage")
    asked = client.embeddings.create(model="plain", input="the cat", dimensions=4, extra_body={"input_type": "query"})
    assert len(asked.data[0].embedding) == 4
    assert "plain" in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError, match=r"no model 'plein'.*did you mean .plain."):
        client.embeddings.create(model="plein", input="a")
    with pytest.raises(openai.BadRequestError, match="no such field"):
        client.embeddings.create(model="plain", input="a", extra_body={"input_typ": "query"})


def test_our_own_teacher_mines_through_it(server, plain, tmp_path):
    import embedsmith
    from embedsmith import MiningSettings

    pairs = [{"query": f"where is the {animal}", "positive": f"the {animal} sat"} for animal in ("cat", "dog", "owl")]
    settings = MiningSettings(teachers=[f"{server.url}/v1#plain"], method="naive", negatives=1)
    mined = embedsmith.mine(pairs, out=tmp_path / "mined", settings=settings)
    assert len(mined.negatives) >= 3


@pytest.mark.parametrize("limit", [12, 13, 16, 23, 24])
def test_padding_to_a_shape_never_passes_the_models_end(plain, limit):
    """The widths that texts are padded to are few, and none is longer than what the model reads."""
    model = load(str(plain))
    model.set_max_tokens(query=limit, passage=limit)
    served = ServedModel("plain", model)
    texts = [" ".join(["cat"] * count) for count in range(1, 40)]
    reads = served.read(texts, "query", served.prompt("query", None))
    assert {served._width([read]) for read in reads} <= {8, 16, 24, limit}
    np.testing.assert_allclose(
        np.concatenate([served.vectors([read]) for read in reads]), model.embed(texts, "query"), atol=1e-6
    )
