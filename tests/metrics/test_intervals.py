"""Intervals over seeds: by hand, against SciPy, and by how often they hold the truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from archsae_core.config import ConfigError
from archsae_core.metrics import intervals
from archsae_core.metrics.intervals import PRIMARY_LEVEL, Interval


def seed_scores(seed, n=5):
    return intervals.pair_matrix(
        dict(zip(itertools.combinations(range(n), 2), np.random.default_rng(seed).random(n * n), strict=False)), n
    )


def noisy(generator, n, spread=1.0, pair=0.5):
    """Scores that are the sum of what each seed brings and of what is the pair's own; their mean is 0."""
    own, noise = spread * generator.normal(size=n), np.triu(pair * generator.normal(size=(n, n)), 1)
    return own[:, None] + own + noise + noise.T


def coverage(draw, truth, times=400):
    """Share of intervals of `draw()` that hold the truth."""
    found = [draw() for _ in range(times)]
    return np.mean([one.low <= truth <= one.high for one in found])


# --- one arm, two arms ---


def test_a_pair_without_a_score_is_named():
    with pytest.raises(ValueError, match=r"\(1, 2\) has no score"):
        intervals.pair_matrix({(0, 1): 0.9, (2, 0): 0.9}, 3)


def test_pairs_become_a_symmetric_matrix():
    matrix = intervals.pair_matrix({(0, 1): 0.5, (2, 0): 0.25, (1, 2): 0.75}, 3)
    assert matrix.tolist() == [[0, 0.5, 0.25], [0.5, 0, 0.75], [0.25, 0.75, 0]]


@pytest.mark.parametrize("level", [0.95, PRIMARY_LEVEL])
def test_the_interval_is_the_jackknife_over_seeds_with_student_s_t(level):
    matrix = seed_scores(0) / 4
    found = intervals.seed_interval(matrix + np.eye(5), level=level)  # the diagonal must not matter
    left_out = [np.delete(np.delete(matrix, seed, 0), seed, 1)[np.triu_indices(4, 1)].mean() for seed in range(5)]
    error = np.sqrt(4 / 5 * np.square(left_out - np.mean(left_out)).sum())
    assert found.estimate == pytest.approx(matrix[np.triu_indices(5, 1)].mean())
    assert (found.low, found.high) == pytest.approx(stats.t.interval(level, 4, loc=found.estimate, scale=error))


def test_each_of_three_primary_intervals_misses_one_time_in_sixty():
    assert intervals.t_quantile(7, PRIMARY_LEVEL) == pytest.approx(stats.t.ppf(1 - 0.05 / 6, 7))


def test_scores_may_depend_on_the_order_of_a_pair():
    matrix, order = seed_scores(0), np.triu(np.full((5, 5), 0.1), 1)
    assert intervals.seed_interval(matrix + order - order.T) == pytest.approx(intervals.seed_interval(matrix))


