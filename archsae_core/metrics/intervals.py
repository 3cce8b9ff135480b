"""Scores between seeds and their intervals: pairs that share a seed are not independent.

The jackknife leaves out one seed at a time, with all of its pairs, and its standard error comes with Student's t. Two
arms are compared over the seeds that both have: a seed number stands for the same anchors and the same order of batches
in every arm, so that what a seed brings to both cancels. A seed that only one arm has would shift the difference by how
easy that seed is, and is left out.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from archsae_core.config import require_share

LEVEL = 0.95
"""Share of intervals that hold the truth."""
PRIMARY_LEVEL = 1 - 0.05 / 3
"""For each of three primary contrasts (Bonferroni): all three intervals hold the truth in at least 95 % of studies."""
MIN_SEEDS = 3
"""Fewest seeds that give an interval: 2 have a single pair."""
MOST_SEEDS = 1000
"""More than any study trains: `seeds_to_decide` does not look beyond."""


class Interval(NamedTuple):
    """Estimate with its interval; `low` and `high` are None where there are too few seeds for one."""

    estimate: float
    low: float | None
    high: float | None

    def above(self, value: float) -> bool:
        """Is the whole interval above a value? False without an interval."""
        return self.low is not None and self.low > value

    def below(self, value: float) -> bool:
        """Is the whole interval below a value? False without an interval."""
        return self.high is not None and self.high < value


class Share(NamedTuple):
    """One gain as a share of another, or why there is none."""

    interval: Interval | None
    reason: str
    """Empty where there is a share."""


def pair_matrix(pairs: Mapping[tuple[int, int], float], n_seeds: int) -> Float[np.ndarray, "n_seeds n_seeds"]:
    """Scores of seed pairs (i, j) as a symmetric matrix; the diagonal is 0 and never used.

    Raises ValueError that names a pair without a score.
    """
    matrix = np.zeros((n_seeds, n_seeds))
    for (i, j), score in pairs.items():
        matrix[i, j] = matrix[j, i] = score
    for i, j in itertools.combinations(range(n_seeds), 2):
        if (i, j) not in pairs and (j, i) not in pairs:
            raise ValueError(f"pairs: {(i, j)} has no score: give that of every pair of {n_seeds} seeds")
    return matrix


def common_seeds(*seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds that every arm has, in ascending order: the seeds over which arms are compared."""
    return tuple(sorted(set(seeds[0]).intersection(*seeds[1:])))


def t_quantile(degrees: float | int, level: float = LEVEL) -> float:
    """Standard errors on either side of the estimate of a two-sided interval of Student's t."""
    require_share("level", level, 0.0, 1.0)
    return float(stdtrit(degrees, (1 + level) / 2))


def t_interval(estimate: float, variance: float, n_seeds: int, level: float = LEVEL) -> Interval:
    """Estimate ± Student's t with n_seeds − 1 degrees of freedom times the standard error."""
    reach = t_quantile(n_seeds - 1, level) * variance**0.5
    return Interval(estimate, estimate - reach, estimate + reach)


def jackknife_variance(left_out: Sequence[float] | Float[np.ndarray, " n_seeds"]) -> float:
    """(n − 1) / n · Σ (θ₋ᵢ − mean of θ₋)², of the statistic without each of the n seeds in turn (Tukey 1958)."""
    return (len(left_out) - 1) * float(np.var(left_out))


def jackknife(statistic: Callable[[Int[np.ndarray, " kept"]], float], n_seeds: int, level: float = LEVEL) -> Interval:
    """A statistic of all seeds, with the interval from leaving out one seed at a time.

    `statistic` gets the positions of the seeds to use. No interval for fewer than 3 seeds, or where the statistic of
    some n − 1 seeds is not finite.
    """
    everyone = np.arange(n_seeds)
    estimate = float(statistic(everyone))
    if n_seeds < MIN_SEEDS:
        return Interval(estimate, None, None)
    left_out = [float(statistic(np.delete(everyone, seed))) for seed in everyone]
    if not np.isfinite(left_out).all():
        return Interval(estimate, None, None)
    return t_interval(estimate, jackknife_variance(left_out), n_seeds, level)


def mean_of_pairs(matrix: Float[np.ndarray, "n_seeds n_seeds"]) -> float:
    """Mean score over ordered pairs of different seeds. Raises ValueError for fewer than 2 seeds."""
    if len(matrix) < 2:
        raise ValueError("a score between seeds needs at least 2 seeds")
    return float(matrix[~np.eye(len(matrix), dtype=bool)].mean())


