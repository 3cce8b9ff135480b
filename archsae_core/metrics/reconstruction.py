"""Quality of reconstructions on held-out activations: one definition a name, intervals over documents."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.checks import require_matrix, require_rows, require_same_shape
from archsae_core.models.sae import SAE, Codes

UNDEFINED_R2 = (
    "R² is not defined: there is only one, or all activations are equal, as far as float32 tells where they are far "
    "from the mean of the SAE: score at least two different ones"
)
RESOLUTION = torch.finfo(torch.float32).eps
"""Relative error of a sum of squares of float32 numbers: a smaller share of it is rounding, not variation."""
TERMS = ("tokens", "squared_error", "variation", "active", "cosine", "cosine_centred")
"""Columns of `DocumentSums.sums`."""
BATCH_ROWS = 4096
"""Rows of a tensor that are scored at a time."""
DENSE_RATE = 0.1
"""A feature that fires on more than this share of the tokens counts as dense."""
DENSITY_EDGES = tuple(round(-7 + 0.25 * i, 2) for i in range(29))
"""Bins of the density histogram: log10 of the firing rate, from 1 in ten million to always."""


class DocumentSums(NamedTuple):
    """Sums over the tokens of each document: enough for every score of `Quality` and for resampling documents."""

    documents: Int[np.ndarray, " n_documents"]
    sums: Float[np.ndarray, "n_documents n_terms"]
    """Columns are `TERMS`; `variation` is Σ‖x − x̄‖² around the mean x̄ of all tokens."""
    fired: Int[np.ndarray, " n_features"]
    """Tokens on which each feature has a code above 0."""
    d_model: int
    scale: float
    """Raw to normalised units (E‖x_n‖² = d_model on the training set, in the frame of the SAE)."""


class Quality(NamedTuple):
    """Scores of one SAE on one set of activations; `_asdict()` is JSON-able."""

    r2: float
    """1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², x̄ the per-dimension mean of this set: see `r2`."""
    mse: float
    """Mean of (x − x̂)² over tokens and dimensions, raw units."""
    mse_normalised: float
    """The same in normalised units, E‖x_n‖² = d_model: in the centred frame predicting the mean scores about 1."""
    l0: float
    """Mean number of codes above 0 a token."""
    cosine: float
    """Mean over tokens of cos(x, x̂), raw and uncentred: the data's common mean alone makes it large."""
    cosine_centred: float
    """Mean over tokens of cos(x − mean, x̂ − mean), mean of the training set, in either frame."""
    utilisation: float
    """Share of features that fire at least once on this set."""
    dead_share: float
    """1 − utilisation. It falls as the set grows: compare only at equal `n_tokens`."""
    dense_share: float
    """Share of features that fire on more than 10 % of the tokens."""
    n_dead: int
    n_features: int
    n_tokens: int
    density: dict[str, list]
    """Histogram of log10 firing rates of the features that fire: `edges` (29) and `counts` (28)."""


def r2(x: Float[Tensor, "batch d_model"], x_hat: Float[Tensor, "batch d_model"]) -> float:
    """R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², with x̄ the mean of each dimension over the batch.

    Predicting x̄ scores 0. sparsify's definition; scikit-learn's `r2_score(multioutput="variance_weighted")`. Not used:
    overcomplete's one scalar mean for all dimensions and OpenAI's uncentred Σ‖x‖² (Gao et al. 2024) score 0.985 for
    predicting only the mean where two dimensions have large means; dictionary_learning's Var(x − x̂) forgives a constant
    offset. Raises ValueError where R² is not defined: `x` is one row, or all of its rows are equal.
    """
    require_same_shape("x and x_hat", x, x_hat)
    x, x_hat = x.detach().double(), x_hat.detach().double()
    if (x == x[0]).all():  # exact, where the mean of equal numbers is rounded
        raise ValueError(UNDEFINED_R2)
    variation = (x - x.mean(dim=0)).square().sum()
    return 1 - ((x - x_hat).square().sum() / variation).item()


