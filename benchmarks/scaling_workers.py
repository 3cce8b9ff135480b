"""`python -m benchmarks.scaling_workers`: a sweep of small runs on 1, 2 and 4 processes, and what more would do.

Time of R runs on n processes of a machine with c cores, one thread a run:

    T(n) = R d + ceil(R / n) max(1, n / c) t

t: seconds of a run in a worker. d: what is serial of a run, sending it and collecting its result. Both are fitted to
the measured T(n) (least squares, neither below 0). Efficiency is T(1) / (n T(n)). Beyond this machine each process has
a core of its own (c = n), and the shared disk is taken for fast enough.
"""

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from archsae_core.config import configure
from archsae_core.runs import Run
from archsae_core.store import write_json
from archsae_core.study import Study

HERE = Path(__file__).parent
MODELLED = (1, 2, 4, 8, 16, 32, 64, 100)


def measure(processes: int, runs: int, steps: int, root: Path) -> float:
    """Seconds of the sweep on so many processes that are up and have imported everything."""
    from distributed import Client, LocalCluster

    config = {"preset": "smoke", "n_features": 256, "steps": steps, "checkpoint_every": steps}
    prepared = Study(configure(config), root)
    prepared.untrained(Run("ra", 0, steps, 1.0))
    _ = prepared.heldout_activations
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=processes, **options) as cluster, Client(cluster, set_as_default=False) as client:
        client.run(_import)
        study = Study(configure(config | {"scheduler": cluster.scheduler_address}), root)
        start = time.perf_counter()
        study.run_folders(Run("ra", seed, steps, 1.0) for seed in range(runs))
        return time.perf_counter() - start


def _import() -> None:
    import archsae_core.study  # noqa: F401 (a worker's first task would pay for it)


def waves(runs: int, processes: int, cores: int) -> float:
    """Runs one after the other on the busiest process, longer where processes share cores."""
    return math.ceil(runs / processes) * max(1.0, processes / cores)


def fit(seconds: dict[int, float], runs: int, cores: int) -> tuple[float, float]:
    """t and d of the formula above."""
    design = np.array([[waves(runs, n, cores), runs] for n in seconds], dtype=float)
    t, d = nnls(design, np.array(list(seconds.values())))[0]
    return float(t), float(d)


def efficiency(t: float, d: float, runs: int, processes: int) -> float:
    """T(1) / (n T(n)) with a core for each process."""
    one, many = (runs * d + waves(runs, n, n) * t for n in (1, processes))
    return one / (processes * many)


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
        ideal = seconds[min(seconds)] * min(seconds) / (n * seconds[n])
        print(f"{n:3} processes: {seconds[n]:7.2f} s, efficiency {ideal:.2f}")
    t, d = fit(seconds, runs, cores)
    print(f"t = {t:.3f} s, d = {d:.4f} s; 100 runs with a core for each process:")
    modelled = {n: efficiency(t, d, 100, n) for n in MODELLED}
    for n, share in modelled.items():
        print(f"{n:3} processes: efficiency {share:.2f}")
    if not arguments.smoke:
        result = {"cores": cores, "runs": runs, "steps": steps, "seconds": seconds, "t": t, "d": d}
        write_json(HERE / "scaling_workers.json", result | {"efficiency of 100 runs, modelled": modelled})


if __name__ == "__main__":
    main()
