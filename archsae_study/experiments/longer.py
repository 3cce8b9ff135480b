"""The two arms that share nothing between seeds, trained for several times the steps: does the answer change?"""

from typing import Any

from archsae_core.models.snapshots import snapshots
from archsae_study.arms import ARMS
from archsae_study.experiments.budgets import at_equal_r2, budgets
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study

COMPARED = ("ra-indep-anchors", "topk-kmeans-indep")
"""RA-SAE and TopK from the same kind of start: each seed's own centroids of its own documents."""


def longer_runs(study: Study) -> dict[str, list[Run]]:
    """Every seed's run of both arms; empty where the config asks for none."""
    config = study.config
    if config.comparison.longer_factor == 1 or not set(COMPARED) <= set(config.comparison.arms):
        return {}
    steps = config.training.steps * config.comparison.longer_factor
    return {
        arm: [Run(arm, seed, steps, config.dictionary.delta) for seed in range(config.comparison.n_seeds)]
        for arm in COMPARED
    }


def longer_table(study: Study) -> dict[str, Any]:
    """Both arms at the last kept steps of the longer runs, and where they reconstruct equally well, as in `budgets`."""
    arms = {}
    for arm, runs in longer_runs(study).items():
        folders = [study.run_folder(run) for run in runs]
        found = budgets(study, folders, [snapshots(folder, runs[0].steps) for folder in folders])
        arms[arm] = {"label": ARMS[arm].label, "budgets": found}
    return {"arms": arms, "equal_r2": at_equal_r2({arm: row["budgets"] for arm, row in arms.items()})}


def _runs(study: Study) -> list[tuple[Study, Run]]:
    return [(study, run) for runs in longer_runs(study).values() for run in runs]


TABLE = Table(name="longer", result=dict, build=longer_table, runs=_runs, fields=("n_seeds", "arms", "longer_factor"))
