"""Do features that no other seed finds again at least span the same subspace in every seed?

So report Gerasimov et al. (2026, arXiv 2606.12138). The control is the span of the activations' leading principal
components: whatever fits the same data is drawn to those.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from archsae_core.metrics import intervals
from archsae_core.metrics.intervals import Interval

SHARE = 0.5
"""The subspace of a set of atoms is that of the fewest leading directions that hold this share of them."""
SMALLEST = 64
"""A seed with fewer unstable features has no subspace to speak of."""


class Subspaces(NamedTuple):
    """How much of one seed's unstable atoms lies in which subspace: shares of their squared norm."""

    unstable: float
    """Unstable features a seed."""
    rank: float
    """Directions of a seed's subspace, mean over seeds."""
    other: Interval
    """In another seed's subspace: mean over ordered pairs of seeds, with its interval over seeds."""
    own: float
    """In the seed's own subspace."""
    data: float
    """In as many principal components of the activations."""
    chance: float
    """In as many directions without preference."""


def leading(rows: Float[Tensor, "n d_model"]) -> Float[Tensor, "d_model d_model"]:
    """Orthonormal directions as rows, that which holds most of the rows' squared norm first."""
    rows = rows.double()
    return torch.linalg.eigh(rows.T @ rows).eigenvectors.T.flip(0)


def held(rows: Float[Tensor, "n d_model"], directions: Float[Tensor, "rank d_model"]) -> float:
    """Share of the rows' squared norm in the span of orthonormal directions."""
    rows = rows.double()
    return ((rows @ directions.double().T).square().sum() / rows.square().sum()).item()


def subspace(rows: Float[Tensor, "n d_model"]) -> Float[Tensor, "rank d_model"]:
    """The fewest leading directions that hold at least `SHARE` of the rows' squared norm."""
    directions = leading(rows)
    shares = (rows.double() @ directions.T).square().sum(dim=0) / rows.double().square().sum()
    return directions[: int((shares.cumsum(0) < SHARE).sum()) + 1]


def compare(
    atoms: Sequence[Float[Tensor, "_ d_model"]], components: Float[Tensor, "d_model d_model"]
) -> Subspaces | None:
    """How much of one seed's unstable atoms lies in the subspace of another's; None where a seed has too few.

    `atoms` holds each seed's, `components` the principal components of the activations.
    """
    if min(map(len, atoms)) < SMALLEST:
        return None
    atoms = [F.normalize(rows, dim=1) for rows in atoms]
    found = [subspace(rows) for rows in atoms]
    across = np.zeros((len(atoms), len(atoms)))
    for i, j in permutations(range(len(atoms)), 2):
        across[i, j] = held(atoms[i], found[j])
    ranks = [len(directions) for directions in found]
    pairs = list(zip(atoms, found, strict=True))
    return Subspaces(
        unstable=float(np.mean([len(rows) for rows in atoms])),
        rank=float(np.mean(ranks)),
        other=intervals.seed_interval(across),
        own=float(np.mean([held(rows, directions) for rows, directions in pairs])),
        data=float(np.mean([held(rows, components[: len(directions)]) for rows, directions in pairs])),
        chance=float(np.mean(ranks)) / atoms[0].shape[1],
    )
