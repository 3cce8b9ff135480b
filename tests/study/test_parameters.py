"""What people give as parameters counts, whatever its type and wherever it is read; the rest of a notebook does not."""

import collections
import json
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from archsae_core.storage import cache_dir
from archsae_study.__main__ import main, parameters_of
from archsae_study.commands import runner
from archsae_study.engine.source import default_root
from archsae_study.engine.study import Study
from archsae_study.report import PROJECT, Report, run_folder
from archsae_study.settings.config import PRESETS, ConfigError, configure, given
from archsae_study.settings.parameters import parameters_in


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a text, a model, a folder of text and a scheduler file; another one to go to."""
    for name in ("elsewhere", "model", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"the sea {i}"}) for i in range(9)))
    (tmp_path / "scheduler.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("text", "a.jsonl", "a.jsonl"),
        ("text", "./a.jsonl", "a.jsonl"),
        ("text", "elsewhere/../a.jsonl", "a.jsonl"),
        ("text", "missing.txt", "missing.txt"),
        ("text", "texts", "texts"),
        ("text", "texts:part", "texts:part"),
        ("text", Path("a.jsonl"), "a.jsonl"),
        ("model", "model", "model"),
        ("model", "./missing", "missing"),
        ("scheduler", "scheduler.json", "scheduler.json"),
    ],
)
def test_a_path_stays_the_same_when_the_working_directory_changes(here, monkeypatch, name, value, path):
    config = configure({"preset": "smoke", name: value})
    assert config[name] == str(here / path)
    monkeypatch.chdir(here / "elsewhere")
    assert configure(given(config, ("preset", name)))[name] == str(here / path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("text", "synthetic"), ("text", "Salesforce/wikitext:part"), ("model", "random-gpt2"), ("model", "user/name"),
     ("scheduler", "local:2"), ("scheduler", "tcp://host:1")],
)  # fmt: skip
def test_names_are_no_paths(here, name, value):
    (here / "synthetic").mkdir()
    assert configure({"preset": "smoke", name: value})[name] == value


def test_home_is_expanded(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "elsewhere"))
    assert configure({"text": "~/a.txt"})["text"] == str(here / "elsewhere" / "a.txt")


def test_folders_of_the_environment_are_absolute_from_where_they_are_read(here, monkeypatch):
    monkeypatch.setenv("ARCHSAE_RUNS", "my-runs")
    monkeypatch.setenv("ARCHSAE_CACHE", "my-cache")
    assert (default_root(), cache_dir()) == (here / "my-runs", here / "my-cache")
    config = configure({"preset": "smoke"})
    study, report = Study(config, Path("other")), Report(config, Path("other"))
    monkeypatch.chdir(here / "elsewhere")
    assert study.root == here / "other" == report.folder.parent


def test_notebooks_get_absolute_paths_and_folders(here, monkeypatch):
    """`report` as in the README, from a folder of the user's: what each notebook is given leads to the same files."""
    seen = []
    monkeypatch.setattr(runner, "execute", lambda name, output, cell: seen.append((cell, dict(os.environ))))
    monkeypatch.setattr(runner, "planned", lambda values, root, notebooks: (Study(configure(values), root), None))
    monkeypatch.setattr(Study, "text_notes", lambda _: [])
    monkeypatch.setattr(runner.execution, "make_tables", lambda *_, **__: None)
    monkeypatch.setattr(runner.estimate, "summary", lambda *_: "")
    monkeypatch.setattr(runner.estimate, "check_room", lambda *_: None)
    monkeypatch.setenv("ARCHSAE_CACHE", "my-cache")
    parameters = {"preset": "smoke", "text": "a.jsonl", "model": "model", "tokens": "all", "layer": None}
    parameters["scheduler"] = "scheduler.json"
    folder = runner.run_report(parameters, root=Path("runs"), notebooks=("01_anchors",))
    ((cell, environment),) = seen
    assert cell == {
        "preset": "smoke", "text": str(here / "a.jsonl"), "model": str(here / "model"), "tokens": "all",
    }  # fmt: skip
    assert folder.parent == here / "runs"
    wanted = {"RUNS": here / "runs", "CACHE": here / "my-cache", "SCHEDULER": here / "scheduler.json"}
    assert {name: environment[f"ARCHSAE_{name}"] for name in wanted} == {n: str(path) for n, path in wanted.items()}


