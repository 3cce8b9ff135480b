"""Scores between seeds and their intervals: pairs that share a seed are not independent."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

LEVEL = 0.95
"""Share of intervals that hold the truth."""


class Interval(NamedTuple):
    """Estimate with its 95 % interval; `low` and `high` are None where there are too few seeds for one."""

    estimate: float
    low: float | None
    high: float | None


def pair_matrix(pairs: Mapping[tuple[int, int], float], n_seeds: int) -> Float[np.ndarray, "n_seeds n_seeds"]:
    """Scores of seed pairs (i, j) as a symmetric matrix; the diagonal is 0 and never used."""
    matrix = np.zeros((n_seeds, n_seeds))
    for (i, j), score in pairs.items():
        matrix[i, j] = matrix[j, i] = score
    return matrix


def t_interval(estimate: float, variance: float, n_seeds: int) -> Interval:
    """Estimate ± Student's t with n_seeds − 1 degrees of freedom times the standard error."""
    reach = float(stdtrit(n_seeds - 1, (1 + LEVEL) / 2)) * variance**0.5
    return Interval(estimate, estimate - reach, estimate + reach)


def seed_interval(
    matrix: Float[np.ndarray, "n_seeds n_seeds"], minus: Float[np.ndarray, "n_seeds n_seeds"] | None = None
) -> Interval:
    """Mean score over ordered pairs of different seeds, with an interval from leaving out one seed at a time.

    Pairs that share a seed are not independent, so the jackknife's unit is the seed, and its standard error comes with
    Student's t. Drawing seeds with replacement gives intervals that are far too short for so few. `minus` subtracts a
    second arm seed by seed; without it, an interval ends at 1, the largest score there is. No interval for fewer than 3
    seeds: 2 have a single pair.
    """
    difference = matrix - (0 if minus is None else minus)
    n_seeds = len(matrix)
    if n_seeds < 2:
        raise ValueError("a score between seeds needs at least 2 seeds")
    difference = difference * (1 - np.eye(n_seeds))
    total = difference.sum()
    estimate = float(total / (n_seeds * (n_seeds - 1)))
    if n_seeds < 3:
        return Interval(estimate, None, None)
    without = (total - difference.sum(axis=0) - difference.sum(axis=1)) / ((n_seeds - 1) * (n_seeds - 2))
    variance = (n_seeds - 1) * float(without.var())
    found = t_interval(estimate, variance, n_seeds)
    return found._replace(high=min(found.high, 1.0)) if minus is None else found
