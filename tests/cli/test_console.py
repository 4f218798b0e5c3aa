"""What is printed is what was meant, whatever rich would make of it."""

from embedsmith.cli.console import out, scores_table


def test_a_model_name_is_printed_as_it_is():
    name = "static:package:wordllama"
    with out.capture() as captured:
        out.print(scores_table(f"Scores of {name}", {name: {"ndcg@10": 0.5}}, ["ndcg@10"]))
    assert captured.get().count(name) == 2
