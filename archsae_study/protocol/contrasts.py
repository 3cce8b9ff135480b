"""The contrasts of the study and the rules that decide them, fixed before any of their data existed.

Pure functions of what the arms scored. No arm is picked by its score and none is dropped: each contrast names its two
arms. Stability is the chance-normalised signed Hungarian cosine of centred atoms at the end of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from jaxtyping import Float

from archsae_core.metrics import intervals
from archsae_core.metrics.intervals import PRIMARY_LEVEL, Interval, Share

MARGIN = 0.05
"""Gain in stability that counts."""
COST = 0.02
"""Loss of R² that has to be said."""
UNMOVED = 0.95
"""Mean cosine of the atoms with their start from which a dictionary counts as the k-means that it started from."""
PROBE_MARGIN = 0.01
"""Gain in the probes' test AUC that counts."""


class Verdict(StrEnum):
    """What a rule says."""

    FROZEN = "frozen"
    """More stable, but the atoms are still where k-means had put them."""
    SUPPORTED = "supported"
    AT_A_COST = "supported at a cost"
    NOT_SUPPORTED = "not supported"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, eq=False)
class ArmOutcome:
    """What the rules need of one arm. Raises ValueError, with the field's name, where its fields do not fit."""

    seeds: tuple[int, ...]
    """Seed numbers, in the order of all other fields."""
    stability: Float[np.ndarray, "n_seeds n_seeds"]
    """Score of every pair of seeds; the diagonal is not used."""
    r2: tuple[float, ...]
    """Held-out R² of each seed."""
    cosine_with_start: tuple[float, ...]
    """Mean cosine of each seed's atoms with where they started: 1 has not moved."""
    ce_recovered: tuple[float, ...] | None = None
    """Share of the cross-entropy recovered by each seed's reconstruction; None where it was not measured."""

    def __post_init__(self) -> None:
        n = len(self.seeds)
        if len(set(self.seeds)) < n:
            raise ValueError(f"seeds = {self.seeds}: give every seed once")
        if self.stability.shape != (n, n):
            raise ValueError(f"stability has the shape {self.stability.shape}: {n} seeds need ({n}, {n})")
        if not np.isfinite(self.stability[~np.eye(n, dtype=bool)]).all():
            raise ValueError("stability: the score of some pair of seeds is not finite")
        for name in ("r2", "cosine_with_start", "ce_recovered"):
            values = getattr(self, name)
            if values is None and name == "ce_recovered":
                continue
            if len(values) != n or not np.isfinite(values).all():
                raise ValueError(f"{name} = {values}: give one finite number for each of {n} seeds")

    def of(self, seeds: Sequence[int]) -> "ArmOutcome":
        """The same arm with these of its seeds, in their order."""
        where = [self.seeds.index(seed) for seed in seeds]
        r2, cosine, ce = (
            values and tuple(values[i] for i in where)
            for values in (self.r2, self.cosine_with_start, self.ce_recovered)
        )
        return ArmOutcome(tuple(seeds), self.stability[np.ix_(where, where)], r2, cosine, ce)


@dataclass(frozen=True)
class Contrast:
    """An archetypal arm against a free one, in one frame, from starts of each seed's own."""

    key: str
    label: str
    """For figures and tables."""
    frame: str
    """`centred` or `raw`."""
    ra: str
    """Key of the archetypal arm."""
    free: str
    """Key of the free arm."""
    published: tuple[str, str]
    """Arms of the comparison as published: archetypal with shared anchors, free with random starts of its own."""

    @property
    def arms(self) -> tuple[str, str, str, str]:
        """The two compared arms, then those of the published comparison."""
        return (self.ra, self.free, *self.published)


PRIMARY = (
    Contrast(
        "g1",
        "centred: RA-SAE, own anchors − TopK, own k-means start",
        "centred",
        ra="ra-own",
        free="topk-kmeans-own",
        published=("ra-shared", "topk-random-own"),
    ),
    Contrast(
        "g2",
        "raw: RA-SAE, published step, own anchors − TopK, own k-means start",
        "raw",
        ra="raw-ra-published-own",
        free="raw-topk-kmeans-own",
        published=("raw-ra-published-shared", "raw-topk-random-own"),
    ),
    Contrast(
        "g3",
        "raw: RA-SAE, chosen step, own anchors − TopK, own k-means start",
        "raw",
        ra="raw-ra-own",
        free="raw-topk-kmeans-own",
        published=("raw-ra-shared", "raw-topk-random-own"),
    ),
)
"""The primary contrasts. Their intervals are at `PRIMARY_LEVEL` each."""


