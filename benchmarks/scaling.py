"""How time and memory grow: `python -m benchmarks.scaling` varies one size at a time and fits power laws.

Every point is a process with a limit on its time. Points that cannot fit into memory are left out with the reason.
Results are kept point by point: an interrupted run continues, `--again` measures everything anew.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import linregress

from archsae_core.metrics.matching import cosines, match
from archsae_core.storage import read_json, write_json
from benchmarks import figures, theory
from benchmarks.machine import about, bandwidth, matrix_rate, seconds, total_memory
from benchmarks.matching import RELATIONS, pair
from benchmarks.peers import environment
from benchmarks.problem import Problem

PATH = Path(__file__).with_name("scaling.json")
CASES = ("topk", "ra", "ra-published")
DOUBLING = tuple(1024 * 2**i for i in range(6))
AXES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "n_features": (CASES, DOUBLING),
    "n_anchors": (CASES[1:], DOUBLING),
    "batch": (CASES, tuple(256 * 2**i for i in range(6))),
    "d_model": (CASES, (576, 768, 2048)),
    "n_dead": (CASES, tuple(256 * 2**i for i in range(5))),
    "n_features = n_anchors": (CASES[1:], DOUBLING),
    "tokens of k-means": (("k-means, one iteration",), tuple(2**i for i in range(15, 21))),
    "atoms to match": (("assignment",), tuple(2**i for i in range(9, 15))),
}
"""Cases and sizes of each axis; everything else is as in `Problem`."""
STEP_AXES = ("n_features", "n_anchors", "batch", "d_model", "n_dead", "n_features = n_anchors")
KMEANS_CLUSTERS, KMEANS_ITERATIONS, WIDTH = 4096, 3, 576
SHARE_OF_MEMORY = 0.8
"""Of the machine's memory that a point may need; the system and the process itself need the rest."""


