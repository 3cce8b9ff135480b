"""What the hull excludes: where it holds the origin, and how near its cone comes to a direction.

Directions of points in the hull of the anchors form their cone, {Σ w_j c_j : w ≥ 0}. Where the origin lies in the
interior of the hull, the cone is the whole space and the constraint excludes nothing; where it lies outside, the cone
excludes most directions, and where it lies on the boundary, some.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from torch import Tensor

from archsae_core.checks import require_rows

EXACT = 1e-9
"""A residual of unit vectors below this counts as 0, in float64."""
TOGETHER = 256
"""Directions that are projected at the same time: their Gram matrices stay in memory."""


class Origin(NamedTuple):
    """Where the origin lies, with the proof."""

    inside: bool
    """Is the origin in the hull?"""
    vacuous: bool
    """Is the cone of the anchors the whole space, so that the constraint excludes no direction?"""
    distance: float
    """Of the origin from the hull, in the anchors' units; 0 inside, up to rounding."""
    separator: Float[Tensor, " d_model"] | None
    """Unit direction with which every anchor has a positive cosine: the proof that the origin is outside; else None."""
    margin: float
    """Smallest cosine of an anchor with `separator`; 0 without one."""


class Reach(NamedTuple):
    """How near the cone comes to each of some directions."""

    cosine: Float[Tensor, " n"]
    """Largest cosine with any direction of the cone: what no training can exceed at δ = 0. 1 inside the cone."""
    support: Int[Tensor, " n"] | None
    """Anchors with a weight above 0 in the nearest point; 0 where all anchors are more than 90° away. None where the
    cone is the whole space: nothing is projected, since every direction is its own nearest point."""
    violation: float
    """Largest inner product v of a unit anchor with a residual: 0 for exact projections (Karush–Kuhn–Tucker). Squared
    cosines are at most 2 v / m too low, with m the `margin` of the origin."""


def origin(anchors: Float[Tensor, "n_anchors d_model"]) -> Origin:
    """Does the hull of the anchors hold the origin, and does its cone exclude anything?

    The nearest point of the hull is Σ w c / Σ w for the w ≥ 0 that minimise ‖Σ w c‖² + s² (Σ w − 1)², whatever s: one
    problem of non-negative least squares, solved exactly by an active set (Lawson & Hanson 1974, in SciPy). Outside,
    every anchor has a positive inner product with that point, which is checked and is a proof. Inside, the cone is a
    linear subspace if and only if it holds the negative sum of the unit anchors, and the whole space if the anchors
    span it. Takes seconds for 4096 anchors of 576 dimensions. Raises ValueError for an anchor of zeros.
    """
    points = anchors.detach().double().cpu()
    norms = points.norm(dim=1)
    if not norms.min() > 0:
        raise ValueError("anchors: one is all zeros, which has no direction")
    scale = norms.median()
    # Rows of coordinates, one of ones: the unknowns are the weights.
    system = torch.cat([points.T / scale, torch.ones(1, len(points), dtype=torch.float64)]).numpy()
    weights = torch.from_numpy(nnls(system, np.append(np.zeros(points.shape[1]), 1.0))[0])
    nearest = weights @ points / weights.sum()
    direction, unit = F.normalize(nearest, dim=0), points / norms[:, None]
    margin = float((unit @ direction).min())
    distance = float(nearest.norm())
    if distance > EXACT * scale and margin > 0:
        return Origin(False, False, distance, direction, margin)
    opposite = F.normalize(-unit.sum(dim=0), dim=0)
    whole = bool(torch.linalg.matrix_rank(unit) == points.shape[1])
    vacuous = whole and nnls(unit.T.numpy(), opposite.numpy())[1] < EXACT
    return Origin(True, vacuous, distance, None, 0.0)


def reach(
    directions: Float[Tensor, "n d_model"],
    anchors: Float[Tensor, "n_anchors d_model"],
    where: Origin | None = None,
) -> Reach:
    """Largest cosine of each direction with the cone of the anchors, by projection on it.

    `where` is `origin(anchors)`, if it is known already; where the cone is the whole space, nothing is left to solve.
    All directions are projected together by Lawson and Hanson's active set in float64 on the anchors' device; the few
    that rounding keeps from settling go to SciPy's solver. Where no anchor is less than 90° away, the nearest point of
    the cone is the origin, and the cosine is that with the nearest anchor, 0 or below. 512 directions take seconds with
    4096 anchors of 576 dimensions.
    """
    require_rows("anchors", anchors)
    require_rows("directions", directions, width=anchors.shape[1], width_of="d_model of the anchors")
    where = origin(anchors) if where is None else where
    unit = F.normalize(anchors.detach().double(), dim=1)
    targets = F.normalize(directions.detach().double(), dim=1).to(unit.device)
    if where.vacuous:
        return Reach(torch.ones(len(targets), dtype=torch.float64), None, 0.0)
    gram = unit @ unit.T
    parts = [_project(part, unit, gram) for part in targets.split(TOGETHER)]
    points, support = (torch.cat(column) for column in zip(*parts, strict=True))
    residual = targets - points
    scores = residual @ unit.T
    # ⟨target, p⟩ = ‖p‖² at the projection p, so that their cosine is ‖p‖; no point but the origin: the nearest anchor.
    cosine = points.norm(dim=1).where(support > 0, scores.amax(dim=1)).clamp_max(1.0)
    violation = float(scores.amax(dim=1)[support > 0].clamp_min(0).max()) if (support > 0).any() else 0.0
    return Reach(cosine.cpu(), support.cpu(), violation)


