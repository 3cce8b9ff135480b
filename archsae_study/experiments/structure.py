"""What dictionaries look like (04): the structural metrics of Fel et al. 2025, trained and at step 0."""

from typing import Any

import torch

from archsae_core.metrics.structure import structure
from archsae_study.arms import ARMS, MAIN_ARMS
from archsae_study.experiments.evaluation import main_runs
from archsae_study.experiments.probing import at_step_0
from archsae_study.plan import Table
from archsae_study.study import Study

STRUCTURE_TOKENS = 8192
"""Held-out tokens for the OOD score and the metrics of the codes, the same for every dictionary."""


def structure_table(study: Study) -> dict[str, Any]:
    """The paper's structural metrics of the dictionaries of notebook 04, trained and at step 0."""
    heldout = study.heldout_activations
    order = torch.randperm(len(heldout.kept), generator=torch.Generator().manual_seed(0))[:STRUCTURE_TOKENS]
    x = heldout.gather(heldout.kept[order]).to(study.device)
    rows = []
    for arm in MAIN_ARMS:
        run = study.main_run(arm)
        for when, sae in (("step 0", at_step_0(study, run)), ("trained", study.sae(run))):
            found = structure(sae.atoms().detach(), sae.normalize(x), sae.encode(x))
            rows.append({"arm": arm, "label": ARMS[arm].label, "when": when} | found._asdict())
    return {"rows": rows}


TABLE = Table(name="structure", result=dict, build=structure_table, runs=main_runs, fields=("seed",))
