"""The decision rules of the report, fixed before any result was seen."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from archsae_core.metrics.intervals import Interval, pair_matrix, seed_interval

MARGIN = 0.05
"""Gain in chance-normalised stability, or in chance-normalised probing accuracy, that counts."""
MATCHED_R2 = 0.02
"""Two arms reconstruct equally well when their mean R² differ by at most this."""
INDEPENDENT_RA = ("ra-random-w", "ra-indep-anchors")
INDEPENDENT_TOPK = ("topk", "topk-kmeans-indep")
STEPS = (
    ("a k-means start of each seed's own", "topk", "topk-kmeans-indep"),
    ("the constraint, from such starts", "topk-kmeans-indep", "ra-indep-anchors"),
    ("sharing the anchors, and with them the start", "ra-indep-anchors", "ra"),
    ("all three, as published", "topk", "ra"),
    ("the constraint, from a shared k-means start", "topk-kmeans", "ra"),
)
"""What the published comparison changes at once, one thing at a time, from one arm to another."""
COLLAPSED_DEAD = 0.5
"""Share of dead features above which a run counts as collapsed."""
UNMOVED = 0.9999
"""Mean cosine of the atoms with their start above which a run counts as not trained."""


class ArmScores(NamedTuple):
    """What the verdict needs of an arm."""

    stability: Float[np.ndarray, "n_seeds n_seeds"]
    """Score of every pair of seeds."""
    r2: float
    """Mean held-out R² over seeds."""


class Verdict(NamedTuple):
    """Outcome of the rule for stability."""

    verdict: str
    """`supported`, `explained by shared initialisation` or `undetermined`."""
    reason: str
    published_gain: Interval | None
    """`ra` minus `topk`: the comparison as published."""
    independent_gain: Interval | None
    """Better independently initialised RA arm minus better such TopK arm, at matched R²."""
    pair: tuple[str, str] | None
    """The two arms of `independent_gain`."""

    def as_dict(self) -> dict[str, Any]:
        """For a table of results: intervals are mappings too."""
        gains = {"published_gain": self.published_gain, "independent_gain": self.independent_gain}
        return self._asdict() | {name: gain and gain._asdict() for name, gain in gains.items()}


def decide(arms: Mapping[str, ArmScores]) -> Verdict:
    """Is the stability due to the constraint or to the shared initialisation?

    With g the stability of the better independently initialised RA arm minus that of the better such TopK
    arm, at R² within 0.02: interval of g above +0.05 is `supported`; `ra` − `topk` above +0.05 with g's interval below
    +0.05 is `explained by shared initialisation`; anything else, or a missing arm, is `undetermined`.
    """
    published = _gain(arms, "ra", "topk")
    pair = _matched_pair(arms)
    if published is None or pair is None:
        reason = "an arm is missing" if published is None else "no independent pair of arms has R² within 0.02"
        return Verdict("undetermined", reason, published, None, None)
    gain = _gain(arms, *pair)
    if gain is None or gain.low is None or gain.high is None:
        return Verdict("undetermined", "fewer than 3 seeds give no interval", published, gain, pair)
    if gain.low > MARGIN:
        return Verdict("supported", "independent runs gain more than 0.05", published, gain, pair)
    if published.estimate > MARGIN and gain.high < MARGIN:
        reason = "more than 0.05 is gained with a shared start, and less than 0.05 without it"
        return Verdict("explained by shared initialisation", reason, published, gain, pair)
    reason = "the interval of the independent gain holds 0.05" if gain.high >= MARGIN else "nothing gains 0.05"
    return Verdict("undetermined", reason, published, gain, pair)


def end_scores(row: Mapping[str, Any], metric: str, kind: str = "normalised") -> Float[np.ndarray, "n_seeds n_seeds"]:
    """One score of every pair of an arm's trained dictionaries, from its row of the table of arms."""
    scores = {tuple(pair["seeds"]): pair[kind][metric] for pair in row["end"]["pairs"]}
    return pair_matrix(scores, len(row["r2_by_seed"]))


class Step(NamedTuple):
    """Two arms that differ in one thing."""

    what: str
    """In what."""
    before: str
    after: str
    gain: Interval
    """Stability of `after` less that of `before`, over the seeds that both have."""
    seeds: int


def decomposition(arms: Mapping[str, Mapping[str, Any]], metric: str) -> list[Step]:
    """Where the published gain comes from: one change at a time; and the constraint alone, from the shared start."""
    found = []
    for what, before, after in STEPS:
        if before in arms and after in arms:
            first, second = (end_scores(arms[arm], metric) for arm in (before, after))
            seeds = min(len(first), len(second))
            gain = seed_interval(second[:seeds, :seeds], first[:seeds, :seeds])
            found.append(Step(what, before, after, gain, seeds))
    return found


