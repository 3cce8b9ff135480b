"""Publishing a run: values that Python reads back, and nothing of anyone else's deleted."""

import ast
import base64
import io
import json
import shutil
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from PIL import Image

from archsae_core.config import ConfigError
from archsae_study.commands import publishing, runner
from archsae_study.engine.made import made_files, note_made

CELL = 'preset: str = "full"  # where defaults come from\ntext: str = None  # a file\ndeltas: list = None  # radii'


@pytest.mark.parametrize(
    "value", ['my "best" text.txt', "it's.txt", "a\nb.txt", "back\\slash", "a  # b = c", "", "ö|{x}\\1"]
)
def test_any_text_is_read_back_as_it_was(value):
    cell = publishing._with_values(CELL, f"# Parameters\ntext = {value!r}\npreset = 'smoke'\n")
    found = {line.target.id: ast.literal_eval(line.value) for line in ast.parse(cell).body}
    assert found == {"preset": "smoke", "text": value, "deltas": None}
    assert 'preset: str = "smoke"  # where' in cell


def test_a_parameter_that_the_cell_does_not_list_is_put_at_its_end():
    cell = publishing._with_values(CELL, "# Parameters\npreset = 'smoke'\nbos = \"always\"\nlayer = 3\n")
    assert cell.splitlines()[3:] == ['bos: str = "always"  # of this run', "layer: int = 3  # of this run"]


def test_a_second_language_model_is_nothing_that_a_reader_must_have():
    assert publishing._with_values(CELL, "# Parameters\nother_model = 'gpt2'\nother_model_layer = 3\n") == CELL


def test_what_was_published_sets_nothing_of_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PROJECT", tmp_path)
    foreign = tmp_path / "jupyter" / "kernels" / "python3"  # as modules of a cluster put one first
    foreign.mkdir(parents=True)
    spec = {"argv": ["/usr/bin/of-another-python"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    listed = nbformat.v4.new_code_cell(f"{CELL}\ndelta: float = 0.5  # radius\ncompute: bool = False  # again")
    listed.metadata["tags"] = ["parameters"]
    shown = nbformat.v4.new_code_cell("print(preset, text, delta, compute)")
    (tmp_path / "notebooks").mkdir()
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[listed, shown], metadata=kernel)
    nbformat.write(notebook, tmp_path / "notebooks" / "01_anchors.ipynb")
    for given, expected in (({"preset": "quick"}, "quick None None False"), ({"delta": 2.0}, "None None 2.0 False")):
        runner.execute("01_anchors", tmp_path / "out.ipynb", given)
        (output,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
        assert output.text.strip() == expected


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder, project = tmp_path / "run", tmp_path / "project"
    for name in (folder / "results", folder / "figures", project / "notebooks", project / "results"):
        name.mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('save_figure(x, "new.png"), "newer.png"')])
    for name in publishing.NOTEBOOKS:
        nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(publishing, "TABLES", [SimpleNamespace(file_name=f"{name}.json") for name in ("new", "newer")])
    (folder / "results" / "new.json").write_text("{}")
    (folder / "figures" / "new.png").write_bytes(b"x")
    note_made(folder, folder / "results" / "new.json", folder / "figures" / "new.png", *folder.glob("*.ipynb"))
    monkeypatch.setattr(publishing, "PROJECT", project)
    return folder


def names(kind):
    return {path.name for path in (publishing.PROJECT / kind).iterdir()}


def test_what_an_earlier_report_published_goes_and_everything_else_stays(run):
    publishing.publish(run)
    for name in ("results/new.json", "figures/new.png"):
        (run / name).rename((run / name).with_stem("newer"))
    note_made(run, run / "results" / "newer.json", run / "figures" / "newer.png")
    for name in ("results/mine.json", "results/mine.csv", "figures/mine.png"):
        (publishing.PROJECT / name).write_text("1,2")
    publishing.publish(run)
    assert names("results") == {"newer.json", "mine.json", "mine.csv"}
    assert names("figures") == {"newer.png", "mine.png"}


def test_what_is_published_stays_whatever_an_earlier_report_recorded(run):
    publishing.publish(run)
    note_made(publishing.PROJECT, *(publishing.PROJECT / "notebooks").iterdir())
    publishing.publish(run)
    assert names("notebooks") == {f"{name}.ipynb" for name in publishing.NOTEBOOKS}


