"""Notebook 06: RA-SAE at every radius δ in both frames, from each seed's own anchors: what a radius buys and costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsae_core.config import FRAMES
from archsae_core.metrics.intervals import Interval, seed_interval
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged, read_log
from archsae_core.storage import read_json
from archsae_study.engine.costs import Cost, seed_pairs, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, cosines_with_start, sweep_runs
from archsae_study.engine.study import Study
from archsae_study.experiments.checks import Flag, flags
from archsae_study.experiments.stability import headline_matrix
from archsae_study.protocol.arms import ARMS, sweep_arm, sweep_references

PUBLISHED_SHARE = 0.01
"""The paper's headline radius, as a share of the median norm of the anchors."""


@dataclass(frozen=True)
class SeedResult:
    """One run of the sweep."""

    seed: int
    r2: float | None
    mse: float | None
    dead_share: float | None
    l0: float | None
    cosine_with_start: float | None
    relax_at_bound: float | None
    """Share of atoms whose Λ has the norm δ."""
    effective_anchors: float | None
    flags: list[Flag]
    """What is wrong with the run; empty where nothing is."""


@dataclass(frozen=True)
class Row:
    """One radius, or one dictionary beside the sweep, over its seeds."""

    arm: str
    delta: float | None
    """None for a dictionary without a radius."""
    relative: float | None
    """δ as a share of the median norm of the anchors."""
    seeds: list[SeedResult]
    stability: Interval | None
    """Headline score between seeds; None where fewer than two trained."""

    def mean(self, name: str) -> float | None:
        """Mean over the seeds that trained of one of their numbers."""
        values = [value for seed in self.seeds if (value := getattr(seed, name)) is not None]
        return float(np.mean(values)) if values else None

    @property
    def flags(self) -> list[Flag]:
        """Of all seeds."""
        return [flag for seed in self.seeds for flag in seed.flags]


@dataclass(frozen=True)
class Sweep:
    """The radii of one frame."""

    frame: str
    median_norm: float
    """Of the anchors, in the frame's units."""
    rows: list[Row]
    references: list[Row]

    @property
    def frontier(self) -> list[float]:
        """Radii that no other radius beats in R² and stability at once."""
        points = [(row.mean("r2"), row.stability.estimate, row.delta) for row in self.rows if row.stability]
        return [
            delta
            for r2, score, delta in points
            if not any(a >= r2 and b >= score and (a > r2 or b > score) for a, b, _ in points)
        ]

    @property
    def best(self) -> Row | None:
        """Radius with the highest mean R² among those whose every run is unflagged; None where all are flagged."""
        sound = [row for row in self.rows if not row.flags]
        return max(sound, key=lambda row: row.mean("r2")) if sound else None


@dataclass(frozen=True)
class AblationResult:
    """Both frames."""

    steps: int
    sweeps: list[Sweep]

    def sweep(self, frame: str) -> Sweep:
        """The radii of a frame."""
        return next(sweep for sweep in self.sweeps if sweep.frame == frame)


def radii(study: Study, frame: str) -> list[float]:
    """The radii asked for, and the paper's headline radius, 1 % of the median norm of the frame's anchors.

    While there are no anchors yet, which is when a plan is made, only the radii asked for are known.
    """
    asked, norm = set(study.config.comparison.deltas), median_norm(study, frame)
    return sorted(asked if norm is None else asked | {round(PUBLISHED_SHARE * norm, 4)})


def median_norm(study: Study, frame: str) -> float | None:
    """Median norm of the shared anchors, in the frame's units; None where they are not fitted yet."""
    own = study.variant(frame=frame)
    if not own.store.path("anchors", own.anchor_recipe(None)).exists():
        return None
    return read_json(own.anchor_folder() / "summary.json")["median_norm"]


def runs(study: Study) -> list[Run]:
    """Every run of the sweeps of both frames."""
    return [run for frame in FRAMES for runs in _cases(study, frame) for run in runs]


def _cases(study: Study, frame: str) -> list[list[Run]]:
    config, arm = study.config, sweep_arm(frame)
    swept = [sweep_runs(config, arm, {"delta": delta}) for delta in radii(study, frame)]
    return [*swept, *(sweep_runs(config, reference, {}) for reference in sweep_references(frame))]


def build(study: Study) -> AblationResult:
    """Train, check and compare every radius in both frames."""
    return AblationResult(study.config.comparison.ablation_steps, [_sweep(study, frame) for frame in FRAMES])


def _sweep(study: Study, frame: str) -> Sweep:
    study.variant(frame=frame).anchor_folder()
    norm = median_norm(study, frame)
    rows = [_row(study, case, norm) for case in _cases(study, frame)]
    return Sweep(
        frame,
        norm,
        [row for row in rows if row.delta is not None],
        [row for row in rows if row.delta is None],
    )


def _row(study: Study, case: Sequence[Run], norm: float) -> Row:
    results = [_seed(study, run) for run in case]
    trained = [run for run, result in zip(case, results, strict=True) if result.r2 is not None]
    stability = None
    if len(trained) > 1:
        atoms = [snapshots(study.run_folder(run), run.steps)[run.steps] for run in trained]
        stability = seed_interval(np.array(headline_matrix(atoms)))
    delta = dict(case[0].changes).get("delta")
    return Row(case[0].arm, delta, None if delta is None else delta / norm, results, stability)


def _seed(study: Study, run: Run) -> SeedResult:
    try:
        folder = study.run_folder(run)
    except TrainingDiverged as error:
        return SeedResult(run.seed, *[None] * 7, flags=[Flag("failed", str(error))])
    scores, last = study.scores(run), read_log(folder)[-1]
    moved = cosines_with_start(folder, run.steps)[run.steps]
    return SeedResult(
        run.seed,
        **{name: getattr(scores.quality, name) for name in ("r2", "mse", "dead_share", "l0")},
        cosine_with_start=moved,
        **{name: last.get(name) for name in ("relax_at_bound", "effective_anchors")},
        flags=flags(scores, study.of(run).config.dictionary.k, _expected_to_move(run, moved)),
    )


def _expected_to_move(run: Run, moved: float) -> float | None:
    return None if ARMS[run.arm].dictionary == "frozen" else moved


def _cost(study: Study) -> Cost:
    """The headline score of the seeds of each case, and its chance level, which takes about three matchings."""
    cases = [case for frame in FRAMES for case in _cases(study, frame)]
    return table_cost(study, matchings=sum(seed_pairs(case) + 3 for case in cases))


TABLE = Table(
    name="ablation",
    result=AblationResult,
    build=build,
    runs=runs,
    anchors=lambda study: [(study.variant(frame=frame), None) for frame in FRAMES],
    fields=("deltas", "ablation_steps", "ablation_seeds", "heldout_tokens"),
    file="ablation_results.json",
    cost=_cost,
)
