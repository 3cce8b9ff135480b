"""Comparison at equal quality: interpolated between kept steps, pair by pair, with intervals over seeds."""

import numpy as np
import pytest

from archsae_core.metrics.intervals import seed_interval
from archsae_study.experiments import verdict
from archsae_study.experiments.budgets import at_equal_r2
from archsae_study.experiments.verdict import INDEPENDENT_RA, INDEPENDENT_TOPK
from archsae_study.pages import sweep_prose

N_SEEDS = 4


def kept(*points, seed=0):
    """Rows of `budgets`, one for each (R², mean score); pairs of seeds scatter around the mean."""
    scatter = np.random.default_rng(seed).normal(0, 0.02, (N_SEEDS, N_SEEDS))
    scatter = (scatter + scatter.T) * (1 - np.eye(N_SEEDS))
    scatter -= scatter.sum() / (N_SEEDS * (N_SEEDS - 1)) * (1 - np.eye(N_SEEDS))
    return [{"r2": r2, "pairs": (score * (1 - np.eye(N_SEEDS)) + scatter).tolist()} for r2, score in points]


@pytest.fixture
def arms():
    return {
        "ra-random-w": kept((0.6, 0.5), (0.8, 0.3), seed=1),
        "ra-indep-anchors": kept((0.5, 0.2), (0.9, 0.6), seed=2),
        "topk": kept((0.4, 0.0), (0.7, 0.1), seed=3),
        "topk-kmeans-indep": kept((0.85, 0.7), (0.95, 0.6), seed=4),
    }


def test_scores_are_read_where_the_worse_arm_ends(arms):
    row = next(row for row in at_equal_r2(arms) if (row["ra"], row["topk"]) == ("ra-indep-anchors", "topk"))
    assert row["r2"] == 0.7
    assert [score["estimate"] for score in row["stability"]] == pytest.approx([0.4, 0.1])
    assert row["gain"]["estimate"] == pytest.approx(0.3)


def test_the_gain_s_interval_is_over_seeds(arms):
    row = next(row for row in at_equal_r2(arms) if (row["ra"], row["topk"]) == ("ra-random-w", "topk"))
    middle = np.mean([kept["pairs"] for kept in arms["ra-random-w"]], axis=0)
    expected = seed_interval(middle, np.array(arms["topk"][-1]["pairs"]))
    assert row["gain"] == pytest.approx(expected._asdict())
    assert row["gain"]["low"] < row["gain"]["estimate"] < row["gain"]["high"]


def test_the_order_of_the_steps_does_not_matter(arms):
    assert at_equal_r2({name: rows[::-1] for name, rows in arms.items()}) == at_equal_r2(arms)


def test_nothing_is_said_where_ranges_do_not_meet(arms):
    row = next(row for row in at_equal_r2(arms) if (row["ra"], row["topk"]) == ("ra-random-w", "topk-kmeans-indep"))
    assert (row["r2"], row["stability"], row["gain"]) == (0.8, None, None)
    table = sweep_prose.equal_r2_table({"equal_r2": [row]})
    assert table.splitlines()[-1].endswith("| 0.800 | – | – | – |")


def test_every_independent_pair_is_compared_and_a_missing_arm_left_out(arms):
    pairs = {(row["ra"], row["topk"]) for row in at_equal_r2(arms)}
    assert pairs == {(ra, topk) for ra in INDEPENDENT_RA for topk in INDEPENDENT_TOPK}
    del arms["topk"]
    assert {row["topk"] for row in at_equal_r2(arms)} == {"topk-kmeans-indep"}


def test_steps_of_the_same_r2_do_not_divide_by_zero(arms):
    arms["topk"] = kept((0.7, 0.1), (0.7, 0.1), seed=3)
    rows = [row for row in at_equal_r2(arms) if row["topk"] == "topk"]
    assert [row["stability"][1]["estimate"] for row in rows] == pytest.approx([0.1, 0.1])


def test_the_sentence_is_about_the_arms_of_the_verdict(arms):
    rows = at_equal_r2(arms)
    gain = next(row["gain"] for row in rows if (row["ra"], row["topk"]) == ("ra-indep-anchors", "topk"))
    text = sweep_prose.equal_r2({"equal_r2": rows, "verdict": {"pair": ("ra-indep-anchors", "topk")}})
    assert "(R² 0.700, which" in text
    assert f"{gain['estimate']:.3f} [" in text
    for pair in (None, ("ra-random-w", "topk-kmeans-indep")):  # the second pair's ranges of R² do not meet
        assert "no common R²" in sweep_prose.equal_r2({"equal_r2": rows, "verdict": {"pair": pair}})


def test_the_table_shows_intervals(arms):
    rows = at_equal_r2(arms)
    table = sweep_prose.equal_r2_table({"equal_r2": rows})
    gain = rows[0]["gain"]
    assert f"{gain['estimate']:.3f} [{gain['low']:.3f}, {gain['high']:.3f}]" in table
    assert table.count("\n") == 1 + len(rows)


def trained(**scores):
    """An arm's rows at two budgets of tokens, at the same R²: its mean score at each."""
    return {
        name: [
            row | {"tokens": tokens}
            for row, tokens in zip(kept(*((0.8, score) for score in means)), (10**6, 5 * 10**6), strict=True)
        ]
        for name, means in scores.items()
    }


def test_the_rule_is_applied_at_every_budget():
    arms = trained(ra=(0.9, 0.9), topk=(0.1, 0.2), **{"ra-indep-anchors": (0.4, 0.7), "topk-kmeans-indep": (0.5, 0.5)})
    table = {"arms": {arm: {"budgets": rows} for arm, rows in arms.items()}}
    first, last = verdict.by_budget(table["arms"])
    assert (first["tokens"], last["tokens"]) == (10**6, 5 * 10**6)
    assert (first["verdict"], last["verdict"]) == ("explained by shared initialisation", "supported")
    assert first["independent_gain"]["estimate"] == pytest.approx(-0.1)
    assert last["independent_gain"]["estimate"] == pytest.approx(0.2)
    assert "-0.100 [-0.100, -0.100] after 1.0 M tokens, 0.200 [0.200, 0.200] after 5.0 M" in sweep_prose.trend(table)
    lines = sweep_prose.rule_by_budget_table(table).splitlines()
    assert lines[-1].startswith("| 5,000,000 | 0.700 [")
    assert lines[-1].endswith("| ra-indep-anchors − topk-kmeans-indep | supported |")


def test_a_budget_without_equal_r2_has_no_gain():
    arms = trained(ra=(0.9, 0.9), topk=(0.1, 0.2), **{"ra-random-w": (0.4, 0.7)})
    for row in arms["topk"]:
        row["r2"] = 0.5
    table = {"arms": {arm: {"budgets": rows} for arm, rows in arms.items()}}
    assert "fewer than two budgets" in sweep_prose.trend(table)
    assert sweep_prose.rule_by_budget_table(table).splitlines()[-1].endswith("| – | – | undetermined |")
