"""Scores between seeds and their intervals: pairs that share a seed are not independent."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Interval(NamedTuple):
    """Estimate with a bootstrap interval; `low` and `high` are None where there are too few seeds for one."""

    estimate: float
    low: float | None
    high: float | None


def pair_matrix(pairs: Mapping[tuple[int, int], float], n_seeds: int) -> Float[np.ndarray, "n_seeds n_seeds"]:
    """Scores of seed pairs (i, j) as a symmetric matrix; the diagonal is 0 and never used."""
    matrix = np.zeros((n_seeds, n_seeds))
    for (i, j), score in pairs.items():
        matrix[i, j] = matrix[j, i] = score
    return matrix


def seed_interval(
    matrix: Float[np.ndarray, "n_seeds n_seeds"],
    minus: Float[np.ndarray, "n_seeds n_seeds"] | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean score over pairs of different seeds, with a percentile interval from drawing seeds with replacement.

    Pairs that share a seed are not independent, so seeds are drawn and not pairs; a seed drawn twice is not paired with
    itself, where it would score 1. `minus` subtracts a second arm over the same draws (paired bootstrap). No interval
    for fewer than 3 seeds: 2 have a single pair.
    """
    difference = matrix - (0 if minus is None else minus)
    n_seeds = len(matrix)
    off_diagonal = 1 - np.eye(n_seeds)
    if n_seeds < 2:
        raise ValueError("a score between seeds needs at least 2 seeds")
    estimate = float((difference * off_diagonal).sum() / off_diagonal.sum())
    if n_seeds < 3:
        return Interval(estimate, None, None)
    draws = np.random.default_rng(seed).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n).astype(float)
    total, weight = (((draws @ table) * draws).sum(axis=1) for table in (difference * off_diagonal, off_diagonal))
    means = total[weight > 0] / weight[weight > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
