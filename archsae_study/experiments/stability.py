"""The tables of many runs: arms over seeds (05), radii over seeds (06). Everything here is JSON-able."""

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archsae_core.metrics import intervals, stability
from archsae_core.models.sae import Codes, load_sae
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged, read_log
from archsae_core.storage import read_json
from archsae_study.arms import ABLATION_REFERENCES, ARMS, CONTROL_SEEDS, MAIN_ARMS
from archsae_study.experiments import generality as robustness
from archsae_study.experiments import longer, verdict, w_steps
from archsae_study.experiments.budgets import at_equal_r2, budgets, headline, headlines
from archsae_study.runs import Run, ablation_runs, moved, read_alive, read_quality, sweep_runs
from archsae_study.scheduler import train_ahead
from archsae_study.study import Study

HEADLINE = "hungarian_centred"
"""The score that the verdict is about: signed Hungarian cosine of centred atoms."""
FIRING_TOKENS = 4096
"""Held-out tokens on which matched features' codes are correlated."""


def stability_table(study: Study) -> dict[str, Any]:
    """Every arm: stability between seeds at step 0, along training and at the end, held-out quality, the verdict."""
    runs = {arm: arm_runs(study, arm) for arm in study.config.comparison.arms}
    study.run_folders(stability_runs(study))
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
    quality = [read_quality(folder) for folder in folders]
    ends = [_side(study, folder) for folder in folders]
    starts = [stability.Side(snapshot[0]) for snapshot in kept]
    row = {name: float(np.mean([q[name] for q in quality])) for name in ("r2", "l0", "dead_share")}
    row |= {"label": ARMS[runs[0].arm].label, "r2_by_seed": [q["r2"] for q in quality]}
    row |= {"start": _pairs(starts), "end": _pairs(ends), "trajectory": _trajectory(kept)}
    row |= {"budgets": budgets(study, folders, kept)}
    return row | {"moved": [stability.drift(snapshot[0], snapshot[runs[0].steps]) for snapshot in kept]}


def _side(study: Study, folder: Path) -> stability.Side:
    sae = load_sae(folder / "sae.safetensors")
    return stability.side(sae, read_alive(folder), firing_codes(study, sae))


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
        rows.append({"step": step, "score": score, "drift": stability.drift(kept[0][0], kept[0][step])})
    return rows


def ablation(study: Study) -> dict[str, Any]:
    """RA-SAE at every radius, free and frozen dictionaries beside it; flags, Pareto frontier, best radius."""
    train_ahead(study, ((study, run) for run in ablation_runs(study.config)))
    median_norm = read_json(study.anchor_folder() / "summary.json")["median_norm"]
    rows = [
        _sweep_row(study, "ra", delta) | {"relative": delta / median_norm} for delta in study.config.comparison.deltas
    ]
    references = [_sweep_row(study, arm, 0.0) for arm in ABLATION_REFERENCES]
    points = [(row["r2"], row["stability"]) for row in rows if row["stability"] is not None]
    frontier = [rows[i]["delta"] for i in verdict.pareto(points)] if len(points) == len(rows) else []
    best = verdict.best_delta(rows)
    return {"rows": rows, "references": references, "pareto": frontier, "best_delta": best, "median_norm": median_norm}


def report_runs(study: Study) -> list[tuple[Study, Run]]:
    """Every training run of a report with the study whose config it follows, the longest first."""
    main = [study.main_run(arm) for arm in MAIN_ARMS]
    compared = (*chain(*longer.longer_runs(study).values()), *stability_runs(study), *ablation_runs(study.config))
    found = [(study, run) for run in (*main, *compared)]
    return sorted([*found, *w_steps.trials(study), *robustness.trials(study)], key=lambda pair: -pair[1].steps)


def _sweep_row(study: Study, arm: str, delta: float) -> dict[str, Any]:
    runs = sweep_runs(study.config, arm, delta)
    results = [_sweep_result(study, run) for run in runs]
    sound = [result for result in results if not result.get("failed")]
    row: dict[str, Any] = {"arm": arm, "label": ARMS[arm].label, "delta": delta, "results": results}
    row["flags"] = [f"seed {result['seed']}: {flag}" for result in results for flag in _flags(study, arm, result)]
    for name in ("r2", "dead_share", "l0", "drift", "relax_at_bound", "effective_anchors"):
        values = [result[name] for result in sound if result.get(name) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row | _sweep_stability(study, runs, results)


def _flags(study: Study, arm: str, result: Mapping[str, Any]) -> list[str]:
    result = dict(result) | ({"drift": None} if ARMS[arm].dictionary == "frozen" else {})
    return verdict.flags(result, study.config.dictionary.k)


def _sweep_result(study: Study, run: Run) -> dict[str, Any]:
    try:
        folder = study.run_folder(run)
    except TrainingDiverged as error:
        return {"seed": run.seed, "failed": str(error)}
    quality, last = read_quality(folder), read_log(folder)[-1]
    found = {name: quality[name] for name in ("r2", "l0", "dead_share", "violation")}
    found |= {name: last.get(name) for name in ("relax_at_bound", "effective_anchors")}
    return found | {"seed": run.seed, "drift": moved(folder, run.steps)[str(run.steps)]}


def _sweep_stability(study: Study, runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sound = [run for run, result in zip(runs, results, strict=True) if not result.get("failed")]
    if len(sound) < 2:
        return {"stability": None, "stability_interval": None}
    atoms = [snapshots(study.run_folder(run), run.steps)[run.steps] for run in sound]
    found = intervals.seed_interval(headlines(atoms))
    return {"stability": found.estimate, "stability_interval": found._asdict()}
