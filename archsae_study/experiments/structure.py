"""Notebook 05: the paper's structural metrics of the dictionaries of notebook 04, trained and at step 0."""

from dataclasses import dataclass

import torch

from archsae_core.config import FRAMES
from archsae_core.metrics.structure import Structure, structure
from archsae_core.models.sae import SAE
from archsae_core.models.training import as_batches
from archsae_study.engine.costs import Cost, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.evaluation import ROLES, runs
from archsae_study.protocol.arms import ARMS

TOKENS = 8192
"""Held-out tokens for the OOD score and the metrics of the codes, the same for every dictionary."""


@dataclass(frozen=True)
class StructureRow:
    """One dictionary at one time."""

    role: str
    frame: str
    label: str
    when: str
    """`step 0` or `trained`."""
    metrics: Structure


@dataclass(frozen=True)
class StructureResult:
    """Every dictionary of notebook 04."""

    rows: list[StructureRow]

    def of(self, role: str, frame: str, when: str = "trained") -> Structure:
        """Metrics of one dictionary."""
        return next(row.metrics for row in self.rows if (row.role, row.frame, row.when) == (role, frame, when))


def at_step_0(study: Study, run: Run) -> SAE:
    """The autoencoder of a run at step 0, its encoder calibrated as training does before the first step."""
    sae = study.untrained(run)
    batches = as_batches(study.train_activations, study.config.training.batch_size, run.seed)
    sae.calibrate(batches(0).to(study.device))
    return sae


def build(study: Study) -> StructureResult:
    """Measure each dictionary before and after its training."""
    heldout = study.heldout_activations
    order = torch.randperm(len(heldout.kept), generator=torch.Generator().manual_seed(0))[:TOKENS]
    x = heldout.gather(heldout.kept[order]).to(study.device)
    rows = []
    for frame in FRAMES:
        for role in ROLES:
            run = study.main_run(role, frame)
            for when, sae in (("step 0", at_step_0(study, run)), ("trained", study.sae(run))):
                found = structure(sae.atoms().detach(), sae.normalize(x), sae.encode(x))
                rows.append(StructureRow(role, frame, ARMS[run.arm].title, when, found))
    return StructureResult(rows)


def _cost(study: Study) -> Cost:
    return table_cost(study, encoded=2 * 3 * len(runs(study)) * TOKENS)


TABLE = Table(name="structure", result=StructureResult, build=build, runs=runs, fields=("seed",), cost=_cost)