@pytest.mark.parametrize(
    ("n_seeds", "level"), [(3, 0.95), (5, 0.95), (8, 0.95), (3, PRIMARY_LEVEL), (5, PRIMARY_LEVEL)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(n_seeds, level):
    generator, zero = np.random.default_rng(0), np.zeros((n_seeds, n_seeds))
    held = coverage(lambda: intervals.seed_interval(noisy(generator, n_seeds), zero, level=level), 0)
    assert level - 0.03 <= held <= 0.5 + level / 2 + 0.015


def test_what_seeds_have_in_common_cancels_in_a_difference():
    matrix = seed_scores(0)
    assert intervals.seed_interval(matrix + 0.25, matrix) == pytest.approx((0.25, 0.25, 0.25))
    assert intervals.seed_interval(matrix + 0.25).low < 0.25 + intervals.seed_interval(matrix).estimate


def test_an_interval_of_scores_ends_at_1_and_one_of_differences_does_not():
    matrix = intervals.pair_matrix({(0, 1): 1.0, (0, 2): 0.9, (1, 2): 0.9}, 3)
    assert intervals.seed_interval(matrix).high == 1.0
    assert intervals.seed_interval(matrix, np.zeros((3, 3))).high > 1.0


def test_too_few_seeds_for_an_interval():
    assert intervals.seed_interval(np.array([[0.0, 0.4], [0.4, 0.0]])) == (0.4, None, None)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        intervals.seed_interval(np.zeros((1, 1)))


def test_arms_are_compared_over_the_seeds_that_all_have():
    assert intervals.common_seeds((3, 0, 1, 2), (2, 5, 3)) == (2, 3)
    assert intervals.common_seeds((0, 1), (2,)) == ()
    assert intervals.common_seeds((1, 0)) == (0, 1)


def test_above_and_below_need_the_whole_interval():
    assert Interval(0.2, 0.1, 0.3).above(0.05)
    assert not Interval(0.2, 0.05, 0.3).above(0.05)
    assert Interval(0.0, -0.1, 0.04).below(0.05)
    assert not Interval(0.0, -0.1, 0.05).below(0.05)
    assert not Interval(0.2, None, None).above(0.05)
    assert not Interval(0.0, None, None).below(0.05)


# --- one number a seed ---


def test_a_mean_has_the_paired_t_interval():
    first, second = np.random.default_rng(1).random((2, 6))
    found = intervals.mean_interval(first, second, level=0.9)
    reference = stats.ttest_rel(first, second).confidence_interval(0.9)
    assert found == pytest.approx((np.mean(first - second), *reference))
    one = intervals.mean_interval(first)
    assert one == pytest.approx((first.mean(), *stats.t.interval(0.95, 5, loc=first.mean(), scale=stats.sem(first))))


def test_means_of_unequal_or_few_seeds():
    assert intervals.mean_interval([0.5, 0.7]) == (pytest.approx(0.6), None, None)
    with pytest.raises(ValueError, match="values of 3 and 2 seeds"):
        intervals.mean_interval([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one"):
        intervals.mean_interval([])


# --- shares ---


def test_a_share_is_the_jackknife_of_the_ratio():
    whole, part = 1 + seed_scores(0) / 10, seed_scores(1) / 10 + 0.2
    found = intervals.share_interval(part, whole)
    means = [
        [np.delete(np.delete(matrix, seed, 0), seed, 1)[np.triu_indices(4, 1)].mean() for seed in range(5)]
        for matrix in (part, whole)
    ]
    left_out = np.divide(*means)
    error = np.sqrt(4 / 5 * np.square(left_out - left_out.mean()).sum())
    estimate = part[np.triu_indices(5, 1)].mean() / whole[np.triu_indices(5, 1)].mean()
    assert found.interval == pytest.approx((estimate, *stats.t.interval(0.95, 4, loc=estimate, scale=error)))
    assert found.reason == ""


def test_a_fixed_share_has_no_spread_however_the_whole_varies():
    whole = 1 + seed_scores(0)
    assert intervals.share_interval(0.25 * whole, whole).interval == pytest.approx((0.25, 0.25, 0.25))
    assert intervals.share_interval(-0.25 * whole, -whole).interval == pytest.approx((0.25, 0.25, 0.25))


def test_there_is_no_share_of_what_may_be_0_and_none_of_two_seeds():
    whole = seed_scores(0) - 0.4
    of = intervals.seed_interval(whole, np.zeros((5, 5)))
    assert of.low < 0 < of.high
    share = intervals.share_interval(np.ones((5, 5)), whole)
    assert share.interval is None
    assert f"[{of.low:.3f}, {of.high:.3f}], may be 0" in share.reason
    assert "2 common seeds" in intervals.share_interval(np.ones((2, 2)), np.ones((2, 2))).reason


def test_shares_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)

    def draw():
        whole = 1 + noisy(generator, 5, 0.03, 0.03)
        return intervals.share_interval(0.3 * whole + noisy(generator, 5, 0.02, 0.02), whole).interval

    assert 0.92 <= coverage(draw, 0.3) <= 0.99


# --- any statistic ---


def test_any_statistic_gets_positions_of_seeds():
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    found = intervals.jackknife(lambda kept: float(values[kept].mean()), 5)
    assert found == pytest.approx(intervals.mean_interval(values))


def test_a_statistic_that_is_not_finite_without_some_seed_has_no_interval():
    found = intervals.jackknife(lambda kept: float(len(kept)) if 2 in kept else np.nan, 4)
    assert found == (4.0, None, None)


# --- tasks and seeds ---


def test_crossed_variance_is_that_of_both_margins():
    table = np.array([[0.0], [1.0], [2.0], [5.0]]) + np.array([0.0, 2.0, 4.0])
    found = intervals.crossed_interval(table)
    of_tasks = np.var([2.0, 3.0, 4.0, 7.0], ddof=1) / 4
    of_seeds = np.var([2.0, 4.0, 6.0], ddof=1) / 3
    degrees = (of_tasks + of_seeds) ** 2 / (of_tasks**2 / 3 + of_seeds**2 / 2)
    error = np.sqrt(of_tasks + of_seeds)
    assert found == pytest.approx((4.0, *stats.t.interval(0.95, degrees, loc=4.0, scale=error)))


@pytest.mark.parametrize("spread", [(0.02, 0.0), (0.0, 0.02), (0.01, 0.01), (0.002, 0.002)])
def test_crossed_intervals_hold_the_truth_at_least_as_often_as_they_say(spread):
    generator, (tasks, seeds) = np.random.default_rng(0), (40, 5)

    def draw():
        table = spread[0] * generator.normal(size=(tasks, 1)) + spread[1] * generator.normal(size=seeds)
        return intervals.crossed_interval(table + 0.01 * generator.normal(size=(tasks, seeds)))

    assert coverage(draw, 0) >= 0.93


def test_seeds_alone_or_tasks_alone_would_claim_too_much():
    """Where both vary, an interval over one of them alone misses the truth more often than it says."""
    generator = np.random.default_rng(0)

    def draw(pooled):
        table = generator.normal(size=(10, 1)) + generator.normal(size=10) + generator.normal(size=(10, 10))
        return intervals.crossed_interval(table) if pooled is None else intervals.mean_interval(table.mean(axis=pooled))

    assert coverage(lambda: draw(None), 0) >= 0.93
    assert max(coverage(lambda axis=axis: draw(axis), 0) for axis in (0, 1)) < 0.9


def test_crossed_edges():
    assert intervals.crossed_interval(np.full((4, 3), 0.5)) == (0.5, 0.5, 0.5)
    assert intervals.crossed_interval(np.ones((4, 2))) == (1.0, None, None)
    assert intervals.crossed_interval(np.ones((2, 4))) == (1.0, None, None)


# --- seeds that would decide ---


@given(st.integers(3, 12), st.floats(0.001, 0.2), st.floats(0.001, 0.2), st.sampled_from([0.95, PRIMARY_LEVEL]))
def test_seeds_to_decide_is_the_first_number_that_would(n_seeds, distance, error, level):
    found = intervals.t_interval(0.05 + distance, error**2, n_seeds, level)
    more = intervals.seeds_to_decide(found, n_seeds, 0.05, level=level)

    def half_width(m):
        return stats.t.ppf((1 + level) / 2, m - 1) * error * np.sqrt(n_seeds / m)

    if more is None:
        assert half_width(intervals.MOST_SEEDS) >= distance * (1 - 1e-9)
    else:
        assert more > n_seeds
        assert half_width(more) <= distance * (1 + 1e-9)
        assert more == n_seeds + 1 or half_width(more - 1) >= distance * (1 - 1e-9)


def test_no_number_of_seeds_decides_an_estimate_on_the_margin():
    assert intervals.seeds_to_decide(Interval(0.05, 0.0, 0.1), 5, 0.05) is None
    assert intervals.seeds_to_decide(Interval(0.05, None, None), 2, 0.05) is None


@pytest.mark.parametrize("level", [95.0, 0.0, 1.0, -0.5])
def test_a_level_is_a_share(level):
    with pytest.raises(ConfigError, match=r"level = .*between 0 and 1"):
        intervals.mean_interval([1.0, 2.0, 3.5, 4.0], level=level)
