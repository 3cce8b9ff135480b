"""Cosines between two dictionaries and the exact one-to-one matching of their atoms."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from archsae_core.checks import require_matrix, require_rows
from archsae_core.kernels.sparse import linear

DENSE_BELOW = 512
"""Below this many atoms SciPy's dense solver is as fast as going through candidates."""
CANDIDATES = 32
"""Partners a row that the sparse problem starts with."""
ROUNDS = 8
"""Times that candidates are added before the dense solver takes over."""
BLOCK = 128
"""Rows of the similarity matrix looked at together, so that they stay in the processor's cache."""
MARGIN = 0.005
"""Pairs within this of being useful join the candidates too: it saves rounds."""
NEARLY = 0.04
"""The same for the first prices, which are not exact yet."""
SMALLEST, RESOLUTION = 1e-150, torch.finfo(torch.float32).eps
"""Norms up to which an atom is 0: of an atom, and of a unit atom less the mean, which rounding to float32 leaves."""
BIDS, STEP, LEFT = 300, 0.002, 0.01
"""Of the auction: rounds at most, least raise of a price, and the share of rows that it may leave without a column."""


class Matching(NamedTuple):
    """One-to-one pairs: atom `rows[i]` of a with atom `cols[i]` of b; min(n_a, n_b) pairs."""

    rows: Int[Tensor, " pairs"]
    cols: Int[Tensor, " pairs"]
    prices: Float[Tensor, " n_b"] | None = None
    """Dual prices of the columns less their mean similarity, where the solver had to find any."""


def directions(atoms: Float[Tensor, "n d_model"], *, centred: bool = False) -> Float[Tensor, "n d_model"]:
    """Atoms scaled to norm 1, whatever their units; `centred`: less the mean of the unit atoms, and scaled to 1 again.

    A zero atom stays 0, and so does one that is the mean, as far as float32 tells. In float64, since what is left of
    atoms that point almost the same way is a small difference of large numbers.
    """
    unit = F.normalize(atoms.detach().double(), dim=1, eps=SMALLEST)
    if centred:
        unit = unit - unit.mean(dim=0)
        norms = unit.norm(dim=1, keepdim=True)
        unit = torch.where(norms > RESOLUTION, unit / norms, 0.0)
    return unit.float()


