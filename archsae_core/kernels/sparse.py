"""Sparse forward and hand-written backward of a TopK autoencoder.

Only k of n_features codes are active, so decoding and every gradient touch k rows a token instead of all of them.
`embedding_bag` sums weighted rows; grouped by feature instead of by token it is also the product with the transposed
codes. Exact: the tests compare values and gradients with a dense reference under autograd.
"""

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable

from archsae_core.kernels.processor import cache_bytes

COLUMNS = 512
"""Columns of wide rows that are summed at a time, so that all the rows' share of them fits the processor's cache."""
SAMPLED_COLUMNS = 1024
"""Columns that inner products run over at a time, for the same reason."""
CACHED_ROWS = 512
"""Rows worked on at a time where several passes are made over them, few enough to stay in the processor's cache."""


class ByFeature(NamedTuple):
    """The active codes of a batch grouped by feature: the structure of the transposed code matrix."""

    order: Int[Tensor, " entries"]
    """Position in the flattened [batch, k] codes of each entry."""
    token: Int[Tensor, " entries"]
    """Row of the batch that each entry belongs to."""
    offsets: Int[Tensor, " n_features"]
    """Where each feature's entries begin."""


def on_gpu(tensor: Tensor) -> bool:
    """Is it on a device that works ahead of the host, so that a look at a result makes both wait?"""
    return tensor.is_cuda


def linear(x: Float[Tensor, "batch d_in"], weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "batch d_out"]:
    """`x @ weight.T` without autograd. On a CPU through oneDNN: exact fp32, up to twice MKL's speed on AMD."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    with torch.autocast(x.device.type, enabled=False):  # around the language model, not here
        return F.linear(x, weight)


def group_by_feature(indices: Int[Tensor, "batch k"], n_features: int) -> ByFeature:
    """Sort the active entries of a batch by feature; stable, so sums have one order and results repeat to the bit."""
    flat, (batch, k) = indices.flatten(), indices.shape
    if on_gpu(flat):
        ordered, order = flat.sort(stable=True)
        offsets = torch.searchsorted(ordered, torch.arange(n_features, device=flat.device))
        return ByFeature(order, order // k, offsets)
    # the transpose of a sparse matrix, of which each entry is its own position: a sort in linear time
    codes = csr_array((np.arange(len(flat)), flat.numpy(), np.arange(0, len(flat) + 1, k)), shape=(batch, n_features))
    features = codes.tocsc()
    found = features.data, features.indices, features.indptr[:-1]
    return ByFeature(*(torch.from_numpy(values).long() for values in found))


def weighted_rows(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], rows: Float[Tensor, "n_features d_model"]
) -> Float[Tensor, "batch d_model"]:
    """Σ_j values[b, j] · rows[indices[b, j]], in float32; each step rounded to bfloat16 where `rows` are."""
    offsets = torch.arange(0, indices.numel(), indices.shape[1], device=indices.device)
    return _bags(indices.flatten(), rows, offsets, values.flatten())


def _bags(indices: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Float[Tensor, "bags width"]:
    """Weighted sums of rows, one for each offset; by blocks of columns where rows are wide and not in the cache.

    To put blocks of columns together again costs more than it saves where the cache holds all rows.
    """
    rows, weights = rows.detach(), weights.detach().to(rows.dtype)  # nothing is kept for autograd
    width, dtype = rows.shape[1], torch.promote_types(rows.dtype, torch.float32)
    if on_gpu(rows) or rows.nbytes < cache_bytes() or width < 2 * COLUMNS or width % COLUMNS:
        return F.embedding_bag(indices, rows, offsets, per_sample_weights=weights, mode="sum").to(dtype)
    blocks = width // COLUMNS
    narrow, first = rows.contiguous().view(-1, COLUMNS), indices * blocks
    sums = rows.new_empty(len(offsets), width, dtype=dtype)
    for block in range(blocks):
        part = F.embedding_bag(first + block, narrow, offsets, per_sample_weights=weights, mode="sum")
        sums[:, block * COLUMNS : (block + 1) * COLUMNS] = part
    return sums


def transposed_product(
    values: Float[Tensor, "batch k"], grouped: ByFeature, x: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "n_features d_model"]:
    """Codesᵀ x: row i sums values[b, j] · x[b] over the entries with indices[b, j] = i."""
    return _bags(grouped.token, x, grouped.offsets, values.flatten().index_select(0, grouped.order))


@functools.cache
def _quiet_csr() -> None:
    """Take torch's once-a-process notice that CSR tensors are in beta: the three functions used here are tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=True)


def sampled_entries(
    x: Float[Tensor, "batch d_model"],
    rows: Float[Tensor, "n_features d_model"],
    starts: Int[Tensor, " batch_1"],
    columns: Int[Tensor, " entries"],
) -> Float[Tensor, " entries"]:
    """⟨x[b], rows[i]⟩ for the entries (b, i) of a CSR pattern: where each row b starts, and the columns i."""
    _quiet_csr()
    found = x.new_zeros(len(columns))
    for a, b in zip(x.split(SAMPLED_COLUMNS, dim=1), rows.split(SAMPLED_COLUMNS, dim=1), strict=True):
        pattern = torch.sparse_csr_tensor(starts, columns, found, (len(x), len(rows)), check_invariants=False)
        found = torch.sparse.sampled_addmm(pattern, a, b.T).values()
    return found


