"""Ways to move W compared on the validation documents, which choose one for the study: by R², never by stability."""

from itertools import combinations
from typing import Any

import numpy as np

from archsae_core.metrics import stability
from archsae_core.models.snapshots import snapshots
from archsae_core.models.training import read_log
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

PUBLISHED = {"w_step": "published", "unit_norm": False, "learn_scale": True}


def _mirror(w_lr: float, smoothing: float, **others: Any) -> tuple[str, dict[str, Any]]:
    return "ra", {"w_step": "mirror", "w_lr": w_lr, "smoothing": smoothing} | others


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mirror, 0.003, smoothing 0.9": _mirror(3e-3, 0.9),
    "mirror, 0.003, smoothing 0.9, float32": _mirror(3e-3, 0.9, w_dtype="float32"),
    "mirror, 0.003, smoothing 0.5": _mirror(3e-3, 0.5),
    "mirror, 0.003, smoothing 0.1": _mirror(3e-3, 0.1),
    "mirror, 0.001, smoothing 0.5": _mirror(1e-3, 0.5),
    "mirror, 0.01, smoothing 0.5": _mirror(1e-2, 0.5),
    "mirror, 0.003, smoothing 0.5, free norms": _mirror(3e-3, 0.5, unit_norm=False, learn_scale=True),
    "Adam, as published": ("ra", PUBLISHED),
    "Adam, 1e-5": ("ra", PUBLISHED | {"w_lr": 1e-5}),
    "Adam, 1e-6": ("ra", PUBLISHED | {"w_lr": 1e-6}),
    "Adam, 1e-6, unit norms": ("ra", PUBLISHED | {"w_lr": 1e-6, "unit_norm": True}),
    "frozen centroids, no Λ": ("frozen", {}),
    "no constraint": ("topk-kmeans", {}),
}
"""Name of each variant to its arm and what it changes in the config."""
TWICE = ("mirror, 0.003, smoothing 0.9", "mirror, 0.003, smoothing 0.9, float32")
"""Variants run with two seeds: does rounding W's gradient to bfloat16 move stability?"""


STEPS = 500
"""Steps of a trial at most; fewer where the ablation has fewer."""


def w_steps(study: Study) -> dict[str, Any]:
    """Each variant after a short training: validation R², dead features, cosine with the start, spread of W's rows."""
    rows = [_row(study, name, arm) for name, (arm, _) in VARIANTS.items()]
    # the float32 twin says what rounding does; it is no other way to move W
    moving = [row for row in rows if row["arm"] == "ra" and row["name"] != TWICE[1]]
    return {"rows": rows, "best": max(moving, key=lambda row: row["r2"])["name"], "steps": _steps(study)}


def _steps(study: Study) -> int:
    return min(STEPS, study.config.comparison.ablation_steps)


def trials(study: Study) -> list[tuple[Study, Run]]:
    """Every run that `w_steps` needs, with the study whose config it follows."""
    found = [_trial(study, name) for name in VARIANTS]
    return [(other, run) for other, runs in found for run in runs]


def _trial(study: Study, name: str) -> tuple[Study, list[Run]]:
    arm, changes = VARIANTS[name]
    other = study.variant(**changes)
    seeds = range(1 + (name in TWICE))
    return other, [Run(arm, seed, _steps(study), study.config.dictionary.delta) for seed in seeds]


def _row(study: Study, name: str, arm: str) -> dict[str, Any]:
    steps = _steps(study)
    other, runs = _trial(study, name)
    folders = [other.run_folder(run) for run in runs]
    kept = [snapshots(folder, steps) for folder in folders]
    validation = [other.scores(run, "validation").quality for run in runs]
    pairs = [stability.hungarian_centred(a, b) for a, b in combinations([found[steps] for found in kept], 2)]
    last = read_log(folders[0])[-1]
    return {
        "name": name,
        "arm": arm,
        "r2": float(np.mean([found.r2 for found in validation])),
        "r2_heldout": float(np.mean([other.scores(run).quality.r2 for run in runs])),
        "dead_share": float(np.mean([found.dead_share for found in validation])),
        "cosine_with_start": float(
            np.mean([stability.cosine_with_start(snapshot[0], snapshot[steps]) for snapshot in kept])
        ),
        "stability": float(np.mean(pairs)) if pairs else None,
        "effective_anchors": last.get("effective_anchors"),
        "relax_at_bound": last.get("relax_at_bound"),
    }


TABLE = Table(
    name="w_steps", result=dict, build=w_steps, runs=trials, fields=("ablation_steps", "heldout_tokens", "n_seeds")
)
