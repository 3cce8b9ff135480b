"""Stability against quality along training: two dictionaries are compared where they reconstruct equally well."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from archsae_core.metrics import intervals, stability
from archsae_core.metrics.reconstruction import document_sums, summarise
from archsae_core.models.snapshots import snapshot_sae
from archsae_study.experiments.verdict import INDEPENDENT_RA, INDEPENDENT_TOPK
from archsae_study.study import Study

BUDGETS = 4
"""Last kept steps of a run that are scored."""
TOKENS = 10_000
"""Held-out tokens on which a budget's R² is measured."""


def headline(a: Tensor, b: Tensor) -> float:
    """The headline score of two dictionaries, chance-normalised: signed Hungarian cosine of centred atoms."""
    unrelated = (stability.unrelated(stability.Side(atoms), seed).atoms for seed, atoms in enumerate((a, b)))
    return stability.chance_normalised(stability.hungarian_centred(a, b), stability.hungarian_centred(*unrelated))


def headlines(seeds: Sequence[Tensor]) -> Float[np.ndarray, "n_seeds n_seeds"]:
    """The headline score of every pair of seeds' dictionaries."""
    pairs = {(i, j): headline(seeds[i], seeds[j]) for i, j in combinations(range(len(seeds)), 2)}
    return intervals.pair_matrix(pairs, len(seeds))


def budgets(study: Study, folders: Sequence[Path], kept: Sequence[Mapping[int, Tensor]]) -> list[dict[str, Any]]:
    """One arm at its last kept steps: tokens seen, R² (mean over seeds), and stability with its interval over seeds.

    `kept` holds the `snapshots` of each of the arm's `folders`.
    """
    return [at_step(study, folders, kept, step) for step in list(kept[0])[-BUDGETS:]]


def at_step(study: Study, folders: Sequence[Path], kept: Sequence[Mapping[int, Tensor]], step: int) -> dict[str, Any]:
    """One row of `budgets`; `pairs` [n_seeds][n_seeds] holds the headline score of every pair of seeds."""
    saes = (
        snapshot_sae(folder, step, study.config.dictionary.k, study.normalizer).to(study.device) for folder in folders
    )
    r2 = [summarise(document_sums(sae, study.scored_batches("heldout", TOKENS))).r2 for sae in saes]
    matrix = headlines([atoms[step] for atoms in kept])
    row = {"step": step, "tokens": step * study.config.training.batch_size, "r2": float(np.mean(r2))}
    return row | {"stability": intervals.seed_interval(matrix)._asdict(), "pairs": matrix.tolist()}


def at_equal_r2(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Each RA arm against each TopK arm, both independently initialised, at the largest R² that both reach.

    Scores of pairs of seeds are interpolated linearly in R² between kept steps; `gain` is RA less TopK, with its
    interval over seeds. `stability` and `gain` are None where the ranges of R² do not meet.
    """
    rows = []
    for ra, topk in product(INDEPENDENT_RA, INDEPENDENT_TOPK):
        if ra in arms and topk in arms:
            target = min(max(row["r2"] for row in arms[arm]) for arm in (ra, topk))
            row = {"ra": ra, "topk": topk, "r2": target, "gain": None, "stability": None}
            first, second = (_interpolate(arms[arm], target) for arm in (ra, topk))
            if first is not None and second is not None:
                row["stability"] = [intervals.seed_interval(scores)._asdict() for scores in (first, second)]
                row["gain"] = intervals.seed_interval(first, second)._asdict()
            rows.append(row)
    return rows


def _interpolate(rows: Sequence[Mapping[str, Any]], target: float) -> Float[np.ndarray, "n_seeds n_seeds"] | None:
    ordered = sorted(rows, key=lambda row: row["r2"])
    r2, pairs = [row["r2"] for row in ordered], np.array([row["pairs"] for row in ordered])
    if not r2[0] <= target <= r2[-1]:
        return None
    between = np.interp(target, r2, np.arange(len(r2)))
    before, after = int(np.floor(between)), int(np.ceil(between))
    return pairs[before] + (between - before) * (pairs[after] - pairs[before])
