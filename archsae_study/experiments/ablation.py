"""Radii over seeds (06): RA-SAE at every radius, free and frozen dictionaries beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archsae_core.metrics import intervals
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import TrainingDiverged, read_log
from archsae_core.storage import read_json
from archsae_study.arms import ABLATION_REFERENCES, ARMS
from archsae_study.experiments import verdict
from archsae_study.experiments.budgets import headlines
from archsae_study.plan import Table
from archsae_study.runs import Run, ablation_runs, cosines_with_start, sweep_runs
from archsae_study.study import Study


def ablation(study: Study) -> dict[str, Any]:
    """RA-SAE at every radius, free and frozen dictionaries beside it; flags, Pareto frontier, best radius."""
    median_norm = read_json(study.anchor_folder() / "summary.json")["median_norm"]
    rows = [
        _sweep_row(study, "ra", delta) | {"relative": delta / median_norm} for delta in study.config.comparison.deltas
    ]
    references = [_sweep_row(study, arm, 0.0) for arm in ABLATION_REFERENCES]
    points = [(row["r2"], row["stability"]) for row in rows if row["stability"] is not None]
    frontier = [rows[i]["delta"] for i in verdict.pareto(points)] if len(points) == len(rows) else []
    best = verdict.best_delta(rows)
    return {"rows": rows, "references": references, "pareto": frontier, "best_delta": best, "median_norm": median_norm}


def _sweep_row(study: Study, arm: str, delta: float) -> dict[str, Any]:
    runs = sweep_runs(study.config, arm, delta)
    results = [_sweep_result(study, run) for run in runs]
    sound = [result for result in results if not result.get("failed")]
    row: dict[str, Any] = {"arm": arm, "label": ARMS[arm].label, "delta": delta, "results": results}
    row["flags"] = [f"seed {result['seed']}: {flag}" for result in results for flag in _flags(study, arm, result)]
    for name in ("r2", "dead_share", "l0", "cosine_with_start", "relax_at_bound", "effective_anchors"):
        values = [result[name] for result in sound if result.get(name) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row | _sweep_stability(study, runs, results)


def _flags(study: Study, arm: str, result: Mapping[str, Any]) -> list[str]:
    result = dict(result) | ({"cosine_with_start": None} if ARMS[arm].dictionary == "frozen" else {})
    return verdict.flags(result, study.config.dictionary.k)


def _sweep_result(study: Study, run: Run) -> dict[str, Any]:
    try:
        folder, scores = study.run_folder(run), study.scores(run)
    except TrainingDiverged as error:
        return {"seed": run.seed, "failed": str(error)}
    quality, last = scores.as_dict(), read_log(folder)[-1]
    found = {name: quality[name] for name in ("r2", "l0", "dead_share", "violation")}
    found |= {name: last.get(name) for name in ("relax_at_bound", "effective_anchors")}
    return found | {"seed": run.seed, "cosine_with_start": cosines_with_start(folder, run.steps)[str(run.steps)]}


def _sweep_stability(study: Study, runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sound = [run for run, result in zip(runs, results, strict=True) if not result.get("failed")]
    if len(sound) < 2:
        return {"stability": None, "stability_interval": None}
    atoms = [snapshots(study.run_folder(run), run.steps)[run.steps] for run in sound]
    found = intervals.seed_interval(headlines(atoms))
    return {"stability": found.estimate, "stability_interval": found._asdict()}


def _runs(study: Study) -> list[tuple[Study, Run]]:
    return [(study, run) for run in ablation_runs(study.config)]


def _all_documents(_: Study) -> list[None]:
    return [None]


TABLE = Table(
    name="ablation",
    result=dict,
    build=ablation,
    runs=_runs,
    folds=_all_documents,
    fields=("deltas", "ablation_steps", "ablation_seeds", "heldout_tokens"),
    file="ablation_results.json",
)
