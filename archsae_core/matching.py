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

from archsae_core.kernels import linear

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


class Matching(NamedTuple):
    """One-to-one pairs: atom `rows[i]` of a with atom `cols[i]` of b; min(n_a, n_b) pairs."""

    rows: Int[Tensor, " pairs"]
    cols: Int[Tensor, " pairs"]
    prices: Float[Tensor, " n_b"] | None = None
    """Dual prices of the columns less their mean similarity, where the solver had to find any."""


def cosines(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> Float[Tensor, "n_a n_b"]:
    """cos(a_i, b_j). A zero atom has cosine 0 with everything."""
    return linear(F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)).cpu()


def centred_cosines(
    a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"], cosine: Float[Tensor, "n_a n_b"]
) -> Float[Tensor, "n_a n_b"]:
    """cos(a_i − ā, b_j − b̄) of unit atoms less their dictionary's mean unit atom, from `cosine` = cosines(a, b).

    Atoms that share a mean direction have large cosines whatever they encode (Brzozowski & Chung 2026).
    ⟨a_i − ā, b_j − b̄⟩ = ⟨a_i, b_j⟩ − ⟨a_i, b̄⟩ − ⟨ā, b_j⟩ + ⟨ā, b̄⟩ saves a second product of the dictionaries.
    """
    a, b = (F.normalize(atoms.float(), dim=1).cpu() for atoms in (a, b))
    mean_a, mean_b = a.mean(dim=0), b.mean(dim=0)
    centred = cosine - (a @ mean_b - mean_a @ mean_b)[:, None]
    centred -= b @ mean_a
    centred /= (a - mean_a).norm(dim=1).clamp_min(1e-12)[:, None]
    return centred.div_((b - mean_b).norm(dim=1).clamp_min(1e-12))


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
    """
    if len(similarity) > similarity.shape[1]:
        cols, rows, _ = match(similarity.T.contiguous())
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

    Prices u, v with u_i + v_j ≥ s_ij everywhere, equality on the matching, v ≥ 0 and v = 0 on free columns prove it
    optimal (linear programming duality). Several times faster than the dense solver at 4096 atoms. None: gave up.
    """
    n_a, n_b = similarity.shape
    rows, mean = torch.arange(n_a), similarity.mean(dim=0)
    # A column that is close to every row is no better a partner for any of them: take its mean off before choosing.
    price = mean if like is None else mean + like
    near = torch.cat([(part - price).topk(CANDIDATES, dim=1).indices for part in similarity.split(BLOCK)])
    # The diagonal too: some complete matching has to exist.
    keys = (torch.cat([near, rows[:, None]], dim=1) + rows[:, None] * n_b).flatten().unique()
    for _ in range(ROUNDS):
        weights = similarity.flatten()[keys].double().numpy()
        i, j = keys.numpy() // n_b, keys.numpy() % n_b
        costs = csr_array((2 - weights, (i, j)), shape=(n_a, n_b))  # 2 − cos, since a cost of 0 would be no entry
        matched = min_weight_full_bipartite_matching(costs)[1].astype(np.int64)
        own = similarity.numpy()[rows, matched].astype(float)
        v = _column_prices(j, weights - own[i], matched[i], n_b)
        worst, useful = _useful(similarity, torch.from_numpy(own - v[matched]).float(), torch.from_numpy(v).float())
        if worst <= 1e-6:
            return Matching(rows, torch.from_numpy(matched), torch.from_numpy(v).float() - mean)
        keys = torch.cat([keys, useful]).unique()
        if len(keys) > 8 * CANDIDATES * n_a:
            return None  # many ties, such as zero atoms
    return None


def _useful(similarity: Tensor, u: Tensor, v: Tensor) -> tuple[float, Int[Tensor, " pairs"]]:
    """Largest s_ij − u_i − v_j, and the pairs i · n_b + j within MARGIN of 0 or above."""
    worst, found = -np.inf, []
    for start, (part, prices) in enumerate(zip(similarity.split(BLOCK), u.split(BLOCK), strict=True)):
        slack = (part - v).sub_(prices[:, None])
        worst = max(worst, slack.max().item())
        found.append((slack > -MARGIN).flatten().nonzero()[:, 0] + start * BLOCK * similarity.shape[1])
    return worst, torch.cat(found)


def _column_prices(j: np.ndarray, gain: np.ndarray, source: np.ndarray, n_b: int) -> Float[np.ndarray, " n_b"]:
    """Smallest v ≥ 0 with v_j ≥ s_ij − s_i,m(i) + v_m(i) on all candidates: gain + v_source (Bellman–Ford)."""
    order = j.argsort(kind="stable")
    gain, source = gain[order], source[order]
    columns, starts = np.unique(j[order], return_index=True)
    v = np.zeros(n_b)
    for _ in range(n_b):
        raised = np.maximum(v[columns], np.maximum.reduceat(gain + v[source], starts))
        if (raised - v[columns]).max() < 1e-12:
            break
        v[columns] = raised
    return v