@pytest.mark.parametrize(("name", "value", "wanted"), [
    ("delta", np.float64(0.25), 0.25), ("delta", np.float32(0.5), 0.5), ("delta", torch.tensor(0.5), 0.5),
    ("delta", Decimal("0.5"), 0.5), ("delta", Fraction(1, 2), 0.5), ("delta", np.array(2), 2.0),
    ("k", np.int64(3), 3), ("k", 3.0, 3), ("seed", 2**39 + 1, 2**39 + 1), ("unit_norm", np.bool_(False), False),
    ("deltas", np.linspace(0, 2, 3), (0.0, 1.0, 2.0)), ("deltas", range(3), (0.0, 1.0, 2.0)),
    ("deltas", {2.0, 0.0, 1.0}, (0.0, 1.0, 2.0)), ("deltas", (0, np.float64(0.5)), (0.0, 0.5)),
    ("deltas", torch.tensor([0.0, 0.5]), (0.0, 0.5)), ("deltas", collections.deque([1, 2]), (1.0, 2.0)),
    ("arms", np.array(["topk-random-own", "ra-own"]), ("topk-random-own", "ra-own")),
])  # fmt: skip
def test_values_of_other_libraries_are_converted(name, value, wanted):
    found = configure(parameters_in({"preset": "smoke", name: value}))[name]
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(("name", "value"), [
    ("deltas", {"low": 0, "high": 1}), ("deltas", np.zeros((2, 2))), ("arms", {"topk", "ra"}), ("text", b"a.txt"),
    ("text", ["a.txt", "b.txt"]), ("delta", 1j), ("delta", np.array([1.0])), ("steps", object()), ("delta", [0.5]),
    ("text", 5), ("revision", 4e10), ("delta", np.datetime64("2026-01-01")), ("deltas", np.array([0.5, np.nan])),
    ("text", ""), ("tokens", ""), ("layer", " "), ("deltas", (x for x in (1, 2))),
])  # fmt: skip
def test_values_that_cannot_be_used_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        configure(parameters_in({"preset": "smoke", name: value}))


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), Path("x"), {}, {1}, range(2), None, object()])
def test_a_misspelt_name_is_refused_whatever_its_value(value):
    with pytest.raises(ConfigError, match="unknown parameter 'detla'"):
        parameters_in({"preset": "smoke", "detla": value, "Path": Path, "np": np, "_private": 3})


def test_none_on_the_command_line_wins_over_the_preset():
    for text in ("None", "none", "all"):
        assert configure(parameters_of("quick", [f"tokens={text}"]))["tokens"] is None
    from_cell = configure({"preset": "quick", "tokens": None})  # a notebook's cell: as the preset says
    assert from_cell["tokens"] == PRESETS["quick"]["tokens"]
    config = configure(parameters_of("full", ["anchor_tokens=None", "label_field=None"]))
    assert given(config, ("preset", "anchor_tokens", "label_field")) == {"preset": "full", "anchor_tokens": "all"}
    with pytest.raises(ConfigError, match="layer = 'all'"):
        configure({"layer": "all"})
    assert configure({"label_field": "all"})["label_field"] == "all"  # a column may have that name


def test_command_line_values_are_typed():
    config = configure(parameters_of("smoke", ["delta=1", "deltas=0,0.5"]))
    assert (config["delta"], config["deltas"]) == (1.0, (0.0, 0.5))


def test_an_empty_folder_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["clean", "--runs", ""])
    assert "--runs: runs = '': an empty value" in capsys.readouterr().err


# --- which names of a notebook are parameters ---

CELLS = {
    "imports": "from pathlib import Path\nimport numpy as np\n"
    "from archsae_study.settings.parameters import parameters_in",
    "parameters": 'preset: str = "smoke"  # help\nn_anchors: int = None  # help\ndeltas: list = None  # help',
    "report": "found = parameters_in(globals())\nprint(sorted(found.items()))",
    "own": "names = ['a']\nrows = [[n, {}] for n in names]\nfor i in range(2):\n    total = i\ntable = {'x': 1}",
}


class Kernel:
    """A notebook in a kernel, run cell by cell as JupyterLab does."""

    def __init__(self, client):
        self.client, self.cells = client, []

    def __call__(self, source):
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        done = self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(output.get("text", "") for output in done.outputs)


@pytest.fixture(scope="module")
def kernel():
    client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", allow_errors=True)
    with client.setup_kernel():
        yield Kernel(client)


def run(kernel, *names):
    out = ""
    for name in names:
        out = kernel(CELLS.get(name, name))
    return out


def test_a_notebook_can_be_run_again_from_the_parameters_cell(kernel):
    """In JupyterLab: run it, edit a parameter, run it again from there. Names of the notebook's own do not count."""
    assert run(kernel, "%reset -f", "imports", "parameters", "report", "own") == ""
    assert "names" in kernel("print(dir())")
    edited = CELLS["parameters"].replace("n_anchors: int = None", "n_anchors: int = np.int64(32)")
    assert "('n_anchors', np.int64(32))" in run(kernel, edited, "report")


