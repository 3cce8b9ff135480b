"""Two arms at a common R² or movement: by hand, the jackknife against its definition, where nothing is said."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from archsae_core.metrics.intervals import seed_interval
from archsae_study.protocol.equal_terms import Kept, Trajectory, equal_terms, movement, on_equal_terms, reconstruction


def path(*points, seeds=(0, 1, 2, 3), scatter=0.0, start=0):
    """An arm with the given (R², cosine with start, stability) at its kept steps 0, 100, …"""
    generator, n = np.random.default_rng(start), len(seeds)
    own = generator.normal(size=n)
    own = scatter * (own - own.mean())
    kept = (
        Kept(100 * i, tuple((r2 + own).tolist()), tuple((cosine - own / 10).tolist()), score + own[:, None] + own)
        for i, (r2, cosine, score) in enumerate(points)
    )
    return Trajectory(tuple(seeds), tuple(kept))


RISING = path((0.5, 1.0, 0.2), (0.7, 0.9, 0.4), (0.9, 0.8, 0.6))


def test_equal_r2_is_the_largest_that_both_reach():
    other = path((0.4, 1.0, 0.0), (0.8, 0.5, 0.1))
    found = on_equal_terms(RISING, other, reconstruction)
    assert found.target == pytest.approx(0.8)
    assert (found.first, found.second) == pytest.approx((0.5, 0.1))  # half-way between 0.4 and 0.6; the end
    assert found.gain == pytest.approx((0.4, 0.4, 0.4))
    assert found.steps == ((100, 200), (100, 100))
    assert found.reason == ""


def test_equal_movement_is_the_largest_that_both_reach():
    other = path((0.4, 1.0, 0.0), (0.8, 0.6, 0.4))
    found = on_equal_terms(RISING, other, movement)
    assert found.target == pytest.approx(0.2)  # 1 − 0.8: the first arm's end
    assert (found.first, found.second) == pytest.approx((0.6, 0.2))
    assert found.steps == ((200, 200), (0, 100))
    assert on_equal_terms(other, RISING, movement).gain == pytest.approx((-0.4, -0.4, -0.4))


def test_a_frozen_arm_is_compared_where_the_other_has_hardly_moved():
    frozen, free = path((0.5, 1.0, 0.7), (0.56, 0.996, 0.7)), path((0.5, 1.0, 0.7), (0.8, 0.6, 0.3))
    found = on_equal_terms(frozen, free, movement)
    assert found.target == pytest.approx(0.004)
    assert found.gain.estimate == pytest.approx(0.7 - (0.7 - 0.4 * 0.01))


def test_ranges_that_do_not_meet_have_no_gain_but_a_reason():
    low, high = path((0.1, 1.0, 0.0), (0.4, 0.9, 0.1)), path((0.6, 0.7, 0.2), (0.9, 0.6, 0.3))
    for coordinate, ranges in ((reconstruction, "0.1000 to 0.4000 and 0.6000 to 0.9000"), (movement, "0.1000 and 0.3")):
        found = on_equal_terms(low, high, coordinate)
        assert (found.gain, found.first, found.steps) == (None, None, None)
        assert "do not meet" in found.reason
        assert ranges in found.reason


def test_the_jackknife_repeats_everything_without_each_seed():
    first = path((0.5, 1.0, 0.2), (0.7, 0.9, 0.4), (0.9, 0.8, 0.6), scatter=0.02, start=1)
    second = path((0.4, 1.0, 0.0), (0.8, 0.5, 0.1), scatter=0.05, start=2)
    found = on_equal_terms(first, second, reconstruction, level=0.9)
    left_out = []
    for seed in range(4):
        rest = [other for other in range(4) if other != seed]
        left_out.append(on_equal_terms(first.of(rest), second.of(rest), reconstruction).gain.estimate)
    error = np.sqrt(3 / 4 * np.square(left_out - np.mean(left_out)).sum())
    assert found.gain[1:] == pytest.approx(stats.t.interval(0.9, 3, loc=found.gain.estimate, scale=error))
    fixed = seed_interval(first.kept[1].stability, second.kept[1].stability, level=0.9)
    assert found.gain.high - found.gain.low != pytest.approx(fixed.high - fixed.low, rel=0.05)


def test_no_interval_where_the_ranges_do_not_meet_without_some_seed():
    first = path((0.5, 1.0, 0.2), (0.9, 0.8, 0.6))
    one_good = ((0.3, 0.3, 0.3, 0.8), (0.4, 0.4, 0.4, 0.9))
    kept = (Kept(step, r2, (1.0,) * 4, np.ones((4, 4))) for step, r2 in enumerate(one_good))
    second = Trajectory(first.seeds, tuple(kept))
    found = on_equal_terms(first, second, reconstruction)
    assert found.gain.estimate == pytest.approx(0.225 - 1)  # at R² = 0.525
    assert (found.gain.low, found.gain.high) == (None, None)
    assert "without some seed" in found.reason


def test_seeds_are_paired_by_number_and_others_left_out():
    first = path((0.5, 1.0, 0.2), (0.9, 0.8, 0.6), scatter=0.02)
    more = path((0.4, 1.0, 0.0), (0.8, 0.5, 0.1), seeds=(9, 3, 1, 0, 2), scatter=0.05)
    found = on_equal_terms(first, more, reconstruction)
    assert found.seeds == (0, 1, 2, 3)
    assert found == on_equal_terms(first.of((2, 3, 1, 0)), more.of((0, 1, 2, 3)), reconstruction)
    assert "2 seeds give no interval" in on_equal_terms(first.of((0, 3)), more, reconstruction).reason
    alone = on_equal_terms(first.of((0,)), more, reconstruction)
    assert (alone.gain, alone.reason) == (None, "the arms have 1 seeds in common")


@given(st.permutations(range(4)), st.floats(0.41, 0.89))
def test_the_order_of_kept_steps_does_not_matter_and_scores_lie_between_neighbours(order, end):
    points = [(0.4, 1.0, 0.0), (0.55, 0.8, 0.5), (0.7, 0.7, 0.3), (0.9, 0.6, 0.9)]
    first, second = path(*(points[i] for i in order)), path((0.2, 1.0, 0.0), (end, 0.5, 0.0))
    found = on_equal_terms(first, second, reconstruction)
    low, high = next((a, b) for a, b in pairwise(points) if a[0] <= end <= b[0])
    share = (end - low[0]) / (high[0] - low[0])
    assert found.first == pytest.approx(low[2] + share * (high[2] - low[2]))


def test_steps_of_the_same_r2_do_not_divide_by_zero():
    found = on_equal_terms(path((0.7, 1.0, 0.1), (0.7, 0.9, 0.1)), RISING, reconstruction)
    assert found.first == pytest.approx(0.1)


def test_both_comparisons_are_made_and_missing_arms_have_none():
    found = equal_terms({"a": RISING, "b": path((0.4, 1.0, 0.0), (0.8, 0.5, 0.1))}, "a", "b")
    assert found["r2"].target == pytest.approx(0.8)
    assert found["movement"].gain.low is not None
    assert equal_terms({"a": RISING}, "a", "b") == {"r2": None, "movement": None}


def test_steps_without_every_seed_are_refused():
    with pytest.raises(ValueError, match="step 7 does not hold"):
        Trajectory((0, 1), (Kept(7, (0.5,), (1.0, 1.0), np.zeros((2, 2))),))
    with pytest.raises(ValueError, match="no step"):
        Trajectory((0, 1), ())