def cosines(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> Float[Tensor, "n_a n_b"]:
    """cos(a_i, b_j). A zero atom has cosine 0 with everything. Raises ConfigError where rows differ in length."""
    _require_one_width(a, b)
    return linear(directions(a), directions(b)).cpu()


def centred_cosines(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> Float[Tensor, "n_a n_b"]:
    """cos(a_i − ā, b_j − b̄) of unit atoms less their dictionary's mean unit atom; 0 for an atom that is this mean.

    Atoms that share a mean direction have large cosines whatever they encode (Brzozowski & Chung 2026). Raises
    ConfigError where rows differ in length.
    """
    _require_one_width(a, b)
    return linear(directions(a, centred=True), directions(b, centred=True)).cpu()


def _require_one_width(a: Tensor, b: Tensor) -> None:
    require_matrix("a", a, empty=True)
    require_matrix("b", b, width=a.shape[1], width_of="as many as a", empty=True)


def greedy(cosine: Float[Tensor, "n_a n_b"]) -> tuple[float, float]:
    """(mean_i max_j cos, mean_j max_i cos): greedy best match from a to b and from b to a; partners may repeat."""
    if 0 in cosine.shape:
        return 0.0, 0.0
    return cosine.amax(dim=1).double().mean().item(), cosine.amax(dim=0).double().mean().item()


def mean_of(similarity: Float[Tensor, "n_a n_b"], matching: Matching) -> float:
    """Mean similarity of the matched pairs; 0 where there are none."""
    return similarity[matching.rows, matching.cols].double().mean().item() if len(matching.rows) else 0.0


def match(similarity: Float[Tensor, "n_a n_b"], like: Float[Tensor, " n_b"] | None = None) -> Matching:
    """The one-to-one matching with the largest total similarity, exactly (to 1e-6 a pair).

    `like` are the prices of the matching of similar similarities: most of the work is saved, the result is the same.
    Raises ConfigError for what is no floating-point matrix, and for NaN and infinity, which compare with nothing.
    """
    require_rows("similarity", similarity, empty=True)
    dtype = torch.promote_types(similarity.dtype, torch.float32)
    return _match(similarity.detach().to("cpu", dtype), like)


def _match(similarity: Float[Tensor, "n_a n_b"], like: Float[Tensor, " n_b"] | None = None) -> Matching:
    if len(similarity) > similarity.shape[1]:
        cols, rows, _ = _match(similarity.T.contiguous())
        order = rows.argsort()
        return Matching(rows[order], cols[order])
    rows = torch.arange(len(similarity))
    if not len(rows):
        return Matching(rows, rows)
    found = similarity.numpy().argmax(axis=1)
    if len(np.unique(found)) < len(found):  # else every row has its favourite
        starts = () if len(rows) < DENSE_BELOW else (None,) if like is None else (like, None)
        for start in starts:
            if solved := _match_candidates(similarity, start):
                return solved
        found = linear_sum_assignment(similarity.numpy(), maximize=True)[1]
    return Matching(rows, torch.from_numpy(found.astype(np.int64)))


def _match_candidates(similarity: Float[Tensor, "n_a n_b"], like: Float[Tensor, " n_b"] | None) -> Matching | None:
    """Solve the assignment on few candidate pairs, prove with its prices that no other pair could help, else add those.

    Prices u, v with u_i + v_j ≥ s_ij everywhere and equality on the matching prove it optimal (linear programming
    duality). Rows of zeros make the problem square, so that a matching takes every column once: subtracting a price
    from each column then lowers the total of every matching by the same amount, and the best stays the best. With
    nearly optimal prices subtracted, the solver has little left to do. None where it gives up.
    """
    n_a, n = similarity.shape
    # A column that is close to every row is no better a partner for any of them: take its mean off before choosing.
    mean = similarity.mean(dim=0)
    near = torch.cat([(part - mean).topk(CANDIDATES, dim=1).indices for part in similarity.split(BLOCK)]).numpy()
    rows, values = np.arange(n), np.take_along_axis(similarity.numpy(), near, axis=1)
    v = _auction(values.astype(float), near, n) if like is None else (mean + like).double().numpy()
    square = F.pad(similarity, (0, 0, 0, n - n_a))
    known = np.eye(n, dtype=bool)  # the diagonal, since some complete matching has to exist
    known[rows[:n_a, None], near] = True
    known[n_a:, np.argpartition(v, n - n_a)[: n - n_a + CANDIDATES]] = True
    _add_useful(known[:n_a], similarity, v, None, NEARLY)
    for _ in range(ROUNDS):
        if known.sum() > 8 * CANDIDATES * n:
            return None  # many ties, such as zero atoms
        keys = np.flatnonzero(known)
        i, j = np.divmod(keys, n)
        starts = np.searchsorted(i, np.arange(n + 1))
        weights = square.numpy()[i, j] - v[j]
        weights -= np.maximum.reduceat(weights, starts[:-1])[i]
        # 1 − weight, since a cost of 0 would be no entry
        matched = min_weight_full_bipartite_matching(csr_array((1 - weights, j, starts), shape=(n, n)))[1]
        own = weights[np.searchsorted(keys, rows * n + matched)]
        v += _column_prices(j, weights - own[i], matched[i], n)
        u = square.numpy()[rows, matched] - v[matched]
        if _add_useful(known, square, v, u, MARGIN) <= 1e-6:
            found = torch.from_numpy(matched[:n_a].astype(np.int64))
            return Matching(torch.arange(n_a), found, torch.from_numpy(v).float() - mean)
    return None


def _auction(
    values: Float[np.ndarray, "n_a candidates"], columns: Int[np.ndarray, "n_a candidates"], n_b: int
) -> Float[np.ndarray, " n_b"]:
    """Prices at which nearly all rows hold different columns that each likes best (Bertsekas 1988).

    `values[i]` is what row i would give for its candidates `columns[i]`. Rows without a column bid all at once: for the
    best, as much more than its price as it is better than the next best. The last few would fight for long: they are
    left to a solver that can look further.
    """
    prices, owner, held = np.zeros(n_b), np.full(n_b, -1), np.full(len(values), -1)
    winner = np.empty(n_b, dtype=int)
    for _ in range(BIDS):
        bidders = np.flatnonzero(held < 0)
        if len(bidders) <= LEFT * len(values):
            break
        gain, place = values[bidders] - prices[columns[bidders]], np.arange(len(bidders))
        best = gain.argmax(axis=1)
        most = gain[place, best]
        gain[place, best] = -np.inf
        wanted = columns[bidders, best]
        bid = prices[wanted] + most - gain.max(axis=1) + STEP
        order = bid.argsort()
        winner[wanted[order]] = order  # the highest bid is written last
        sold = np.unique(wanted)
        prices[sold] = bid[winner[sold]]
        previous = owner[sold]
        owner[sold] = bidders[winner[sold]]
        held[owner[sold]] = sold
        held[previous[previous >= 0]] = -1
    return prices


def _add_useful(known: np.ndarray, similarity: Tensor, v: np.ndarray, u: np.ndarray | None, margin: float) -> float:
    """Mark in `known` the pairs with s_ij − u_i − v_j within `margin` of 0 or above; returns the largest of those.

    Without `u`, a row's is its largest s_ij − v_j.
    """
    worst, prices = -np.inf, torch.from_numpy(v).float()
    for start in range(0, len(similarity), BLOCK):
        block = slice(start, start + BLOCK)
        slack = similarity[block] - prices
        largest = slack.amax(dim=1)
        own = largest if u is None else torch.from_numpy(u[block]).float()
        worst = max(worst, (largest - own).max().item())
        known[block] |= (slack > (own - margin)[:, None]).numpy()
    return worst


def _column_prices(j: np.ndarray, gain: np.ndarray, source: np.ndarray, n: int) -> Float[np.ndarray, " n"]:
    """Smallest v ≥ 0 with v_j ≥ s_ij − s_i,m(i) + v_m(i) on all candidates: gain + v_source (Bellman–Ford)."""
    order = j.astype(np.uint16 if n <= 2**16 else np.int64).argsort(kind="stable")  # 16 bits are sorted by digits
    gain, source, starts = gain[order], source[order], np.searchsorted(j[order], np.arange(n))
    v = np.zeros(n)
    for _ in range(n):
        raised = np.maximum(v, np.maximum.reduceat(gain + v[source], starts))
        if (raised - v).max() < 1e-12:
            break
        v = raised
    return v
