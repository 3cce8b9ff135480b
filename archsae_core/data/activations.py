"""Activations of one split: memory-mapped rows, which of them are kept, their statistics, centring and scale."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int16, Int32, Int64
from torch import Tensor

from archsae_core.checks import require_finite, require_matrix
from archsae_core.config import FRAMES, ConfigError, require_choice
from archsae_core.data.extraction import INDEX_FILE, ActivationError, open_rows
from archsae_core.data.extraction import extract as extract
from archsae_core.tensor_files import read_tensors

CHUNK_ROWS = 4096
"""Rows held in memory at a time by a pass over a whole set."""
EQUAL = 1e-25
"""Mean square distance of rows from their mean, as a share of the mean's square, up to which it is rounding."""


class Normalizer(NamedTuple):
    """Raw to normalised activations: x_n = (x − shift)·scale with E‖x_n‖² = d_model over the kept training rows."""

    mean: Float32[Tensor, " d_model"]
    """Of the kept training rows, in either frame."""
    scale: float | Float[Tensor, ""]
    frame: str = "centred"
    """`centred`: the mean is subtracted; `raw`: nothing is."""

    @property
    def shift(self) -> Float32[Tensor, " d_model"]:
        """What is subtracted: the mean in the centred frame, 0 in the raw one. Raises ConfigError for another frame."""
        require_choice("frame", self.frame, FRAMES)
        return self.mean if self.frame == "centred" else torch.zeros_like(self.mean)

    def normalize(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Raw to normalised activations. Raises ConfigError for what is no floating-point matrix of this width."""
        require_matrix("x", x, width=len(self.mean), empty=True)
        return (x - self.shift).mul_(self.scale)


class _Moments(NamedTuple):
    mean: Float[Tensor, " d_model"]
    """μ, in float64."""
    distance: float
    """E‖x − μ‖"""
    square_distance: float
    """E‖x − μ‖²"""


def _moments_of(chunks: Callable[[], Iterable[Tensor]], n: int) -> _Moments:
    """Of the n rows in all chunks. In two passes, since E‖x‖² − ‖μ‖² cancels where the mean is large."""
    mean = sum(chunk.double().sum(dim=0) for chunk in chunks()) / n
    distance = square = 0.0
    for chunk in chunks():
        squares = (chunk.double() - mean).square().sum(dim=1)
        distance += squares.sqrt().sum().item()
        square += squares.sum().item()
    return _Moments(mean, distance / n, square / n)


@dataclass(frozen=True)
class ActivationSet:
    """Residual stream at every position but 0 of every window of one split, in the order of the windows."""

    x: Float[Tensor, "n_rows d_model"]
    """Raw activations, bfloat16 or float32, memory-mapped: index them, or use `gather`."""
    document: Int32[Tensor, " n_rows"]
    """Index into `Corpus.texts`."""
    position: Int16[Tensor, " n_rows"]
    """Position in the window, from 1."""
    token: Int32[Tensor, " n_rows"]
    """Id of the token at that position."""
    window: Int32[Tensor, " n_rows"]
    """Index into `TokenSet.ids`."""
    norm: Float32[Tensor, " n_rows"]
    """‖x‖ of each row."""
    position0_norm: Float32[Tensor, " n_windows"]
    """‖x‖ at position 0 of each window, whose rows are not stored."""
    threshold: float
    """Rows with a larger norm are outliers."""
    kept: Int64[Tensor, " n_kept"]
    """Rows that are no outliers, in order."""

    def gather(self, rows: Int[Tensor, " n"] | Int[np.ndarray, " n"]) -> Float32[Tensor, "n d_model"]:
        """Raw activations of `rows` (indices into `x`, in any order), read from disk, as float32."""
        return self.x[torch.as_tensor(rows)].float()

    @cached_property
    def stats(self) -> dict[str, float | int]:
        """What was dropped and how the kept rows are spread; norms are in the model's own units.

        `gamma` is ‖μ‖ / E‖x − μ‖: how far the common mean inflates cosines of uncentred directions.
        """
        moments = self._moments
        mean_norm = moments.mean.norm().item()
        return {
            "n_rows": len(self.norm),
            "n_kept": len(self.kept),
            "n_position0_dropped": len(self.position0_norm),
            "n_outliers_dropped": len(self.norm) - len(self.kept),
            "median_norm": _median(self.norm),
            "max_norm": self.norm.max().item(),
            "position0_norm": _median(self.position0_norm),
            "outlier_threshold": self.threshold,
            "d_model": self.x.shape[1],
            "mean_norm": mean_norm,
            "spread": moments.distance,
            "gamma": mean_norm / moments.distance if moments.distance else math.inf,
        }

    @cached_property
    def _moments(self) -> _Moments:
        return _moments_of(lambda: (self.x[rows] for rows in self.kept.split(CHUNK_ROWS)), len(self.kept))


def open_activations(folder: Path, outlier_factor: float, threshold: float | None = None) -> ActivationSet:
    """Open what `extract` wrote. Rows with a norm above `threshold` are left out of `kept`.

    Without a threshold it is `outlier_factor` times the median norm; the other splits are opened with that of the
    training split (`train.threshold`). Raises ConfigError naming `outlier_factor` where no row is left.
    """
    index = read_tensors(folder / INDEX_FILE).tensors
    if threshold is None:
        threshold = outlier_factor * _median(index["norm"])
    kept = (index["norm"] <= threshold).nonzero().flatten()
    if len(kept) == 0:
        raise ConfigError(f"outlier_factor = {outlier_factor}: every activation counts as an outlier: raise it")
    return ActivationSet(x=open_rows(folder), **index, threshold=threshold, kept=kept)


def fit_normalizer(train: ActivationSet | Float[Tensor, "tokens d_model"], frame: str = "centred") -> Normalizer:
    """Mean and scale of a set's kept rows, or of a tensor's, in a frame (`FRAMES`); accumulated in float64.

    `centred`: E‖(x − mean)·scale‖² = d_model; `raw`: E‖x·scale‖² = d_model. Raises ConfigError for another frame or
    what is no floating-point matrix, NaN and infinity, and ActivationError where all rows are equal.
    """
    require_choice("frame", frame, FRAMES)
    is_set = isinstance(train, ActivationSet)
    x = train.x if is_set else train
    require_matrix("train", x)
    x = x.detach()
    if not is_set:  # a set's rows were looked at as they were read
        require_finite("train", x)
    moments = train._moments if is_set else _moments_of(lambda: x.split(CHUNK_ROWS), len(x))
    if not math.isfinite(moments.square_distance):
        raise ActivationError("train holds NaN or infinity: leave such rows out, or mend what made them")
    # 0 for equal float32 rows, of which a sum in float64 rounds nowhere; of float64 rows it leaves their rounding
    if moments.square_distance <= EQUAL * moments.mean.square().sum().item():
        raise ActivationError("layer: all activations are equal there: choose another layer, or check the model")
    square = moments.square_distance + (moments.mean.square().sum().item() if frame == "raw" else 0.0)
    return Normalizer(moments.mean.float(), math.sqrt(x.shape[1] / square), frame)


def _median(values: Float32[Tensor, " n"]) -> float:
    return float(np.median(values.numpy()))