def test_tables_and_figures_of_an_earlier_version_are_not_published_again(run):
    for name in ("results/dropped.json", "figures/dropped.png"):
        (run / name).write_text("{}")
        (publishing.PROJECT / name).parent.mkdir(exist_ok=True)
        (publishing.PROJECT / name).write_text("{}")
        note_made(run, run / name)
        note_made(publishing.PROJECT, publishing.PROJECT / name)
    publishing.publish(run)
    assert names("results") == {"new.json"}
    assert names("figures") == {"new.png"}


def test_a_published_file_that_someone_changed_stays(run):
    publishing.publish(run)
    (publishing.PROJECT / "figures" / "new.png").write_bytes(b"drawn anew")
    (run / "figures" / "new.png").unlink()
    publishing.publish(run)
    assert (publishing.PROJECT / "figures" / "new.png").read_bytes() == b"drawn anew"


@pytest.mark.parametrize("name", ["results/new.json", "figures/new.png"])
def test_a_result_that_is_not_as_the_report_wrote_it_is_refused_and_the_published_one_stays(run, name):
    publishing.publish(run)
    before = {kind: names(kind) for kind in ("results", "figures")}
    (run / name).write_text("changed")
    with pytest.raises(publishing.NotebookFailed, match=rf"{name}: was changed since the report wrote it"):
        publishing.publish(run)
    assert {kind: names(kind) for kind in ("results", "figures")} == before


def test_a_notebook_of_another_run_is_refused(run):
    path = run / f"{publishing.NOTEBOOKS[3]}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="of another run")]
    nbformat.write(notebook, path)
    with pytest.raises(publishing.NotebookFailed, match=rf"{path.name} was changed since the report executed it"):
        publishing.publish(run)
    assert names("notebooks") == set()


def test_a_notebook_that_was_edited_since_the_run_is_left(run):
    publishing.publish(run)
    path = publishing.PROJECT / "notebooks" / f"{publishing.NOTEBOOKS[2]}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "2"
    nbformat.write(notebook, path)
    with pytest.raises(publishing.NotebookFailed, match=rf"{path.name}: was changed since this run executed it"):
        publishing.publish(run)
    assert nbformat.read(path, as_version=4).cells[0].source == "2"


def test_a_place_where_nothing_can_be_written_is_known_before_the_run(run, monkeypatch):
    publishing.check_place()
    shutil.rmtree(publishing.PROJECT / "figures", ignore_errors=True)
    (publishing.PROJECT / "figures").touch()
    with pytest.raises(ConfigError, match=r"publish = .*figures'?: nothing can be written there"):
        publishing.check_place()


def test_a_record_that_was_cut_short_takes_no_line_with_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    note_made(tmp_path, tmp_path / "a")
    record = tmp_path / ".made"
    record.write_text(record.read_text() + '[1, 2]\nnull\n5\n[["a"], "b"]\n["cut')
    note_made(tmp_path, tmp_path / "b")
    assert made_files(tmp_path) == {tmp_path / "a", tmp_path / "b"}


def test_what_someone_put_beside_the_results_of_a_run_is_not_published(run):
    (run / "results" / "mine.json").write_text("{}")
    (run / "figures" / "new.png").write_bytes(b"drawn anew")
    publishing.publish(run)
    assert names("results") == {"new.json"}
    assert not (publishing.PROJECT / "figures").exists()


@pytest.mark.parametrize("alpha", [255, 128])
def test_images_are_packed_tighter_and_show_every_pixel_as_it_was(alpha):
    pixels = np.full((60, 80, 4), (250, 250, 250, 255), dtype=np.uint8)
    pixels[20:40, 10:50] = (30, 90, 200, alpha)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    png = base64.b64encode(file.getvalue()).decode()
    shown = nbformat.v4.new_output("display_data", {"image/png": png})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("figure", outputs=[shown])])
    (cell,) = publishing.strip(notebook).cells
    found = cell.outputs[0].data["image/png"]
    assert len(found) < len(png)
    assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGBA"), pixels)
    assert publishing.packed(found) == found