@dataclass(frozen=True)
class Decision:
    """What the rule says of one contrast, and everything that is printed beside it."""

    contrast: Contrast
    verdict: Verdict
    reason: str
    """A sentence with the numbers that decided."""
    seeds: tuple[int, ...]
    """Seeds that both arms have."""
    gain: Interval | None
    """Stability of the archetypal arm less that of the free arm, paired by seed."""
    delta_r2: Interval | None
    delta_ce_recovered: Interval | None
    """None where an arm has none measured."""
    share: Share
    """The gain as a share of the published-style gain of the frame, over the seeds that all four arms have."""
    ra_cosine: Interval | None
    """Mean cosine of the archetypal atoms with their start."""
    free_cosine: Interval | None
    seeds_to_decide: int | None
    """Seeds that would take the gain's interval off the margin; None where it is decided or no number would do."""


def decide(contrast: Contrast, outcomes: Mapping[str, ArmOutcome], level: float = PRIMARY_LEVEL) -> Decision:
    """Does the constraint make dictionaries more stable than a free dictionary from the same starts?

    With g the gain in stability and its jackknife interval over the seeds that both arms have, in this order:

    1. *frozen*: g's interval is above +0.05, but the archetypal atoms keep a mean cosine of 0.95 or more with their
       start, so that the stability is that of k-means;
    2. *supported*: g's interval is above +0.05 and ΔR² above −0.02;
    3. *supported at a cost*: g's interval is above +0.05 and ΔR² is −0.02 or less; the reason says the cost;
    4. *not supported*: g's interval is below +0.05;
    5. *undetermined*: anything else, a missing arm and fewer than 3 common seeds included.

    ΔR² and the cosine enter by their means over seeds, not by their intervals: an interval gets shorter when the one
    good seed of an arm gets worse, so that a lower R² of the archetypal arm could have helped it. As it is, lowering
    any seed's R² can only turn *supported* into *supported at a cost*. Where the interval of ΔR² reaches the other side
    of −0.02, the reason says so.
    """
    missing = [arm for arm in (contrast.ra, contrast.free) if arm not in outcomes]
    if missing:
        return _without_interval(contrast, f"not computed: {', '.join(missing)}", ())
    seeds = intervals.common_seeds(outcomes[contrast.ra].seeds, outcomes[contrast.free].seeds)
    if len(seeds) < intervals.MIN_SEEDS:
        reason = f"the arms have {len(seeds)} seeds in common; an interval needs at least {intervals.MIN_SEEDS}"
        return _without_interval(contrast, reason, seeds)
    return _with_intervals(contrast, outcomes, seeds, level)


def _with_intervals(
    contrast: Contrast, outcomes: Mapping[str, ArmOutcome], seeds: tuple[int, ...], level: float
) -> Decision:
    ra, free = (outcomes[arm].of(seeds) for arm in (contrast.ra, contrast.free))
    gain = intervals.seed_interval(ra.stability, free.stability, level=level)
    delta_r2 = intervals.mean_interval(ra.r2, free.r2, level=level)
    ra_cosine, free_cosine = (intervals.mean_interval(arm.cosine_with_start, level=level) for arm in (ra, free))
    needed = None
    if not (gain.above(MARGIN) or gain.below(MARGIN)):
        needed = intervals.seeds_to_decide(gain, len(seeds), MARGIN, level=level)
    verdict, reason = _rule(gain, delta_r2, ra_cosine.estimate, needed)
    return Decision(
        contrast,
        verdict,
        reason,
        seeds,
        gain=gain,
        delta_r2=delta_r2,
        delta_ce_recovered=_delta_ce(ra, free, level),
        share=published_share(contrast, outcomes, level),
        ra_cosine=ra_cosine,
        free_cosine=free_cosine,
        seeds_to_decide=needed,
    )


