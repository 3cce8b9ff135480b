"""k-means at equal inertia: `python -m benchmarks.kmeans`, this package against faiss, SuperKMeans, scikit-learn.

Ten Lloyd iterations on the same anisotropic points, one process each, in turn, from the same random start; SuperKMeans
(arXiv 2603.20009) takes no start and draws its own. The inertia of every result is computed here, in the same way,
outside the timed part.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from statistics import median

import numpy as np
import torch

from benchmarks import results
from benchmarks.machine import about
from benchmarks.peers import TOOLS, PeerMissing, environment

NAMES = ("ours", "faiss", "superkmeans", "sklearn-lloyd", "sklearn-minibatch")
EPOCHS = 3
"""Passes of mini-batch k-means over the points."""


def points(n: int, d_model: int) -> torch.Tensor:
    """Gaussian points around 2^10 random centres with a spectrum that falls off as activations' does."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, d_model + 1).float().rsqrt()
    centres = torch.randn(1024, d_model, generator=generator)
    x = torch.randn(n, d_model, generator=generator)
    x += centres[torch.randint(1024, (n,), generator=generator)]
    return x.mul_(scale)


def start(x: torch.Tensor, n_clusters: int) -> np.ndarray:
    """The start that `fit_anchors(seed=0)` takes where all points are distinct."""
    return x.numpy()[np.random.default_rng(0).permutation(len(x))[:n_clusters]]


def inertia(x: torch.Tensor, centroids: torch.Tensor) -> float:
    half = centroids.square().sum(dim=1) / 2
    total = 0.0
    for part in x.split(8192):
        nearest = (half - part @ centroids.T).min(dim=1).values
        total += (part.square().sum(dim=1) + 2 * nearest).double().sum().item()
    return total


def fit(name: str, x: torch.Tensor, n_clusters: int, iterations: int) -> np.ndarray | torch.Tensor:
    """Centroids by one implementation."""
    warnings.simplefilter("ignore")  # fewer iterations than convergence takes are meant
    if name == "ours":
        from archsae_core.models.anchors import fit_anchors

        return fit_anchors(x, n_clusters, iterations=iterations, seed=0).points
    first = start(x, n_clusters)
    if name == "faiss":
        import faiss

        every = len(x) // n_clusters + 1  # faiss clusters a sample by default
        options = {"niter": iterations, "max_points_per_centroid": every, "min_points_per_centroid": 1}
        model = faiss.Kmeans(x.shape[1], n_clusters, **options)
        model.train(x.numpy(), init_centroids=first)
        return model.centroids
    if name == "superkmeans":
        from superkmeans import SuperKMeans

        # of its own accord it samples the points, groups them in two levels and ends early
        whole = {"hierarchical": False, "sampling_fraction": 1.0, "early_termination": False, "tol": 0.0}
        every = len(x) // n_clusters + 1
        model = SuperKMeans(n_clusters, x.shape[1], iters=iterations, max_points_per_cluster=every, seed=0, **whole)
        return model.train(x.numpy())
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if name == "sklearn-lloyd":
        model = KMeans(n_clusters, init=first, n_init=1, max_iter=iterations, tol=0)
    else:
        model = MiniBatchKMeans(n_clusters, init=first, n_init=1, max_iter=EPOCHS, batch_size=16384, random_state=0)
    return model.fit(x.numpy()).cluster_centers_


def one(name: str, n: int, d_model: int, n_clusters: int, iterations: int) -> None:
    """Run one implementation and print what it took: the body of a process."""
    x = points(n, d_model)
    fit(name, points(64, 8), 2, 1)  # imports, threads
    begin = time.perf_counter()
    centroids = fit(name, x, n_clusters, iterations)
    taken = time.perf_counter() - begin
    found = inertia(x, torch.as_tensor(centroids))
    print("\n" + json.dumps({"seconds": taken, "inertia": found}))


def measure(name: str, sizes: list[int]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.kmeans", "--one", name, *map(str, sizes)]
    done = subprocess.run(command, env=environment(TOOLS.get(name)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(sizes: list[int], names: list[str], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds and inertia of every implementation, in turn; one that cannot be installed is left out."""
    rows: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "inertia": []} for name in names}
    for _ in range(repeats):
        for name in list(rows):
            try:
                for key, value in measure(name, sizes).items():
                    rows[name][key].append(value)
            except PeerMissing as error:
                del rows[name]
                sys.stderr.write(f"{name} is left out: {error}\n")
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kmeans", description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=262144)
    parser.add_argument("--d-model", type=int, default=576)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="1.1 million points")
    parser.add_argument("--smoke", action="store_true", help="2,000 points, to try the harness")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.one:
        return one(arguments.one[0], *map(int, arguments.one[1:]))
    n = 1_100_000 if arguments.full else arguments.points
    sizes = [n, arguments.d_model, arguments.clusters, arguments.iterations]
    sizes = [2000, 16, 32, 10] if arguments.smoke else sizes
    rows = run(sizes, list(arguments.only), arguments.repeats)
    base = median(rows["ours"]["inertia"]) if "ours" in rows else None
    for name, row in rows.items():
        excess = "" if base is None else f"  inertia {100 * (median(row['inertia']) / base - 1):+.3f} % of ours"
        print(f"{name:20} {median(row['seconds']):8.1f} s{excess}")
    if not arguments.smoke and len(rows) == len(NAMES):
        keys = ("points", "d_model", "clusters", "iterations")
        results.save("kmeans", {"problem": dict(zip(keys, sizes, strict=True)), "machine": about(), "rows": rows})
    return None


if __name__ == "__main__":
    main()
