"""What public functions ask of their arguments, one function a kind; each error names the argument and the fix."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from archsae_core.config import ConfigError

BLOCK_ROWS = 4096
"""Rows whose sum tells whether all of them are finite."""
SUM_TOLERANCE = 1e-3
"""How far the sum of a row of W may be off 1: more than rounding to bfloat16 leaves in it."""


def require_matrix(
    name: str, x: Any, *, width: int | None = None, width_of: str = "d_model", empty: bool = False
) -> None:
    """`x` must be a floating-point tensor [n, `width`]; None allows any width. Its entries are not read.

    n is 0 only where `empty`.
    """
    if not torch.is_tensor(x):
        fix = "torch.from_numpy(…) makes one of an array" if hasattr(x, "__array__") else "pass one"
        raise ConfigError(f"{name} is no tensor but a {type(x).__name__}: {fix}")
    if not x.is_floating_point():
        raise ConfigError(f"{name} holds {_dtype(x)}: it must be of a floating-point dtype, such as float32")
    shape = list(x.shape)
    if x.ndim != 2:
        fix = "flatten(0, -2) makes one of it" if x.ndim > 2 else "[None] makes one of a single row"
        raise ConfigError(f"{name} has the shape {shape}: it must be a matrix; {fix}")
    if width is not None and x.shape[1] != width:
        raise ConfigError(f"{name} has the shape {shape}: it must have {width} columns, {width_of}")
    if not empty and 0 in shape:
        raise ConfigError(f"{name} has the shape {shape}: it must have at least one row and one column")


def require_shape(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """`x` must be a tensor of exactly this shape: torch would repeat a smaller one in silence."""
    if not torch.is_tensor(x) or tuple(x.shape) != shape:
        held = list(x.shape) if torch.is_tensor(x) else type(x).__name__
        raise ConfigError(f"{name} is {held}: it must be a tensor of the shape {list(shape)}")


def require_finite(name: str, x: Tensor) -> None:
    """No entry may be NaN or infinite, nor the sum of squares of a row beyond float32, in which all is computed.

    By one norm a block, looked at more closely where it is not finite.
    """
    x = x.detach().reshape(1) if x.ndim == 0 else x.detach()
    for start, part in zip(range(0, len(x), BLOCK_ROWS), x.split(BLOCK_ROWS), strict=False):
        rows = part.float().reshape(len(part), -1)
        if torch.linalg.vector_norm(rows).isfinite():
            continue
        finite = rows.square().sum(dim=1).isfinite()
        if not finite.all():
            row = int((~finite).nonzero()[0, 0])
            if part[row].isfinite().all():
                largest = f"{name}: row {start + row} holds {float(part[row].abs().max()):.2g}, whose square is beyond"
                raise ConfigError(f"{largest} float32: divide all rows by one number first")
            where = f"{name}: row {start + row} holds NaN or infinity"
            raise ConfigError(f"{where}: leave such rows out, or mend what made them")


def require_rows(name: str, x: Any, **sizes: Any) -> None:
    """`require_matrix`, and every entry finite."""
    require_matrix(name, x, **sizes)
    require_finite(name, x)


def require_same_shape(names: str, a: Any, b: Any) -> None:
    """Two matrices of one size, rows that are paired; torch would repeat a single row in silence."""
    for x in (a, b):
        require_matrix(names, x)
    if a.shape != b.shape:
        raise ConfigError(f"{names} have the shapes {list(a.shape)} and {list(b.shape)}: they must be the same")


def require_directions(name: str, rows: Tensor) -> None:
    """No row may be 0, since it is to be scaled to norm 1."""
    zero = (rows.detach() == 0).all(dim=1).nonzero().flatten()  # a norm below 1e-23 is 0 in float32
    if len(zero):
        raise ConfigError(f"{name}: row {int(zero[0])} is 0 and has no direction: leave it out, or unit_norm=False")


def require_mixing(name: str, weights: Tensor) -> None:
    """Rows must be at or above 0 and sum to 1, or be 0: such an atom has no hull point and is Λ alone."""
    weights = weights.detach()
    sums, smallest = weights.sum(dim=1), weights.amin(dim=1)
    mixes = (smallest >= 0) & (((sums - 1).abs() <= SUM_TOLERANCE) | (sums == 0))
    if not mixes.all():
        row = int((~mixes).nonzero()[0, 0])
        raise ConfigError(
            f"{name}: row {row} has the sum {float(sums[row]):g} and the smallest entry {float(smallest[row]):g}: rows "
            "must be at or above 0 and sum to 1, as those of rows.relu() / rows.relu().sum(dim=1, keepdim=True)"
        )


def binary(name: str, labels: Any, *, both: bool = False) -> Bool[np.ndarray, " n"]:
    """Labels of two classes as booleans: numbers would index rows. With `both`, each class must have one."""
    found = np.asarray(labels)
    if found.ndim != 1 or not np.isin(found, (0, 1)).all():
        raise ConfigError(f"{name} must hold True and False, or 1 and 0, in one dimension")
    if both and (found == found[:1]).all():
        raise ConfigError(f"{name}: all {len(found)} are of one class: a probe needs both")
    return found.astype(bool)


def require_codes(name: str, codes: Any, n_features: int) -> None:
    """Codes must be finite, and of features that there are: native code reads and writes at these places."""
    require_rows(f"{name}.values", codes.values, empty=True)
    require_shape(f"{name}.indices", codes.indices, tuple(codes.values.shape))
    require_indices(f"{name}.indices", codes.indices, n_features, "are they of another dictionary?")


def require_indices(name: str, indices: Tensor, size: int, fix: str = "") -> None:
    """Each index must be one of `size` places."""
    if indices.dtype != torch.int64:
        raise ConfigError(f"{name} holds {_dtype(indices)}: it must hold int64, as the indices of torch.topk")
    if ((indices < 0) | (indices >= size)).any():
        raise ConfigError(f"{name} must lie between 0 and {size - 1}" + f": {fix}" * bool(fix))


def require_places(name: str, indices: Tensor, size: int) -> None:
    """Each row of indices must name different ones of `size` places."""
    require_indices(name, indices, size)
    if indices.shape[1] > 1 and (indices.sort(dim=1).values.diff(dim=1) == 0).any():
        raise ConfigError(f"{name}: the indices of a row must differ; add up the values of equal ones")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
