"""Sparse forward and hand-written backward of a TopK autoencoder.

Only k of n_features codes are active, so decoding and every gradient touch k rows a token instead of all of them.
`embedding_bag` sums weighted rows; grouped by feature instead of by token it is also the product with the transposed
codes. Exact: the tests compare values and gradients with a dense reference under autograd.
"""

import ctypes
import functools
import sys
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


class ByFeature(NamedTuple):
    """The active codes of a batch grouped by feature: the structure of the transposed code matrix."""

    order: Int[Tensor, " entries"]
    """Position in the flattened [batch, k] codes of each entry."""
    token: Int[Tensor, " entries"]
    """Row of the batch that each entry belongs to."""
    offsets: Int[Tensor, " n_features"]
    """Where each feature's entries begin."""


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks up to 32 MB, its limit, instead of handing them back to the system.

    A step allocates the same tensors as the one before; page faults on fresh ones cost up to a quarter of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def linear(x: Float[Tensor, "batch d_in"], weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "batch d_out"]:
    """`x @ weight.T` without autograd. On a CPU through oneDNN: exact fp32, up to twice MKL's speed on AMD."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)


def group_by_feature(indices: Int[Tensor, "batch k"], n_features: int) -> ByFeature:
    """Sort the active entries of a batch by feature; stable, so sums have one order and results repeat to the bit."""
    flat = indices.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=n_features)
    return ByFeature(order, order // indices.shape[1], counts.cumsum(0) - counts)


def weighted_rows(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], rows: Float[Tensor, "n_features d_model"]
) -> Float[Tensor, "batch d_model"]:
    """Σ_j values[b, j] · rows[indices[b, j]]."""
    return F.embedding_bag(indices, rows, per_sample_weights=values, mode="sum")


def transposed_product(
    values: Float[Tensor, "batch k"], grouped: ByFeature, x: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "n_features d_model"]:
    """Codesᵀ x: row i sums values[b, j] · x[b] over the entries with indices[b, j] = i."""
    weights = values.flatten()[grouped.order]
    return F.embedding_bag(grouped.token, x, grouped.offsets, per_sample_weights=weights, mode="sum")


@functools.cache
def _quiet_csr() -> None:
    """Take torch's once-a-process notice that CSR tensors are in beta: the three functions used here are tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=True)


def sampled_product(
    x: Float[Tensor, "batch d_model"], rows: Float[Tensor, "n_features d_model"], indices: Int[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """⟨x[b], rows[indices[b, j]]⟩ for the active entries only."""
    _quiet_csr()
    batch, k = indices.shape
    starts = torch.arange(0, batch * k + 1, k, device=x.device)
    pattern = torch.sparse_csr_tensor(
        starts, indices.flatten(), x.new_zeros(batch * k), (batch, len(rows)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, x, rows.T, beta=0.0).values().view(batch, k)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        return linear(weights, points.T.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        return linear(gradient.contiguous(), points), None


def product(
    weights: Float[Tensor, "n_features n_anchors"], points: Float[Tensor, "n_anchors d_model"]
) -> Float[Tensor, "n_features d_model"]:
    """Differentiable `weights @ points` at the speed of `linear`; gradient to `weights` only."""
    return _Product.apply(weights, points)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, atoms: Tensor, grouped: ByFeature) -> Tensor:
        ctx.save_for_backward(values, indices, atoms, *grouped)
        return weighted_rows(values, indices, atoms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, indices, atoms, *grouped = ctx.saved_tensors
        for_values = sampled_product(gradient, atoms, indices) if ctx.needs_input_grad[0] else None
        for_atoms = transposed_product(values, ByFeature(*grouped), gradient) if ctx.needs_input_grad[2] else None
        return for_values, None, for_atoms, None


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, x: Tensor, weight: Tensor, bias: Tensor, indices: Tensor, grouped: ByFeature
    ) -> Tensor:
        values = pre.gather(1, indices)
        ctx.save_for_backward(values > 0, x, weight, indices, *grouped)
        return values.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        active, x, weight, indices, *grouped = ctx.saved_tensors
        g = gradient * active
        for_x = weighted_rows(g, indices, weight) if ctx.needs_input_grad[1] else None
        for_weight = transposed_product(g, ByFeature(*grouped), x)
        for_bias = x.new_zeros(len(weight)).index_add_(0, indices.flatten(), g.flatten())
        return None, for_x, for_weight, for_bias, None, None


def decode(
    values: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    atoms: Float[Tensor, "n_features d_model"],
    grouped: ByFeature,
) -> Float[Tensor, "batch d_model"]:
    """Differentiable sum of the active atoms; gradients to `values` and `atoms`."""
    return _Decode.apply(values, indices, atoms, grouped)


def select(
    pre: Float[Tensor, "batch n_features"],
    x: Float[Tensor, "batch d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    indices: Int[Tensor, "batch k"],
    grouped: ByFeature,
) -> Float[Tensor, "batch k"]:
    """ReLU of the chosen pre-activations, where `pre` = x weightᵀ + bias was computed without autograd.

    Gradients to `x`, `weight` and `bias` use the chosen entries only, which is exact: the others have gradient zero.
    """
    return _Select.apply(pre, x, weight, bias, indices, grouped)
