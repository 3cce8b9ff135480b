"""The whole report at smoke size: by command line and papermill, from any directory, twice, and from results alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure

from archsae_core.metrics.stability import HEADLINE
from archsae_core.storage import CorruptArtifact, canonical_hash
from archsae_study import report
from archsae_study.__main__ import main
from archsae_study.commands import publishing, runner
from archsae_study.engine.made import changed_files, write_made
from archsae_study.engine.source import default_root, local_inputs
from archsae_study.engine.study import Study
from archsae_study.engine.typed import to_json
from archsae_study.experiments import TABLES
from archsae_study.report import MissingResult, Report, table_named
from archsae_study.settings.config import ConfigError, configure

FIGURES = {"eval_comparison.png", "stability_comparison.png", "delta_ablation_pareto.png", "feature_profile.png",
           "identifiability.png", "swap.png", "probing.png", "task_probes.png"}  # fmt: skip
CONTROLS = {
    "structure.json",
    "probing.json",
    "reappearance.json",
    "swap.json",
    "identifiability.json",
    "task_probes.json",
}
RESULTS = {"eval_results.json", "stability_results.json", "ablation_results.json", "features.json"} | CONTROLS
DICTIONARIES = {"anchor_points.safetensors", "standard_sae.safetensors", "kmeans_sae.safetensors",
                "archetypal_sae.safetensors"}  # fmt: skip


def test_report_leaves_everything_it_promises(smoke_report):
    assert {path.stem for path in smoke_report.glob("*.ipynb")} == set(runner.NOTEBOOKS)
    assert {path.name for path in (smoke_report / "figures").iterdir()} >= FIGURES
    assert {path.name for path in (smoke_report / "results").iterdir()} >= RESULTS
    assert {path.name for path in smoke_report.glob("*.safetensors")} == DICTIONARIES


def test_second_run_trains_nothing(smoke_tables, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed again")

    monkeypatch.setattr("archsae_study.engine.study.train", refuse)
    monkeypatch.setattr("archsae_study.engine.study.extract", refuse)
    monkeypatch.setattr("archsae_study.engine.study.fit_anchors", refuse)
    again = Report(configure({"preset": "smoke"}), smoke_tables.parent)
    for table in TABLES:
        found = json.loads(json.dumps(to_json(again.table(table))))
        assert found == json.loads((smoke_tables / "results" / table.file_name).read_text())["table"]


@pytest.fixture
def table(smoke_runs):
    """Tables of the smoke report by name."""
    return Report(configure({"preset": "smoke"}), smoke_runs).table


def test_results_are_what_the_formulas_say(table):
    arms = table("stability").by_key()
    assert arms["ra-shared"].start["hungarian"].interval(normalised=False).estimate == pytest.approx(1, abs=1e-5)
    assert abs(arms["topk-random-own"].start[HEADLINE].interval().estimate) < 0.1
    assert all(sae.quality["l0"] <= 4 for sae in table("evaluation").saes)
    for frame, norm in ((one.frame, one.median_norm) for one in table("ablation").sweeps):
        rows = table("ablation").sweep(frame).rows
        assert [row.delta for row in rows] == sorted([0, 1, round(0.01 * norm, 4)])
        assert not [flag for row in rows for flag in row.flags if flag.kind == "constraint"]
    assert not [flag for run in table("checks").flagged for flag in run.flags if flag.kind == "constraint"]


def test_controls_are_what_the_formulas_say(table):
    probing = table("probing")
    rows = {row.key: row for row in probing.rows}
    assert {"topk-random-own", "ra-own", "random directions", "raw activations"} <= rows.keys()
    assert all(-1 <= score.estimate <= 1 for row in rows.values() for score in row.accuracy.values())
    assert rows["raw activations"].accuracy["all"].estimate > 0.3  # the topics of the made-up text can be read
    assert {(gain.contrast, gain.gain.low) for gain in probing.gains} == {(key, None) for key in ("g1", "g2", "g3")}
    assert probing.documents[0] > probing.documents[1] > 0
    tasks = table("task_probes")
    shapes = {(len(scores), len(scores[0])) for row in tasks.rows for scores in row.auc.values()}
    assert shapes == {(4, 2), (4, 1)}  # a task a topic, by two seeds or a baseline's one
    assert tasks.of("raw activations").mean("all").estimate > 0.6  # a topic can be read at the last token
    assert [one.verdict for one in tasks.decisions()] == ["undetermined"] * 3  # of two seeds
    found = table("reappearance")
    assert found.of("topk-random-own").rate < 0.5
    assert found.of("ra-own").rate > found.of("topk-random-own").rate  # centroids of other documents are close
    swap = table("swap")
    assert sum(row.pairs for row in swap.bins) == sum(arm.pairs for arm in swap.arms)
    assert {row.arm for row in swap.arms} == set(swap.points)
    structure = table("structure")
    # centroids are near the data
    assert structure.of("topk", "centred", "step 0").ood > structure.of("topk-kmeans", "centred", "step 0").ood


def test_tables_depend_on_what_they_use():
    config, other = (configure({"preset": "smoke", "arms": arms}) for arms in ("ra-own,ra-shared", "ra-own,frozen-own"))
    tables = [table_named(name) for name in ("probing", "swap", "structure")]
    depends = {table.name: table.determining(config) != table.determining(other) for table in tables}
    assert depends == {"probing": True, "swap": True, "structure": False}
    assert table_named("identifiability").determining(config) == {"ablation_steps": 20, "n_seeds": 2}


@pytest.mark.long
def test_plain_papermill_from_another_directory(smoke_runs, tmp_path):
    command = [sys.executable, "-m", "papermill", str(report.PROJECT / "notebooks" / "03_archetypal_sae.ipynb"),
               "out.ipynb", "-p", "delta", "0", "-p", "preset", "smoke"]  # fmt: skip
    environment = os.environ | {"ARCHSAE_RUNS": str(smoke_runs)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = json.dumps(nbformat.read(tmp_path / "out.ipynb", as_version=4), ensure_ascii=False)
    assert "δ = 0," in text


def test_an_ascii_terminal_loses_nothing_of_what_is_published(smoke_report, published):
    printed = (published / "stdout").read_bytes().decode("ascii")
    assert "no interval" in printed  # of two seeds
    assert "?" in printed  # for δ and its like
    assert printed.endswith(f"run folder: {smoke_report}\n")
    for kind, pattern in (("results", "*.json"), ("figures", "*.png"), ("notebooks", "*.ipynb")):
        made = smoke_report if kind == "notebooks" else smoke_report / kind
        assert {path.name for path in (published / "project" / kind).iterdir()} == {
            path.name for path in made.glob(pattern)
        }
    first = nbformat.read(published / "project" / "notebooks" / "01_anchors.ipynb", as_version=4)
    assert any('preset: str = "smoke"' in cell.source for cell in first.cells)


def test_published_results_alone_give_the_same_outputs(smoke_report, tmp_path, monkeypatch):
    """Publish into a copy of the project, then re-run a notebook from its results: same outputs, no model."""
    copy = tmp_path / "project"
    shutil.copytree(report.PROJECT / "notebooks", copy / "notebooks")
    monkeypatch.setattr(publishing, "PROJECT", copy)
    publishing.publish(smoke_report)
    monkeypatch.setattr(report, "PROJECT", copy)
    monkeypatch.setenv(report.RESULTS_ONLY, "1")
    frozen = Report(configure({"preset": "smoke"}), tmp_path / "nowhere")
    assert frozen.table("ablation").sweep("raw").rows
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


def test_results_with_a_second_language_model_are_shown_to_who_asks_for_none_and_to_nobody_who_asks_for_another():
    found = {"k": 4, "other_model": "first", "other_model_layer": 9}
    assert report._same({"k": 4, "other_model": None, "other_model_layer": 12}, found)
    assert report._same({"k": 4}, found)
    assert report._same(found, found)
    assert not report._same(found | {"other_model": "second"}, found)
    assert not report._same(found | {"other_model_layer": 12}, found)
    assert not report._same({"k": 5, "other_model": None}, found)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", r"x\.json is no JSON|x\.json .*restore it, or run the report again"),
        ("<<<<<<< HEAD", "restore it, or run the report again"),
        ("[" * 100_000, "restore it, or run the report again"),
        ('{"manifest": {}, "table": {}, "seal": "0"}', "was altered"),
    ],
)
def test_a_result_that_is_none_says_what_to_do(tmp_path, content, error):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CorruptArtifact, match=error):
        report.read_result(tmp_path / "x.json", "x")


def test_a_result_of_another_version_says_so(tmp_path):
    content = {"manifest": {"table": "x"}, "table": {}}
    (tmp_path / "x.json").write_text(json.dumps(content | {"seal": canonical_hash(content)}))
    with pytest.raises(CorruptArtifact, match="another version of this project"):
        report.read_result(tmp_path / "x.json", "x")


def test_a_result_of_another_table_is_refused(tmp_path):
    content = {"manifest": {"table": "kmeans_sae", "config": {}, "environment": {}}, "table": {}}
    (tmp_path / "x.json").write_text(json.dumps(content | {"seal": canonical_hash(content)}))
    assert report.read_result(tmp_path / "x.json", "kmeans_sae")["table"] == {}
    with pytest.raises(CorruptArtifact, match="holds the table 'kmeans_sae' in the place of 'standard_sae'"):
        report.read_result(tmp_path / "x.json", "standard_sae")


@pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("0", False), ("no", False), ("", False)])
def test_a_switch_of_the_environment_can_say_no(monkeypatch, value, on):
    monkeypatch.setenv("ARCHSAE_RESULTS_ONLY", value)
    assert report.Report(configure({"preset": "smoke"})).results_only == on


def test_a_report_that_must_not_compute_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHSAE_RESULTS_ONLY", "1")
    with pytest.raises(ConfigError, match="ARCHSAE_RESULTS_ONLY is set, and a report computes: unset it"):
        runner.run_report({"preset": "smoke"}, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("edited", ["05_stability.ipynb", "figures/swap.png", "results/swap.json"])
def test_a_file_of_a_run_that_was_edited_since_is_not_replaced(tmp_path, edited):
    config = configure({"preset": "smoke"})
    folder = report.run_folder(config, tmp_path)
    folder.mkdir(parents=True)
    for name in ("05_stability.ipynb", "figures/swap.png", "results/swap.json", "explorer/index.html"):
        write_made(folder, folder / name, lambda path: path.write_text("as written"))
    assert changed_files(folder) == set()
    (folder / edited).write_text("edited")
    for begin in (runner.run_report, runner.planned):  # a dry run says so as well
        with pytest.raises(ConfigError, match=rf"{re.escape(edited)} was changed since the report wrote it"):
            begin({"preset": "smoke"}, root=tmp_path)
    with pytest.raises(ConfigError, match=rf"{re.escape(edited)} is not as a report wrote it"):  # so does a notebook
        write_made(folder, folder / edited, lambda path: path.write_text("written again"))
    assert (folder / edited).read_text() == "edited"
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}
    (folder / "results" / "mine.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"mine\.json is not as a report wrote it"):
        write_made(folder, folder / "results" / "mine.json", lambda path: path.write_text("written"))
    write_made(folder, folder / "results" / "mine.json", lambda path: path.write_text("{}"))  # what is there already


def test_what_may_be_damaged_is_kept_beside_what_a_repair_writes(tmp_path, monkeypatch):
    path = tmp_path / "results" / "swap.json"
    write_made(tmp_path, path, lambda unfinished: unfinished.write_text("written"))
    path.write_text("edited, or damaged")
    monkeypatch.setenv("ARCHSAE_REPAIR", "1")
    runner._check_run_folder(tmp_path)
    write_made(tmp_path, path, lambda unfinished: unfinished.write_text("written again"))
    assert path.read_text() == "written again"
    assert path.with_name("swap.json.kept").read_text() == "edited, or damaged"
    foreign = tmp_path / "figures" / "mine.png"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(ConfigError, match="is not as a report wrote it"):
        write_made(tmp_path, foreign, lambda unfinished: unfinished.write_text("drawn"))


@pytest.mark.parametrize("name", ["05_stability.ipynb", "results/swap.json"])
def test_a_file_of_no_report_in_a_run_folder_is_named_before_work(tmp_path, name):
    folder = report.run_folder(configure({"preset": "smoke"}), tmp_path)
    (folder / "results").mkdir(parents=True)
    (folder / name).write_text("mine")
    for begin in (runner.run_report, runner.planned):
        with pytest.raises(ConfigError, match=rf"{re.escape(name)} is of no report and would be replaced"):
            begin({"preset": "smoke"}, root=tmp_path)
    assert (folder / name).read_text() == "mine"


def test_each_notebook_is_run_by_a_kernel_with_sockets_of_its_own(tmp_path, monkeypatch):
    """papermill changes into the folder of the notebooks, where two reports would meet."""
    import papermill

    used = []

    def executed(source, output, parameters, config, **options):
        place = Path(config.KernelManager.ip)
        assert place.is_absolute()
        assert place.parent.is_dir()
        assert len(f"{place}-12345".encode()) < 100
        used.append(place)
        Path(output).write_text("{}")

    monkeypatch.setattr(papermill, "execute_notebook", executed)
    for length in (0, 60):
        long = tmp_path / ("x" * length or "y")
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        runner.execute("01_anchors", tmp_path / f"{length}.ipynb", {})
    assert len(set(used)) == 2
    assert not any(place.parent.exists() for place in used)


def test_damaged_times_of_a_run_are_refused_before_work(tmp_path):
    folder = report.run_folder(configure({"preset": "smoke"}), tmp_path)
    folder.mkdir(parents=True)
    (folder / "timing.json").write_text("{")
    for begin in (runner.run_report, runner.planned):
        with pytest.raises(CorruptArtifact, match=r"timing\.json .*delete this file, on which no result depends"):
            begin({"preset": "smoke"}, root=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}


def test_files_in_the_place_of_an_explorer_are_refused_before_work(tmp_path):
    folder = report.run_folder(configure({"preset": "smoke"}), tmp_path) / "explorer"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"explorer holds files and no explorer.*move them elsewhere"):
        runner.run_explorer({"preset": "smoke"}, None, root=tmp_path, say=print)
    assert {path.name for path in tmp_path.iterdir()} == {folder.parent.name}


def test_results_of_a_text_that_has_changed_are_not_shown(tmp_path, monkeypatch):
    path = tmp_path / "mine.txt"
    path.write_text("one")
    config = configure({"preset": "smoke", "text": str(path)})
    manifest = {"inputs": local_inputs(config), "config": {}}
    assert manifest["inputs"].keys() == {"text"}
    monkeypatch.setattr(report, "read_result", lambda *_: {"manifest": manifest})
    monkeypatch.setattr(report, "_same", lambda *_: True)
    shown = Report(config)
    assert shown._read_committed(TABLES[0]) is not None
    path.write_text("two, and more")
    assert shown._read_committed(TABLES[0]) is None
    path.unlink()  # elsewhere, where only the results are
    assert shown._read_committed(TABLES[0]) is not None
    assert local_inputs(configure({"preset": "smoke"})) == {}


@pytest.mark.parametrize("name", ["model", "text"])
def test_of_a_folder_what_is_read_counts_alone(tmp_path, name):
    """A log or an editor's copy beside it ends no report."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in ("config.json", "a.txt"):
        (folder / file).write_text("{}")
    config = configure({"preset": "smoke", name: str(folder)})
    before = local_inputs(config)
    for file in ("train.log", ".DS_Store", "a.py"):
        (folder / file).write_text("other")
    assert local_inputs(config) == before
    (folder / "a.txt").write_text("changed")
    assert local_inputs(config) != before


