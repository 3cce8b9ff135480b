"""Progress: bars where one can be drawn, lines elsewhere, nothing unless it is asked for."""

import io
import sys
from types import SimpleNamespace

import pytest

from archsae_core import progress
from archsae_core.progress import is_showing, progress_bar, showing, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch, request):
    """stderr, a terminal where the test asks for one; everything is shown at once."""
    found = getattr(request, "param", io.StringIO)()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found, modules=sys.modules))
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    return found


def test_nothing_is_shown_unless_asked_for(stream):
    assert list(track([1, 2], "counting", unit="number")) == [1, 2]
    with showing():
        assert is_showing()
        assert list(track([1, 2], "counting", unit="number", shown=False)) == [1, 2]
    assert not is_showing()
    assert stream.getvalue() == ""


def test_without_a_terminal_every_state_is_a_line(stream):
    with showing():
        assert list(track(range(3), "counting", unit="number")) == [0, 1, 2]
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert any(line.startswith("counting: 2 of 3 number, ") and line.endswith(" left") for line in lines)


def test_lines_are_half_a_minute_apart(monkeypatch):
    found = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found, modules=sys.modules))
    list(track(range(1000), "counting", unit="number", shown=True))
    assert found.getvalue() == ""


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_at_a_terminal_a_bar_is_drawn_and_taken_away(stream):
    with progress_bar("drawing", total=2, unit="line", shown=True) as bar:
        bar.update()
        bar.refresh()
    assert "drawing:  50%" in stream.getvalue()
    assert stream.getvalue().endswith("\r")


def test_what_was_done_before_counts(stream):
    list(track([3], "going on", unit="step", initial=2, total=3, shown=True))
    assert "going on: 3 of 3 step" in stream.getvalue() or "going on: 2 of 3 step" in stream.getvalue()
