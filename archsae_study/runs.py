"""One training run: what it is, the data it sees, the files it leaves."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from archsae_core.data.activations import ActivationSet
from archsae_core.metrics.reconstruction import Quality
from archsae_core.metrics.stability import drift
from archsae_core.models.snapshots import snapshots
from archsae_study.arms import ABLATION_REFERENCES, ARMS
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


def passed(run: Run, config: Config) -> Run | None:
    """The shorter run of the report that is the first part of `run`, where there is one: no rate depends on `steps`."""
    if run.steps > config.training.steps:
        return replace(run, steps=config.training.steps)
    shorter = replace(run, steps=config.comparison.ablation_steps)
    radius = run.delta if ARMS[run.arm].dictionary == "archetypal" else 0.0
    swept = replace(shorter, delta=radius) in ablation_runs(config)
    return shorter if swept and run.steps > shorter.steps else None


class TrainingBatches:
    """Shuffled batches: every kept activation once an epoch. A function of the step, so that runs can be resumed."""

    def __init__(self, activations: ActivationSet, batch_size: int, seed: int) -> None:
        self.activations, self.seed = activations, seed
        self.rows = torch.as_tensor(activations.kept)
        self.batch_size = min(batch_size, len(self.rows))
        self.per_epoch = len(self.rows) // self.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Float[Tensor, "batch d_model"]:
        """Raw activations of one step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, self.rows[torch.randperm(len(self.rows), generator=generator)]
        return self.activations.gather(self._order[place * self.batch_size : (place + 1) * self.batch_size])


def moved(folder: Path, steps: int) -> dict[str, float]:
    """Mean cosine of the atoms with their start, at each kept step."""
    kept = snapshots(folder, steps)
    return {str(step): drift(kept[0], atoms) for step, atoms in kept.items()}
