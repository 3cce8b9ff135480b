"""The k largest pre-activations of every token, exactly, at the cost of little more than one matrix product.

torch's top-k looks at every feature of every token as long as the product itself takes. Here a lower bound on a token's
k-th largest value comes from the maxima of groups of features: k groups reach it, so at least k features do. Few
features pass it, and only those are sorted. Where the processor multiplies bfloat16 fast, the bound is taken from a
bfloat16 product, widened by that product's largest possible error, and what passes is computed again in float32: the
support is that of float32 arithmetic, not an approximation of it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.processor import fast_bfloat16

GROUPS_PER_CODE = 4
"""Groups for each of the k codes: fewer make the bound loose, more make finding it dear."""
ROUNDING = 2**-8
"""Largest relative error of a number rounded to bfloat16's 8 bits."""
TWICE_ROUNDED = 2.25 * ROUNDING
"""Of a product that is rounded, and once more with its bias; with room for what is of second order."""
SUMMATION = 2**-23
"""Largest errors of two sums of d float32 products, in d times the norms of what is multiplied."""


def top_k(
    x: Float[Tensor, "batch d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    k: int,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest entries of `x @ weight.T + bias` in each row, in no order, and their features. Without autograd."""
    n_groups = GROUPS_PER_CODE * k
    with torch.no_grad():
        grouped = len(weight) % math.lcm(8, n_groups) == 0 and len(weight) >= 4 * n_groups
        if not kernels.on_gpu(x) and len(x) and grouped:
            candidates = (_rescored if fast_bfloat16() else _computed)(x, weight, bias, k, n_groups)
            if (largest := _largest(candidates, k)) is not None:
                return largest
        found = kernels.linear(x, weight).add_(bias).topk(k, dim=1, sorted=False)
        return found.values, found.indices


def _computed(x: Tensor, weight: Tensor, bias: Tensor, k: int, n_groups: int) -> csc_array:
    """Candidates for the k largest: features in rows, tokens in columns."""
    pre = kernels.linear(weight, x).add_(bias[:, None])
    starts, tokens = _reached(pre, _bound(pre, k, n_groups))
    values = pre.numpy()[np.repeat(np.arange(len(pre)), np.diff(starts)), tokens]
    return csr_array((values, tokens, starts), shape=pre.shape).tocsc()


def _rescored(x: Tensor, weight: Tensor, bias: Tensor, k: int, n_groups: int) -> csc_array:
    """`_computed` by a product in bfloat16; candidates alone are computed in float32."""
    features, tokens = _round(weight), _round(x)
    pre = torch.nn.functional.linear(features.rows, tokens.rows).add_(bias.bfloat16()[:, None])
    pre = _in_order(pre.view(torch.int16))
    error = _error(features, tokens) + TWICE_ROUNDED * bias.abs().max()
    bound = _in_order(_bound(pre, k, n_groups)).view(torch.bfloat16).float()
    bound = _within(_within(bound, error), error)
    bound = (bound - ROUNDING * bound.abs()).bfloat16()
    starts, columns = _reached(pre, _in_order(bound.view(torch.int16)))
    # each row of `weight` is read once
    values = kernels.sampled_entries(weight, x, torch.from_numpy(starts), torch.from_numpy(columns)).numpy()
    values += np.repeat(bias.numpy(), np.diff(starts))
    return csr_array((values, columns, starts), shape=pre.shape).tocsc()


class _Rounded(NamedTuple):
    """Rows in bfloat16, their norms before, and how far each one was moved."""

    rows: Float[Tensor, "n d_model"]
    norms: Float[Tensor, " n"]
    errors: Float[Tensor, " n"]


def _round(rows: Float[Tensor, "n d_model"]) -> _Rounded:
    rounded, norms, errors = torch.empty_like(rows, dtype=torch.bfloat16), [], []
    for before, after in zip(rows.split(kernels.CACHED_ROWS), rounded.split(kernels.CACHED_ROWS), strict=True):
        norms.append(torch.linalg.vector_norm(before, dim=1))
        errors.append(torch.linalg.vector_norm(after.copy_(before).float().sub_(before), dim=1))
    return _Rounded(rounded, torch.cat(norms), torch.cat(errors))


def _error(features: _Rounded, tokens: _Rounded) -> Float[Tensor, " batch"]:
    """How far a product of rounded rows can be from the exact one, before it is rounded itself.

    By Cauchy and Schwarz, for the largest of the features' norms and errors.
    """
    norm, error = features.norms.max(), features.errors.max()
    summation = SUMMATION * tokens.rows.shape[1] * (norm + error)
    return tokens.errors * norm + (tokens.norms + tokens.errors) * (error + summation)


def _within(bound: Tensor, error: Tensor) -> Float[Tensor, " batch"]:
    """What a value that reaches `bound` before it is off by `error`, and rounded, still reaches after."""
    return bound - error - TWICE_ROUNDED * (bound.abs() + error)


def _in_order(bits: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Integers in the order of the bfloat16 numbers whose bits are given, -0 before 0; of such integers, the bits.

    numpy does not know bfloat16, and torch takes several times as long to compare it.
    """
    return (bits >> 15).bitwise_and_(0x7FFF).bitwise_xor_(bits)


def _bound(pre: Tensor, k: int, n_groups: int) -> Tensor:
    """[batch], a value that at least k entries of each column of `pre` [n_features, batch] reach."""
    groups = pre.view(-1, n_groups, pre.shape[1]).amax(dim=0)
    return torch.from_numpy(_kth_largest(groups.T.contiguous().numpy(), k))


def _kth_largest(rows: np.ndarray, k: int) -> np.ndarray:
    """Of each row. numpy sorts faster than torch finds the k largest; its partition is slow where many are equal."""
    return np.sort(rows, axis=1)[:, -k].copy()


def _reached(pre: Tensor, bound: Tensor) -> tuple[Int[np.ndarray, " n_features_1"], Int[np.ndarray, " entries"]]:
    """Entries of `pre` that reach their column's bound, as a CSR pattern: where each row starts, and the columns."""
    reached = (pre >= bound).numpy()
    # few are: to look at eight at a time first takes half the time of numpy's flatnonzero
    eights = reached.ravel().view(np.uint64)
    some = np.flatnonzero(eights != 0)
    inside = np.flatnonzero(eights[some].view(np.bool_))
    flat = 8 * some[inside >> 3] + (inside & 7)
    before = np.arange(len(pre) + 1) * pre.shape[1]
    starts = np.searchsorted(flat, before)
    return starts, flat - np.repeat(before[:-1], np.diff(starts))


def _largest(candidates: csc_array, k: int) -> tuple[Tensor, Tensor] | None:
    """The k largest values of each column and their rows; None where a k-th largest is not a finite number."""
    counts, batch = np.diff(candidates.indptr)[:, None], candidates.shape[1]
    padded = np.full((batch, max(k, counts.max())), -np.inf, np.float32)
    padded[np.arange(padded.shape[1]) < counts] = candidates.data
    kth = _kth_largest(padded, k)
    if not np.isfinite(kth).all():
        return None
    chosen = np.flatnonzero(candidates.data >= np.repeat(kth, counts[:, 0]))
    if len(chosen) != batch * k:  # some are equal
        found = torch.from_numpy(padded).topk(k, dim=1, sorted=False).indices.numpy()
        chosen = (candidates.indptr[:-1, None] + found).ravel()
    values, features = candidates.data[chosen], candidates.indices[chosen].astype(np.int64)
    return torch.from_numpy(values).view(batch, k), torch.from_numpy(features).view(batch, k)
