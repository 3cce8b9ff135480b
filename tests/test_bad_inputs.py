"""Every bad input gets an error that names it and the fix, before work starts."""

import re
from collections import Counter

import pytest

from bad_inputs import BAD, NOTEBOOKS, error_of, parameters_cell


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.area}: {bad.what}")
def test_bad_input_is_refused_by_name(bad, tmp_path):
    message = error_of(bad, tmp_path)
    assert re.search(bad.error, message, re.DOTALL), message
    assert len(message) <= 1200, "what was given is repeated whole"
    assert bad.late or not (tmp_path / "runs").exists(), "work had begun"
    if bad.area == "command line":
        assert "Traceback" not in message


def test_the_table_covers_what_it_should():
    areas = Counter(bad.area for bad in BAD)
    assert sum(areas.values()) >= 60
    assert set(areas) == {
        "parameter",
        "notebook",
        "command line",
        "saved SAE",
        "text",
        "model folder",
        "activations",
        "training",
    }
    assert {bad.what.split(":")[0] for bad in BAD if bad.area == "notebook"} == {path.stem for path in NOTEBOOKS}
    assert all(parameters_cell(path) for path in NOTEBOOKS)
