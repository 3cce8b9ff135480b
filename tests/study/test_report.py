"""The whole report at smoke size: by command line and papermill, from any directory, twice, and from results alone."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from archsae_core.storage import CorruptArtifact
from archsae_study import publishing, report, runner
from archsae_study.__main__ import main
from archsae_study.config import ConfigError, configure
from archsae_study.report import MissingResult, Report, table_named
from archsae_study.runs import Run
from archsae_study.study import Study

FIGURES = {"eval_comparison.png", "stability_comparison.png", "delta_ablation_pareto.png", "feature_profile.png",
           "identifiability.png", "swap.png", "probing.png"}  # fmt: skip
CONTROLS = {"structure.json", "probing.json", "reappearance.json", "swap.json", "identifiability.json"}
RESULTS = {"eval_results.json", "stability_results.json", "ablation_results.json", "features.json"} | CONTROLS
DICTIONARIES = {"anchor_points.safetensors", "standard_sae.safetensors", "archetypal_sae.safetensors"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Folder of a finished smoke report, run as a user would from another directory."""
    root = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "archsae_study", "report", "--preset", "smoke", "--runs", str(root)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Undetermined" in done.stdout  # two seeds give no interval
    return next(path for path in root.iterdir() if path.name.startswith("smoke-"))


def test_report_leaves_everything_it_promises(smoke):
    assert {path.stem for path in smoke.glob("*.ipynb")} == set(runner.NOTEBOOKS)
    assert {path.name for path in (smoke / "figures").iterdir()} >= FIGURES
    assert {path.name for path in (smoke / "results").iterdir()} >= RESULTS
    assert {path.name for path in smoke.glob("*.safetensors")} == DICTIONARIES


