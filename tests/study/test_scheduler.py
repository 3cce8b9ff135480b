"""Sweeps on a real Dask cluster of processes: the same bits, a killed worker costs its task only, losses are named."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from archsae_core.models.training import TrainingDiverged
from archsae_study.__main__ import main
from archsae_study.commands import runner
from archsae_study.engine import scheduler
from archsae_study.engine.runs import Run
from archsae_study.engine.scheduler import LOG, SchedulerError
from archsae_study.engine.study import Study
from archsae_study.experiments.stability import TABLE
from archsae_study.report import run_folder
from archsae_study.settings.config import ConfigError, configure
from soak.processes import HOOKS, PROJECT, events

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own: as errors in its threads, they would stop its loop


def dask(*arguments, log=None):
    environment = os.environ | {"PYTHONPATH": f"{HOOKS}{os.pathsep}{PROJECT}", "OMP_NUM_THREADS": "1"}
    if log is not None:
        environment["ARCHSAE_SOAK_LOG"] = str(log)
    return subprocess.Popen([sys.executable, "-m", "dask", *arguments], env=environment, stderr=subprocess.DEVNULL)


class Cluster:
    """A scheduler and two workers, each a process without a nanny, whose work is counted."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.log, self.file = folder / "work.log", folder / "scheduler.json"
        port = self.address.rpartition(":")[2]
        common = ("--host", "127.0.0.1", "--port", port, "--no-dashboard", "--scheduler-file", str(self.file))
        self.scheduler = dask("scheduler", *common)
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard")
        self.workers = [dask("worker", self.address, *options, log=self.log) for _ in range(2)]

    def close(self) -> None:
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    wait_until(found.file.exists)
    yield found
    found.close()


def wait_until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def study(root, where=None, **overrides):
    return Study(configure({"preset": "smoke", "scheduler": where} | overrides), root)


RUNS = [Run(arm, seed, 40) for arm in ("topk-random-own", "ra-shared", "ra-own") for seed in (0, 1)]


def bits(folders):
    """Every file of every run but the manifests, which hold the seconds."""
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.name != "manifest.json"]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The runs trained in this process."""
    return bits(study(tmp_path_factory.mktemp("here")).run_folders(RUNS))


def test_same_bits_by_address_and_by_scheduler_file(cluster, here, tmp_path):
    assert bits(study(tmp_path / "a", cluster.address).run_folders(RUNS[:4])).items() <= here.items()
    folders = study(tmp_path / "a", str(cluster.file)).run_folders(RUNS)
    assert bits(folders) == here
    lines = (tmp_path / "a" / LOG).read_text().splitlines()
    assert [line.split(" ", 2)[2].split(":")[0] for line in lines if " of " in line] == [
        "1 of 4", "2 of 4", "3 of 4", "4 of 4", "1 of 2", "2 of 2",
    ]  # fmt: skip


def test_local_processes_give_the_same_bits_and_what_exists_starts_none(here, tmp_path, monkeypatch):
    assert bits(study(tmp_path, "local:2").run_folders(RUNS)) == here
    monkeypatch.setattr(scheduler, "_connected", None)
    assert bits(study(tmp_path, "local:2").run_folders(RUNS)) == here


def test_what_local_processes_are_told_does_not_reach_what_this_one_starts_later():
    before = dict(os.environ)
    with scheduler._connected("local:1") as client:
        assert client.submit(os.environ.get, "MALLOC_ARENA_MAX").result(timeout=60) == "1"
    assert dict(os.environ) == before


def test_a_diverged_run_is_left_to_the_caller_and_the_others_are_kept(cluster, tmp_path):
    diverging = Run("topk-random-own", 1, 40)
    found = study(tmp_path, cluster.address, lr=1e30)
    with pytest.raises(TrainingDiverged):
        found.run_folders([diverging])
    assert "failed (TrainingDiverged" in (tmp_path / LOG).read_text()


def test_an_unshared_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="must be shared"):
        scheduler.train_for(Study, configure({"preset": "smoke"}), str(tmp_path), {"a": 1}, RUNS[0], "key", 1)


def test_a_worker_that_would_train_another_run_is_named(here, tmp_path):
    """Of another kind of processor, or with another version: its hours would be thrown away."""
    own = study(tmp_path).of(RUNS[0])
    own.prepare(RUNS[0])
    given = (Study, own.config, str(tmp_path), own.source, RUNS[0])
    with pytest.raises(ConfigError, match=r"would train another run than was asked for.*set w_dtype"):
        scheduler.train_for(*given, "of another processor", 1)
    folder = scheduler.train_for(*given, own.run_key(RUNS[0]), 1)
    assert Path(folder).name == own.run_key(RUNS[0])


@pytest.mark.parametrize("where", ["local:0", "local:many", "tcp://host", "http://host:1", "missing.json", "8786"])
def test_bad_schedulers_are_refused_by_name(where):
    with pytest.raises(ConfigError, match=r"scheduler = .*local:N"):
        configure({"scheduler": where})


def test_an_unreachable_scheduler_is_refused_before_work_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scheduler, "TIMEOUT", 1.0)
    options = ["report", "--preset", "smoke", "--runs", str(tmp_path), "--set", "scheduler=tcp://127.0.0.1:9"]
    assert main(options) == 2
    assert "error: scheduler = 'tcp://127.0.0.1:9': nobody answers there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_runs_are_trained_is_no_part_of_what_they_are(tmp_path, monkeypatch):
    plain, sent = configure({"preset": "smoke"}), configure({"preset": "smoke", "scheduler": "local:2"})
    assert run_folder(plain, tmp_path) == run_folder(sent, tmp_path)
    assert TABLE.determining(plain) == TABLE.determining(sent)
    assert Study(plain, tmp_path).run_recipe(RUNS[0]) == Study(sent, tmp_path).run_recipe(RUNS[0])
    monkeypatch.setenv("ARCHSAE_SCHEDULER", "local:3")
    assert configure({"preset": "smoke"})["scheduler"] == "local:3"
    assert configure({"preset": "smoke", "scheduler": "local:2"})["scheduler"] == "local:2"


def test_notebooks_are_given_the_scheduler_by_the_environment(tmp_path, monkeypatch):
    seen = []

    def execute(name, output, given):
        seen.append((os.environ["ARCHSAE_SCHEDULER"], "scheduler" in given))

    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(runner.execution, "make_tables", lambda *_, **__: None)
    runner.run_report({"preset": "smoke", "scheduler": "local:2"}, notebooks=["01_anchors"], root=tmp_path)
    assert seen == [("local:2", False)]
    assert "ARCHSAE_SCHEDULER" not in os.environ


@pytest.mark.long
def test_a_killed_worker_costs_its_task_only_and_a_lost_scheduler_is_named(cluster, tmp_path):
    """Last in the file, since it destroys the cluster."""
    long = [Run("ra-shared", seed, 400) for seed in range(4)]
    before = len(events(cluster.log))
    script = f"""
