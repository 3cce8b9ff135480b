"""`python -m benchmarks.scaling_workers`: a sweep of small runs on 1, 2 and 4 processes, and what more would do.

Time of R runs on n processes of a machine with c cores, one thread a run:

    T(n) = R d + ceil(R / n) max(1, n / c) t

d: what is serial of a run, sending it and collecting its result, measured with tasks that do nothing. t: seconds of a
run in a worker, from T(1). The formula is printed beside every measured T(n). Efficiency is T(1) / (n T(n)). Beyond
this machine each process has a core of its own (c = n), and the shared disk is taken for fast enough.
"""

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch

from archsae_study.engine.runs import Run
from archsae_study.engine.scheduler import LOG, run_all
from archsae_study.engine.study import Study
from archsae_study.settings.config import configure
from benchmarks import results
from benchmarks.machine import about

MODELLED = (1, 2, 4, 8, 16, 32, 64, 100)
EMPTY = 200
"""Tasks that do nothing, by which d is measured."""
FULL = 480.0
"""Seconds that a run of the `full` preset takes on one core, about."""


def measure(processes: int, runs: int, steps: int, root: Path) -> float:
    """Seconds of the sweep on so many processes that are up and have imported everything."""
    from distributed import Client, LocalCluster

    config = {"preset": "smoke", "n_features": 256, "steps": steps, "checkpoint_every": steps}
    prepared = Study(configure(config), root)
    prepared.untrained(Run("ra-shared", 0, steps))
    _ = prepared.heldout_activations
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=processes, **options) as cluster, Client(cluster, set_as_default=False) as client:
        client.run(_import)
        study = Study(configure(config | {"scheduler": cluster.scheduler_address}), root)
        start = time.perf_counter()
        study.run_folders(Run("ra-shared", seed, steps) for seed in range(runs))
        return time.perf_counter() - start


def _import() -> None:
    import archsae_study.engine.study  # noqa: F401 (a worker's first task would pay for it)


def waves(runs: int, processes: int, cores: int) -> float:
    """Runs one after the other on the busiest process, longer where processes share cores."""
    return math.ceil(runs / processes) * max(1.0, processes / cores)


def overhead(root: Path) -> float:
    """d: seconds that a task which does nothing takes, sent by one process and answered by another."""
    tasks = {str(number): () for number in range(EMPTY)}
    begin = time.perf_counter()
    run_all("local:1", int, {}, root / LOG)
    empty = time.perf_counter()
    run_all("local:1", int, tasks, root / LOG)
    return max(0.0, time.perf_counter() - empty - (empty - begin)) / EMPTY  # the cluster's own start taken off


def total(t: float, d: float, runs: int, processes: int, cores: int) -> float:
    """T(n) of the formula above."""
    return runs * d + waves(runs, processes, cores) * t


def efficiency(t: float, d: float, runs: int, processes: int) -> float:
    """T(1) / (n T(n)) with a core for each process."""
    return total(t, d, runs, 1, 1) / (processes * total(t, d, runs, processes, processes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--smoke", action="store_true", help="a tiny sweep, to try the harness; nothing is written")
    arguments = parser.parse_args()
    runs, steps = (4, 40) if arguments.smoke else (arguments.runs, arguments.steps)
    torch.set_num_threads(1)
    cores, seconds = len(os.sched_getaffinity(0)), {}
    for n in arguments.processes:
        with tempfile.TemporaryDirectory() as folder:
            seconds[n] = measure(n, runs, steps, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        d = overhead(Path(folder))
    fewest = min(seconds)
    t = (seconds[fewest] - runs * d) / waves(runs, fewest, cores)
    rows = [
        {"processes": n, "seconds": found, "formula": total(t, d, runs, n, cores),
         "efficiency": seconds[fewest] * fewest / (n * found)}
        for n, found in seconds.items()
    ]  # fmt: skip
    modelled = [{"processes": n} | {f"{length:.3g} s": efficiency(length, d, 100, n) for length in (t, FULL)}
                for n in MODELLED]  # fmt: skip
    found = {"machine": about(), "runs": runs, "t": t, "d": d, "measured": rows, "modelled, 100 runs": modelled}
    print(json.dumps(found, indent=1))
    if not arguments.smoke:
        results.save("workers", found)


if __name__ == "__main__":
    main()
