"""Arms over seeds (05): stability at step 0, along training and at the end, held-out quality, the verdict."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archsae_core.metrics import intervals, stability
from archsae_core.models.sae import Codes
from archsae_core.models.snapshots import snapshots
from archsae_study.arms import ARMS, CONTROL_SEEDS
from archsae_study.experiments import verdict
from archsae_study.experiments.budgets import at_equal_r2, budgets, headline
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

HEADLINE = "hungarian_centred"
"""The score that the verdict is about: signed Hungarian cosine of centred atoms."""
FIRING_TOKENS = 4096
"""Held-out tokens on which matched features' codes are correlated."""


def stability_table(study: Study) -> dict[str, Any]:
    """Every arm: stability between seeds at step 0, along training and at the end, held-out quality, the verdict."""
    runs = {arm: arm_runs(study, arm) for arm in study.config.comparison.arms}
    rows = {arm: _arm_row(study, arm_runs) for arm, arm_runs in runs.items()}
    table = {"headline": HEADLINE, "arms": rows, "verdict": _decide(rows, "normalised", HEADLINE)}
    table |= {"equal_r2": at_equal_r2({arm: row["budgets"] for arm, row in rows.items()})}
    return table | {"by_metric": _by_metric(rows)}


def _decide(rows: Mapping[str, Mapping[str, Any]], kind: str, metric: str) -> dict[str, Any]:
    """The verdict's rule applied to one score of the trained dictionaries, `raw` or `normalised`."""
    arms = {arm: verdict.ArmScores(verdict.end_scores(row, metric, kind), row["r2"]) for arm, row in rows.items()}
    return verdict.decide(arms).as_dict()


def _by_metric(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the same rule would conclude from every other score, raw and less chance: does the choice decide?"""
    metrics = next(iter(rows.values()))["end"]["scores"]
    return [
        {"metric": metric, "kind": kind} | _decide(rows, kind, metric)
        for metric in metrics
        for kind in ("raw", "normalised")
    ]


def arm_runs(study: Study, arm: str) -> list[Run]:
    """Every seed's run of an arm."""
    config = study.config
    seeds = min(config.comparison.n_seeds, CONTROL_SEEDS) if ARMS[arm].control else config.comparison.n_seeds
    return [Run(arm, seed, config.training.steps, config.dictionary.delta) for seed in range(seeds)]


def stability_runs(study: Study) -> list[Run]:
    """Every run of the comparison of arms."""
    return [run for arm in study.config.comparison.arms for run in arm_runs(study, arm)]


def _arm_row(study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    folders = [study.run_folder(run) for run in runs]
    kept = [snapshots(folder, run.steps) for folder, run in zip(folders, runs, strict=True)]
    quality = [study.scores(run).quality._asdict() for run in runs]
    ends = [_side(study, run) for run in runs]
    starts = [stability.Side(snapshot[0]) for snapshot in kept]
    row = {name: float(np.mean([q[name] for q in quality])) for name in ("r2", "l0", "dead_share")}
    row |= {"label": ARMS[runs[0].arm].label, "r2_by_seed": [q["r2"] for q in quality]}
    row |= {"start": _pairs(starts), "end": _pairs(ends), "trajectory": _trajectory(kept)}
    row |= {"budgets": budgets(study, folders, kept)}
    return row | {
        "cosine_with_start": [stability.cosine_with_start(snapshot[0], snapshot[runs[0].steps]) for snapshot in kept]
    }


def _side(study: Study, run: Run) -> stability.Side:
    sae = study.sae(run).cpu()
    return stability.side(sae, study.alive(run), firing_codes(study, sae))


def firing_codes(study: Study, sae: Any) -> Codes:
    """Codes of the first held-out tokens, the same for every dictionary."""
    heldout = study.heldout_activations
    return sae.encode(heldout.gather(torch.as_tensor(heldout.kept)[:FIRING_TOKENS]))


def _pairs(sides: Sequence[stability.Side]) -> dict[str, Any]:
    """All scores of every pair of seeds, and their means with intervals over seeds."""
    pairs = list(combinations(range(len(sides)), 2))
    chance = stability.chance_levels(sides[0], sides[1])
    compared = {pair: stability.compare(sides[pair[0]], sides[pair[1]], chance=chance) for pair in pairs}
    means = {}
    for kind in ("raw", "normalised"):
        for name in chance:
            scores = {pair: compared[pair][kind][name] for pair in pairs}
            interval = intervals.seed_interval(intervals.pair_matrix(scores, len(sides)))
            means.setdefault(name, {"chance": chance[name]})[kind] = interval._asdict()
    by_pair = [{"seeds": pair} | {kind: compared[pair][kind] for kind in ("raw", "normalised")} for pair in pairs]
    return {"scores": means, "pairs": by_pair, "gamma": float(np.mean([c["gamma_a"] for c in compared.values()]))}


def _trajectory(kept: Sequence[Mapping[int, Tensor]]) -> list[dict[str, float]]:
    """Along training: stability of the first two seeds, and the cosine of the first seed's atoms with their start."""
    rows = []
    for step in kept[0]:
        score = headline(kept[0][step], kept[1][step])
        rows.append(
            {"step": step, "score": score, "cosine_with_start": stability.cosine_with_start(kept[0][0], kept[0][step])}
        )
    return rows


def _runs(study: Study) -> list[tuple[Study, Run]]:
    return [(study, run) for run in stability_runs(study)]


TABLE = Table(
    name="stability",
    result=dict,
    build=stability_table,
    runs=_runs,
    fields=("n_seeds", "arms", "heldout_tokens"),
    file="stability_results.json",
)
