"""The benchmark harness runs, and what it derives is right; nothing is asserted about time."""

import io
import json
import random
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from archsae_core.data import random_model
from archsae_core.models import anchors, dictionary
from archsae_core.storage import cache_dir
from archsae_study.report import PROJECT
from benchmarks import __main__ as harness
from benchmarks import copies, extraction, kmeans, matching, ours, paper, scaling, scaling_workers, theory
from benchmarks.__main__ import OURS, THEIRS, ratios
from benchmarks.peers import PEERS
from benchmarks.problem import Problem, report


def run(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_own_cases_run_on_a_tiny_problem(monkeypatch, capsys):
    """In this process, but for the first, which stands for those that a benchmark starts."""
    started = harness.measure

    def measure(name, problem):
        if name == OURS[0]:
            return started(name, problem)
        with redirect_stdout(io.StringIO()) as printed:
            ours.main(name.split()[1], problem.to_json())
        return json.loads(printed.getvalue().splitlines()[-1])

    monkeypatch.setattr(harness, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--self", "--smoke", "--repeats", "1"])
    harness.main()
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[:2]) for line in lines[: len(OURS)]] == OURS


@pytest.mark.long
@pytest.mark.parametrize("name", THEIRS)
def test_peer_runs_where_it_is_installed(name):
    folder = cache_dir() / "bench" / PEERS[name.split()[0]].requirements[0]
    if not folder.exists():
        pytest.skip("made on first use by `make bench`, which needs the network")
    lines = run("benchmarks", "--only", name, "--smoke", "--repeats", "1")
    assert lines[0].startswith(name)


def test_a_step_that_does_not_train_is_refused():
    problem = Problem(d_model=4, batch=8, steps=1, rounds=1)
    with pytest.raises(SystemExit, match="does not train"):
        report(problem, lambda: None, torch.zeros_like)


def test_ratios_are_of_pairs():
    ms = {"ours topk": [1.0, 2.0, 4.0], "ours ra-published": [2.0] * 3}
    ms |= {"a topk": [3.0, 8.0, 20.0], "b topk-bf16": [2.0, 2.0, 2.0], "a ra": [6.0] * 3}
    table = ratios(ms)
    assert table["topk"]["a topk"] == {"median": 4.0, "min": 3.0, "max": 5.0}
    assert table["topk"]["b topk-bf16"]["median"] == 1.0
    assert list(table["ra-published"]) == ["a ra"]
    assert table["ra-published"]["a ra"]["median"] == 3.0


def test_problem_survives_its_json():
    assert Problem.from_json(json.dumps({"k": 3})) == Problem(k=3)
    assert Problem.from_json(Problem().to_json()) == Problem()


def test_no_gpu_is_a_clear_error():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--device", "cuda"], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("--device cuda: no GPU is usable here")


def test_inertia_is_that_of_scikit_learn():
    x = kmeans.points(500, 8)
    fit = KMeans(16, init=kmeans.start(x, 16), n_init=1, max_iter=3).fit(x.numpy())
    assert kmeans.inertia(x, torch.from_numpy(fit.cluster_centers_)) == pytest.approx(fit.inertia_, rel=1e-5)


def test_all_kmeans_start_alike(monkeypatch):
    monkeypatch.setattr(anchors, "fast_bfloat16", lambda: False)
    x = kmeans.points(300, 4)
    ours, theirs = (kmeans.fit(name, x, 8, 1) for name in ("ours", "sklearn-lloyd"))
    assert np.allclose(np.asarray(ours), theirs, atol=1e-5)


def test_the_benchmark_of_reading_runs(monkeypatch):
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")  # compiling takes longer than the rest, and has its own test
    assert run("benchmarks.extraction", "--smoke")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", ["kmeans", "matching", "evaluation"])
def test_other_benchmarks_run(module, monkeypatch, capsys):
    only = ("--only", "ours", "sklearn-lloyd") if module == "kmeans" else ()
    if module == "matching" and not (cache_dir() / "bench" / "lapx==0.11.1").exists():
        assert set(matching.assignments(64, 16, 1)) == set(matching.RELATIONS)
    else:
        monkeypatch.setattr(sys, "argv", [module, "--smoke", *only])
        runpy.run_module(f"benchmarks.{module}", run_name="__main__")
        assert capsys.readouterr().out


def test_shares_of_operations_are_of_the_whole_and_products_lead_where_there_are_only_products(seeded):
    x = torch.randn(512, 512)
    shares = extraction.operation_shares(lambda: x @ x)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["products"] > 0.9
    assert extraction.operation_shares(x.exp)["products"] == 0.0
    heads = torch.randn(1, 4, 64, 32)
    attended = extraction.operation_shares(
        lambda: torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
    )
    assert max(attended, key=attended.get) == "attention"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of torch's own imports
def test_a_model_that_cannot_be_compiled_has_no_row_of_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    model, ids = random_model.gpt2(32).eval(), torch.ones(1, 8, dtype=torch.int64)
    assert extraction.compiled_pass(model, 0, ids, ids) is None


