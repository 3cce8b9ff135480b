"""What is stated before a run is what the run then does: stages, bytes, room on the disk; and what it took is kept."""

import json
import re
import shutil
from collections import Counter, namedtuple
from functools import partial
from pathlib import Path

import pytest

from archsae_core.models import training
from archsae_study.__main__ import main
from archsae_study.engine import costs, estimate, execution, scheduler
from archsae_study.engine.costs import Cost, Unit
from archsae_study.engine.estimate import Estimate, Stated, check_room, duration
from archsae_study.engine.execution import Taken
from archsae_study.engine.plan import Node, plan
from archsae_study.engine.study import Study
from archsae_study.experiments import TABLES
from archsae_study.protocol.arms import ARMS
from archsae_study.report import Report
from archsae_study.settings.config import ConfigError, configure

Usage = namedtuple("Usage", "total used free")
SMALL = {"preset": "smoke", "steps": 10, "ablation_steps": 5, "n_seeds": 2, "longer_factor": 1}
SMALL |= {"arms": "topk-random-own,topk-kmeans-own,ra-own"}
NAMES = ("anchors", "standard_sae", "archetypal_sae", "w_steps", "stability", "generality")
WANTED = [table for table in TABLES if table.name in NAMES]


def stated(config, root):
    return estimate.estimate(plan(Study(config, root), WANTED), config)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Root of a finished study, and what was stated before."""
    config, root = configure(SMALL), tmp_path_factory.mktemp("done")
    before = stated(config, root)
    report = Report(config, root, compute=True)
    for table in WANTED:
        report.table(table)
    return root, before


def test_a_finished_study_has_exactly_the_stages_that_were_stated(done):
    root, before = done
    found = stated(configure(SMALL), root)
    assert all(stage.node.kept for stage in found.stages)
    assert (found.disk, found.seconds) == (0, 0)
    made = {path.parent for path in (root / "store").glob("*/*/manifest.json") if path.parent.parent.name != "layers"}
    assert made == {stage.node.folder for stage in before.stages}


def test_of_what_is_kept_the_time_is_told_that_it_took(done):
    root, before = done
    runs = [stage.node.folder for stage in before.stages if stage.node.kind == "runs"]
    seconds = sum(json.loads((folder / "manifest.json").read_text())["seconds"] for folder in runs)
    assert seconds > 0
    row = rf"\| {len(runs)} of runs \| yes \| – \| – \| took {re.escape(estimate.duration(seconds))} \|"
    assert re.search(row, estimate.table(stated(configure(SMALL), root)))


def test_stated_sizes_are_those_on_the_disk(done):
    """Checkpoints and files of half a page are in the estimate, so it may exceed what stays."""
    for stage in done[1].stages:
        size = sum(path.stat().st_size for path in stage.node.folder.glob("*.safetensors"))
        assert stage.node.kind == "tables" or 0.8 * size <= stage.cost.disk + 8192 <= 3 * size + 32768, stage.node.name


def test_what_every_stage_took_stands_beside_what_was_said(done, capsys):
    root, before = done
    (folder,) = root.glob("smoke-*")
    rows = execution.read(folder)
    # by kind: a run that two tables share is named by the one that asks first
    assert Counter(row.kind for row in rows) == Counter(stage.node.kind for stage in before.stages)
    assert all(row.taken > 0 for row in rows)
    assert main(["timing", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"| all | {len(rows)} |" in printed
    assert main(["timing", str(folder), "--each"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 3
    assert main(["timing", str(root)]) == 2


@pytest.mark.parametrize("content", ["null", "[1]", '[{"a": 1}]', "{"])
def test_times_that_are_none_are_named_and_nothing_else_is_to_be_deleted(tmp_path, capsys, content):
    (tmp_path / "timing.json").write_text(content)
    assert main(["timing", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "timing.json" in said
    assert said.strip().endswith("delete this file, on which no result depends")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--deltas", "1,1"], "deltas = "),
        (["--deltas", "[]"], "deltas = "),
        (["--set", "delta=0.5", "--deltas", "0,1"], "delta = .*a sweep sets it"),
    ],
)
def test_radii_of_a_sweep_are_checked_before_it_begins(tmp_path, capsys, given, message):
    assert main(["sweep", "--preset", "smoke", "--runs", str(tmp_path), *given]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_every_stage_and_writes_nothing(tmp_path, capsys):
    assert main(["report", "--preset", "smoke", "--runs", str(tmp_path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(plan(Study(configure({"preset": "smoke"}), tmp_path), TABLES))
    assert all(line.split("|")[2].strip() == "no" for line in rows)
    assert f"0 of {len(rows)} stages are kept" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_too_little_room_is_refused_before_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10 * 2**20))
    assert main(["report", "--preset", "smoke", "--runs", str(tmp_path / "runs")]) == 2
    assert "MiB are needed and 10 are free: free space" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_room_is_counted_on_the_disk_of_the_folder_that_is_still_missing(tmp_path):
    none = Estimate([], 0, 0, {})
    check_room(none, tmp_path / "a" / "b")
    with pytest.raises(ConfigError, match="runs ="):
        check_room(none._replace(disk=2**60), tmp_path / "a" / "b")


def node(name, amount, unit, kind="tables"):
    return Node(kind, name, Path("/nowhere") / name, lambda: None, partial(Cost, 1, 2, ((amount, unit),)))


def test_time_is_work_in_units_that_are_timed_once(monkeypatch):
    calls = []

    def trial():
        calls.append(1)
        return 0.5

    unit, never = Unit("thing", trial), Unit("other", pytest.fail)
    nodes = [node("a", 4, unit), node("b", 6, unit), node("c", 0, never)]
    found = estimate.estimate(nodes, configure(SMALL), notebooks=2)
    assert [stage.seconds for stage in found.stages] == [2, 3, 0]
    assert found.parts == {"tables": 5, "notebooks": 2 * estimate.NOTEBOOK_SECONDS}
    assert (found.disk, calls) == (3, [1])


def test_what_an_earlier_estimate_timed_is_not_timed_again():
    timed, new = Unit("thing", lambda: 0.5), Unit("other", lambda: 2.0)
    first = estimate.estimate([node("a", 4, timed)], configure(SMALL))
    known, never = first.units, Unit("thing", pytest.fail)
    second = estimate.estimate([node("b", 6, never), node("c", 1, new)], configure(SMALL), known=known)
    assert [stage.seconds for stage in second.stages] == [3, 2]
    assert second.units == {timed: 0.5, new: 2.0}


def test_processes_side_by_side_take_less_time_while_they_have_cores(monkeypatch):
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 4)

    def seconds(threads):
        for module in (estimate.torch, scheduler):
            monkeypatch.setattr(module, "get_num_threads", lambda: threads)
        places = (None, "local:2", "local:4", "local:64", "tcp://elsewhere:8786")
        configs = (configure({"preset": "smoke", "scheduler": place}) for place in places)
        unit = Unit("step", lambda: 1.0)
        return [estimate.estimate([node("a", 8, unit, "runs")], config).seconds for config in configs]

    alone, two, four, many, elsewhere = seconds(1)
    assert elsewhere == alone > two > four == many > alone / 5
    alone, two, four, many, elsewhere = seconds(4)  # the cores are shared out: no thread waits for another
    assert elsewhere == alone > two == four == many >= 0.9 * alone


@pytest.mark.parametrize("size", [16, 10**6])
def test_steps_are_timed_at_sizes_that_any_machine_can_hold(size, monkeypatch):
    timed = []

    def trainer(sae, config):
        anchors = getattr(sae.dictionary, "C", None)
        timed.append((sae.n_features, None if anchors is None else len(anchors)))
        return training.Trainer(sae, config)

    monkeypatch.setattr(costs, "Trainer", trainer)
    monkeypatch.setattr(costs, "LARGEST", 32)
    monkeypatch.setattr(costs, "TRIAL", 0.01)
    study = Study(configure({"preset": "smoke", "n_features": size, "n_anchors": size, "batch_size": size}), None)
    small = costs.training_step(study, ARMS["topk-random-own"]).seconds()
    large = costs.training_step(study, ARMS["ra-own"]).seconds()
    assert small > 0
    assert large > 0
    assert timed == [(min(size, 32), None), (min(size, 32), min(size, 32))]


def test_a_kind_of_step_is_timed_once_for_all_runs_of_that_kind():
    study = Study(configure(SMALL), None)
    (table,) = (table for table in WANTED if table.name == "stability")
    kinds = {costs.training_step(study.of(run), ARMS[run.arm]) for run in table.runs(study)}
    assert len(kinds) == 2  # free and archetypal


def test_the_order_of_making_is_that_of_the_plan_and_says_what_is_left(tmp_path, capfd):
    made, unit = [], Unit("thing", lambda: 1.0)
    names = ("first", "second")
    nodes = [Node("tables", name, tmp_path / name, partial(made.append, name), Cost) for name in names]
    missing = [Stated(one, Cost(work=((1, unit),)), 1.0) for one in nodes]
    rows = execution.make(Study(configure(SMALL), tmp_path), missing, (), name="report")
    assert made == [row.name for row in rows] == list(names)
    assert capfd.readouterr().err == ""  # nobody asked for progress


def test_a_stage_that_was_made_again_counts_once(tmp_path):
    execution.note(tmp_path, [Taken("runs", "a", 1.0, 2.0), Taken("runs", "b", 1.0, 2.0)])
    execution.note(tmp_path, [Taken("runs", "a", 1.0, 5.0)])
    assert execution.read(tmp_path) == [Taken("runs", "a", 1.0, 5.0), Taken("runs", "b", 1.0, 2.0)]
    assert "| all | 2 | 2 s | 7 s | 3.50 |" in execution.table(execution.read(tmp_path))


def test_durations_are_readable():
    assert [duration(s) for s in (0.25, 59.0, 90.0, 5400.0, 90_000.0)] == ["0.25 s", "59 s", "1.5 min", "1.5 h", "25 h"]
