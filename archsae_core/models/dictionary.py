"""Dictionaries: free unit-norm atoms, and the relaxed archetypal dictionary of Fel et al. (2025)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from archsae_core.checks import require_directions, require_mixing, require_places, require_rows, require_shape
from archsae_core.config import (
    DictionaryConfig,
    TrainingConfig,
    require_bool,
    require_number,
    require_share,
    require_whole,
)
from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.processor import fast_bfloat16

CACHED_ROWS = 64
"""Rows of W worked on at a time, few enough to stay in the processor's cache."""
NORMALIZED = 1e-12
"""Norm below which `torch.nn.functional.normalize` divides by this."""
SPARSE_ENTRY = 20
"""Multiplications of a dense product that take as long as one of a sparse one, which waits for memory."""

Decoder = Callable[[Float[Tensor, "batch k"], Tensor, kernels.ByFeature | None], Float[Tensor, "batch d_model"]]
"""Values, indices [batch, k] and their grouping to the sum of the active atoms, differentiable.

Without a grouping, indices [k] are of features that are active in every token.
"""


def decoder_of(
    atoms: Float[Tensor, "n_features d_model"], rounded: Float[Tensor, "n_features d_model"] | None = None
) -> Decoder:
    """Decoder for atoms that are at hand, and where sums of them may be rounded, for their copy in bfloat16."""

    def decode(values: Tensor, indices: Tensor, grouped: kernels.ByFeature | None) -> Tensor:
        if grouped is None:
            return values @ atoms.index_select(0, indices)
        return kernels.decode(values, indices, atoms, grouped, rounded)

    return decode


def saves_atoms(n_features: int, d_model: int, batch: int, codes: int) -> bool:
    """Is z W of a batch with so many codes a token, times C, faster than W C of all atoms? By products and entries."""
    return SPARSE_ENTRY * batch * codes <= (n_features - batch) * d_model


