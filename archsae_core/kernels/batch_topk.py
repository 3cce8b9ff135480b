"""The k·batch largest pre-activations of a batch, and those above a threshold: as many as each token needs.

Both are found among the largest few of each token, which `top_k` gives; where some token may need more, twice as many
are looked at. What a token does not need has the value 0, so that codes have one width and gradients pass it by.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.kernels.topk import top_k

WIDTH = 4
"""Entries of a token looked at first, in multiples of k."""


def batch_top_k(
    x: Float[Tensor, "batch d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    k: int,
) -> tuple[Float[Tensor, "batch width"], Int[Tensor, "batch width"]]:
    """The k·batch largest entries of ReLU(x weightᵀ + bias), and their features; others are 0. Without autograd.

    `width` is that of the token with the most. Of equal entries at the edge some are taken, so that none is too many.
    """
    values, indices, complete = _largest(x, weight, bias, WIDTH * k)
    while True:
        chosen = values.flatten().topk(min(k * len(x), values.numel()), sorted=False).indices
        active = torch.zeros_like(values, dtype=torch.bool).view(-1).index_fill_(0, chosen, True).view_as(values)
        active &= values > 0
        # a token of which all that was looked at is taken may have more
        if complete or not active.all(dim=1).any():
            return _trimmed(values * active, indices)
        values, indices, complete = _largest(x, weight, bias, 2 * values.shape[1])


def above(
    x: Float[Tensor, "batch d_model"],
    weight: Float[Tensor, "n_features d_model"],
    bias: Float[Tensor, " n_features"],
    threshold: Float[Tensor, ""],
    k: int,
) -> tuple[Float[Tensor, "batch width"], Int[Tensor, "batch width"]]:
    """The entries of ReLU(x weightᵀ + bias) above a threshold that is not negative, and their features; others are 0.

    `k`, about as many as there are on average, only says how many are looked at first. Without autograd.
    """
    values, indices, complete = _largest(x, weight, bias, WIDTH * k)
    while not complete and (values > threshold).all(dim=1).any():
        values, indices, complete = _largest(x, weight, bias, 2 * values.shape[1])
    return _trimmed(values * (values > threshold), indices)


def _largest(x: Tensor, weight: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor, bool]:
    """Each token's `width` largest entries after ReLU, their features, and whether that is all there are."""
    width = min(width, len(weight))
    values, indices = top_k(x, weight, bias, width)
    return values.relu_(), indices, width == len(weight)


def _trimmed(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Largest first, without the columns that are 0 in every token; one column stays."""
    values, order = values.sort(dim=1, descending=True)
    width = int((values > 0).any(dim=0).sum().clamp_min(1))
    return values[:, :width].contiguous(), indices.gather(1, order[:, :width])
