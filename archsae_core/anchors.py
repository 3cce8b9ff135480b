"""Anchors C: k-means centroids of the training activations."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from archsae_core.config import ConfigError


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


def fit_anchors(x: Float[Tensor, "tokens d_model"], n_anchors: int, *, iterations: int, seed: int) -> Anchors:
    """Lloyd's k-means (scikit-learn) from `n_anchors` random distinct activations.

    k-means++ would cost as much as several Lloyd iterations at this size and is not what the field uses here.
    Raises ConfigError for fewer (distinct) activations than centroids.
    """
    if len(x) < n_anchors:
        raise ConfigError(f"n_anchors = {n_anchors}: only {len(x)} activations to cluster; lower it or raise tokens")
    points = x.numpy()
    start = _distinct_start(points, n_anchors, seed)
    with warnings.catch_warnings():
        # Fewer distinct clusters than asked for is checked below, with an error that names the fix.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = KMeans(n_anchors, init=start, n_init=1, max_iter=iterations).fit(points)
    occupancy = np.bincount(fit.labels_, minlength=n_anchors)
    spread = float(((points - points.mean(axis=0)) ** 2).sum(dtype=np.float64))
    return Anchors(
        torch.from_numpy(fit.cluster_centers_),
        torch.from_numpy(occupancy),
        float(fit.inertia_) / spread if spread else 0.0,
        int(fit.n_iter_),
    )


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


def summarize(anchors: Anchors) -> dict[str, float | int | list[float]]:
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
    quantiles = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0])
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
