"""Tables and numbers as a reader sees them."""

import pytest

from archsae_study.formatting import ROWS, cell, percent, table


def test_a_cell_is_shown_whole():
    text = "the gain is above the margin, at a difference in R² that the reason says in full"
    assert len(text) > 50
    assert text in table(["a", "because"], [["x", text]])._repr_html_()


def test_what_stands_between_dollars_is_no_formula_and_no_style_is_repeated():
    shown = table(["a", "b"], [["$5 or $10", 1]])._repr_html_()
    assert '<table border="1" class="dataframe tex2jax_ignore mathjax_ignore">' in shown
    assert "<style" not in shown


@pytest.mark.parametrize(("rows", "folds"), [(ROWS, False), (ROWS + 1, True)])
def test_a_long_table_opens_by_a_click(rows, folds):
    shown = table(["a", "b"], [[str(row), row] for row in range(rows)], "scores < 1")._repr_html_()
    assert shown.startswith(
        "<details><summary>scores &lt; 1 (13 rows)</summary>" if folds else "<p><em>scores &lt; 1</em>"
    )
    assert f"<td>{rows - 1}</td>" in shown


def test_what_is_made_of_a_table_is_a_plain_data_frame():
    assert type(table(["a", "b"], [["x", 1]], "caption").head()).__name__ == "DataFrame"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(cell(-1.5), "−1.500"), (cell(-2000), "−2,000"), (percent(-0.07, 0), "−7%"), (percent(-0.0001), "0.0%")],
)
def test_a_minus_sign_is_one_and_zero_has_none(shown, expected):
    assert shown == expected
