"""Publishing a run: values that Python reads back, and nothing of anyone else's deleted."""

import ast

import nbformat
import pytest

from archsae_study.commands import publishing

CELL = 'preset: str = "full"  # where defaults come from\ntext: str = None  # a file\ndeltas: list = None  # radii'


@pytest.mark.parametrize(
    "value", ['my "best" text.txt', "it's.txt", "a\nb.txt", "back\\slash", "a  # b = c", "", "ö|{x}\\1"]
)
def test_any_text_is_read_back_as_it_was(value):
    cell = publishing._with_values(CELL, f"# Parameters\ntext = {value!r}\npreset = 'smoke'\n")
    found = {line.target.id: ast.literal_eval(line.value) for line in ast.parse(cell).body}
    assert found == {"preset": "smoke", "text": value, "deltas": None}
    assert 'preset: str = "smoke"  # where' in cell


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder, project = tmp_path / "run", tmp_path / "project"
    for name in (folder / "results", folder / "figures", project / "notebooks", project / "results"):
        name.mkdir(parents=True)
    for name in publishing.NOTEBOOKS:
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), folder / f"{name}.ipynb")
    (folder / "results" / "new.json").write_text("{}")
    (folder / "figures" / "new.png").write_bytes(b"x")
    monkeypatch.setattr(publishing, "PROJECT", project)
    return folder


def test_old_results_go_and_files_of_other_kinds_stay(run):
    results = publishing.PROJECT / "results"
    (results / "old.json").write_text("{}")
    (results / "mine.csv").write_text("1,2")
    publishing.publish(run)
    assert {path.name for path in results.iterdir()} == {"new.json", "mine.csv"}
    assert [path.name for path in (publishing.PROJECT / "figures").iterdir()] == ["new.png"]