def unit(rows: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    """Rows scaled to norm 1, those below 1e-12 too, which `torch.nn.functional.normalize` leaves short."""
    found, short = F.normalize(rows, dim=1), rows.norm(dim=1, keepdim=True) < NORMALIZED
    return found.where(~short, F.normalize(rows.double(), dim=1, eps=1e-150).float()) if short.any() else found


class FreeDictionary(nn.Module):
    """Unit-norm atoms; `trainable=False` freezes them where they start, `unit_norm=False` leaves them their norms."""

    def __init__(
        self, start: Float[Tensor, "n_features d_model"], *, trainable: bool = True, unit_norm: bool = True
    ) -> None:
        """Raises ConfigError for atoms that are NaN or infinite, and with `unit_norm` for those that are 0."""
        super().__init__()
        for name, value in (("trainable", trainable), ("unit_norm", unit_norm)):
            require_bool(name, value)
        require_rows("start", start)
        start = start.detach().float()
        if unit_norm:
            require_directions("start", start)
        self.unit_norm, self.trainable = unit_norm, trainable
        self.D = nn.Parameter(unit(start) if unit_norm else start.clone(), requires_grad=trainable)

    @classmethod
    def random(cls, n_features: int, d_model: int, *, seed: int = 0) -> "FreeDictionary":
        """Atoms in random directions, the usual start."""
        require_whole("n_features", n_features)
        require_whole("d_model", d_model)
        require_whole("seed", seed, 0)
        generator = torch.Generator().manual_seed(int(seed))
        return cls(torch.randn(n_features, d_model, generator=generator, dtype=torch.float32))

    def atoms(self) -> Float[Tensor, "n_features d_model"]:
        """The dictionary D, rows of norm 1 where `unit_norm` is true: the parameter itself, which training changes."""
        return self.D

    def decoder(self, batch: int, codes: int) -> Decoder:
        """Sum of active atoms, for a batch of this size with so many codes a token."""
        return decoder_of(self.D)

    @torch.no_grad()
    def project_(self) -> None:
        """Put every atom back on the unit sphere, where `unit_norm` is true."""
        if self.D.requires_grad and self.unit_norm:
            self.D.div_(self.D.norm(dim=1, keepdim=True).clamp_min_(1e-12))


class ArchetypalDictionary(nn.Module):
    """D = (W C + Λ)·exp(m), W row-stochastic, ‖Λ_i‖₂ ≤ delta (Fel et al. 2025, eq. 4 and 5).

    With `unit_norm` the atoms are (W C + Λ) scaled to norm 1 instead; exp(m) then has no effect.
    Training multiplies by C in bfloat16 where `rounded` is true, which a `Trainer` sets by `TrainingConfig.w_dtype`;
    `hull_points` and `atoms` are exact.

    The constraint holds after every training step. Λ is always kept in its ball by `project_relax_()`. What keeps W's
    rows on the simplex depends on `TrainingConfig.w_step`: with `published`, `project_()` after Adam's step; with
    `mirror` and `sparse`, the step itself (`w_step.py`), which multiplies weights and normalises rows.
    """

    C: Float[Tensor, "n_anchors d_model"]

    def __init__(
        self,
        anchors: Float[Tensor, "n_anchors d_model"],
        weights: Float[Tensor, "n_features n_anchors"] | tuple[Tensor, Tensor],
        *,
        delta: float,
        unit_norm: bool = True,
        learn_scale: bool = False,
    ) -> None:
        """`delta` is in the units of the anchors. Raises ConfigError for a radius below 0, for anchors that are NaN or
        infinite, and for weights of another size or whose rows do not mix anchors (`require_mixing`)."""
        super().__init__()
        require_number("delta", delta, 0.0, "must be 0 or larger, and finite")
        for name, value in (("unit_norm", unit_norm), ("learn_scale", learn_scale)):
            require_bool(name, value)
        require_rows("anchors", anchors)
        anchors = anchors.detach().float()
        self.delta, self.unit_norm, self.rounded, self.W_is_stepped = float(delta), unit_norm, False, False
        self.register_buffer("C", anchors.clone())
        self._hold(weights)
        self.relax = nn.Parameter(anchors.new_zeros(len(self.weights), anchors.shape[1]))
        self.learn_scale = learn_scale and not unit_norm
        self.log_scale = nn.Parameter(anchors.new_zeros(()), requires_grad=self.learn_scale)

    def _hold(self, weights: Float[Tensor, "n_features n_anchors"]) -> None:
        require_rows("weights", weights, width=len(self.C), width_of="n_anchors")
        weights = weights.detach().float()
        require_mixing("weights", weights)
        self.W = nn.Parameter(weights.clone())
        self._copy: tuple[tuple[int, int], Tensor] = ((-1, 0), self.W)

    @property
    def weights(self) -> Float[Tensor, "n_features width"]:
        """The entries of W that may be above 0, in no order."""
        return self.W

    def rows(self, features: Int[Tensor, " n"]) -> Float[Tensor, "n n_anchors"]:
        """Some rows of W: what their atoms are made of."""
        return self.W[features].detach()

    @classmethod
    def from_anchors(
        cls,
        anchors: Float[Tensor, "n_anchors d_model"],
        n_features: int | None = None,
        *,
        delta: float = 1.0,
        smoothing: float | None = 0.9,
        seed: int = 0,
        **options: Any,
    ) -> "ArchetypalDictionary":
        """Atoms that start at the anchors (`identity_weights`): as many as there are anchors, or `n_features`.

        `anchors` are in normalised units, as those of `fit_anchors(normalizer.normalize(x), …)`. `smoothing` is the
        share of each row of W that is spread evenly over all anchors, which `TrainingConfig.w_step = "mirror"` needs,
        since a weight of 0 cannot grow by multiplication; None leaves W = I, where the published step starts. `seed`
        draws what atoms beyond the number of anchors start from; `options` are those of the class.
        Raises ConfigError for a radius below 0, a smoothing that is not between 0 and 1, no atoms, and anchors that are
        no matrix of finite numbers.
        """
        require_rows("anchors", anchors)
        n_features = len(anchors) if n_features is None else n_features
        require_whole("n_features", n_features)
        require_whole("seed", seed, 0)
        weights = identity_weights(n_features, len(anchors), torch.Generator().manual_seed(int(seed)))
        return cls(anchors, weights if smoothing is None else smoothed(weights, smoothing), delta=delta, **options)

    def hull_points(self) -> Float[Tensor, "n_features d_model"]:
        """W C: one point of the anchors' convex hull per atom."""
        return kernels.product(self.W, self.C)

    def atoms(
        self, hull_points: Float[Tensor, "n_features d_model"] | None = None
    ) -> Float[Tensor, "n_features d_model"]:
        """The dictionary D; `hull_points` = W C may be passed where it is already known."""
        points = (self.hull_points() if hull_points is None else hull_points) + self.relax
        return kernels.unit_rows(points) if self.unit_norm else points * self.log_scale.exp()

    def decoder(
        self, batch: int, codes: int, hull_points: Float[Tensor, "n_features d_model"] | None = None
    ) -> Decoder:
        """Sum of active atoms, for a batch of this size with so many codes a token.

        Without norms to divide by, z (W C) = (z W) C: a product for each token instead of one for each atom, but sums
        of rows of W instead of atoms.
        """
        by_token = saves_atoms(len(self.W), self.C.shape[1], batch, codes)
        if self.unit_norm or hull_points is not None or not by_token:
            if hull_points is None:
                hull_points = kernels.product(self.W, self.C, self._rounded_weights())
            return decoder_of(self.atoms(hull_points))
        weights, relax = decoder_of(self.W, self._rounded_weights()), decoder_of(self.relax)

        def decode(values: Tensor, indices: Tensor, grouped: kernels.ByFeature | None) -> Tensor:
            if grouped is None:  # atoms that every token has are fewer than the tokens
                rounded = self._rounded_weights()
                rounded = None if rounded is None else rounded.index_select(0, indices)
                hull_points = kernels.product(self.W.index_select(0, indices), self.C, rounded)
                return values @ ((hull_points + self.relax.index_select(0, indices)) * self.log_scale.exp())
            mixed = weights(values, indices, grouped)
            inside = kernels.product(mixed, self.C, mixed.detach().bfloat16() if self.rounded else None)
            return (inside + relax(values, indices, grouped)) * self.log_scale.exp()

        return decode

    @torch.no_grad()
    def _rounded_weights(self) -> Float[Tensor, "n_features n_anchors"] | None:
        """W in bfloat16 if training may round: the copy that `project_` made, unless W was written to since."""
        if not self.rounded:
            return None
        state, copy = self._copy
        return copy if (state, copy.device) == (self._state_of_w(), self.W.device) else self.W.bfloat16()

    def _state_of_w(self) -> tuple[int, int]:
        """Changes when W is written to, and is another one for a copy of the dictionary."""
        return self.W._version, self.W.data_ptr()

    @torch.no_grad()
    def project_(self) -> None:
        """Make W row-stochastic (ReLU, then row-normalise) and shrink each Λ_i into the ball of radius delta.

        Training with the published step calls it after every step of Adam.
        """
        gpu = kernels.on_gpu(self.W)
        size = len(self.W) if gpu else CACHED_ROWS
        copy = self._copy[1]  # its memory is taken again
        if self.rounded and (copy.dtype, copy.device) != (torch.bfloat16, self.W.device):
            copy = torch.empty_like(self.W, dtype=torch.bfloat16)
        for rows, rounded in zip(self.W.split(size), copy.split(size), strict=True):
            # ReLU would leave a row of none above 0 no direction: it becomes its largest entry's anchor.
            empty = slice(None) if gpu else (rows.amax(dim=1) <= 0).nonzero().flatten()
            largest, anchor = rows[empty].max(dim=1, keepdim=True)
            rows[empty] = rows[empty].scatter(1, anchor, largest.where(largest > 0, 1.0))
            rows.relu_()
            rows.div_(rows.sum(dim=1, keepdim=True))
            if self.rounded:  # while they are in the cache
                rounded.copy_(rows)
        self._copy = (self._state_of_w(), copy)
        self.project_relax_()

    @torch.no_grad()
    def project_relax_(self) -> None:
        """Shrink each Λ_i into the ball of radius delta, after every step; with delta = 0, Λ is exactly 0."""
        norms = self.relax.norm(dim=1, keepdim=True)
        # The last bit of a rescaled norm may exceed delta: aim one part in a million below it.
        self.relax.mul_(torch.where(norms > self.delta, self.delta * (1 - 1e-6) / norms.clamp_min(1e-30), 1.0))

    @torch.no_grad()
    def violation(self) -> float:
        """Largest violation of the constraint: negative weight, row sum off 1, or ‖Λ_i‖ above delta. 0 means none,
        infinity that a weight is NaN."""
        rows = (self.weights.sum(dim=1) - 1).abs().max()
        radius = (self.relax.norm(dim=1) - self.delta).max()
        found = -self.weights.min().item(), rows.item() - 1e-5, radius.item()
        return math.inf if any(map(math.isnan, found)) else max(0.0, *found)


class SparseArchetypalDictionary(ArchetypalDictionary):
    """The same with at most m anchors an atom: W is kept as `W_indices` and `W_values` [n_features, m].

    Indices of a row are distinct; unused places have the value 0. Memory is n_features·m instead of
    n_features·n_anchors, W C takes m rows of C an atom, and W as a matrix is made only where it is asked for.
    `SparseMirrorStep` moves values and indices, and keeps the values of a row at or above 0 with the sum 1.
    """

    W_indices: Int[Tensor, "n_features m"]
    W_values: Float[Tensor, "n_features m"]

    def __init__(
        self,
        anchors: Float[Tensor, "n_anchors d_model"],
        weights: tuple[Float[Tensor, "n_features m"], Int[Tensor, "n_features m"]],
        **options: Any,
    ) -> None:
        """`weights` are values and indices, as those of `torch.topk(W, m)`; values are made to sum to 1. `options` are
        those of `ArchetypalDictionary`."""
        super().__init__(anchors, weights, **options)

    @classmethod
    def from_anchors(
        cls,
        anchors: Float[Tensor, "n_anchors d_model"],
        n_features: int | None = None,
        *,
        delta: float = 1.0,
        support: int = 64,
        seed: int = 0,
        **options: Any,
    ) -> "SparseArchetypalDictionary":
        """As that of `ArchetypalDictionary`, without smoothing: each atom may mix `support` anchors at most."""
        require_whole("support", support)
        dense = ArchetypalDictionary.from_anchors(anchors, n_features, smoothing=None, seed=seed)
        values, indices = dense.W.detach().topk(min(support, len(anchors)), dim=1)
        return cls(anchors, (values, indices), delta=delta, **options)

    def _hold(self, weights: tuple[Tensor, Tensor]) -> None:
        values, indices = weights
        require_rows("weights[0]", values)
        values = values.detach().float()
        require_shape("weights[1]", indices, tuple(values.shape))
        require_places("weights[1]", indices, len(self.C))
        sums = values.sum(dim=1, keepdim=True)
        values = values / sums.where(sums != 0, 1.0)
        require_mixing("weights[0]", values)
        self.register_buffer("W_indices", indices.clone())
        self.register_buffer("W_values", values)

    @property
    def W(self) -> Float[Tensor, "n_features n_anchors"]:
        """W as a matrix, made anew."""
        return self.rows(torch.arange(len(self.W_values), device=self.W_values.device))

    @property
    def weights(self) -> Float[Tensor, "n_features m"]:
        """The entries of W that may be above 0, in no order."""
        return self.W_values

    def rows(self, features: Int[Tensor, " n"]) -> Float[Tensor, "n n_anchors"]:
        """Some rows of W: what their atoms are made of."""
        zeros = self.W_values.new_zeros(len(features), len(self.C))
        return zeros.scatter_(1, self.W_indices[features], self.W_values[features])

    def hull_points(self) -> Float[Tensor, "n_features d_model"]:
        """W C: one point of the anchors' convex hull per atom."""
        return kernels.weighted_rows(self.W_values, self.W_indices, self.C)

    def decoder(
        self, batch: int, codes: int, hull_points: Float[Tensor, "n_features d_model"] | None = None
    ) -> Decoder:
        """Sum of active atoms, for a batch of this size with so many codes a token."""
        return decoder_of(self.atoms(hull_points))

    @torch.no_grad()
    def project_(self) -> None:
        """Shrink each Λ_i into its ball; `SparseMirrorStep` keeps W's rows on the simplex."""
        self.project_relax_()


Dictionary = FreeDictionary | ArchetypalDictionary


def identity_weights(
    n_features: int, n_anchors: int, generator: torch.Generator
) -> Float[Tensor, "n_features n_anchors"]:
    """Row i is anchor i. Atoms beyond the number of anchors start half-way between two random anchors."""
    weights = torch.zeros(n_features, n_anchors, dtype=torch.float32)
    rows = torch.arange(min(n_features, n_anchors))
    weights[rows, rows] = 1.0
    for row in range(n_anchors, n_features):
        weights[row, torch.randperm(n_anchors, generator=generator)[:2]] = 0.5
    return weights / weights.sum(dim=1, keepdim=True)


def random_weights(
    n_features: int, n_anchors: int, generator: torch.Generator
) -> Float[Tensor, "n_features n_anchors"]:
    """Each row mixes eight random anchors with flat Dirichlet weights."""
    chosen = torch.randint(n_anchors, (n_features, 8), generator=generator)
    exponentials = -torch.rand(n_features, 8, generator=generator, dtype=torch.float32).clamp_min_(1e-12).log()
    weights = torch.zeros(n_features, n_anchors, dtype=torch.float32).scatter_add_(1, chosen, exponentials)
    return weights / weights.sum(dim=1, keepdim=True)


def smoothed(weights: Float[Tensor, "n_features n_anchors"], share: float) -> Float[Tensor, "n_features n_anchors"]:
    """Row-stochastic weights with `share` of each row spread evenly over all anchors.

    Raises ConfigError for a share that is not between 0 and 1.
    """
    require_share("smoothing", share, 0.0, 1.0)
    return (1 - share) * weights + share / weights.shape[1]


def rounds(config: TrainingConfig) -> bool:
    """Does training multiply by C in bfloat16 under this config, on this machine?"""
    return config.w_dtype == "bfloat16" or (config.w_dtype == "auto" and fast_bfloat16())


def make_dictionary(
    kind: str,
    start: str,
    anchors: Float[Tensor, "n_anchors d_model"],
    config: DictionaryConfig,
    training: TrainingConfig,
    generator: torch.Generator,
) -> Dictionary:
    """A dictionary at step 0. `anchors` in normalised units; what is random comes from `generator`.

    `kind` is `free`, `archetypal` or `frozen`; `start` is `random` atoms (of a free dictionary), `centroids` (W =
    identity) or `random-w` (random rows of the simplex).
    """
    if start == "random":
        return FreeDictionary(
            torch.randn(config.n_features, anchors.shape[1], generator=generator, dtype=torch.float32)
        )
    weights_of = random_weights if start == "random-w" else identity_weights
    weights = weights_of(config.n_features, len(anchors), generator)
    if kind != "archetypal":
        return FreeDictionary(weights @ anchors, trainable=kind == "free")
    options = {name: getattr(config, name) for name in ("delta", "unit_norm", "learn_scale")}
    if training.w_step == "sparse":
        largest = weights.topk(min(training.support, len(anchors)), dim=1)
        return SparseArchetypalDictionary(anchors, tuple(largest), **options)
    if training.w_step == "mirror":
        weights = smoothed(weights, config.smoothing)  # a weight of exactly 0 could never grow by multiplication
    return ArchetypalDictionary(anchors, weights, **options)
