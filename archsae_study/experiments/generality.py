"""The comparison of arms again at another layer and with another k: is the verdict that of one setting only?"""

from typing import Any

import numpy as np

from archsae_core.models.snapshots import snapshot_steps, snapshots
from archsae_study.experiments import verdict
from archsae_study.experiments.budgets import at_step
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

COMPARED = ("ra", *verdict.INDEPENDENT_RA, *verdict.INDEPENDENT_TOPK)
"""Arms that the rule for stability needs."""
SEEDS = 3
"""At most so many an arm."""


def settings(study: Study) -> dict[str, Study]:
    """The report's own setting, another layer, half of k."""
    config = study.config
    layer, k = config.language_model.layer // 2 if config.language_model.layer else 1, max(1, config.dictionary.k // 2)
    own = {f"layer {config.language_model.layer}, k {config.dictionary.k}": study}
    return own | {f"layer {layer}": study.variant(layer=layer), f"k {k}": study.variant(k=k)}


def last_step(study: Study) -> int:
    """Step that is compared: the last one not beyond the ablation's at which the main runs keep their model."""
    return max(
        step for step in snapshot_steps(study.config.training.steps) if step <= study.config.comparison.ablation_steps
    )


def trials(study: Study) -> list[tuple[Study, Run]]:
    """Every run that `robustness` looks at; those of the report's own setting are those of the comparison of arms."""
    found = []
    for other in settings(study).values():
        steps = study.config.training.steps if other is study else last_step(study)
        found += [(other, run) for arm in _arms(study) for run in _runs(other, arm, steps)]
    return found


def robustness(study: Study) -> dict[str, Any]:
    """Per setting: R² and stability of every arm after equally many steps, and what the rule says of them."""
    step = last_step(study)
    rows = [
        {"setting": name, "layer": other.config.language_model.layer, "k": other.config.dictionary.k}
        | _compare(other, step, study.config.training.steps if other is study else step)
        for name, other in settings(study).items()
    ]
    return {"step": step, "settings": rows}


def _arms(study: Study) -> list[str]:
    return [arm for arm in COMPARED if arm in study.config.comparison.arms]


def _runs(study: Study, arm: str, steps: int) -> list[Run]:
    return [
        Run(arm, seed, steps, study.config.dictionary.delta)
        for seed in range(min(SEEDS, study.config.comparison.n_seeds))
    ]


def _compare(study: Study, step: int, steps: int) -> dict[str, Any]:
    arms, scores = {}, {}
    for arm in _arms(study):
        folders = [study.run_folder(run) for run in _runs(study, arm, steps)]
        arms[arm] = at_step(study, folders, [snapshots(folder, steps) for folder in folders], step)
        scores[arm] = verdict.ArmScores(np.array(arms[arm]["pairs"]), arms[arm]["r2"])
    return {"arms": arms, "verdict": verdict.decide(scores).as_dict()}


TABLE = Table(
    name="robustness", result=dict, build=robustness, runs=trials, fields=("n_seeds", "arms", "ablation_steps")
)
