"""What is printed is what was meant, whatever rich would make of it."""

import gc

from embedsmith.cli.console import out, progress, quick_imports, scores_table


def test_a_model_name_is_printed_as_it_is():
    name = "static:package:wordllama"
    with out.capture() as captured:
        out.print(scores_table(f"Scores of {name}", {name: {"ndcg@10": 0.5}}, ["ndcg@10"]))
    assert captured.get().count(name) == 2


def test_the_collector_rests_while_libraries_are_imported_and_no_longer():
    with quick_imports():
        assert not gc.isenabled()
        with progress(show=False):
            assert gc.isenabled()
            assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    gc.unfreeze()


def test_the_collector_works_again_after_a_command_that_failed(embedsmith_command):
    # An empty query is refused before there is any progress, which would switch it on too.
    assert embedsmith_command("search", "no-such-run", " ").code == 2
    assert gc.isenabled()