def _rule(gain: Interval, delta_r2: Interval, cosine: float, needed: int | None) -> tuple[Verdict, str]:
    if gain.below(MARGIN):
        return Verdict.NOT_SUPPORTED, f"the gain {_shown(gain)} is below {MARGIN}"
    if not gain.above(MARGIN):
        would = "even 1,000 seeds would not decide" if needed is None else f"about {needed} seeds would decide"
        return Verdict.UNDETERMINED, f"the gain {_shown(gain)} contains {MARGIN}; {would}"
    gained = f"the gain {_shown(gain)} is above {MARGIN}"
    if cosine >= UNMOVED:
        kept = f"the atoms keep a mean cosine of {cosine:.4f} with their start"
        return Verdict.FROZEN, f"{gained}, but {kept}: the stability is that of k-means"
    clear = delta_r2.above(-COST) or delta_r2.below(-COST)
    beyond = "" if clear else f", an interval that contains −{COST}"
    if delta_r2.estimate > -COST:
        return Verdict.SUPPORTED, f"{gained}, at a difference in R² of {_shown(delta_r2)}{beyond}"
    return Verdict.AT_A_COST, f"{gained}, and it costs R²: {_shown(delta_r2)}{beyond}"


def _shown(found: Interval) -> str:
    numbers = (f"{number:+.3f}".replace("-", "−") for number in (found.estimate, found.low, found.high))
    return "{} [{}, {}]".format(*numbers)


def _without_interval(contrast: Contrast, reason: str, seeds: tuple[int, ...]) -> Decision:
    share = Share(None, "the contrast itself has no interval")
    return Decision(contrast, Verdict.UNDETERMINED, reason, seeds, None, None, None, share, None, None, None)


def _delta_ce(ra: ArmOutcome, free: ArmOutcome, level: float) -> Interval | None:
    if ra.ce_recovered is None or free.ce_recovered is None:
        return None
    return intervals.mean_interval(ra.ce_recovered, free.ce_recovered, level=level)


def published_share(contrast: Contrast, outcomes: Mapping[str, ArmOutcome], level: float = PRIMARY_LEVEL) -> Share:
    """The gain of independent starts as a share of the gain as published, S(RA, shared) − S(TopK, random own).

    Over the seeds that all four arms have: numerator and denominator are formed from the same seeds, so that the gain
    in the numerator may differ from the contrast's own, which may have more. No share where an arm is missing, where
    they have fewer than 3 seeds in common, or where the interval of the published gain contains 0.
    """
    missing = [arm for arm in contrast.arms if arm not in outcomes]
    if missing:
        return Share(None, f"not computed: {', '.join(missing)}")
    seeds = intervals.common_seeds(*(outcomes[arm].seeds for arm in contrast.arms))
    ra, free, shared, random = (outcomes[arm].of(seeds).stability for arm in contrast.arms)
    return intervals.share_interval(ra - free, shared - random, level=level)


OWN, SHARED = "own", "shared"
FREE, RA = "free", "archetypal"


@dataclass(frozen=True)
class Square:
    """The 2 × 2 of start and dictionary of one frame."""

    key: str
    label: str
    arms: Mapping[tuple[str, str], str]
    """Arm of each (start, dictionary): starts `own` and `shared`, dictionaries `free` and `archetypal`."""


def _square(key: str, label: str, free: str, ra: str) -> Square:
    arms = {(start, kind): f"{arm}-{start}" for kind, arm in ((FREE, free), (RA, ra)) for start in (OWN, SHARED)}
    return Square(key, label, arms)


SQUARES = (
    _square("centred", "centred", "topk-kmeans", "ra"),
    _square("raw-published", "raw, RA-SAE with the published step", "raw-topk-kmeans", "raw-ra-published"),
    _square("raw", "raw, RA-SAE with the chosen step", "raw-topk-kmeans", "raw-ra"),
)


@dataclass(frozen=True)
class Interaction:
    """Stability of a 2 × 2 of start and dictionary, over the seeds that all four arms have."""

    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, str], Interval]
    """By (start, dictionary)."""
    constraint: Mapping[str, Interval]
    """Archetypal less free, from each start."""
    sharing: Mapping[str, Interval]
    """Shared less own start, for each dictionary."""
    interaction: Interval
    """How much more sharing the start brings to an archetypal dictionary than to a free one; equally, how much more the
    constraint brings from a shared start than from starts of each seed's own."""


