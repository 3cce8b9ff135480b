"""Matched features of two seeds (05): what one in place of the other does to the language model."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from archsae_core.metrics import features
from archsae_core.metrics import swap as swapping
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.reconstruction import bootstrap_interval
from archsae_study.arms import ARMS
from archsae_study.experiments.reappearance import trained_arms
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

SWAP_FEATURES, SWAP_WINDOWS, SWAP_CONTEXT = 32, 2, 64
"""Features an arm, windows a feature, and tokens of each window."""
COSINE_EDGES = (-1.0, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Bins of the cosine of matched pairs."""


def swap_table(study: Study) -> dict[str, Any]:
    """Matched pairs of two seeds of every trained arm: what swapping one for the other does, by the pair's cosine."""
    arms, pooled = {}, []
    for arm in trained_arms(study):
        pairs, sums = _swap_arm(study, arm)
        if not len(sums):
            continue
        pooled.append((pairs.cosine[:, 0].numpy(), sums))
        points = [{"cosine": c, "kl": row.tolist()} for c, row in zip(pairs.cosine[:, 0].tolist(), sums, strict=True)]
        row = {"label": ARMS[arm].label, "pairs": len(sums), "cosine": pairs.cosine.mean(dim=0).tolist()}
        arms[arm] = row | {"share": _shares(sums), "points": points}
    if not arms:
        return {"reason": "no feature fires in two windows of the held-out text"}
    cosine, sums = (np.concatenate(part) for part in zip(*pooled, strict=True))
    bins = []
    for low, high in pairwise(COSINE_EDGES):
        inside = (cosine > low) & (cosine <= high + 1e-6 * (high == 1))
        bins.append({"low": low, "high": high, "pairs": int(inside.sum()), "share": _shares(sums[inside])})
    return {"variants": list(swapping.VARIANTS), "context": SWAP_CONTEXT, "arms": arms, "bins": bins}


def _swap_arm(study: Study, arm: str) -> tuple[swapping.Pairs, Float[np.ndarray, "pairs 4"]]:
    """The sampled pairs of seeds 0 and 1, and the KL of each variant summed over the pair's windows."""
    saes = tuple(study.sae(run) for run in _first_two(study, arm))
    heldout = study.heldout_activations
    rows = heldout.kept[(heldout.position[heldout.kept] < SWAP_CONTEXT)][:16384]
    scans = [features.scan(sae, heldout, rows) for sae in saes]
    rates = [torch.from_numpy(np.diff(scan.offsets) / len(rows)).float() for scan in scans]
    where = [np.unique(heldout.window[scans[0].firings(f)[1]].numpy()) for f in range(saes[0].n_features)]
    eligible = torch.tensor([f for f, windows in enumerate(where) if len(windows) >= SWAP_WINDOWS], dtype=torch.int64)
    pairs = swapping.choose_pairs(*saes, tuple(rates), eligible, SWAP_FEATURES)
    generator, windows = np.random.default_rng(0), []
    if not len(eligible):
        return pairs, np.zeros((0, len(swapping.VARIANTS)))
    for place, feature in enumerate(pairs.feature.tolist()):
        chosen = generator.permutation(where[feature])[:SWAP_WINDOWS]
        windows += [(place, study.tokens.heldout.ids[window][:SWAP_CONTEXT]) for window in chosen]
    limit = study.train_activations.threshold
    found = swapping.swap(study.model, study.config.language_model.layer, saes, pairs, windows, max_norm=limit)
    return pairs, np.add.reduceat(found.kl, np.arange(0, len(windows), SWAP_WINDOWS), axis=0)


def _shares(sums: Float[np.ndarray, "pairs 4"]) -> dict[str, Any]:
    """KL of each replacement as a share of the KL of removing the feature, with an interval over pairs.

    0: the replacement does what the feature does. 1: as bad as nothing in its place.
    """
    shares = {}
    for column, name in enumerate(swapping.VARIANTS[:-1]):
        table = sums[:, [column, -1]]
        total = table.sum(axis=0)
        estimate = float(total[0] / total[1]) if total[1:].sum() > 0 else None
        interval = None if estimate is None else bootstrap_interval(table, _ratio)
        shares[name] = Interval(estimate, *(interval or (None, None)))._asdict() if estimate is not None else None
    return shares


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _first_two(study: Study, arm: str) -> list[Run]:
    return [Run(arm, seed, study.config.training.steps, study.config.dictionary.delta) for seed in (0, 1)]


def _runs(study: Study) -> list[tuple[Study, Run]]:
    return [(study, run) for arm in trained_arms(study) for run in _first_two(study, arm)]


TABLE = Table(name="swap", result=dict, build=swap_table, runs=_runs, fields=("arms", "n_seeds"))