def test_second_run_trains_nothing(smoke, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed again")

    monkeypatch.setattr("archsae_study.study.train", refuse)
    monkeypatch.setattr("archsae_study.study.extract", refuse)
    monkeypatch.setattr("archsae_study.study.fit_anchors", refuse)
    again = Report(configure({"preset": "smoke"}), smoke.parent)
    assert again.table("stability") == json.loads((smoke / "results" / "stability_results.json").read_text())["table"]
    again.table("ablation")


def test_results_are_what_the_formulas_say(smoke):
    table = json.loads((smoke / "results" / "stability_results.json").read_text())["table"]
    assert table["arms"]["ra"]["start"]["scores"]["hungarian"]["raw"]["estimate"] == pytest.approx(1, abs=1e-5)
    start = table["arms"]["topk"]["start"]["scores"]["hungarian_centred"]["normalised"]["estimate"]
    assert abs(start) < 0.1
    evaluation = json.loads((smoke / "results" / "eval_results.json").read_text())["table"]
    assert all(sae["quality"]["l0"] <= 4 for sae in evaluation["saes"].values())
    rows = json.loads((smoke / "results" / "ablation_results.json").read_text())["table"]["rows"]
    assert [row["delta"] for row in rows] == [0, 1]
    assert all(result["violation"] == 0 for row in rows for result in row["results"])


def table_of(smoke, name):
    return json.loads((smoke / "results" / f"{name}.json").read_text())["table"]


def test_controls_are_what_the_formulas_say(smoke):
    probing = table_of(smoke, "probing")
    rows = {row["name"]: row for row in probing["rows"]}
    assert {"topk", "ra-indep-anchors", "topk, step 0", "random directions", "raw"} <= rows.keys()
    assert all(-1 <= score["estimate"] <= 1 for row in rows.values() for score in row["accuracy"].values())
    assert rows["raw"]["accuracy"]["all"]["estimate"] > 0.3  # the topics of the made-up text can be read
    assert probing["verdict"]["verdict"] == "undetermined"  # two seeds give no interval
    assert probing["documents"]["train"] > probing["documents"]["heldout"] > 0
    arms = table_of(smoke, "reappearance")["arms"]
    assert arms["ra"]["rate"] == pytest.approx(1, abs=0.1)  # the start is shared
    assert arms["topk"]["rate"] < 0.5
    swap = table_of(smoke, "swap")
    assert sum(row["pairs"] for row in swap["bins"]) == sum(arm["pairs"] for arm in swap["arms"].values())
    assert swap["arms"]["ra"]["share"]["partner"]["estimate"] < 0.5 < swap["arms"]["ra"]["share"]["random"]["estimate"]
    structure = {(row["arm"], row["when"]): row for row in table_of(smoke, "structure")["rows"]}
    assert structure["topk", "step 0"]["ood"] > structure["topk-kmeans", "step 0"]["ood"]  # centroids are near the data


def test_tables_depend_on_what_they_use():
    config, other = (configure({"preset": "smoke", "arms": arms}) for arms in ("topk,ra", "topk,frozen"))
    tables = [table_named(name) for name in ("probing", "swap", "structure")]
    depends = {table.name: table.determining(config) != table.determining(other) for table in tables}
    assert depends == {"probing": True, "swap": True, "structure": False}
    assert table_named("identifiability").determining(config) == {"steps": 40}


def test_plain_papermill_from_another_directory(smoke, tmp_path):
    command = [sys.executable, "-m", "papermill", str(report.PROJECT / "notebooks" / "03_archetypal_sae.ipynb"),
               "out.ipynb", "-p", "delta", "0", "-p", "preset", "smoke"]  # fmt: skip
    environment = os.environ | {"ARCHSAE_RUNS": str(smoke.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = json.dumps(nbformat.read(tmp_path / "out.ipynb", as_version=4), ensure_ascii=False)
    assert "δ = 0," in text


def test_published_results_alone_give_the_same_outputs(smoke, tmp_path, monkeypatch):
    """Publish into a copy of the project, then re-run a notebook from its results: same outputs, no model."""
    copy = tmp_path / "project"
    shutil.copytree(report.PROJECT / "notebooks", copy / "notebooks")
    monkeypatch.setattr(publishing, "PROJECT", copy)
    publishing.publish(smoke)
    monkeypatch.setattr(report, "PROJECT", copy)
    monkeypatch.setenv(report.RESULTS_ONLY, "1")
    frozen = Report(configure({"preset": "smoke"}), tmp_path / "nowhere")
    assert frozen.table("ablation")["rows"]
    with pytest.raises(MissingResult, match="other parameters"):
        Report(configure({"preset": "smoke", "delta": 0.25}), tmp_path / "nowhere").table("evaluation")
    (copy / "results" / "eval_results.json").unlink()
    with pytest.raises(MissingResult, match="make report"):
        frozen.table("evaluation")
    published = nbformat.read(copy / "notebooks" / "06_delta_ablation.ipynb", as_version=4)
    counts = [cell.execution_count for cell in published.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "papermill" not in published.metadata
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in published.cells)
    assert [cell.metadata["alt"] for cell in published.cells if "save_figure" in cell.source]


def test_published_notebooks_keep_the_preset_that_was_run(smoke, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    shutil.copytree(report.PROJECT / "notebooks", copy / "notebooks")
    monkeypatch.setattr(publishing, "PROJECT", copy)
    publishing.publish(smoke)
    notebook = nbformat.read(copy / "notebooks" / "01_anchors.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert 'preset: str = "smoke"' in cell.source


def test_a_damaged_artefact_is_named_and_not_used(smoke, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(smoke.parent, root)
    study = Study(configure({"preset": "smoke"}), root)
    path = study.run_folder(study.main_run("topk")) / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptArtifact, match=r"sae\.safetensors has .* bytes instead of"):
        Study(configure({"preset": "smoke"}), root).sae(study.main_run("topk"))


def test_runs_share_what_they_can_and_nothing_else():
    study = Study(configure({"preset": "smoke"}))
    recipe = {name: study.store.path("runs", study.run_recipe(run)) for name, run in {
        "topk": Run("topk", 0, 40, 1.0), "topk, other delta": Run("topk", 0, 40, 0.0),
        "ra": Run("ra", 0, 40, 1.0), "ra, other delta": Run("ra", 0, 40, 0.0), "ra, other seed": Run("ra", 1, 40, 1.0),
        "ra, own anchors": Run("ra-indep-anchors", 0, 40, 1.0), "ra, more steps": Run("ra", 0, 41, 1.0),
    }.items()}  # fmt: skip
    assert recipe["topk"] == recipe["topk, other delta"]
    assert len(set(recipe.values())) == 6


def test_bad_input_ends_with_one_line_before_any_work(tmp_path, capsys):
    """One of those in bad_inputs.py, to the letter."""
    assert main(["report", "--preset", "smoke", "--runs", str(tmp_path), "--set", "layer=7"]) == 2
    assert capsys.readouterr().err == "error: layer = 7: the model has 3 blocks: use 0 … 2\n"
    assert list(tmp_path.iterdir()) == []


def test_sweep_runs_its_notebooks_once_for_each_delta(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runner.execution, "make_tables", lambda *_, **__: None)
    monkeypatch.setattr(
        runner, "execute", lambda name, output, given: calls.append((name, given["delta"], output.parent))
    )
    folders = runner.run_sweep({"preset": "smoke"}, (0.0, 0.5), root=tmp_path)
    assert [call[:2] for call in calls] == [(name, delta) for delta in (0.0, 0.5) for name in runner.SWEEP_NOTEBOOKS]
    assert [folder for _, _, folder in calls[::2]] == folders
    assert len(set(folders)) == 2
    with pytest.raises(ConfigError, match="delta = -1"):
        runner.run_sweep({"preset": "smoke"}, (1.0, -1.0), root=tmp_path)
    assert len(calls) == 4
