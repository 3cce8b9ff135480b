"""What the hull excludes: W that puts any direction into the convex hull of the anchors, in closed form."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.config import ConfigError


def weights_for(
    directions: Float[Tensor, "n_features d_model"],
    anchors: Float[Tensor, "n_anchors d_model"],
    occupancy: Int[Tensor, " n_anchors"],
) -> Float[Tensor, "n_features n_anchors"]:
    """Row-stochastic W with every row of W C a positive multiple of a direction.

    The centroids of centred data have the occupancies q as weights of a zero mean, so the origin lies inside their hull
    and a small step in any direction stays in it: w = q ⊙ (C̃ M⁻¹ [t d, 1]) with C̃ = [C, 1] and M = C̃ᵀ diag(q) C̃
    solves w C = t d, Σw = 1 for every t, and w ≥ 0 up to the t that is taken here. Computed in float64.
    Raises ConfigError where the anchors do not surround the origin or do not span the space.
    """
    q = occupancy.double() / occupancy.sum()
    points = torch.cat([anchors.double(), torch.ones(len(anchors), 1, dtype=torch.float64)], dim=1)
    gram = points.T @ (q[:, None] * points)
    if torch.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        raise ConfigError("n_anchors: the anchors do not span the activations; use more than d_model of them")
    lift = torch.linalg.solve(gram, points.T * q).T
    base = lift[:, -1]
    if base.min() <= 0:
        raise ConfigError("n_anchors: the origin is not inside the anchors' hull; fit them on all training tokens")
    slope = torch.nn.functional.normalize(directions.double(), dim=1) @ lift[:, :-1].T
    # The largest t that keeps every weight at 0 or above, less a hair for rounding.
    reach = (base / (-slope).clamp_min(0)).min(dim=1, keepdim=True).values * (1 - 1e-9)
    return base + reach * slope