def sampled_product(
    x: Float[Tensor, "batch d_model"],
    rows: Float[Tensor, "n_features d_model"],
    indices: Int[Tensor, "batch k"],
    grouped: ByFeature,
) -> Float[Tensor, "batch k"]:
    """⟨x[b], rows[indices[b, j]]⟩ for the active entries only; feature by feature, so that each row is read once."""
    starts = torch.cat([grouped.offsets, grouped.offsets.new_full((1,), indices.numel())])
    found = sampled_entries(rows, x, starts, grouped.token)
    return torch.empty_like(found).index_copy_(0, grouped.order, found).view_as(indices)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, points: Tensor, rounded: Tensor | None) -> Tensor:
        ctx.points = points if rounded is None else points.to(rounded.dtype)
        return multiply(weights if rounded is None else rounded, ctx.points)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return multiply(gradient, ctx.points.T), None, None


def multiply(a: Float[Tensor, "n m"], b: Float[Tensor, "m p"]) -> Float[Tensor, "n p"]:
    """`a @ b` in float32 without autograd; of numbers rounded to bfloat16 where `b` is."""
    if b.dtype == torch.bfloat16:
        return (a.bfloat16() @ b).float()
    return linear(a.contiguous(), b.T.contiguous())


def product(
    weights: Float[Tensor, "rows n_anchors"],
    points: Float[Tensor, "n_anchors d_model"],
    rounded: Float[Tensor, "rows n_anchors"] | None = None,
) -> Float[Tensor, "rows d_model"]:
    """Differentiable `multiply(weights, points)`, gradient to `weights` only.

    With `rounded`, the weights in bfloat16, product and gradient are those of rounded numbers.
    """
    return _Product.apply(weights, points, rounded)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, atoms: Tensor, grouped: ByFeature, rounded: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(values, indices, atoms, *grouped)
        ctx.dtype = atoms.dtype if rounded is None else rounded.dtype
        return weighted_rows(values, indices, atoms if rounded is None else rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, indices, atoms, *grouped = ctx.saved_tensors
        grouped = ByFeature(*grouped)
        for_values = sampled_product(gradient, atoms, indices, grouped) if ctx.needs_input_grad[0] else None
        for_atoms = transposed_product(values, grouped, gradient.to(ctx.dtype)) if ctx.needs_input_grad[2] else None
        return for_values, None, for_atoms, None, None


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, indices: Tensor, grouped: Any
    ) -> Tensor:
        ctx.save_for_backward(values > 0, x, weight, indices, *grouped)
        return values.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        active, x, weight, indices, *grouped = ctx.saved_tensors
        g = gradient * active
        for_weight = transposed_product(g, ByFeature(*grouped), x)
        for_bias = x.new_zeros(len(weight)).index_add_(0, indices.flatten(), g.flatten())
        return None, None, -(for_bias @ weight), for_weight, for_bias, None, None


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12)
        unit = rows / norms
        ctx.save_for_backward(unit, norms)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found = torch.empty_like(gradient)
        blocks = (rows.split(CACHED_ROWS) for rows in (gradient, *ctx.saved_tensors, found))
        for g, unit, norms, out in zip(*blocks, strict=True):
            torch.addcmul(g, unit, torch.linalg.vecdot(g, unit, dim=1)[:, None], value=-1, out=out).div_(norms)
        return found


def unit_rows(rows: Float[Tensor, "n_features d_model"]) -> Float[Tensor, "n_features d_model"]:
    """Rows scaled to norm 1, differentiable, with half the passes over memory of torch's `normalize`."""
    return _UnitRows.apply(rows)


def decode(
    values: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    atoms: Float[Tensor, "n_features d_model"],
    grouped: ByFeature,
    rounded: Float[Tensor, "n_features d_model"] | None = None,
) -> Float[Tensor, "batch d_model"]:
    """Differentiable sum of the active atoms; gradients to `values` and `atoms`.

    With `rounded`, the atoms in bfloat16, the sum and the gradient to `atoms` are rounded too.
    """
    return _Decode.apply(values, indices, atoms, grouped, rounded)


def select(
    values: Float[Tensor, "batch k"],
    x: Float[Tensor, "batch d_model"],
    shift: Float[Tensor, " d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    indices: Int[Tensor, "batch k"],
    grouped: ByFeature,
) -> Float[Tensor, "batch k"]:
    """ReLU of the chosen pre-activations, where `values` = (x weightᵀ + bias)[b, indices] were found without autograd.

    `x` is data less `shift`. Gradients to `shift`, `weight` and `bias` use the chosen entries only, which is exact: the
    others have gradient zero.
    """
    return _Select.apply(values, x, shift, weight, bias, indices, grouped)
