"""Which column is what."""

from __future__ import annotations

import pytest

from embedsmith.data.bad_rows import Unusable
from embedsmith.data.columns import ColumnSettings, Layout, layout_of, missing, readable


def test_conventional_names_are_found_in_any_order():
    names = ["source", "negative_2", "positive_id", "passage", "negative_1", "query_id", "question"]
    assert layout_of(names, ColumnSettings()) == Layout(
        "question", "passage", ("negative_2", "negative_1"), "query_id", "positive_id"
    )


def test_names_of_the_caller_come_before_conventional_ones():
    names = ["query", "positive", "titel", "body", "bad", "bad_1", "bad_score", "negative", "nr"]
    columns = ColumnSettings(query="titel", positive="body", negative="bad", query_id="nr")
    assert layout_of(names, columns) == Layout("titel", "body", ("bad", "bad_1"), "nr", None)


def test_a_column_that_has_a_role_gets_no_other():
    # Answers as queries: the question is then the only conventional name that is left for neither.
    columns = ColumnSettings(query="answer", positive="question")
    assert layout_of(["question", "answer"], columns) == Layout("answer", "question", (), None, None)
    assert layout_of(["passage", "positive"], ColumnSettings(query="passage")).positive == "positive"


@pytest.mark.parametrize("role", ["query", "positive", "query_id", "positive_id"])
def test_a_mistyped_name_is_answered_with_the_nearest(role):
    names = ["query", "positive", "heading"]
    with pytest.raises(Unusable, match=r'no value under "haeding"; .*\(did you mean "heading"\?\)'):
        layout_of(names, ColumnSettings(**{role: "haeding"}))
    flaw = missing(names, ColumnSettings(**{role: "haeding"}))
    assert str(flaw) == 'no column "haeding"; there are "query", "positive", "heading" (did you mean "heading"?)'


def test_negatives_may_be_missing_in_a_row_and_not_in_all_of_them():
    columns = ColumnSettings(negative="bad")
    assert layout_of(["query", "positive"], columns).negatives == ()
    assert missing(["query", "positive", "bad_3"], columns) is None
    assert "no column" in str(missing(["query", "positive", "bad_score"], columns))


def test_what_can_have_no_role_is_not_read():
    names = ["query", "embedding", "pos", "neg", "negative_7", "id", "rank"]
    assert readable(names, ColumnSettings()) == ["query", "pos", "neg", "negative_7"]
    assert readable(names, ColumnSettings(query_id="id", negative="rank")) == ["query", "pos", "id", "rank"]
