"""What is stated before a run is what the run then does: stages, bytes, room on the disk."""

import shutil
from collections import namedtuple

import pytest

from archsae_core.models import training
from archsae_study import estimate, scheduler
from archsae_study.__main__ import main
from archsae_study.config import ConfigError, configure
from archsae_study.estimate import Estimate, check_room, duration
from archsae_study.study import Study
from soak.processes import undisturbed

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Store of a finished study of the smoke preset."""
    return undisturbed(tmp_path_factory.mktemp("done"), whole=False).root


def test_a_finished_study_has_exactly_the_stages_that_were_stated(done):
    found = estimate.estimate(Study(configure({"preset": "smoke"}), done))
    assert all(stage.kept for stage in found.stages)
    assert (found.disk, len({stage.name for stage in found.stages})) == (0, len(found.stages))
    stated = {stage.folder for stage in found.stages}
    made = {path for stage in ("activations", "anchors", "runs") for path in (done / "store" / stage).iterdir()}
    assert {path for path in made if path.is_dir()} == {path for path in stated if path.parent.name != "tables"}


def test_stated_sizes_are_those_on_the_disk(done):
    """Checkpoints and files of half a page are in the estimate, so it may exceed what stays."""
    for stage in estimate.estimate(Study(configure({"preset": "smoke"}), done)).stages:
        size = sum(path.stat().st_size for path in stage.folder.glob("*.safetensors"))
        assert stage.folder.parent.name == "tables" or 0.8 * size <= stage.disk + 8192 <= 3 * size + 16384, stage.name


def test_dry_run_prints_every_stage_and_writes_nothing(tmp_path, capsys):
    assert main(["report", "--preset", "smoke", "--runs", str(tmp_path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(estimate.estimate(Study(configure({"preset": "smoke"}), tmp_path)).stages)
    assert all(line.split("|")[2].strip() == "no" for line in rows)
    assert f"0 of {len(rows)} stages are kept" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_too_little_room_is_refused_before_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10 * 2**20))
    assert main(["report", "--preset", "smoke", "--runs", str(tmp_path / "runs")]) == 2
    assert "MiB are needed and 10 are free: free space" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_room_is_counted_on_the_disk_of_the_folder_that_is_still_missing(tmp_path):
    none = Estimate([], 0, 0, {}, {})
    check_room(none, tmp_path / "a" / "b")
    with pytest.raises(ConfigError, match="runs ="):
        check_room(none._replace(disk=2**60), tmp_path / "a" / "b")


def test_more_work_costs_more():
    def cost(**changes):
        return estimate.estimate(Study(configure({"preset": "smoke"} | changes), None))

    small, large = cost(), cost(n_features=512, steps=400)
    assert large.disk > small.disk
    assert large.memory > small.memory
    trained = [[stage for stage in found.stages if stage.folder.parent.name == "runs"] for found in (small, large)]
    flops = [sum(stage.flops for stage in stages) for stages in trained]
    assert 8 * 1.5 * flops[0] < flops[1] < 8 * 10 * flops[0]  # 8 times the features; 10 times the steps of some runs


def test_slow_steps_make_training_longer_and_nothing_else(monkeypatch):
    def parts(training_rate):
        monkeypatch.setattr(estimate, "_training_rate", lambda study: training_rate)
        return estimate.estimate(Study(configure({"preset": "smoke"}), None)).parts

    monkeypatch.setattr(estimate, "_rate", lambda device: 1e9)
    fast, slow = parts(1e9), parts(0.5e9)
    assert fast.pop("runs") == pytest.approx(0.5 * slow.pop("runs"))
    assert fast == slow


@pytest.mark.parametrize("size", [16, 10**6])
def test_steps_are_timed_at_sizes_that_any_machine_can_hold(size, monkeypatch):
    timed = []

    def trainer(sae, config):
        anchors = getattr(sae.dictionary, "C", None)
        timed.append((sae.n_features, None if anchors is None else len(anchors), config.batch_size))
        return training.Trainer(sae, config)

    monkeypatch.setattr(estimate, "Trainer", trainer)
    monkeypatch.setattr(estimate, "LARGEST", 32)
    sizes = {"n_features": size, "n_anchors": size, "batch_size": size}
    assert estimate._training_rate(Study(configure({"preset": "smoke"} | sizes), None)) > 0
    assert timed == [(min(size, 32), None, min(size, 32)), (min(size, 32),) * 3]


def test_processes_side_by_side_take_less_time_while_they_have_cores(monkeypatch):
    monkeypatch.setattr(estimate, "_rate", lambda device: 1.0)
    monkeypatch.setattr(estimate, "_training_rate", lambda study: 1.0)
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 4)

    def seconds(threads):
        for module in (estimate.torch, scheduler):
            monkeypatch.setattr(module, "get_num_threads", lambda: threads)
        places = (None, "local:2", "local:4", "local:64", "tcp://elsewhere:8786")
        configs = (configure({"preset": "smoke", "scheduler": place}) for place in places)
        return [estimate.estimate(Study(config, None)).seconds for config in configs]

    alone, two, four, many, elsewhere = seconds(1)
    assert elsewhere == alone > two > four == many > alone / 4
    alone, two, four, many, elsewhere = seconds(4)  # the cores are shared out: no thread waits for another
    assert elsewhere == alone > two == four == many > 0.9 * alone


def test_durations_are_readable():
    assert [duration(s) for s in (0.25, 59.0, 90.0, 5400.0, 90_000.0)] == ["0.25 s", "59 s", "1.5 min", "1.5 h", "25 h"]
