"""Ways to move W, the row-stochastic matrix of an archetypal dictionary.

Adam moves every entry of a row by about its learning rate, so the far anchors' thousands of tiny weights swamp a row
that started as one anchor. Entropic mirror descent (Beck & Teboulle 2003) is the simplex's own gradient step: weights
are multiplied, so a row stays non-negative, stays normalised, and spends its movement where the gradient is.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from archsae_core.kernels import sparse as kernels
from archsae_core.models.dictionary import ArchetypalDictionary, SparseArchetypalDictionary

BLOCKS = 8
"""A step moves one block of rows in turn, since the two products with C are most of the cost."""
ENTERS = 0.01
"""Weight of an anchor that enters a sparse row; it falls with the learning rates."""
BETA1, BETA2 = 0.9, 0.999
LEAST = 1e-30
"""Divisor in place of a sum that is 0."""


class MirrorStep:
    """Blockwise entropic mirror descent: W_ij ∝ W_ij · exp(−η ⟨ĝ_i, C_j⟩ / s_i).

    ĝ is the momentum of the loss gradient at the atoms' hull points, and s_i its running size, so that η is in units of
    log-weight per step as Adam's learning rate is. The gradient with respect to W is ĝ Cᵀ: keeping its moments as
    [n_features, d_model] instead of [n_features, n_anchors] saves both memory and a product.
    """

    def __init__(self, dictionary: ArchetypalDictionary, lr: float) -> None:
        self.dictionary, self.lr = dictionary, lr
        self.momentum = torch.zeros_like(dictionary.relax)
        self.size = torch.zeros_like(dictionary.relax[:, 0])
        self.hull = dictionary.hull_points()
        # only the direction of a step is rounded: atoms stay exact points of the hull
        self.points = (dictionary.C.bfloat16() if dictionary.rounded else dictionary.C).T
        self.columns = dictionary.C.T.contiguous()
        self.anchor_norm = dictionary.C.norm(dim=1).median()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to continue to the bit."""
        return {"momentum": self.momentum, "size": self.size, "hull": self.hull}

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "n_features d_model"], step: int, share: float = 1.0) -> None:
        """Update the moments with the gradient at W C + Λ, then move block `step` modulo BLOCKS.

        `share` is that of the learning rate which the schedule leaves.
        """
        self.momentum.lerp_(gradient, 1 - BETA1)
        self.size.lerp_(torch.linalg.vector_norm(gradient, dim=1).square() / gradient.shape[1], 1 - BETA2)
        rows = slice(step % BLOCKS, None, BLOCKS)
        direction = self.momentum[rows] / (1 - BETA1 ** (step + 1))
        scale = (self.size[rows] / (1 - BETA2 ** (step + 1))).sqrt() * self.anchor_norm
        slope = kernels.multiply(direction / scale.clamp_min(1e-30)[:, None], self.points)
        self._move(rows, slope, share)

    def _move(self, rows: slice, slope: Float[Tensor, "rows n_anchors"], share: float) -> None:
        """Move some rows of W against the loss's slope along each anchor, and their hull points with them."""
        weights = self._multiplied(self.dictionary.W[rows], slope, share)
        self.dictionary.W[rows] = weights
        self.hull[rows] = kernels.linear(weights, self.columns)

    def _multiplied(self, weights: Tensor, slope: Tensor, share: float) -> Float[Tensor, "rows width"]:
        """Some rows after the multiplicative step: at or above 0 with the sum 1, so that W needs no projection."""
        weights = slope.mul_(-self.lr * share * BLOCKS).clamp_(-5, 5).exp_().mul_(weights)
        return weights.div_(weights.sum(dim=1, keepdim=True).clamp_min_(LEAST))  # a row may be 0: its atom is Λ alone


class SparseMirrorStep(MirrorStep):
    """The mirror step on a row's support, which then exchanges an anchor: a Frank–Wolfe step of fixed length.

    The anchor outside the support along which the loss falls most enters with the weight `ENTERS`, if it falls more
    than along the row itself; the lightest of the support leaves for it where there is no empty place.
    """

    dictionary: SparseArchetypalDictionary

    def _move(self, rows: slice, slope: Float[Tensor, "rows n_anchors"], share: float) -> None:
        dictionary = self.dictionary
        indices, held = dictionary.W_indices[rows], slope.gather(1, dictionary.W_indices[rows])
        # places of weight 0 are empty: their anchors may enter as any other
        taken = held.masked_fill(dictionary.W_values[rows] > 0, torch.inf)
        outside = slope.scatter_(1, indices, taken).min(dim=1)
        weights = self._multiplied(dictionary.W_values[rows], held.clone(), share)
        enters = outside.values < (weights * held).sum(dim=1)
        place = torch.arange(weights.shape[1], device=weights.device) == weights.argmin(dim=1)[:, None]
        same = indices == outside.indices[:, None]
        place = torch.where(same.any(dim=1, keepdim=True), same, place)
        # the rest of the row's weight stays with its other anchors, if there are any
        enters &= weights.masked_fill(place, 0.0).amax(dim=1) > 0
        place &= enters[:, None]
        others = weights.masked_fill(place, 0.0)
        weight = ENTERS * share * enters[:, None]
        weights = torch.where(place, weight, others * ((1 - weight) / others.sum(dim=1, keepdim=True).clamp_min(LEAST)))
        indices = torch.where(place, outside.indices[:, None], indices)
        dictionary.W_values[rows], dictionary.W_indices[rows] = weights, indices
        self.hull[rows] = kernels.weighted_rows(weights, indices, dictionary.C)