def test_theory_counts_products_by_hand(monkeypatch):
    monkeypatch.setattr(dictionary, "SPARSE_ENTRY", 4)
    problem = Problem(d_model=3, n_features=5, n_anchors=7, k=1, batch=2)
    assert theory.step(problem, "topk").flops == 2 * 2 * 3 * 5
    # with 5 features and batches of 2, z W is multiplied by C; with batches of 3, W is
    assert theory.step(problem, "ra-published").flops == 2 * 2 * 3 * 5 + 2 * (2 * 2 * 7 * 3)
    assert theory.step(replace(problem, batch=3), "ra-published").flops == 2 * 3 * 3 * 5 + 2 * (2 * 5 * 7 * 3)
    # 2 dead features: their codes, reconstruction and three gradients; of more than 8 times aux_k, codes alone
    dead = replace(problem, n_dead=2, aux_k=1)
    assert theory.step(dead, "topk").flops == 2 * 2 * 3 * 5 + 5 * (2 * 2 * 2 * 3)
    many = replace(problem, n_features=20, n_dead=9, aux_k=1)
    assert theory.step(many, "topk").flops == 2 * 2 * 3 * 20 + 2 * 2 * 9 * 3
    more = theory.step(many, "topk").traffic - theory.step(replace(many, n_dead=0), "topk").traffic
    assert more == 4 * (4 * 2 * 1 * 3)
    assert theory.Cost(6.0, 8.0).seconds(2.0, 4.0) == 5.0


def test_theory_of_a_sparse_support_by_hand():
    problem = Problem(d_model=3, n_features=16, n_anchors=7, k=1, batch=2, support=2)
    rows = 16 / 8
    more = theory.step(problem, "ra-sparse").flops - theory.step(problem, "topk").flops
    assert more == 2 * rows * 7 * 3
    traffic = theory.step(problem, "ra-sparse").traffic - theory.step(problem, "topk").traffic
    assert traffic == 4 * rows * (4 * 7 + 2 * 3)


def test_a_study_on_paper_by_hand():
    one = paper.Large(n_features=1000, parameters=1e9, depth=0.5, d_model=10, tokens=1e6)
    assert one.reading == pytest.approx(2 * 1e9 * 0.5 * 1e6 / paper.FORWARD)
    assert (one.stored, one.clustered, one.similarity) == (2e7, 4 * 100 * 1000 * 10, 4e6)
    assert one.clustering == pytest.approx(10 * 2 * 100 * 1000 * 1000 * 10 / paper.PRODUCTS)


def test_the_largest_dictionary_on_paper_fits_and_twice_its_size_does_not():
    for case in paper.CASES:
        n = paper.largest(case)
        fits = [theory.memory(paper.Large(size).problem, case) <= paper.DEVICE for size in (n, 2 * n)]
        assert fits == [True, False], case


def test_exponents_recover_a_power_law():
    rows = [{"axis": "batch", "case": "topk", "size": n, "seconds": 3 * n**1.5, "floor": n} for n in (2, 4, 8, 16)]
    (fit,) = scaling.exponents([*rows, {"axis": "batch", "case": "topk", "size": 32, "skipped": "too slow"}])
    assert fit["exponent"] == pytest.approx(1.5)
    assert fit["theory"] == pytest.approx(1)
    assert fit["error"] < 1e-6


def test_scaling_continues_and_leaves_out_what_cannot_fit(tmp_path, monkeypatch):
    path, measured = tmp_path / "scaling.json", []
    monkeypatch.setattr(scaling, "measure", lambda point, limit: measured.append(point.size) or {"seconds": 1.0})
    todo = [scaling.Point("batch", "topk", size) for size in (256, 512)]
    scaling.run(path, todo[:1], limit=1)
    assert [row["size"] for row in scaling.run(path, todo, limit=1)] == measured == [256, 512]
    monkeypatch.undo()
    monkeypatch.setattr(scaling, "total_memory", lambda: 2**30)
    assert scaling.measure(scaling.Point("n_features", "ra", 2**20), limit=1)["skipped"].startswith("needs ")


def test_one_axis_can_vary_two_sizes():
    problem = scaling.Point("n_features = n_anchors", "ra", 2048).problem
    assert (problem.n_features, problem.n_anchors, problem.d_model) == (2048, 2048, Problem().d_model)


def test_time_of_a_sweep_by_hand():
    # 24 runs on 4 processes of 2 cores: 6 each, at half speed
    assert scaling_workers.total(1.5, 0.05, 24, 4, 2) == pytest.approx(24 * 0.05 + 6 * 2 * 1.5)
    # by hand: 100 runs of 1 s, nothing serial, on 8 processes take 13 waves instead of 12.5
    assert scaling_workers.efficiency(1.0, 0.0, 100, 8) == pytest.approx(12.5 / 13)
    assert scaling_workers.efficiency(1.0, 1.0, 100, 100) == pytest.approx(200 / (100 * 101))


def test_planted_copies_are_counted_by_the_passage_that_finds_them(monkeypatch):
    monkeypatch.setattr(copies, "PAIRS", 3)
    generator = random.Random(0)
    texts = [" ".join(f"w{generator.randrange(10**6)}" for _ in range(400)) for _ in range(8)]
    rows = {row.kind: row for row in copies.recall(texts)}
    assert all(row.wrong == (0,) * len(copies.LENGTHS) for row in rows.values())
    # a passage of 25 words is found by all lengths up to 25
    assert rows["the same opening of 25 words"].found == tuple(float(n <= 25) for n in copies.LENGTHS)
    assert rows["2% of 400 words edited"].found[0] == 1
    real = [*texts, f"{' '.join(texts[0].split()[:30])} x y z"]
    found = {row.length: row for row in copies.precision(real)}
    assert (found[30].groups, found[30].overlapping, found[30].grouped, found[30].largest) == (1, 1, 2, 2)
    assert (found[50].groups, found[50].grouped, found[50].largest) == (0, 0, 1)
    assert copies.overlap("a b c d e f", "x a b c d e") == 0.5
