"""Two arms where both reconstruct equally well, and where both have moved equally far from their starts.

At the end of training one arm may be more stable because it fits worse or because it hardly moved. Here their stability
is read off along their kept training steps, at a common value of R² or of movement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from archsae_core.metrics import intervals
from archsae_core.metrics.intervals import LEVEL, Interval, mean_of_pairs


@dataclass(frozen=True, eq=False)
class Kept:
    """One arm at one kept training step."""

    step: int
    r2: tuple[float, ...]
    """Held-out R² of each seed."""
    cosine_with_start: tuple[float, ...]
    """Mean cosine of each seed's atoms with where they started."""
    stability: Float[np.ndarray, "n_seeds n_seeds"]
    """Score of every pair of seeds."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One arm along its kept steps. Raises ValueError where a step does not have every seed."""

    seeds: tuple[int, ...]
    """Seed numbers, in the order of the fields of every `Kept`."""
    kept: tuple[Kept, ...]

    def __post_init__(self) -> None:
        n = len(self.seeds)
        if not self.kept:
            raise ValueError("kept: no step is given")
        for at in self.kept:
            if (len(at.r2), len(at.cosine_with_start), at.stability.shape) != (n, n, (n, n)):
                raise ValueError(f"kept: step {at.step} does not hold r2, cosine and stability of {n} seeds")

    def of(self, seeds: Sequence[int]) -> "Trajectory":
        """The same steps with these of the seeds, in their order."""
        where = [self.seeds.index(seed) for seed in seeds]
        kept = (
            Kept(
                at.step,
                tuple(at.r2[i] for i in where),
                tuple(at.cosine_with_start[i] for i in where),
                at.stability[np.ix_(where, where)],
            )
            for at in self.kept
        )
        return Trajectory(tuple(seeds), tuple(kept))


def reconstruction(at: Kept) -> Float[np.ndarray, " n_seeds"]:
    """R² of each seed: the common value that makes two arms equally good."""
    return np.array(at.r2)


def movement(at: Kept) -> Float[np.ndarray, " n_seeds"]:
    """1 − mean cosine with the own start of each seed: the common value that makes two arms equally far from it."""
    return 1 - np.array(at.cosine_with_start)


@dataclass(frozen=True)
class OnEqualTerms:
    """Stability of two arms at a common value, or why there is none."""

    target: float | None
    """The common value: R², or 1 − mean cosine with the own start."""
    gain: Interval | None
    """First arm less second, paired by seed."""
    first: float | None
    """Stability of the first arm at the common value."""
    second: float | None
    steps: tuple[tuple[int, int], tuple[int, int]] | None
    """Kept steps of the first and of the second arm between which its stability is interpolated."""
    seeds: tuple[int, ...]
    reason: str
    """Why there is no gain or no interval; empty where there are both."""


Coordinate = Callable[[Kept], Float[np.ndarray, " n_seeds"]]


class _Path:
    """One arm's coordinate and stability at each kept step, of any of its seeds, in the order of the coordinate."""

    def __init__(self, arm: Trajectory, coordinate: Coordinate, seeds: Int[np.ndarray, " kept"]) -> None:
        x = np.array([coordinate(at)[seeds].mean() for at in arm.kept])
        order = np.argsort(x, kind="stable")
        self.x = x[order]
        self.score = np.array([mean_of_pairs(at.stability[np.ix_(seeds, seeds)]) for at in arm.kept])[order]
        self.step = np.array([at.step for at in arm.kept])[order]

    def at(self, target: float) -> float:
        """Stability at a value of the coordinate, by linear interpolation; nan outside the range."""
        return float(np.interp(target, self.x, self.score, left=np.nan, right=np.nan))

    def around(self, target: float) -> tuple[int, int]:
        """Kept steps on either side of a value inside the range."""
        after = min(int(np.searchsorted(self.x, target)), len(self.x) - 1)
        before = after if self.x[after] == target else after - 1
        return int(self.step[before]), int(self.step[after])


def on_equal_terms(
    first: Trajectory, second: Trajectory, coordinate: Coordinate, *, level: float = LEVEL
) -> OnEqualTerms:
    """Stability of the first arm less that of the second at the largest value of `coordinate` that both reach.

    `coordinate` is `reconstruction` or `movement`, a mean over seeds at each kept step. Scores are interpolated
    linearly in it between neighbouring kept steps. The jackknife repeats all of this without each seed: the common
    value, the interpolation and the difference. Over the seeds that both arms have. No gain where the ranges do not
    meet, which is where one arm's kept steps all lie beyond the best of the other; no interval where they do not meet
    without some seed.
    """
    seeds = intervals.common_seeds(first.seeds, second.seeds)
    if len(seeds) < 2:
        return OnEqualTerms(None, None, None, None, None, seeds, f"the arms have {len(seeds)} seeds in common")
    arms = (first.of(seeds), second.of(seeds))

    def read(kept: Int[np.ndarray, " kept"]) -> tuple[float, list[_Path], list[float]]:
        paths = [_Path(arm, coordinate, kept) for arm in arms]
        target = float(min(path.x[-1] for path in paths))
        return target, paths, [path.at(target) for path in paths]

    def difference(kept: Int[np.ndarray, " kept"]) -> float:
        return float(np.subtract(*read(kept)[2]))

    target, paths, scores = read(np.arange(len(seeds)))
    if not np.isfinite(scores).all():
        ranges = " and ".join(f"{path.x[0]:.4f} to {path.x[-1]:.4f}" for path in paths)
        return OnEqualTerms(target, None, None, None, None, seeds, f"the ranges do not meet: {ranges}")
    gain = intervals.jackknife(difference, len(seeds), level)
    reason = ""
    if gain.low is None:
        few = len(seeds) < intervals.MIN_SEEDS
        reason = f"{len(seeds)} seeds give no interval" if few else "the ranges do not meet without some seed"
    return OnEqualTerms(target, gain, *scores, (paths[0].around(target), paths[1].around(target)), seeds, reason)


def equal_terms(trajectories: Mapping[str, Trajectory], ra: str, free: str) -> dict[str, OnEqualTerms | None]:
    """Both comparisons of two named arms, at equal R² and at equal movement; None where an arm has no trajectory."""
    if not {ra, free} <= trajectories.keys():
        return {"r2": None, "movement": None}
    pair = trajectories[ra], trajectories[free]
    return {"r2": on_equal_terms(*pair, reconstruction), "movement": on_equal_terms(*pair, movement)}
