"""The rule for interpretability, and which arms it compares. The rule for stability is tested with its scores."""

import pytest

from archsae_core.metrics.intervals import Interval
from archsae_study.experiments.verdict import decide_interpretability, independent_pair

PAIR = ("ra-indep-anchors", "topk")


def test_pair_is_the_best_of_either_kind_at_matched_quality():
    scores = {"ra": (0.99, 0.8), "ra-random-w": (0.5, 0.8), "ra-indep-anchors": (0.6, 0.8), "topk": (0.4, 0.81)}
    assert independent_pair(scores) == PAIR  # shared anchors and W = identity are no independent start
    assert independent_pair(scores | {"topk-kmeans-indep": (0.7, 0.79)}) == ("ra-indep-anchors", "topk-kmeans-indep")
    assert independent_pair(scores | {"topk-kmeans-indep": (0.7, 0.7)}) == PAIR
    assert independent_pair(scores | {"ra-indep-anchors": (0.6, 0.7)}) == ("ra-random-w", "topk")
    assert independent_pair({"ra": (1.0, 0.8), "topk": (0.4, 0.8)}) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.06, 0.2, "supported"),
        (-0.2, 0.04, "not supported"),
        (0.01, 0.2, "undetermined"),
        (None, None, "undetermined"),
    ],
)
def test_rule_reads_the_interval(low, high, expected):
    found = decide_interpretability(PAIR, Interval(0.1, low, high))
    assert (found.verdict, found.pair) == (expected, PAIR)


def test_no_pair_is_undetermined():
    assert decide_interpretability(None, None).verdict == "undetermined"
