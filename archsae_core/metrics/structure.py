"""Structure of a dictionary and of its codes: the paper's own metrics, which its authors' library does not ship.

Fel et al. (2025, arXiv 2502.12892), "OOD score", "structure in the dictionary D" and "structure in the codes Z" of its
table of results. The formulas are those that public re-implementations quote from it; where they differ, the function
says which reading is taken.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from torch import Tensor

from archsae_core.checks import require_codes, require_rows
from archsae_core.config import ConfigError, require_share
from archsae_core.metrics.matching import cosines, directions
from archsae_core.models.sae import Codes

DENSE_BELOW = 64
"""Matrices smaller than this get all their eigenvalues: the iterative solver wants room."""
DUPLICATE = 0.99
"""Two atoms with a larger cosine count as one."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the nearest-neighbour cosines."""


class Structure(NamedTuple):
    """Every metric of one dictionary on one set of tokens; `_asdict()` is JSON-able."""

    ood: float
    stable_rank: float
    effective_rank: float
    coherence: float
    connectivity: float
    negative_interference: float
    n_tokens: int
    """Connectivity and the OOD score fall as tokens are added: compare only at equal `n_tokens`."""


def singular_values(D: Float[Tensor, "n_features d_model"]) -> Float[np.ndarray, " rank"]:
    """Singular values of D in float64, from the smaller of its two Gram matrices."""
    D = D.detach().double().cpu()
    gram = D.T @ D if len(D) > D.shape[1] else D @ D.T
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram.numpy()), 0, None))


def stable_rank(D: Float[Tensor, "n_features d_model"]) -> float:
    """‖D‖_F² / ‖D‖₂²: 1 where all atoms are parallel, d_model where they spread evenly over all directions."""
    s = singular_values(D)
    return float((s**2).sum() / (s**2).max())


def effective_rank(D: Float[Tensor, "n_features d_model"]) -> float:
    """exp of the entropy of σ / Σσ, σ the singular values (Roy & Vetterli 2007)."""
    s = singular_values(D)
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def coherence(D: Float[Tensor, "n_features d_model"]) -> float:
    """max over i ≠ j of |cos(D_i, D_j)|: 1 where an atom has a double. overcomplete's `dictionary_collinearity`."""
    return cosines(D, D).abs().fill_diagonal_(0).max().item()


def nearest_cosines(D: Float[Tensor, "n_features d_model"]) -> Float[Tensor, " n_features"]:
    """max over j ≠ i of cos(D_i, D_j) of each atom: how close its nearest neighbour in the same dictionary is."""
    return cosines(D, D).fill_diagonal_(-1.0).amax(dim=1)


class Collapse(NamedTuple):
    """How far the atoms of one dictionary have run together; `_asdict()` is JSON-able."""

    nearest: dict[str, float]
    """Quantiles of `nearest_cosines`, by their level."""
    distinct: int
    """Atoms left when duplicates count once."""
    largest: int
    """Atoms in the largest group of duplicates."""
    tightness: float
    """Smallest cosine of an atom with the mean of its group: far below `DUPLICATE` where a chain of atoms merged."""


class Merged(NamedTuple):
    """A dictionary in which duplicates count once."""

    atoms: Float[Tensor, "distinct d_model"]
    """Mean of the unit atoms of each group."""
    group: Int[Tensor, " n_features"]
    """Row of `atoms` that each of the given atoms went to."""


def merge_duplicates(
    D: Float[Tensor, "n_features d_model"], above: float = DUPLICATE, *, centred: bool = True
) -> Merged:
    """Replace every group of duplicate atoms by its mean.

    Atoms are joined when their cosine is larger than `above`, and groups are the connected components of these pairs:
    the result does not depend on the order of the atoms, but a chain of near atoms is one group even where its ends are
    far apart (`Collapse.tightness` tells). `centred` compares unit atoms less their mean, as the headline score of
    stability does; a mean that all atoms share makes different ones look alike.
    """
    unit = directions(D).cpu()
    compared = directions(D, centred=centred).cpu()
    alike, at_mean = cosines(compared, compared) > above, (compared == 0).all(dim=1)
    joined = csr_array((alike | (at_mean[:, None] & at_mean)).numpy())
    count, labels = connected_components(joined, directed=False)
    group = torch.from_numpy(labels.astype(np.int64))
    sums = unit.new_zeros(count, unit.shape[1]).index_add_(0, group, unit)
    return Merged(sums / torch.bincount(group)[:, None], group)


