"""`python -m benchmarks`: training steps of all packages in one run, as ratios; `--self` leaves the others out."""

import argparse
import json
import statistics
import subprocess
import sys

import torch

from benchmarks import figures, results, theory
from benchmarks.machine import about, bandwidth, check_device, matrix_rate
from benchmarks.ours import CASES
from benchmarks.peers import PEERS, PeerMissing, environment
from benchmarks.problem import Problem

SMOKE = {"d_model": 16, "n_features": 64, "n_anchors": 64, "k": 4, "batch": 32, "steps": 2, "rounds": 1, "lr": 0.01}
OURS = [f"ours {case}" for case in CASES]
THEIRS = [f"{package} {case}" for package, peer in PEERS.items() for case in peer.cases]


def kind(name: str) -> str:
    """`topk` or `ra`: what is compared with what."""
    return name.split()[1].split("-")[0]


def measure(name: str, problem: Problem) -> dict:
    """What one process reports: see `benchmarks.problem.report`. Raises PeerMissing, or SystemExit where it fails."""
    package, case = name.split()
    module = "benchmarks.ours" if package == "ours" else f"benchmarks.peers.{package}"
    command = [sys.executable, "-m", module, case, problem.to_json()]
    done = subprocess.run(command, env=environment(PEERS.get(package)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(problem: Problem, repeats: int, names: list[str]) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Reports of every case, the processes in turn, so that drift of the machine hits all alike; and who is missing."""
    found: dict[str, list[dict]] = {}
    missing: dict[str, str] = {}
    for _ in range(repeats):
        for name in names:
            if name.split()[0] in missing:
                continue
            try:
                found.setdefault(name, []).append(measure(name, problem))
            except PeerMissing as error:
                del found[name]
                missing[name.split()[0]] = str(error)
                sys.stderr.write(f"{name} is left out: {error}\n")
    return found, missing


def ratios(ms: dict[str, list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times faster each of our cases is than each peer's of its kind: median, min and max over the repeats."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for ours in (name for name in ms if name.startswith("ours ")):
        for other in (name for name in ms if not name.startswith("ours ") and kind(name) == kind(ours)):
            values = [theirs / mine for theirs, mine in zip(ms[other], ms[ours], strict=True)]
            spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
            table.setdefault(ours.split()[1], {})[other] = spread
    return table


def shares(problem: Problem, ms: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Our steps against the machine's own rates: share of each, and of the time that the floor of `theory` takes."""
    sizes = (problem.batch, problem.d_model, problem.n_features)
    rates = {str(dtype).split(".")[1]: matrix_rate(*sizes, dtype, problem.device)
             for dtype in (torch.float32, torch.bfloat16)}  # fmt: skip
    copy, table = bandwidth(problem.device), {}
    for name in (name for name in ms if name.startswith("ours ")):
        cost, taken = theory.step(problem, name.split()[1]), statistics.median(ms[name]) / 1e3
        table[name] = {f"of_{dtype}_rate": cost.flops / taken / rate for dtype, rate in rates.items()}
        table[name] |= {
            "of_bandwidth": cost.traffic / taken / copy,
            "of_floor": cost.seconds(rates["float32"], copy) / taken,
        }
    return {"tflops": {name: rate / 1e12 for name, rate in rates.items()} | {"gb_per_s": copy / 1e9}} | table


def show(ms: dict[str, list[float]], found: dict) -> None:
    for name, times in ms.items():
        print(f"{name:28} {statistics.median(times):8.1f} ms a step  [{min(times):.1f}, {max(times):.1f}]")
    for case, others in found["ratios"].items():
        for other, ratio in others.items():
            spread = f"[{ratio['min']:.2f}, {ratio['max']:.2f}]"
            print(f"ours {case:23} {ratio['median']:8.2f} × as fast as {other}  {spread}")
    for name, row in found["shares"].items():
        print(f"{name:28} " + "  ".join(f"{what} {value:.2f}" for what, value in row.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--self", action="store_true", dest="alone", help="this package alone")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"cases whose name holds one of these: {OURS + THEIRS}"
    )
    parser.add_argument("--repeats", type=int, default=3, help="times every process is run")
    parser.add_argument("--seeds", type=int, default=1, help="dictionaries that this package trains at once")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the packages' own code paths decide what is used")
    parser.add_argument("--beside", action="store_true", help="keep the published run, show this machine's beside it")
    parser.add_argument("--smoke", action="store_true", help="a tiny problem, to try the harness")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    check_device(arguments.device)
    sizes = (SMOKE if arguments.smoke else {}) | {"device": arguments.device, "seeds": arguments.seeds}
    problem = Problem(**sizes)
    names = OURS if arguments.alone else OURS + THEIRS
    names = [name for name in names if not arguments.only or any(part in name for part in arguments.only)]
    if not names:
        raise SystemExit(f"--only {' '.join(arguments.only)}: no such case among {', '.join(OURS + THEIRS)}")
    reports, missing = run(problem, arguments.repeats, names)
    ms = {name: [row["median"] for row in rows] for name, rows in reports.items()}
    found = {"problem": json.loads(problem.to_json()), "machine": about(arguments.device), "ms": ms}
    found |= {"ratios": ratios(ms), "shares": shares(problem, ms), "missing": missing}
    for part in ("fvu", "memory", "stubbed", "torch", "threads"):
        found[part] = {name: rows[-1][part] for name, rows in reports.items() if part in rows[-1]}
    found["versions"] = {package: peer.version for package, peer in PEERS.items()}
    show(ms, found)
    if arguments.device != "cpu" and not arguments.smoke:
        results.save(f"{arguments.device}, {arguments.seeds} at once", found)
    elif not (arguments.smoke or arguments.only or arguments.alone or missing or arguments.seeds > 1):
        # a partial run does not replace a whole one
        if arguments.beside:
            others = results.load().get("steps elsewhere", {})
            results.save("steps elsewhere", others | {found["machine"]["processor"]: found})
        else:
            results.save("steps", found)
            figures.save_steps(found)


if __name__ == "__main__":
    main()