def _project(
    targets: Float[Tensor, "n d_model"],
    unit: Float[Tensor, "n_anchors d_model"],
    gram: Float[Tensor, "n_anchors n_anchors"],
) -> tuple[Float[Tensor, "n d_model"], Int[Tensor, " n"]]:
    """Nearest point of the cone to each target, and the number of anchors that it is made of.

    Each round adds to every open target the anchor nearest to its residual and solves for the weights of its anchors.
    """
    points, support = torch.zeros_like(targets), torch.zeros(len(targets), dtype=torch.int64, device=unit.device)
    along = targets @ unit.T
    rows = torch.arange(len(targets), device=unit.device)  # open targets
    index, weight = (
        rows.new_zeros(len(rows), 1),
        targets.new_zeros(len(rows), 1),
    )  # their anchors; weight 0: a free slot
    left = []
    for _ in range(3 * unit.shape[1]):
        residual = targets[rows] - points[rows]
        best, entering = (residual @ unit.T).max(dim=1)
        still = (best > EXACT) & (residual.norm(dim=1) > EXACT)
        rows, index, weight, entering = (part[still] for part in (rows, index, weight, entering))
        if not len(rows):
            break
        if (weight > 0).all(dim=1).any():
            index, weight = F.pad(index, (0, 1)), F.pad(weight, (0, 1))
        slot = (weight > 0).byte().argmin(dim=1, keepdim=True)
        index = index.scatter(1, slot, entering[:, None])
        weight, settled = _settle(index, weight, slot, gram, along[rows])
        left += rows[~settled].tolist()
        rows, index, weight = rows[settled], index[settled], weight[settled]
        points[rows] = F.embedding_bag(index, unit, per_sample_weights=weight, mode="sum")
        support[rows] = (weight > 0).sum(dim=1)
    for row in [*left, *rows.tolist()]:
        exact = torch.from_numpy(nnls(unit.T.cpu().numpy(), targets[row].cpu().numpy())[0]).to(unit)
        points[row], support[row] = exact @ unit, (exact > 0).sum()
    return points, support


def _settle(
    index: Int[Tensor, "n width"],
    weight: Float[Tensor, "n width"],
    slot: Int[Tensor, "n 1"],
    gram: Float[Tensor, "n_anchors n_anchors"],
    along: Float[Tensor, "n n_anchors"],
) -> tuple[Float[Tensor, "n width"], Bool[Tensor, " n"]]:
    """Weights that fit best with the anchor in `slot` added, none below 0; False where rounding leaves it no weight.

    Where the unconstrained fit has a weight below 0, the weights go towards it until the first one is 0, which drops
    that anchor, and the fit is repeated without it.
    """
    used = (weight > 0).scatter(1, slot, True)
    pairs, goal = gram[index[:, :, None], index[:, None, :]], along.gather(1, index)
    eye = torch.eye(index.shape[1], dtype=torch.bool, device=index.device)
    settled = torch.ones(len(index), dtype=torch.bool, device=index.device)
    todo, first = torch.arange(len(index), device=index.device), True
    while len(todo):
        among = used[todo]
        system = torch.where(among[:, :, None] & among[:, None, :], pairs[todo], eye.to(pairs.dtype))
        factor, failed = torch.linalg.cholesky_ex(system)
        fit = torch.cholesky_solve((goal[todo] * among)[:, :, None], factor)[:, :, 0]
        sound = (failed == 0) & ~(first & (fit.gather(1, slot[todo])[:, 0] <= 0))
        settled[todo[~sound]], first = False, False
        todo, among, fit = todo[sound], among[sound], fit[sound]
        below = among & (fit <= 0)
        step = torch.where(below, weight[todo] / (weight[todo] - fit), 1.0)
        length, dropped = step.min(dim=1, keepdim=True)
        moved = weight[todo] + length * (fit - weight[todo])
        ends = below.any(dim=1, keepdim=True)
        gone = ends & (below & (moved <= 0) | torch.zeros_like(below).scatter(1, dropped, True))
        weight[todo] = torch.where(gone | ~among, 0.0, moved)
        used[todo] = among & ~gone
        todo = todo[ends[:, 0]]
    return weight, settled