import sys, torch
from pathlib import Path
from archsae_study.settings.config import ConfigError, configure
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
torch.set_num_threads(1)
study = Study(configure({{"preset": "smoke", "scheduler": {cluster.address!r}}}), Path({str(tmp_path)!r}))
try:
    study.run_folders([Run("ra-shared", int(seed), 400) for seed in sys.argv[1:]])
except ConfigError as error:
    sys.exit(str(error))
"""
    command = [sys.executable, "-c", script]
    options = {"stderr": subprocess.PIPE, "text": True, "env": os.environ | {"PYTHONPATH": str(PROJECT)}}
    client = subprocess.Popen([*command, "0", "1", "2"], **options)
    wait_until(lambda: any((tmp_path / "store").glob("runs/*.partial/checkpoint.safetensors")))
    cluster.workers[0].send_signal(signal.SIGKILL)
    assert client.communicate()[1] == ""
    assert client.returncode == 0
    noted = Counter(events(cluster.log)[before:])
    assert sum(line.startswith("seal runs/") for line in noted.elements()) == 3
    assert sum(line.startswith("build runs/") for line in noted.elements()) <= 3 + 1
    assert 3 * 400 <= noted["step -"] <= 3 * 400 + 20  # one checkpoint is 20 steps

    client = subprocess.Popen([*command, "0", "1", "2", "3"], **options)
    last = study(tmp_path).store.path("runs", study(tmp_path).run_recipe(long[3]))
    wait_until(lambda: (last.parent / f"{last.name}.partial" / "checkpoint.safetensors").exists())
    cluster.scheduler.kill()
    errors = client.communicate(timeout=90)[1]
    assert client.returncode == 1
    assert "scheduler = " in errors.splitlines()[-1]
    assert "finished runs are kept" in errors.splitlines()[-1]
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    resumed = bits(study(tmp_path).run_folders(long))
    assert resumed == bits(study(tmp_path / "again").run_folders(long))


def test_scheduler_errors_are_config_errors():
    assert issubclass(SchedulerError, ConfigError)
