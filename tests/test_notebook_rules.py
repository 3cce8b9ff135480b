"""Rules of the committed notebooks: they are the report, so they are short, executed in order, and hold no logic."""

import ast
import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from archsae_study.settings.config import FIELDS, configure

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = (
    "01_anchors 02_standard_sae 03_archetypal_sae 04_evaluation 05_stability 06_delta_ablation 07_features"
).split()
PARAMETER = re.compile(r"(?P<name>\w+): (?P<type>[^=|#]+) = (?P<value>[^=|]+?)  # (?P<help>[^=|]+)")
MACHINE_PATH = re.compile(r"(?<![\w.:])/(?:home|root|tmp|work|Users)/")


def path_of(name: str) -> Path:
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.is_file(), f"notebooks/{name}.ipynb is missing"
    return path


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def notebook(name):
    return nbformat.read(path_of(name), as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def syntax(cell) -> list[ast.AST]:
    """Every node of a cell, IPython's `%` and `!` lines left out."""
    lines = ["" if re.match(r"\s*[%!]", line) else line for line in cell.source.splitlines()]
    return list(ast.walk(ast.parse("\n".join(lines))))


def parameter_lines(notebook) -> list[str]:
    tagged = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, f"{len(tagged)} cells are tagged `parameters`"
    return [line for line in tagged[0].source.splitlines() if line.strip()]


def test_no_other_notebook():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


def test_title_is_a_question(notebook):
    title = notebook.cells[0].source.splitlines()[0]
    assert notebook.cells[0].cell_type == "markdown"
    assert title.startswith("# ")
    assert title.endswith("?")


def test_parameters_are_literals_of_the_config(name, notebook):
    found = [PARAMETER.fullmatch(line) for line in parameter_lines(notebook)]
    assert all(found), (
        "not `name: type = value  # help` (one `=`, no `|`): " + parameter_lines(notebook)[found.index(None)]
    )
    values = {match["name"]: ast.literal_eval(match["value"]) for match in found}
    assert values.pop("compute") is False  # of the notebook alone: as committed, nothing is computed
    assert set(values) <= set(FIELDS)
    assert len(values) == len(found) - 1
    configure(values)
    inspected = papermill.inspect_notebook(str(path_of(name)))
    assert {key: (entry["inferred_type_name"], entry["help"]) for key, entry in inspected.items()} == {
        match["name"]: (match["type"], match["help"]) for match in found
    }


def test_no_logic(notebook):
    nodes = [node for cell in code_cells(notebook) for node in syntax(cell)]
    logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
    assert [ast.unparse(node) for node in nodes if isinstance(node, logic)] == []
    loops = [node for node in nodes if isinstance(node, ast.For | ast.comprehension)]
    assert [
        ast.unparse(node.iter) for node in loops if "seed" in ast.unparse(node.target) + ast.unparse(node.iter)
    ] == []


def test_code_cells_are_short(notebook):
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code_cells(notebook)]
    assert [length for length in lengths if length > 15] == []


def test_executed_in_one_run(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert counts


def test_outputs_are_clean(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert [output for output in outputs if " at 0x" in json.dumps(output)] == []
    assert [output for output in outputs if any("widget" in kind for kind in output.get("data", {}))] == []


def plot_cells(notebook) -> list:
    def is_plot(cell) -> bool:
        return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))

    return [cell for cell in code_cells(notebook) if is_plot(cell)]


def test_plots_have_an_alternative_text_for_html_pages(notebook):
    texts = [cell.metadata.get("alt", "") for cell in plot_cells(notebook)]
    assert [text for text in texts if not 40 <= len(text) <= 200 or not text.endswith(".")] == []
    assert len(set(texts)) == len(texts)


def test_plot_cells_show_only_the_plot(notebook):
    plots = [cell.source for cell in plot_cells(notebook)]
    assert [source for source in plots if not source.rstrip().endswith(";")] == []
    # nbval runs cells without history, where IPython shows a value in spite of `;`: so assign it, `figure = plot(…);`.
    assert [source for source in plots if isinstance(ast.parse(source).body[-1], ast.Expr)] == []


def test_last_code_cell_is_the_stamp(notebook):
    calls = [node.func for node in syntax(code_cells(notebook)[-1]) if isinstance(node, ast.Call)]
    assert any("stamp" in ast.unparse(call) for call in calls)


def test_committed_file_is_tidy(name, notebook):
    text = path_of(name).read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert MACHINE_PATH.search(text) is None
    assert notebook.metadata.kernelspec.name in ("archsae", "python3")  # those that `make setup` leaves in .venv
    assert [
        meta for meta in [notebook.metadata, *(cell.metadata for cell in notebook.cells)] if "papermill" in meta
    ] == []