def collapse(D: Float[Tensor, "n_features d_model"], above: float = DUPLICATE, *, centred: bool = True) -> Collapse:
    """Nearest-neighbour cosines and duplicates of one dictionary, of centred unit atoms or of the atoms as they are.

    Raises ConfigError for atoms that are no matrix of finite numbers, and where `above` is no cosine.
    """
    require_rows("D", D)
    require_share("above", above, -1.0, 1.0)
    unit, compared = directions(D).cpu(), directions(D, centred=centred).cpu()
    merged = merge_duplicates(D, above, centred=centred)
    nearest, at_mean = nearest_cosines(compared).double(), (compared == 0).all(dim=1)
    if at_mean.sum() > 1:  # atoms without a direction of their own are equal
        nearest[at_mean] = 1.0
    quantiles = torch.quantile(nearest, torch.tensor(QUANTILES, dtype=torch.float64))
    means = merged.atoms - unit.mean(dim=0) if centred else merged.atoms
    tightness = F.cosine_similarity(compared, means[merged.group], dim=1).masked_fill(at_mean, 1.0)
    return Collapse(
        nearest={f"{level:g}": value for level, value in zip(QUANTILES, quantiles.tolist(), strict=True)},
        distinct=len(merged.atoms),
        largest=int(torch.bincount(merged.group).max()),
        tightness=tightness.min().item(),
    )


def ood_score(D: Float[Tensor, "n_features d_model"], batches: Iterable[Float[Tensor, "batch d_model"]]) -> float:
    """1 − mean_i max_x cos(D_i, x): how far atoms point away from every activation. 0 where each is parallel to one.

    `batches` in the units of the atoms: here centred activations, since the dictionary works on those.
    """
    nearest = torch.full((len(D),), -1.0, dtype=torch.float32)
    for x in batches:
        nearest = torch.maximum(nearest, cosines(D, x).amax(dim=1))
    return 1 - nearest.double().mean().item()


def coactivation(codes: Codes, n_features: int) -> csr_array:
    """Zᵀ Z / n of n tokens, sparse: entry (i, j) is the mean of z_i z_j."""
    values, indices = codes.values.cpu().double().numpy(), codes.indices.cpu().numpy()
    starts = np.arange(0, values.size + 1, values.shape[1])
    entries = values.ravel(), indices.ravel(), starts
    z = csr_array(entries, shape=(len(values), n_features), copy=True)  # else zeros would be dropped from `codes` too
    z.eliminate_zeros()
    return csr_array(z.T @ z) / len(values)


def connectivity(zz: csr_array) -> float:
    """1 − ‖Zᵀ Z‖₀ / n_features²: share of ordered pairs of features that never fire on the same token.

    The name suggests the opposite, the formula is the paper's. A dead feature counts as never firing with any.
    """
    return 1 - zz.count_nonzero() / zz.shape[0] ** 2


def negative_interference(zz: csr_array, D: Float[Tensor, "n_features d_model"]) -> float:
    """‖ReLU(−(Zᵀ Z / n) ⊙ D Dᵀ)‖₂: how much features that fire together cancel each other.

    Ambiguous in the source twice: ‖·‖₂ is read as the spectral norm, as in its stable rank, and Zᵀ Z is divided by the
    number of tokens, so that more tokens do not raise it. Units of z² ‖D_i‖², as the reconstruction has them.
    """
    D = D.detach().cpu().float()
    with torch.autocast("cpu", enabled=False):
        gram = D @ D.T
    cancelling = np.maximum(-zz.toarray() * gram.numpy(), 0)
    if not cancelling.any():
        return 0.0
    if len(cancelling) < DENSE_BELOW:
        return float(np.abs(np.linalg.eigvalsh(cancelling)).max())
    # Symmetric and non-negative: the largest eigenvalue is the spectral norm, and the start is not orthogonal to it.
    return float(eigsh(cancelling, k=1, which="LA", v0=np.ones(len(cancelling)), return_eigenvectors=False)[0])


def structure(D: Float[Tensor, "n_features d_model"], x: Float[Tensor, "tokens d_model"], codes: Codes) -> Structure:
    """Every metric of the atoms D, of activations x in the atoms' units, and of the codes of the same tokens.

    Raises ConfigError for activations of another width than the atoms, codes of other tokens, NaN and infinity, and
    where all atoms are 0.
    """
    require_rows("D", D)
    if not D.any():
        raise ConfigError("D is 0 in every entry: such atoms have no structure")
    require_rows("x", x, width=D.shape[1])
    require_codes("codes", codes, len(D))
    if len(codes.values) != len(x):
        raise ConfigError(f"codes are of {len(codes.values)} tokens, x of {len(x)}: encode the same tokens")
    D, x = D.detach(), x.detach().float()
    zz, unit = coactivation(codes, len(D)), directions(D)
    return Structure(
        ood=ood_score(unit, x.split(4096)),
        stable_rank=stable_rank(D),
        effective_rank=effective_rank(D),
        coherence=coherence(unit),
        connectivity=connectivity(zz),
        negative_interference=negative_interference(zz, D),
        n_tokens=len(x),
    )