def seed_interval(
    matrix: Float[np.ndarray, "n_seeds n_seeds"],
    minus: Float[np.ndarray, "n_seeds n_seeds"] | None = None,
    *,
    level: float = LEVEL,
) -> Interval:
    """Mean score over ordered pairs of different seeds, with an interval from leaving out one seed at a time.

    Pairs that share a seed are not independent, so the jackknife's unit is the seed, and its standard error comes with
    Student's t. Drawing seeds with replacement gives intervals that are far too short for so few. `minus` subtracts a
    second arm seed by seed; without it, an interval ends at 1, the largest score there is. No interval for fewer than 3
    seeds: 2 have a single pair.
    """
    difference = matrix - (0 if minus is None else minus)
    found = jackknife(lambda kept: mean_of_pairs(difference[np.ix_(kept, kept)]), len(matrix), level)
    return found._replace(high=min(found.high, 1.0)) if minus is None and found.high is not None else found


def mean_interval(
    values: Sequence[float] | Float[np.ndarray, " n_seeds"],
    minus: Sequence[float] | Float[np.ndarray, " n_seeds"] | None = None,
    *,
    level: float = LEVEL,
) -> Interval:
    """Mean over seeds of one number a seed, such as R², with an interval over seeds.

    `minus` subtracts a second arm seed by seed. The jackknife of a mean is the classical paired t interval. No interval
    for fewer than 3 seeds. Raises ValueError where the two arms have different numbers of seeds, or none.
    """
    first = np.asarray(values, dtype=float)
    second = np.zeros_like(first) if minus is None else np.asarray(minus, dtype=float)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"values of {len(first)} and {len(second)} seeds: give the same seeds of both, at least one")
    difference = first - second
    return jackknife(lambda kept: float(difference[kept].mean()), len(difference), level)


def share_interval(
    part: Float[np.ndarray, "n_seeds n_seeds"], whole: Float[np.ndarray, "n_seeds n_seeds"], *, level: float = LEVEL
) -> Share:
    """Mean of `part` over mean of `whole`, both differences of arms over the same seeds, with the jackknife's interval.

    The ratio is formed anew without each seed, so that what moves both cancels. There is no share of a whole that may
    be 0: where the interval of `whole`, at the same level, contains 0, the ratio has no finite interval (Fieller 1954).
    """
    if len(part) < MIN_SEEDS:
        return Share(None, f"{len(part)} common seeds give no interval; at least {MIN_SEEDS} are needed")
    of = seed_interval(whole, np.zeros_like(whole), level=level)
    if not (of.above(0.0) or of.below(0.0)):
        return Share(None, f"the whole, {of.estimate:.3f} [{of.low:.3f}, {of.high:.3f}], may be 0")

    def ratio(kept: Int[np.ndarray, " kept"]) -> float:
        among = np.ix_(kept, kept)
        return mean_of_pairs(part[among]) / mean_of_pairs(whole[among])

    return Share(jackknife(ratio, len(part), level), "")


def crossed_interval(difference: Float[np.ndarray, "tasks n_seeds"], *, level: float = LEVEL) -> Interval:
    """Mean over tasks and seeds, both drawn at random and crossed: every seed is scored on every task.

    With d_ts = μ + task_t + seed_s + rest_ts, the mean's variance is σ²_task / T + σ²_seed / S + σ²_rest / (T S).
    Leaving out one task at a time estimates the first and the last term, leaving out one seed at a time the second and
    the last; their sum counts the last twice, which is small and on the safe side. Student's t has Satterthwaite's
    degrees of freedom for that sum, as in studies of several readers and cases (Hillis 2007). No interval for fewer
    than 3 seeds or 3 tasks.
    """
    tasks, seeds = difference.shape
    estimate = float(difference.mean())
    if min(tasks, seeds) < MIN_SEEDS:
        return Interval(estimate, None, None)
    of_tasks = float(difference.mean(axis=1).var(ddof=1)) / tasks
    of_seeds = float(difference.mean(axis=0).var(ddof=1)) / seeds
    total = of_tasks + of_seeds
    if total == 0:
        return Interval(estimate, estimate, estimate)
    degrees = total**2 / (of_tasks**2 / (tasks - 1) + of_seeds**2 / (seeds - 1))
    reach = t_quantile(degrees, level) * total**0.5
    return Interval(estimate, estimate - reach, estimate + reach)


def seeds_to_decide(found: Interval, n_seeds: int, margin: float, *, level: float = LEVEL) -> int | None:
    """Seeds with which a jackknife interval that contains `margin` would exclude it, at the same estimate and spread.

    A jackknife variance V of n seeds is σ² / n to first order, so that m seeds give the half-width
    t(m − 1) · √(n V / m), with t(m − 1) the quantile of Student's t at `level`; √V is the half-width of `found` over
    t(n − 1). The answer is the smallest m > n with a half-width below |estimate − margin|. It is a plan, not a promise:
    more seeds will give another estimate. None where `found` has no interval or even 1,000 seeds would not do.
    """
    if found.low is None:
        return None
    error = (found.estimate - found.low) / t_quantile(n_seeds - 1, level)
    for more in range(n_seeds + 1, MOST_SEEDS + 1):
        if t_quantile(more - 1, level) * error * (n_seeds / more) ** 0.5 < abs(found.estimate - margin):
            return more
    return None
