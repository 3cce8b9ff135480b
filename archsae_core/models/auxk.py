"""Differentiable reconstructions of a batch: by the features that its tokens chose, or by the dead ones alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.topk import top_k
from archsae_core.models.dictionary import Decoder
from archsae_core.models.sae import SAE

DENSE = 8
"""Dead features, as a multiple of `aux_k`, up to which dense products of all take less time than sparse ones."""


def by_features(
    sae: SAE,
    values: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    centred: Float[Tensor, "batch d_model"],
    decode: Decoder,
) -> tuple[Float[Tensor, "batch k"], Float[Tensor, "batch d_model"]]:
    """Codes and their reconstruction without b_dec, where `values` are the chosen pre-activations of `centred`.

    `centred` is normalised data less b_dec, without gradient; gradients to encoder, b_dec and atoms are exact.
    """
    grouped = kernels.group_by_feature(indices, sae.n_features)
    values = kernels.select(values, centred, sae.b_dec, sae.W_enc, sae.b_enc, indices, grouped)
    return values, decode(values, indices, grouped)


def by_dead_features(
    sae: SAE, dead: Bool[Tensor, " n_features"], aux_k: int, centred: Float[Tensor, "batch d_model"], decode: Decoder
) -> Float[Tensor, "batch d_model"]:
    """Reconstruction by the `aux_k` largest pre-activations of each token among the dead features (Gao et al. 2024)."""
    if kernels.on_gpu(dead):  # their number is not known to the host
        bias = sae.b_enc.masked_fill(~dead, -torch.inf)
        values, indices = top_k(centred, sae.W_enc, bias, min(aux_k, sae.n_features))
        return by_features(sae, values, indices, centred, decode)[1]
    rows = dead.nonzero().flatten()
    if len(rows) > DENSE * aux_k:
        values, chosen = top_k(centred, sae.W_enc[rows], sae.b_enc[rows], aux_k)
        return by_features(sae, values, rows[chosen], centred, decode)[1]
    weight = sae.W_enc.index_select(0, rows)
    no_shift = (sae.b_dec.detach() - sae.b_dec) @ weight.detach().T  # b_dec's gradient, which `centred` is without
    values = F.linear(centred, weight, sae.b_enc.index_select(0, rows) + no_shift)
    if len(rows) > aux_k:
        largest = values.topk(aux_k, dim=1, sorted=False)
        values = torch.zeros_like(values).scatter(1, largest.indices, largest.values)
    return decode(values.relu(), rows, None)
