"""Matching of dictionaries: `python -m benchmarks.matching`, `match` against SciPy and lapx, and a whole `compare`."""

import argparse
import json
import subprocess
import sys
import time
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment

from archsae_core.metrics.matching import cosines, match
from archsae_core.metrics.stability import Side, compare
from archsae_core.models.sae import Codes
from benchmarks import results
from benchmarks.machine import about, seconds
from benchmarks.peers import TOOLS, PeerMissing, environment

TRAINED, STEEP = 1 / 3, 1 / 2
"""How singular values fall with their rank r, as r^-TRAINED: 0.30 to 0.36 in the dictionaries of the report."""
RELATIONS = {
    "the same": (1.0, TRAINED),
    "9 in 10 shared": (0.9, TRAINED),
    "half shared": (0.5, TRAINED),
    "unrelated": (0.0, TRAINED),
    "half shared, steeper spectrum": (0.5, STEEP),
}
"""Share of the second dictionary's atoms that are noisy copies of the first's, in another order; the spectrum."""
NOISE = 0.7
"""Norm of the noise on a copy, in units of the atom's."""
MEAN = 0.03
"""Norm of the mean atom, in units of an atom's, in the report's dictionaries."""


def pair(n: int, d_model: int, shared: float, slope: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two dictionaries with a small common mean and a falling spectrum, as trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d_model + 1).float() ** -slope
    scale /= scale.norm()
    a, b, mean = (scale * torch.randn(rows, d_model, generator=generator) for rows in (n, n, 1))
    copies = torch.arange(n) < shared * n
    b[copies] = a[copies] + NOISE * b[copies]
    return a + MEAN * mean, b[torch.randperm(n, generator=generator)] + MEAN * mean


def sides(n: int, d_model: int, tokens: int, k: int = 64) -> list[Side]:
    """Two related dictionaries with encoders, living features and codes, as a study compares them."""
    atoms, found = pair(n, d_model, *RELATIONS["half shared"]), []
    for seed, rows in enumerate(atoms):
        generator = torch.Generator().manual_seed(seed)
        codes = Codes(torch.rand(tokens, min(k, n), generator=generator),
                      torch.rand(tokens, n, generator=generator).topk(min(k, n), dim=1).indices)  # fmt: skip
        alive = torch.rand(n, generator=generator) > 0.01
        found.append(Side(rows, rows + 0.3 * torch.randn(rows.shape, generator=generator) / d_model**0.5, alive, codes))
    return found


def solvers() -> dict:
    """Every exact solver that this process can import: similarity in, total similarity out."""

    def ours(similarity: torch.Tensor) -> float:
        found = match(similarity)
        return similarity[found.rows, found.cols].double().sum().item()

    def scipy(similarity: torch.Tensor) -> float:
        return float(similarity.numpy()[linear_sum_assignment(similarity.numpy(), maximize=True)].sum(dtype=float))

    found = {"ours": ours, "scipy": scipy}
    try:
        import lap
    except ImportError:
        return found

    def lapx(name: str, similarity: torch.Tensor) -> float:
        return -getattr(lap, name)(-similarity.numpy())[0]

    return found | {name: partial(lapx, name) for name in ("lapjv", "lapjvr", "lapjvh")}


def assignments(n: int, d_model: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of every solver for each relation of the dictionaries. Raises SystemExit where one is not optimal."""
    rows: dict[str, dict[str, float]] = {}
    for relation, given in RELATIONS.items():
        similarity, totals = cosines(*pair(n, d_model, *given)), {}
        for name, solve in solvers().items():
            totals[name] = solve(similarity)
            rows.setdefault(relation, {})[name] = seconds(partial(solve, similarity), repeats=repeats)
        if max(totals.values()) - min(totals.values()) > 1e-5 * n:
            raise SystemExit(f"{relation}: the solvers disagree: {totals}")
    return rows


def one(n: int, d_model: int, tokens: int, repeats: int) -> None:
    """Measure everything and print it: the body of the process that has lapx in its path."""
    rows = assignments(n, d_model, repeats)
    a, b = sides(n, d_model, tokens)
    begin = time.perf_counter()
    compare(a, b)
    first = time.perf_counter() - begin
    chance = dict.fromkeys(compare(a, b)["raw"], 0.0)
    known = seconds(lambda: compare(a, b, chance=chance), repeats=repeats)
    print("\n" + json.dumps({"assignment": rows, "compare": {"with its chance levels": first, "scores alone": known}}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__)
    parser.add_argument("--atoms", type=int, default=4096)
    parser.add_argument("--d-model", type=int, default=576)
    parser.add_argument("--tokens", type=int, default=20000, help="held-out tokens whose codes are correlated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="64 atoms, to try the harness")
    parser.add_argument("--one", nargs=4, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return one(*arguments.one)
    sizes = [arguments.atoms, arguments.d_model, arguments.tokens, arguments.repeats]
    sizes = [64, 16, 200, 1] if arguments.smoke else sizes
    try:
        variables = environment(TOOLS["lapx"])
    except PeerMissing as error:
        sys.stderr.write(f"lapx is left out: {error}\n")
        variables = environment()
    command = [sys.executable, "-m", "benchmarks.matching", "--one", *map(str, sizes)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    for relation, row in found["assignment"].items():
        print(f"{relation:30} " + "  ".join(f"{name} {value:7.3f} s" for name, value in row.items()))
    for what, value in found["compare"].items():
        print(f"all metrics of a pair, {what}: {value:.2f} s")
    if not arguments.smoke:
        keys = ("atoms", "d_model", "tokens", "repeats")
        results.save("matching", {"problem": dict(zip(keys, sizes, strict=True)), "machine": about()} | found)
    return None


if __name__ == "__main__":
    main()
