"""`python -m benchmarks`: training steps against overcomplete, in one run, as ratios; `--self` leaves the peer out."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from archsae_core.store import cache_dir, write_json
from benchmarks.problem import Problem

HERE = Path(__file__).parent
OVERCOMPLETE = "0.3.0"
PEER_OF = {"topk": "topk", "ra": "ra", "ra-published": "ra"}
"""The peer's case that each of ours is divided by."""


def site(package: str, *others: str) -> Path:
    """Folder with a peer and what it imports beyond this project's packages, installed on first use."""
    folder = cache_dir() / "bench" / package
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), package]
        subprocess.run([*command, *others], check=True)
    return folder


def measure(command: list[str]) -> float:
    """Median milliseconds a step of one process."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *command], cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["median"]


def run(problem: Problem, repeats: int, *, peer: bool) -> dict[str, list[float]]:
    """Milliseconds a step of every case, the processes in turn, so that drift of the machine hits all alike."""
    text, found = problem.to_json(), {}
    for _ in range(repeats):
        for case in PEER_OF:
            found.setdefault(f"ours {case}", []).append(measure(["-m", "benchmarks.ours", case, text]))
        for case in ("topk", "ra") if peer else ():
            folder = str(site(f"overcomplete=={OVERCOMPLETE}", "einops"))
            command = ["peer_overcomplete.py", folder, case, text]
            found.setdefault(f"overcomplete {case}", []).append(measure(command))
    return found


def ratios(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times faster than overcomplete each of our cases is: median, smallest and largest over the repeats."""
    table = {}
    for case, other in PEER_OF.items():
        pairs = zip(found[f"overcomplete {other}"], found[f"ours {case}"], strict=True)
        values = [theirs / ours for theirs, ours in pairs]
        table[case] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self", action="store_true", dest="alone", help="this package alone")
    parser.add_argument("--repeats", type=int, default=3, help="times every process is run")
    parser.add_argument("--smoke", action="store_true", help="a tiny problem, to try the harness")
    arguments = parser.parse_args()
    sizes = {"d_model": 16, "n_features": 64, "n_anchors": 64, "k": 4, "batch": 32, "steps": 2, "rounds": 1}
    problem = Problem(**sizes) if arguments.smoke else Problem()
    found = run(problem, arguments.repeats, peer=not arguments.alone)
    for name, times in found.items():
        print(f"{name:24} {statistics.median(times):8.1f} ms a step  [{min(times):.1f}, {max(times):.1f}]")
    result = {"problem": json.loads(problem.to_json()), "cores": os.cpu_count(), "ms": found}
    if not arguments.alone:
        result["times_faster_than_overcomplete"] = ratios(found)
        for case, ratio in result["times_faster_than_overcomplete"].items():
            print(f"ours {case:19} {ratio['median']:8.2f} × overcomplete  [{ratio['min']:.2f}, {ratio['max']:.2f}]")
    if not arguments.smoke and not arguments.alone:
        write_json(HERE / "results.json", result)


if __name__ == "__main__":
    main()
