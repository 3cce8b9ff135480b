"""The benchmark harness runs; nothing is asserted about time."""

import json
import subprocess
import sys

import pytest

from archsae_core.report import PROJECT
from benchmarks import scaling_workers
from benchmarks.__main__ import ratios
from benchmarks.problem import Problem


def test_own_cases_run_on_a_tiny_problem():
    command = [sys.executable, "-m", "benchmarks", "--self", "--smoke", "--repeats", "1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ours", "topk"], ["ours", "ra"], ["ours", "ra-published"],
    ]  # fmt: skip


def test_ratios_are_of_pairs():
    found = {"ours topk": [1.0, 2.0, 4.0], "ours ra": [1.0] * 3, "ours ra-published": [2.0] * 3}
    found |= {"overcomplete topk": [3.0, 8.0, 20.0], "overcomplete ra": [6.0] * 3}
    table = ratios(found)
    assert table["topk"] == {"median": 4.0, "min": 3.0, "max": 5.0}
    assert table["ra-published"]["median"] == 3.0


def test_problem_survives_its_json():
    assert Problem.from_json(json.dumps({"k": 3})) == Problem(k=3)
    assert Problem.from_json(Problem().to_json()) == Problem()


def test_fit_of_the_sweep_gives_back_what_the_formula_was_made_with():
    seconds = {n: 24 * 0.05 + scaling_workers.waves(24, n, 2) * 1.5 for n in (1, 2, 4)}
    assert scaling_workers.fit(seconds, 24, 2) == pytest.approx((1.5, 0.05))
    # by hand: 100 runs of 1 s, nothing serial, on 8 processes take 13 waves instead of 12.5
    assert scaling_workers.efficiency(1.0, 0.0, 100, 8) == pytest.approx(12.5 / 13)
    assert scaling_workers.efficiency(1.0, 1.0, 100, 100) == pytest.approx(200 / (100 * 101))
