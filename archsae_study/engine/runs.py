"""One training run: what it is, the data it sees, the files it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.metrics.reconstruction import Quality
from archsae_core.metrics.stability import cosine_with_start
from archsae_core.models.snapshots import snapshots
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import Config


@dataclass(frozen=True)
class Run:
    """One training run: an arm, a seed, a length, and what else differs from the study's parameters."""

    arm: str
    """Key of `ARMS`."""
    seed: int
    """Of the order of the data, and where the arm's seeds have a start of their own, of that start."""
    steps: int
    """Optimiser steps."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Parameters, by flat name, beyond those that the arm sets: the radius of a sweep, another layer."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything, by flat name, in which the run differs from the study's parameters."""
        return ARMS[self.arm].parameters | dict(self.changes) | {"steps": self.steps}

    def __str__(self) -> str:
        changed = "".join(f", {name} {value}" for name, value in self.changes)
        return f"{self.arm}, seed {self.seed}, {self.steps} steps{changed}"


class Scores(NamedTuple):
    """Quality of a trained dictionary on one part of the documents."""

    quality: Quality
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval over documents of the scores that are sums over tokens."""
    violation: float
    """Largest violation of the archetypal constraint; 0 where there is none."""

    def as_dict(self) -> dict[str, Any]:
        """Flat, for a table without a type of its own."""
        return self.quality._asdict() | {"intervals": self.intervals, "violation": self.violation}


def seeds_of(arm: str, config: Config) -> range:
    """Seeds of an arm in a study: its own number, or fewer where the study has fewer."""
    return range(min(ARMS[arm].seeds, config.comparison.n_seeds))


def arm_runs(config: Config, arm: str) -> list[Run]:
    """Every seed's run of an arm."""
    return [Run(arm, seed, config.training.steps) for seed in seeds_of(arm, config)]


def sweep_runs(config: Config, arm: str, changes: Mapping[str, Any]) -> list[Run]:
    """Every seed's run of one case of the sweep over radii."""
    steps, seeds = config.comparison.ablation_steps, config.comparison.ablation_seeds
    return [Run(arm, seed, steps, tuple(changes.items())) for seed in range(seeds)]


def cosines_with_start(folder: Path, steps: int) -> dict[int, float]:
    """Mean cosine of a run's atoms with their start, at each of its `snapshot_steps`: 1 has not moved."""
    atoms_at = snapshots(folder, steps)
    return {step: cosine_with_start(atoms_at[0], atoms) for step, atoms in atoms_at.items()}
