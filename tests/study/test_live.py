"""Cells that begin with %%live: they run where the models are, and show a note elsewhere. In a real IPython shell."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from archsae_study import live


@pytest.fixture
def shell():
    found = InteractiveShell.instance()
    yield found
    found.input_transformer_manager.cleanup_transforms[:] = [
        known
        for known in found.input_transformer_manager.cleanup_transforms
        if getattr(known, "__name__", None) != "live_cell"
    ]
    InteractiveShell.clear_instance()


CELL = "%%live\nvalue = 1 + 1\nvalue"


def test_a_live_cell_runs_where_the_models_are(shell):
    live.install(lambda: True)
    found = shell.run_cell(CELL)
    assert found.success
    assert found.result == 2


def test_elsewhere_it_shows_a_note_and_no_error(shell):
    live.install(lambda: False)
    found = shell.run_cell("%%live\nraise SystemError")
    assert found.success
    assert "compute = True" in found.result.data
    assert "value" not in shell.user_ns


def test_the_last_report_decides_and_other_cells_are_left_alone(shell):
    live.install(lambda: False)
    live.install(lambda: True)
    assert shell.run_cell(CELL).result == 2
    live.install(lambda: False)
    assert shell.run_cell("1 + 2").result == 3


def test_an_error_in_a_live_cell_is_an_error(shell, capsys):
    live.install(lambda: True)
    assert not shell.run_cell("%%live\n1 / 0").success
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_outside_ipython_nothing_happens(monkeypatch):
    monkeypatch.setattr(live, "get_ipython", lambda: None)
    live.install(lambda: True)