def interaction(
    square: Square, outcomes: Mapping[str, ArmOutcome], level: float = intervals.LEVEL
) -> Interaction | None:
    """What start and constraint do to stability alone and together, which no sum of single steps can show.

    Exploratory. All k-means starts: the same anchors of a seed's own, or the same anchors for all. The intervals are
    over seeds *given* the one shared start: they do not say what another shared start would give. None where an arm is
    missing or the four have fewer than 2 seeds in common; with 2, intervals have no ends.
    """
    if not set(square.arms.values()) <= outcomes.keys():
        return None
    seeds = intervals.common_seeds(*(outcomes[arm].seeds for arm in square.arms.values()))
    if len(seeds) < 2:
        return None
    scores = {cell: outcomes[arm].of(seeds).stability for cell, arm in square.arms.items()}
    between = partial(intervals.seed_interval, level=level)
    return Interaction(
        seeds,
        cells={cell: between(matrix) for cell, matrix in scores.items()},
        constraint={start: between(scores[start, RA], scores[start, FREE]) for start in (OWN, SHARED)},
        sharing={kind: between(scores[SHARED, kind], scores[OWN, kind]) for kind in (FREE, RA)},
        interaction=between(scores[SHARED, RA] - scores[OWN, RA], scores[SHARED, FREE] - scores[OWN, FREE]),
    )


@dataclass(frozen=True, eq=False)
class ProbeOutcome:
    """Test AUC of one arm's sparse probes with k features. Raises ValueError where its fields do not fit."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    auc: Float[np.ndarray, "n_tasks n_seeds"]

    def __post_init__(self) -> None:
        expected = (len(self.tasks), len(self.seeds))
        if self.auc.shape != expected:
            raise ValueError(f"auc has the shape {self.auc.shape}: its tasks and seeds need {expected}")
        if len(set(self.tasks)) < len(self.tasks) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("tasks, seeds: give each once")
        if not np.isfinite(self.auc).all():
            raise ValueError("auc: some task of some seed has no finite score")

    def of(self, tasks: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, "tasks seeds"]:
        """AUC of these tasks and seeds, in their order."""
        rows, columns = [self.tasks.index(task) for task in tasks], [self.seeds.index(seed) for seed in seeds]
        return self.auc[np.ix_(rows, columns)]


@dataclass(frozen=True)
class ProbeDecision:
    """What the rule for interpretability says of one contrast."""

    contrast: Contrast
    verdict: Verdict
    """`supported`, `not supported` or `undetermined`."""
    reason: str
    tasks: int
    seeds: tuple[int, ...]
    gain: Interval | None
    """Test AUC of the archetypal arm less that of the free arm, paired over tasks and seeds."""


def decide_probes(
    contrast: Contrast, outcomes: Mapping[str, ProbeOutcome], level: float = PRIMARY_LEVEL
) -> ProbeDecision:
    """Do the features of the constrained dictionary read better? Test AUC of sparse probes with 5 features.

    The gain's interval takes tasks and seeds as crossed random effects (`crossed_interval`), at the level of the
    primary contrasts, since it is read for the same arms. Above +0.01: *supported*; below: *not supported*; anything
    else: *undetermined*. Raises ValueError where the two arms were not probed for the same tasks: dropping tasks would
    be a choice.
    """
    missing = [arm for arm in (contrast.ra, contrast.free) if arm not in outcomes]
    if missing:
        return ProbeDecision(contrast, Verdict.UNDETERMINED, f"not computed: {', '.join(missing)}", 0, (), None)
    ra, free = outcomes[contrast.ra], outcomes[contrast.free]
    if set(ra.tasks) != set(free.tasks):
        raise ValueError(f"tasks that one arm lacks: {', '.join(sorted(set(ra.tasks) ^ set(free.tasks)))}")
    seeds = intervals.common_seeds(ra.seeds, free.seeds)
    if min(len(seeds), len(ra.tasks)) < intervals.MIN_SEEDS:
        reason = f"{len(seeds)} common seeds and {len(ra.tasks)} tasks; an interval needs 3 of both"
        return ProbeDecision(contrast, Verdict.UNDETERMINED, reason, len(ra.tasks), seeds, None)
    gain = intervals.crossed_interval(ra.of(ra.tasks, seeds) - free.of(ra.tasks, seeds), level=level)
    verdict, where = Verdict.UNDETERMINED, "contains"
    if gain.above(PROBE_MARGIN):
        verdict, where = Verdict.SUPPORTED, "is above"
    elif gain.below(PROBE_MARGIN):
        verdict, where = Verdict.NOT_SUPPORTED, "is below"
    reason = f"the gain in AUC {_shown(gain)} {where} {PROBE_MARGIN}"
    return ProbeDecision(contrast, verdict, reason, len(ra.tasks), seeds, gain)
