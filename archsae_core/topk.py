"""The k largest pre-activations of every token, exactly, at the cost of little more than one matrix product.

torch's top-k looks at every feature of every token as long as the product itself takes. Here a lower bound on a token's
k-th largest value comes from the maxima of groups of features: k groups reach it, so at least k features do. Few
features pass it, and only those are sorted. Where the processor multiplies bfloat16 fast, the bound is taken from a
bfloat16 product, widened by that product's largest possible error, and what passes is computed again in float32: the
support is that of float32 arithmetic, not an approximation of it.
"""

import functools

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core import kernels

GROUPS_PER_CODE = 4
"""Groups for each of the k codes: fewer make the bound loose, more make finding it dear."""
ERROR = 2**-8
"""Largest relative error of a product of two numbers that were both rounded to bfloat16's 8 bits."""


@functools.cache
def fast_bfloat16() -> bool:
    """Does this processor have instructions for bfloat16 products? Without them they are slower than float32's."""
    found = getattr(torch.cpu, "get_capabilities", dict)()  # older torch: not known, so no
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def top_k(
    x: Float[Tensor, "batch d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    k: int,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest entries of `x @ weight.T + bias` in each row, in no order, and their features. Without autograd."""
    n_groups = GROUPS_PER_CODE * k
    with torch.no_grad():
        if x.device.type != "cpu" or len(weight) % n_groups or len(weight) < 4 * n_groups:
            found = kernels.linear(x, weight).add_(bias).topk(k, dim=1, sorted=False)
            return found.values, found.indices
        if not fast_bfloat16():
            pre = kernels.linear(x, weight).add_(bias)
            starts, columns = _at_least(pre, _bound(pre, k, n_groups))
            values = pre.flatten()[_flat(starts, columns, pre.shape[1])]
        else:
            pre = torch.nn.functional.linear(x.bfloat16(), weight.bfloat16()).add_(bias.bfloat16())
            bound = _bound(pre, k, n_groups).float()
            starts, columns = _at_least(pre, (bound - 2 * _error(x, weight, bias, bound)).bfloat16())
            values = kernels.sampled_entries(x, weight, starts, columns).add_(bias.index_select(0, columns))
        return _largest(values, starts, columns, k)


def _bound(pre: Tensor, k: int, n_groups: int) -> Float[Tensor, "batch 1"]:
    """A value that at least k entries of each row reach."""
    groups = pre.view(len(pre), -1, n_groups)
    if pre.dtype == torch.float32:
        return _kth_largest(groups.amax(dim=1), k)
    # bfloat16 is unknown to numpy; read as integers, numbers above 0 keep their order
    bound = _kth_largest(groups.view(torch.int16).amax(dim=1), k)
    if (bound > 0).all():
        return bound.view(torch.bfloat16)
    return groups.amax(dim=1).topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


def _kth_largest(rows: Tensor, k: int) -> Tensor:
    """As a column. numpy takes a twentieth of the time of torch's top-k."""
    return torch.from_numpy(np.partition(rows.numpy(), -k, axis=1)[:, [-k]])


def _error(x: Tensor, weight: Tensor, bias: Tensor, bound: Tensor) -> Float[Tensor, "batch 1"]:
    """How far a bfloat16 pre-activation near `bound` can be from the exact one: by Cauchy and Schwarz, then rounding.

    Larger ones err by more, in proportion, and so stay above the bound.
    """
    product = x.norm(dim=1, keepdim=True) * weight.norm(dim=1).max()
    return ERROR * (product + bias.abs().max() + bound.abs())


def _at_least(pre: Tensor, bound: Tensor) -> tuple[Int[Tensor, " batch_1"], Int[Tensor, " entries"]]:
    """Entries of `pre` that reach their row's bound, as a CSR pattern: where each row starts, and the columns."""
    batch, n_features = pre.shape
    if pre.dtype == torch.bfloat16 and (bound > 0).all():
        reached = pre.view(torch.int16).numpy() >= bound.view(torch.int16).numpy()  # in the same order above 0
    else:
        reached = (pre < bound).logical_not_().numpy()
    # NaN reaches every bound, to be found by who asked; numpy's flatnonzero is ten times faster than torch's
    flat = np.flatnonzero(reached)
    before = np.arange(batch + 1) * n_features
    starts = np.searchsorted(flat, before)
    return torch.from_numpy(starts), torch.from_numpy(flat - np.repeat(before[:-1], np.diff(starts)))


def _flat(starts: Tensor, columns: Tensor, n_features: int) -> Int[Tensor, " entries"]:
    rows = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
    return rows * n_features + columns


def _largest(values: Tensor, starts: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of a CSR matrix whose rows all have at least k entries."""
    counts = starts.diff()[:, None].numpy()
    padded = np.full((len(counts), counts.max()), -np.inf, np.float32)
    padded[np.arange(counts.max()) < counts] = values.numpy()
    found = torch.from_numpy(padded).topk(k, dim=1, sorted=False)
    return found.values, columns[starts[:-1, None] + found.indices]
