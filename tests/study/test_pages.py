"""The generated parts of README.md and docs/performance.md."""

import pytest

from archsae_study.settings.config import FIELDS
from docs import pages


def test_every_parameter_is_documented():
    assert all(f"`{name}`" in pages.parameter_table() for name in FIELDS)


def test_a_field_without_a_docstring_is_an_error(monkeypatch):
    monkeypatch.setattr(pages, "FIELDS", {**FIELDS, "novelty": int})
    with pytest.raises(RuntimeError, match="fields without a docstring: novelty"):
        pages.generated()


def test_parts_are_put_between_their_markers():
    text = "a <!-- x:start -->old<!-- x:end --> b <!-- y:start --><!-- y:end -->"
    expected = "a <!-- x:start -->\nnew\n<!-- x:end --> b <!-- y:start --><!-- y:end -->"
    assert pages.rewrite(text, {"x": "new"}, "page") == expected
    with pytest.raises(RuntimeError, match="page needs <!-- z:start --> and <!-- z:end --> once each"):
        pages.rewrite(text, {"z": "new"}, "page")


def test_a_stale_page_is_told_and_then_written(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- x:start -->old<!-- x:end -->", encoding="utf-8")
    monkeypatch.setattr(pages, "generated", lambda: {page: {"x": "new"}})
    assert pages.main(check=True) == 1
    assert "page.md is out of date" in capsys.readouterr().err
    assert "old" in page.read_text(encoding="utf-8")
    assert (pages.main(check=False), pages.main(check=True)) == (0, 0)
    assert "new" in page.read_text(encoding="utf-8")
