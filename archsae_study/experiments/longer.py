"""Notebook 05: the arms of two primary contrasts trained for several times the steps. Does the answer change?"""

from dataclasses import dataclass

import numpy as np

from archsae_core.models.snapshots import snapshot_steps, snapshots
from archsae_study.engine.costs import Cost, seed_pairs, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.stability import AtStep, at_step, kept_tokens
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import ArmOutcome, Decision
from archsae_study.settings.config import Config

COMPARED = tuple(arm for one in contrasts.PRIMARY if one.key in ("g1", "g3") for arm in (one.ra, one.free))
"""The arms of g1 and g3."""
SEEDS = 5
"""At most so many an arm."""


@dataclass(frozen=True)
class LongerArm:
    """One arm along its longer training."""

    arm: str
    seeds: list[int]
    trajectory: list[AtStep]


@dataclass(frozen=True)
class LongerResult:
    """Arms of g1 and g3 at several times the steps; none where the study asks for none."""

    factor: int
    arms: list[LongerArm]

    def decisions(self) -> list[Decision]:
        """What the rule says of the contrasts whose arms were run."""
        outcomes = {arm.arm: outcome(arm.seeds, arm.trajectory[-1]) for arm in self.arms if len(arm.seeds) > 1}
        return [contrasts.decide(one, outcomes) for one in contrasts.PRIMARY if {one.ra, one.free} <= outcomes.keys()]


def outcome(seeds: list[int], at: AtStep) -> ArmOutcome:
    """What the contrasts need of an arm at one kept step."""
    return ArmOutcome(tuple(seeds), np.array(at.stability), tuple(at.r2), tuple(at.cosine_with_start))


def runs(config: Config) -> list[Run]:
    """Every run; none where `longer_factor` is 1."""
    factor, steps = config.comparison.longer_factor, config.training.steps
    if factor == 1:
        return []
    arms = [arm for arm in COMPARED if arm in config.comparison.arms]
    seeds = min(SEEDS, config.comparison.n_seeds)
    return [Run(arm, seed, factor * steps) for arm in arms for seed in range(min(seeds, ARMS[arm].seeds))]


def build(study: Study) -> LongerResult:
    """Each arm at its kept steps from a tenth of the study's own length on."""
    needed, arms = runs(study.config), []
    study.run_folders(needed)
    for arm in dict.fromkeys(run.arm for run in needed):
        own = [run for run in needed if run.arm == arm]
        folders = [study.run_folder(run) for run in own]
        kept = [snapshots(folder, run.steps) for folder, run in zip(folders, own, strict=True)]
        steps = [step for step in kept[0] if step >= study.config.training.steps / 10]
        trajectory = [at_step(study, own, folders, kept, step) for step in steps]
        arms.append(LongerArm(arm, [run.seed for run in own], trajectory))
    return LongerResult(study.config.comparison.longer_factor, arms)


def _cost(study: Study) -> Cost:
    needed = runs(study.config)
    kept = len(snapshot_steps(study.config.training.steps * study.config.comparison.longer_factor)) // 2
    tokens = len(needed) * kept * kept_tokens(study.config)
    return table_cost(study, matchings=2 * kept * seed_pairs(needed), scored=tokens)


TABLE = Table(
    name="longer",
    result=LongerResult,
    build=build,
    runs=lambda study: runs(study.config),
    fields=("arms", "n_seeds", "longer_factor", "behaviour_tokens"),
    cost=_cost,
)