class Point(NamedTuple):
    axis: str
    case: str
    size: int

    @property
    def problem(self) -> Problem:
        # a rate so small that even these few steps improve every case, the published one too, as `report` asks
        return replace(Problem(steps=4, rounds=3, lr=1e-6), **dict.fromkeys(self.axis.split(" = "), self.size))

    @property
    def memory(self) -> int:
        """Bytes that it should take, from the sizes alone."""
        if self.axis in STEP_AXES:
            return theory.memory(self.problem, self.case)
        return 4 * (2 * self.size * WIDTH if self.axis.startswith("tokens") else 6 * self.size**2)

    def floor(self, rate: float, copy: float) -> float:
        """Seconds by the machine's rates alone."""
        if self.axis in STEP_AXES:
            return theory.step(self.problem, self.case).seconds(rate, copy)
        if self.axis.startswith("tokens"):
            return 2 * self.size * KMEANS_CLUSTERS * WIDTH / rate
        return 4 * self.size**2 / copy  # to read the similarities once; no bound on the search is known

    @property
    def command(self) -> list[str]:
        if self.axis in STEP_AXES:
            return ["benchmarks.ours", self.case, self.problem.to_json()]
        if self.axis.startswith("tokens"):
            return ["benchmarks.kmeans", "--one", "ours", *map(str, self.sizes)]
        return ["benchmarks.scaling", "--match", str(self.size)]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Arguments of k-means."""
        return self.size, WIDTH, KMEANS_CLUSTERS, KMEANS_ITERATIONS

    def read(self, report: dict[str, Any]) -> dict[str, float]:
        """Seconds, and bytes where they are known, of what the process printed."""
        if self.axis in STEP_AXES:
            return {"seconds": report["median"] / 1e3, "memory": report["memory"]}
        return {"seconds": report["seconds"] / (KMEANS_ITERATIONS if self.axis.startswith("tokens") else 1)}


def measure(point: Point, limit: float) -> dict[str, Any]:
    """`seconds` and `memory` of a point, or `skipped` with the reason."""
    available = SHARE_OF_MEMORY * total_memory()
    if point.memory > available:
        return {"skipped": f"needs {point.memory / 2**30:.1f} GiB of {available / 2**30:.1f}"}
    command = [sys.executable, "-m", *point.command]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"skipped": f"more than {limit:.0f} s"}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"skipped": "killed: out of memory" if done.returncode == -9 else reason}
    return point.read(json.loads(done.stdout.splitlines()[-1]))


def points(axes: list[str], largest: int | None) -> Iterator[Point]:
    for axis in axes:
        for case in AXES[axis][0]:
            yield from (Point(axis, case, size) for size in AXES[axis][1] if largest is None or size <= largest)


def run(path: Path, todo: list[Point], limit: float) -> list[dict[str, Any]]:
    """Measure what `path` does not hold yet, and keep each point at once. Sizes beyond one too slow are not tried."""
    rows = read_json(path)["rows"] if path.exists() else []
    known = {(row["axis"], row["case"], row["size"]): row for row in rows}
    rate, copy = matrix_rate(1024, 768, 4096, torch.float32), bandwidth()
    for point in todo:
        smaller = [row for key, row in known.items() if key[:2] == point[:2] and key[2] < point.size]
        if tuple(point) in known:
            continue
        slow = any(row.get("skipped", "").startswith("more than") for row in smaller)
        found = {"skipped": "a smaller size is too slow"} if slow else measure(point, limit)
        row = point._asdict() | found | {"floor": point.floor(rate, copy), "memory_by_theory": point.memory}
        known[tuple(point)] = row
        rows.append(row)
        write_json(path, {"machine": about(), "rows": rows})
        print(f"{point.axis:18} {point.case:22} {point.size:8} " +
              (found.get("skipped") or f"{1e3 * found['seconds']:10.1f} ms"), flush=True)  # fmt: skip
    return rows


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slope of log time against log size with its standard error, and that of the floor at the same points."""
    fits = []
    for axis, case in dict.fromkeys((row["axis"], row["case"]) for row in rows):
        found = [row for row in rows if (row["axis"], row["case"]) == (axis, case) and "seconds" in row]
        if len(found) < 3:
            continue
        sizes, times, floors = (np.log([row[key] for row in found]) for key in ("size", "seconds", "floor"))
        fit = linregress(sizes, times)
        theory_slope = linregress(sizes, floors).slope
        fits.append({"axis": axis, "case": case, "exponent": fit.slope, "error": fit.stderr, "theory": theory_slope})
    return fits


def largest_in(n_bytes: float, case: str, *, square: bool) -> int:
    """Most features (a power of two) whose step fits; with `square` as many anchors as features, else 4096."""
    sizes = [2**i for i in range(10, 24)]
    problems = [Problem(n_features=n, n_anchors=n if square else 4096) for n in sizes]
    return max((p.n_features for p in problems if theory.memory(p, case) <= n_bytes), default=0)


def match_once(n: int) -> None:
    similarity = cosines(*pair(n, WIDTH, *RELATIONS["half shared"]))
    print("\n" + json.dumps({"seconds": seconds(lambda: match(similarity), repeats=3)}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--largest", type=int, help="leave out sizes above this")
    parser.add_argument("--limit", type=float, default=300, help="seconds a point may take")
    parser.add_argument("--again", action="store_true", help="forget what was measured")
    parser.add_argument("--output", type=Path, default=PATH, help="another file leaves the committed figure alone")
    parser.add_argument("--match", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.match:
        return match_once(arguments.match)
    if arguments.again:
        arguments.output.unlink(missing_ok=True)
    rows = run(arguments.output, list(points(arguments.only, arguments.largest)), arguments.limit)
    for fit in exponents(rows):
        print(
            f"{fit['axis']:18} {fit['case']:22} {fit['exponent']:5.2f} ± {fit['error']:.2f}  theory {fit['theory']:.2f}"
        )
    if arguments.output == PATH:
        figures.save_scaling(rows)
    return None


if __name__ == "__main__":
    main()
