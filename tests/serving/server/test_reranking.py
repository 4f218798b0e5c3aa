"""A cross-encoder behind a server scores pairs as it does alone."""

import numpy as np
import pytest
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from embedsmith.teachers.cross_encoder import CrossEncoderTeacher

DOCUMENTS = [f"the {animal} sat on the mat " * times for times, animal in enumerate(["cat", "dog", "owl"] * 40, 1)]


@pytest.fixture(scope="module")
def judge(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "judge"
    config = BertConfig.from_pretrained(str(tiny_bert))
    config.num_labels = 1
    BertForSequenceClassification(config).eval().save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(tiny_bert)).save_pretrained(str(folder))
    return folder


def test_documents_are_ranked_by_its_scores(serving, judge, plain):
    teacher = CrossEncoderTeacher(str(judge), [], dtype="float32")
    want = teacher.scores_of_pairs([("the cat", document) for document in DOCUMENTS])
    with serving(f"cross-encoder:{judge}", plain) as server:
        answer = server.post("/v1/rerank", query="the cat", documents=DOCUMENTS, model="judge")
        found = {row["index"]: row["relevance_score"] for row in answer.body["results"]}
        np.testing.assert_allclose([found[place] for place in range(len(DOCUMENTS))], want, atol=1e-5)
        scores = [row["relevance_score"] for row in answer.body["results"]]
        assert scores == sorted(scores, reverse=True)
        assert answer.body["usage"]["truncated_inputs"] > 0
        assert server.post("/v1/rerank", query="the cat", documents=["a"]).body["model"] == "judge"
        assert server.post("/v1/embeddings", input="a", model="judge").body["error"]["code"] == "wrong_model"
        assert server.post("/v1/embeddings", input="a").body["model"] == "plain"
