"""One training run: what it is, the data it sees, the files it leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.metrics.reconstruction import Quality
from archsae_core.metrics.stability import cosine_with_start
from archsae_core.models.snapshots import snapshots
from archsae_study.arms import ABLATION_REFERENCES
from archsae_study.config import Config


@dataclass(frozen=True)
class Run:
    """One training run of a sweep."""

    arm: str
    """Key of `ARMS`."""
    seed: int
    """Of initialisation, data order and, in arms with their own anchors, of the documents those are fitted on."""
    steps: int
    """Optimiser steps."""
    delta: float
    """Radius of Λ; without effect where the dictionary is not archetypal."""


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


def sweep_runs(config: Config, arm: str, delta: float) -> list[Run]:
    """Every seed's run of one case of the ablation."""
    return [Run(arm, seed, config.comparison.ablation_steps, delta) for seed in range(config.comparison.ablation_seeds)]


def ablation_runs(config: Config) -> list[Run]:
    """Every run of the ablation."""
    cases = [("ra", delta) for delta in config.comparison.deltas] + [(arm, 0.0) for arm in ABLATION_REFERENCES]
    return [run for case in cases for run in sweep_runs(config, *case)]


def cosines_with_start(folder: Path, steps: int) -> dict[str, float]:
    """Mean cosine of a run's atoms with their start, at each of its `snapshot_steps`."""
    atoms_at = snapshots(folder, steps)
    return {str(step): cosine_with_start(atoms_at[0], atoms) for step, atoms in atoms_at.items()}