def test_a_text_that_changes_during_a_study_is_refused_and_nothing_is_kept_as_of_the_new_one(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\n\n".join(f"Document {i} tells of the sea and of ships. " * 8 for i in range(60)))
    given = {"preset": "smoke", "text": str(path), "label_field": None, "n_anchors": 8, "n_features": 16}
    shown = Report(configure(given), tmp_path / "runs", compute=True)
    before = local_inputs(shown.config)
    shown.table("activations")
    assert shown._manifests["activations"]["inputs"] == before
    (tmp_path / "mine.txt.swp").write_text("of an editor")
    shown.table("activations")
    path.write_text("another text")
    with pytest.raises(ConfigError, match=r"text = .*mine\.txt.* has changed since this began: start again"):
        shown.table("activations")
    with pytest.raises(ConfigError, match="has changed since this began"):
        shown.study.require_same_inputs()


def test_figures_are_kept_by_the_report_that_made_their_tables_alone(tmp_path):
    """A run of the committed parameters may be there, of other numbers."""
    drawn = Figure()
    shown = Report(configure({"preset": "smoke"}), tmp_path)
    shown.folder.mkdir(parents=True)
    assert shown.save_figure(drawn, "a.png") is drawn
    assert list(shown.folder.iterdir()) == []
    shown.table("activations")
    shown.save_figure(drawn, "a.png")
    assert (shown.folder / "figures" / "a.png").exists()


def test_a_file_is_no_place_for_runs(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARCHSAE_RUNS", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"ARCHSAE_RUNS = .*file.*: is a file: name a folder"):
        default_root()
    monkeypatch.setenv("ARCHSAE_RUNS", "  ")
    assert default_root().name == "runs"


def test_the_status_names_tables_of_which_the_code_has_changed(monkeypatch):
    made = {"date": "2026-01-01", "commit": "abc"}

    def committed(self, table):
        return {"manifest": {"code": "other" if table.name == "swap" else table.code, "environment": made}}

    monkeypatch.setattr(Report, "_read_committed", committed)
    monkeypatch.delenv("ARCHSAE_COMPUTE", raising=False)
    assert "nothing is computed. The code has changed since for swap. Another" in Report(configure({})).status().data


def test_committed_tables_of_other_code_are_named_beside_those_that_are_computed(monkeypatch, tmp_path):
    made = {"date": "2026-01-01", "commit": "abc"}

    def committed(self, table):
        return {"manifest": {"code": "other", "environment": made}} if table.name == "identifiability" else None

    monkeypatch.setattr(Report, "_read_committed", committed)
    monkeypatch.delenv("ARCHSAE_COMPUTE", raising=False)
    told = Report(configure({"preset": "smoke"}), tmp_path).status().data
    assert "are the committed ones. The code has changed since for identifiability.*" in told


def test_published_notebooks_keep_the_preset_that_was_run(smoke_report, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    shutil.copytree(report.PROJECT / "notebooks", copy / "notebooks")
    monkeypatch.setattr(publishing, "PROJECT", copy)
    publishing.publish(smoke_report)
    notebook = nbformat.read(copy / "notebooks" / "01_anchors.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert 'preset: str = "smoke"' in cell.source


def test_a_damaged_artefact_is_named_and_not_used(smoke_runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(smoke_runs, root)
    study = Study(configure({"preset": "smoke"}), root)
    path = study.run_folder(study.main_run("topk")) / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptArtifact, match=r"sae\.safetensors has .* bytes instead of"):
        Study(configure({"preset": "smoke"}), root).sae(study.main_run("topk"))


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
    with pytest.raises(ConfigError, match=r"deltas = .*each 0 or larger"):
        runner.run_sweep({"preset": "smoke"}, (1.0, -1.0), root=tmp_path)
    assert len(calls) == 4