def test_names_of_any_type_in_the_cell_count(kernel):
    odd = CELLS["parameters"] + "\ntext = Path('a.txt')\nimport json as js\nk, seed = 2, 3"
    assert run(kernel, "imports", odd, "report") == (
        "[('deltas', None), ('k', 2), ('n_anchors', None), ('preset', 'smoke'), ('seed', 3), "
        "('text', PosixPath('a.txt'))]\n"
    )
    assert "deltas" in run(kernel, "parameters", "report")
    assert "'text'" not in run(kernel, "parameters", "report")  # what an earlier version of the cell set is forgotten
    kernel(CELLS["parameters"] + "\ndetla = Path('a.txt')")
    with pytest.raises(ConfigError, match="unknown parameter 'detla'"):
        parameters_in({"In": ["", CELLS["parameters"] + "\ndetla = 1", CELLS["report"]], "preset": "smoke", "detla": 1})


def test_the_injected_cell_and_fields_set_later_count(kernel):
    injected = "# Parameters\nn_seeds = 4\n"
    assert "('n_seeds', 4)" in run(kernel, "parameters", injected, "report")
    assert "('n_seeds', 5)" in run(kernel, "parameters", injected, "n_seeds = 5\nmine = 1", "report")
    history = ["", CELLS["parameters"], "# Parameters\ndetla = 0.5\n", CELLS["report"]]
    with pytest.raises(ConfigError, match="unknown parameter 'detla'"):
        parameters_in({"In": history, "preset": "smoke", "detla": 0.5})


READ = "report = Report.from_namespace(globals())"


@pytest.mark.parametrize(
    "cells",
    [
        (CELLS["parameters"], f"seed = 3\n{READ}"),
        (CELLS["parameters"], "%%time\nseed = 3", READ),
        (CELLS["parameters"], "%matplotlib inline\nseed = 3", READ),
        (f"%%capture\n{CELLS['parameters']}\nseed = 3", READ),
        (f"{CELLS['parameters']}\nseed = 3", "preset = 'smoke'", READ),
    ],
)
def test_a_field_that_is_set_before_the_call_counts(cells, recwarn):
    assert parameters_in({"In": ["", *cells], "preset": "smoke", "seed": 3}) == {"preset": "smoke", "seed": 3}
    assert not recwarn


@pytest.mark.parametrize(
    "cells",
    [
        ("seed = 3", CELLS["parameters"], READ),
        ("from mine import *", CELLS["parameters"], READ),
        (CELLS["parameters"], "%%writefile a.py\nseed = 3", READ),
        (CELLS["parameters"], f"{READ}\nseed = 3"),
        (CELLS["parameters"], READ, "seed = 3", CELLS["parameters"], READ),
    ],
)
def test_a_field_that_is_set_elsewhere_does_not_count_and_is_named(cells):
    with pytest.warns(UserWarning, match="seed = 3: it is set outside of the cell of parameters and not used"):
        assert parameters_in({"In": ["", *cells], "preset": "smoke", "seed": 3}) == {"preset": "smoke"}


def test_a_parameters_cell_that_was_not_run_is_named():
    with pytest.raises(ConfigError, match="preset: the cell of parameters was not run"):
        parameters_in({"In": ["", CELLS["imports"], CELLS["report"]]})


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_notebook_uses_a_parameters_name_for_something_else(path):
    """Or a cell that is run again would take its value for the parameter's."""
    from archsae_study.settings.config import FIELDS
    from archsae_study.settings.parameters import _names_set

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    own = [cell.source for cell in cells if "parameters" not in cell.metadata.get("tags", [])]
    assert {name for source in own for name in _names_set(source)} & set(FIELDS) == set()


def test_a_script_reads_its_own_names(tmp_path):
    script = "\n".join([CELLS["imports"], CELLS["parameters"], "n_anchors = np.int64(8)", CELLS["report"]])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "('n_anchors', np.int64(8)), ('preset', 'smoke')" in done.stdout


def test_run_folders_do_not_depend_on_how_a_value_was_written(here):
    one = run_folder(configure({"preset": "smoke", "text": "a.jsonl", "deltas": np.linspace(0, 1, 2)}), here)
    assert one == run_folder(configure({"preset": "smoke", "text": here / "a.jsonl", "deltas": [0, 1]}), here)


def test_a_value_that_cannot_be_told_from_none_is_refused():
    """W's smoothing is another one in the raw frame, where the preset's own is taken for not given."""
    for changes in ({"smoothing": 0.9}, {"preset": "smoke", "smoothing": "0.9"}):
        with pytest.raises(ConfigError, match=r"smoothing = 0\.9: in the frame 'raw', there it is 0\.1"):
            configure({"frame": "raw"} | changes)
    configure({"frame": "raw", "smoothing": 0.1, "w_step": "mirror", "w_lr": 3e-3})
    configure({"frame": "centred", "smoothing": 0.9})
