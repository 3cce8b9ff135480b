"""Anchors C: k-means centroids of the training activations."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.checks import require_finite, require_matrix
from archsae_core.config import ConfigError, require_whole
from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.processor import fast_bfloat16
from archsae_core.progress import track

CHUNK = 8192
"""Rows compared with all centroids at a time."""
FAR = 4.0
"""Norm of the mean, in spreads, from which it is taken off first: rounding drowns the differences of larger numbers."""


class Anchors(NamedTuple):
    """Result of `fit_anchors`."""

    points: Float[Tensor, "n_anchors d_model"]
    """Centroids, in the units of the input."""
    occupancy: Int[Tensor, " n_anchors"]
    """Training activations assigned to each centroid."""
    unexplained: float
    """Inertia over the sum of squares around the mean: 0 is perfect, 1 as good as one centroid."""
    iterations: int
    """Lloyd iterations run."""


def fit_anchors(x: Float[Tensor, "tokens d_model"], n_anchors: int, *, iterations: int = 20, seed: int = 0) -> Anchors:
    """Lloyd's k-means from `n_anchors` random distinct activations, until assignments settle or for `iterations`.

    `x` in the units that the dictionary is to have: `normalizer.normalize(x)`. Anchors as centroids are those of Fel et
    al. (2025, arXiv 2502.12892). k-means++ would cost as much as several Lloyd iterations at this size and is not what
    the field uses here. Where the processor multiplies bfloat16 fast, distances are compared in it, except for the
    assignment that is returned; a mean far from 0 is taken off first and added again, which k-means does not mind.
    Raises ConfigError for fewer (distinct) activations than centroids, for NaN and infinity, and for what is no matrix
    of a floating-point dtype; k-means itself is in float32.
    """
    require_whole("n_anchors", n_anchors)
    require_whole("iterations", iterations)
    require_matrix("x", x, empty=True)
    if len(x) < n_anchors:
        raise ConfigError(f"n_anchors = {n_anchors}: only {len(x)} activations to cluster; lower it or raise tokens")
    require_finite("x", x)
    x = x.detach().float()
    mean = x.mean(dim=0)
    if mean.norm() > FAR * (x - mean).norm() / len(x) ** 0.5:
        found = _fit(x - mean, n_anchors, iterations, seed)
        return found._replace(points=found.points + mean.cpu())
    return _fit(x, n_anchors, iterations, seed)


def _fit(x: Float[Tensor, "tokens d_model"], n_anchors: int, iterations: int, seed: int) -> Anchors:
    points = torch.from_numpy(_distinct_start(x.cpu().numpy(), n_anchors, seed)).to(x.device)
    labels, done = torch.full((len(x),), -1, device=x.device), 0
    for _ in track(range(iterations), f"k-means, {n_anchors} anchors", unit="iteration"):
        before, labels = labels, nearest_anchor(x, points)
        if torch.equal(before, labels):
            break
        points, done = _means(x, labels, points), done + 1
    labels = nearest_anchor(x, points, rounded=False)
    spread = float((x - x.mean(dim=0)).square().sum(dtype=torch.float64))
    inertia = sum(
        float((part - points[label]).square().sum(dtype=torch.float64))
        for part, label in zip(x.split(CHUNK), labels.split(CHUNK), strict=True)
    )
    occupancy = torch.bincount(labels, minlength=n_anchors)
    return Anchors(points.cpu(), occupancy.cpu(), inertia / spread if spread else 0.0, done)


def nearest_anchor(
    x: Float[Tensor, "tokens d_model"], points: Float[Tensor, "n_anchors d_model"], *, rounded: bool | None = None
) -> Int[Tensor, " tokens"]:
    """Index of the nearest point of each row: the largest ⟨x, c⟩ − ‖c‖²/2, `rounded` in bfloat16.

    `rounded` None rounds where that is faster: on a processor that multiplies bfloat16 fast.
    """
    half = points.square().sum(dim=1) / 2
    if not (rounded or (rounded is None and fast_bfloat16() and not x.is_cuda)):
        return torch.cat([kernels.linear(part, points).sub_(half).argmax(dim=1) for part in x.split(CHUNK)])
    weight, bias = points.bfloat16(), -half.bfloat16()
    scores = (torch.nn.functional.linear(part.bfloat16(), weight, bias) for part in x.split(CHUNK))
    return torch.cat([score.max(dim=1).indices for score in scores])  # torch's argmax is four times slower in bfloat16


def _means(x: Tensor, labels: Tensor, points: Tensor) -> Float[Tensor, "n_anchors d_model"]:
    """Mean of each cluster; an empty one moves to the row farthest from its own mean."""
    grouped = kernels.group_by_feature(labels[:, None], len(points))
    counts = torch.bincount(labels, minlength=len(points))
    ones = torch.ones(len(x), 1, device=x.device, dtype=x.dtype)
    means = kernels.transposed_product(ones, grouped, x) / counts.clamp_min(1)[:, None]
    if empty := (counts == 0).nonzero().flatten().tolist():
        distance = (x - means[labels]).square().sum(dim=1)
        means[empty] = x[distance.topk(len(empty)).indices]
    return means


def _distinct_start(points: np.ndarray, n_anchors: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(points))
    # Twice as many candidates as needed suffice unless activations repeat; only then look at all of them.
    for candidates in (order[: 2 * n_anchors], order):
        distinct = np.unique(points[candidates], axis=0, return_index=True)[1]
        if len(distinct) >= n_anchors:
            return points[candidates[np.sort(distinct)[:n_anchors]]]
    raise ConfigError(
        f"n_anchors = {n_anchors}: only {len(distinct)} distinct activations to cluster; lower it or vary the text"
    )


def anchor_statistics(anchors: Anchors) -> dict[str, float | int | list[float]]:
    """Checks of a fit: occupancy, distinctness, unexplained variance, norms. JSON-able.

    `nearest_cosine` is each centroid's largest cosine with another one; `duplicates` counts centroids closer than
    a millionth of the median norm to another one.
    """
    points = anchors.points
    norms = points.norm(dim=1)
    cosines = torch.nn.functional.normalize(points, dim=1) @ torch.nn.functional.normalize(points, dim=1).T
    cosines.fill_diagonal_(-1.0)
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(float("inf"))
    quantiles = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0], dtype=torch.float32)
    return {
        "n_anchors": len(points),
        "unexplained": anchors.unexplained,
        "iterations": anchors.iterations,
        "empty": int((anchors.occupancy == 0).sum()),
        "duplicates": int((distances.min(dim=1).values < 1e-6 * norms.median()).sum()) // 2,
        "occupancy_quantiles": torch.quantile(anchors.occupancy.float(), quantiles).tolist(),
        "norm_quantiles": torch.quantile(norms, quantiles).tolist(),
        "nearest_cosine_quantiles": torch.quantile(cosines.max(dim=1).values, quantiles).tolist(),
        "median_norm": float(norms.median()),
    }