def by_budget(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rule after each budget of tokens, from the `budgets` of every arm: does training decide?"""
    found = []
    for rows in zip(*(row["budgets"] for row in arms.values()), strict=True):
        scores = {arm: ArmScores(np.array(row["pairs"]), row["r2"]) for arm, row in zip(arms, rows, strict=True)}
        found.append({"tokens": rows[0]["tokens"]} | decide(scores).as_dict())
    return found


def gain_by_budget(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gain of the first of two arms over the second after each of their `budgets` of tokens."""
    found = []
    for first, second in zip(*(row["budgets"] for row in arms.values()), strict=True):
        gain = seed_interval(np.array(first["pairs"]), np.array(second["pairs"]))
        found.append({"tokens": first["tokens"], "gain": gain._asdict()})
    return found


def _gain(arms: Mapping[str, ArmScores], first: str, second: str) -> Interval | None:
    if first not in arms or second not in arms or len(arms[first].stability) != len(arms[second].stability):
        return None
    return seed_interval(arms[first].stability, arms[second].stability)


def _matched_pair(arms: Mapping[str, ArmScores]) -> tuple[str, str] | None:
    return independent_pair({name: (_mean(arm.stability), arm.r2) for name, arm in arms.items()})


def independent_pair(scores: Mapping[str, tuple[float, float]]) -> tuple[str, str] | None:
    """Of (score, R²) by arm: the best independently initialised RA arm and, within 0.02 of its R², the best TopK arm.

    The next RA arm where there is none; None where no pair is matched.
    """
    pairs = [
        (ra, topk)
        for ra, topk in product(INDEPENDENT_RA, INDEPENDENT_TOPK)
        if ra in scores and topk in scores and abs(scores[ra][1] - scores[topk][1]) <= MATCHED_R2
    ]
    return max(pairs, key=lambda pair: tuple(scores[name][0] for name in pair), default=None)


class Readout(NamedTuple):
    """Outcome of the rule for interpretability."""

    verdict: str
    """`supported`, `not supported` or `undetermined`."""
    reason: str
    gain: Interval | None
    """Chance-normalised probing accuracy: better independently initialised RA arm minus better such TopK arm."""
    pair: tuple[str, str] | None
    """The two arms of `gain`."""


def decide_interpretability(pair: tuple[str, str] | None, gain: Interval | None) -> Readout:
    """Does the constraint make features read better? The stability rule's form, on held-out sparse-probing accuracy.

    Interval of the gain above +0.05: `supported`; below +0.05: `not supported`; anything else: `undetermined`.
    """
    if pair is None or gain is None:
        return Readout("undetermined", "no independent pair of arms has R² within 0.02", None, None)
    if gain.low is None or gain.high is None:
        return Readout("undetermined", "too few seeds or held-out documents give no interval", gain, pair)
    if gain.low > MARGIN:
        return Readout("supported", "the constraint gains more than 0.05", gain, pair)
    if gain.high < MARGIN:
        return Readout("not supported", "the constraint gains less than 0.05", gain, pair)
    return Readout("undetermined", "the interval of the gain holds 0.05", gain, pair)


def _mean(matrix: Float[np.ndarray, "n_seeds n_seeds"]) -> float:
    return seed_interval(matrix).estimate


def flags(result: Mapping[str, Any], k: int) -> list[str]:
    """What is wrong with one training run of a sweep; empty where nothing is.

    `result` has `failed` (an error message), or `l0`, `dead_share`, `r2`, `cosine_with_start` and `violation`.
    """
    if result.get("failed"):
        return [f"failed: {result['failed']}"]
    checks = {
        f"L0 is {result['l0']:.2f}, not k = {k}": abs(result["l0"] - k) > 0.01 * k,
        "more than half of the features are dead": result["dead_share"] > COLLAPSED_DEAD,
        "R² is negative": result["r2"] < 0,
        "atoms did not move": result["cosine_with_start"] is not None and result["cosine_with_start"] > UNMOVED,
        "constraint violated": result["violation"] > 0,
    }
    return [message for message, broken in checks.items() if broken]


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in one coordinate without losing in the other (larger is better)."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(u >= x and v >= y and (u > x or v > y) for u, v in points)
    ]  # fmt: skip


def best_delta(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Radius with the highest mean R² among those whose every run is unflagged; None where all are flagged."""
    sound = [row for row in rows if not row["flags"]]
    return max(sound, key=lambda row: row["r2"])["delta"] if sound else None