def _token_terms(
    sae: SAE, x: Float[Tensor, "batch d_model"], codes: Codes, x_hat: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch n_terms"]:
    centred = x - sae.mean
    terms = (
        torch.ones(len(x), device=x.device),
        (x - x_hat).square().sum(dim=1, dtype=torch.float64),
        centred.square().sum(dim=1, dtype=torch.float64),
        (codes.values > 0).sum(dim=1),
        F.cosine_similarity(x, x_hat, dim=1),
        F.cosine_similarity(centred, x_hat - sae.mean, dim=1),
    )
    return torch.stack([term.double() for term in terms], dim=1).cpu()


def document_sums(sae: SAE, batches: Iterable[tuple[Tensor, Tensor]]) -> DocumentSums:
    """Stream over (raw activations [batch, d_model], document of each row [batch]) and add up each document's terms.

    A document may spread over batches. Raises ValueError where there are no activations, ConfigError for those that
    `SAE.encode` refuses.
    """
    owners, sums, totals = [], [], []
    fired = torch.zeros(sae.n_features, dtype=torch.int64)
    with torch.no_grad():
        atoms = sae.atoms()
    for x, document in batches:
        require_matrix("x", x, width=sae.d_model, empty=True)
        x = x.detach().to(sae.mean.device, torch.float32)
        codes = sae.encode(x)
        names, owner = torch.unique(document.cpu(), return_inverse=True)
        terms, shifted = _token_terms(sae, x, codes, sae.reconstruct(codes, atoms)), (x - sae.mean).double().cpu()
        owners.append(names)
        sums.append(terms.new_zeros(len(names), len(TERMS)).index_add_(0, owner, terms))
        totals.append(shifted.new_zeros(len(names), sae.d_model).index_add_(0, owner, shifted))
        fired += torch.bincount(codes.indices[codes.values > 0], minlength=sae.n_features).cpu()
    if not sum(map(len, owners)):
        raise ValueError("x: no activations to score")
    names, owner = torch.unique(torch.cat(owners), return_inverse=True)
    merged = terms.new_zeros(len(names), len(TERMS)).index_add_(0, owner, torch.cat(sums))
    _centre(merged, shifted.new_zeros(len(names), sae.d_model).index_add_(0, owner, torch.cat(totals)))
    return DocumentSums(names.numpy(), merged.numpy(), fired.numpy(), sae.d_model, float(sae.scale))


def _centre(sums: Float[Tensor, "n_documents n_terms"], totals: Float[Tensor, "n_documents d_model"]) -> None:
    """Move each document's Σ‖x − s‖² to Σ‖x − x̄‖² = Σ‖x − s‖² − 2 m·Σ(x − s) + n‖m‖², m = x̄ − s.

    s is the training mean, in either frame: `x` is raw here. Where all rows are equal what is left of the two terms is
    their rounding, and 0 is written instead.
    """
    before = sums[:, 2].sum()
    shift = totals.sum(dim=0) / sums[:, 0].sum()
    sums[:, 2] += sums[:, 0] * shift.square().sum() - 2 * totals @ shift
    if sums[:, 2].sum() <= RESOLUTION * before:
        sums[:, 2] = 0


def _statistics(d_model: int, scale: float) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    return {
        "r2": lambda sums: 1 - sums[..., 1] / sums[..., 2],
        "mse": lambda sums: sums[..., 1] / sums[..., 0] / d_model,
        "mse_normalised": lambda sums: sums[..., 1] / sums[..., 0] / d_model * scale**2,
        "l0": lambda sums: sums[..., 3] / sums[..., 0],
        "cosine": lambda sums: sums[..., 4] / sums[..., 0],
        "cosine_centred": lambda sums: sums[..., 5] / sums[..., 0],
    }


def summarise(by_document: DocumentSums) -> Quality:
    """Scores over all documents. Raises ValueError where R² is not defined: one activation, or all are equal."""
    total = by_document.sums.sum(axis=0)
    if not total[2] > 0:
        raise ValueError(UNDEFINED_R2)
    statistics = _statistics(by_document.d_model, by_document.scale)
    fired, n_features, n_tokens = by_document.fired, len(by_document.fired), int(total[0])
    n_dead = int((fired == 0).sum())
    return Quality(
        **{name: float(statistic(total)) for name, statistic in statistics.items()},
        utilisation=1 - n_dead / n_features,
        dead_share=n_dead / n_features,
        dense_share=float((fired > DENSE_RATE * n_tokens).mean()),
        n_dead=n_dead,
        n_features=n_features,
        n_tokens=n_tokens,
        density=density(fired, n_tokens),
    )


def density(fired: Int[np.ndarray, " n_features"], n_tokens: int) -> dict[str, list]:
    """Histogram of log10(fired / n_tokens) over the features that fire. Rarer than the first edge: first bin."""
    rates = np.log10(fired[fired > 0] / n_tokens)
    counts = np.histogram(rates.clip(DENSITY_EDGES[0], DENSITY_EDGES[-1]), bins=DENSITY_EDGES)[0]
    return {"edges": list(DENSITY_EDGES), "counts": counts.tolist()}


def quality(sae: SAE, x: Float[Tensor, "tokens d_model"] | Iterable[Tensor]) -> Quality:
    """Scores of `sae` on raw activations, in one pass: a tensor, or batches [batch, d_model] of one.

    Raises ValueError where there are none, and where R² is not defined: there is one, or all are equal. Raises
    ConfigError, before anything is scored, for a tensor that is no floating-point matrix of d_model columns or holds
    NaN or infinity; batches are looked at as they come.
    """
    if torch.is_tensor(x) or hasattr(x, "__array__"):
        require_rows("x", x, width=sae.d_model, empty=True)
    x_batches = x.split(BATCH_ROWS) if torch.is_tensor(x) else x
    return summarise(document_sums(sae, ((x, torch.zeros(len(x), dtype=torch.int64)) for x in x_batches)))


def quality_intervals(by_document: DocumentSums, **options: Any) -> dict[str, list[float] | None]:
    """95 % bootstrap interval [low, high] of each streamed score; `options` go to `bootstrap_interval`.

    x̄ stays that of the whole set, so that R² is a ratio of sums over documents.
    """
    statistics = _statistics(by_document.d_model, by_document.scale)
    found = {name: bootstrap_interval(by_document.sums, statistic, **options) for name, statistic in statistics.items()}
    return {name: interval and list(interval) for name, interval in found.items()}


@functools.lru_cache(maxsize=4)
def _draws(n_documents: int, n: int, seed: int) -> Float[np.ndarray, "n n_documents"]:
    """How often each document is drawn: the same for every score of the same documents, and slow to draw again."""
    shares = np.full(n_documents, 1 / n_documents)
    return np.random.default_rng(seed).multinomial(n_documents, shares, size=n).astype(float)


def bootstrap_interval(
    values: Float[np.ndarray, "n_documents n_terms"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of `statistic` when whole documents are drawn with replacement.

    `values` holds each document's sums; `statistic` maps summed terms [..., n_terms] to [...]. Tokens of one document
    are not independent, so resampling tokens would give intervals that are too short. None for fewer than 2 documents,
    or where the statistic is not finite in some draw.
    """
    if len(values) < 2:
        return None
    found = statistic(_draws(len(values), n, seed) @ values)
    if not np.isfinite(found).all():
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
