"""One training run: what it is, the data it sees, the files it leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from archsae_core.activations import ActivationSet, Normalizer
from archsae_core.dictionary import FreeDictionary
from archsae_core.sae import SAE
from archsae_core.stability import drift
from archsae_core.store import read_json
from archsae_core.training import snapshot_file, snapshot_steps


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


def snapshots(folder: Path, steps: int) -> dict[int, Float[Tensor, "n_features d_model"]]:
    """Atoms of a run at each of `snapshot_steps(steps)`, step 0 and the last included."""
    found = {}
    for step in snapshot_steps(steps):
        with safe_open(folder / snapshot_file(step), framework="pt") as file:
            found[step] = file.get_tensor("atoms").float()
    return found


def snapshot_sae(folder: Path, step: int, k: int, normalizer: Normalizer) -> SAE:
    """The autoencoder of a run as it was at one of `snapshot_steps`, rounded to bfloat16 as it was kept."""
    kept = {name: tensor.float() for name, tensor in load_file(folder / snapshot_file(step)).items()}
    sae = SAE(FreeDictionary(kept.pop("atoms"), trainable=False), k, *normalizer)
    sae.load_state_dict(kept, strict=False)
    return sae


def read_alive(folder: Path) -> Bool[Tensor, " n_features"]:
    """Which features of a finished run fire at least once on the held-out set."""
    return load_file(folder / "fired.safetensors")["fired"] > 0


def read_quality(folder: Path) -> dict[str, Any]:
    """Held-out quality of a finished run."""
    return read_json(folder / "quality.json")


def moved(folder: Path, steps: int) -> dict[str, float]:
    """Mean cosine of the atoms with their start, at each kept step."""
    kept = snapshots(folder, steps)
    return {str(step): drift(kept[0], atoms) for step, atoms in kept.items()}
