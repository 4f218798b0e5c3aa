"""Run files and judgements of TREC: in, out, and what is wrong with them."""

import pytest

from embedsmith.data.bad_rows import refuse
from embedsmith.data.qrels import read_judgements
from embedsmith.data.trec import read_ranking, write_judgements, write_ranking
from embedsmith.errors import InputError


def test_a_ranking_comes_back_as_it_was_written(tmp_path):
    ranking = {"q 1": [("d2", 0.1), ("d1", 0.03999999910593033)], "q2": [("ü", -1.5)]}
    write_ranking(tmp_path / "run.trec", ranking, tag="my model")
    assert (tmp_path / "run.trec").read_text(encoding="utf-8").splitlines() == [
        "q 1\tQ0\td2\t1\t0.1\tmy_model",
        "q 1\tQ0\td1\t2\t0.0399999991\tmy_model",
        "q2\tQ0\tü\t1\t-1.5\tmy_model",
    ]
    assert read_ranking(tmp_path / "run.trec") == {
        "q 1": [("d2", 0.1), ("d1", 0.0399999991)],
        "q2": [("ü", -1.5)],
    }


def test_scores_order_a_run_file_and_passage_ids_break_ties_descending(tmp_path):
    path = tmp_path / "run.txt"
    # The first two differ in float64 only, which trec_eval does not see.
    lines = ["q Q0 d1 1 0.50000000001 x", "q Q0 d2 2 0.5 x", "q Q0 d9 3 0.1 x", "", "q Q0 d0 4 7 x"]
    path.write_text("\n".join(lines))
    assert [passage for passage, _ in read_ranking(path)["q"]] == ["d0", "d2", "d1", "d9"]


def test_judgements_are_written_as_they_are_read(tmp_path):
    write_judgements(tmp_path / "a.qrels", {"q1": {"d1": 2, "d2": 0}, "q 2": {"d1": 1}})
    found = read_judgements(tmp_path / "a.qrels", refuse, trec=True)
    assert list(zip(found.query_ids, found.passage_ids, found.grades.tolist(), strict=True)) == [
        ("q1", "d1", 2),
        ("q1", "d2", 0),
        ("q 2", "d1", 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 0.5", r"run\.trec:1: 5 columns, wanted 6"),
        ("q Q0 d 1 0.5 x\nq Q0 d 2 high x", r'run\.trec:2: the score "high" is not a number'),
        ("q Q0 d 1 nan x", r"run\.trec:1: the score is nan"),
        ("q Q0 d 1 0.5 x\nq Q0 d 2 0.4 x", r'run\.trec:2: passage "d" is ranked twice for query "q"'),
        ("q Q0 d 1 0.5 \udcff", r"run\.trec:1: not UTF-8"),
        ("\n", r"run\.trec: an empty run file"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, text, message):
    (tmp_path / "run.trec").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_ranking(tmp_path / "run.trec")


def test_a_line_of_a_run_file_that_stands_there_twice_is_one(tmp_path):
    (tmp_path / "run.trec").write_text("q Q0 d 1 0.5 x\nq Q0 d 1 0.50 x\r\n")
    assert read_ranking(tmp_path / "run.trec") == {"q": [("d", 0.5)]}


def test_a_missing_run_file_is_named_with_the_nearest(tmp_path):
    (tmp_path / "bm25.trec").touch()
    with pytest.raises(InputError, match=r'bm26\.trec: no such file or folder \(did you mean "bm25\.trec"\?\)'):
        read_ranking(tmp_path / "bm26.trec")


def test_an_id_with_a_tab_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"the id 'd\\t1' holds a tab"):
        write_ranking(tmp_path / "run.trec", {"q": [("d\t1", 1.0)]}, tag="x")
    with pytest.raises(InputError, match=r"the id 'd\\n1' holds a tab or a line break"):
        write_judgements(tmp_path / "a.qrels", {"q": {"d\n1": 1}})
    assert list(tmp_path.iterdir()) == []
