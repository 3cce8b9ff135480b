"""Notebook 06: every training run of the report, checked: not those of the sweep alone."""

from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments import ablation, dictionaries, evaluation, generality, longer, stability, w_steps
from archsae_study.experiments.checks import ChecksResult, check_runs

TABLES = (
    dictionaries.STANDARD,
    dictionaries.ARCHETYPAL,
    dictionaries.BINDING,
    w_steps.TABLE,
    evaluation.TABLE,
    stability.TABLE,
    longer.TABLE,
    generality.TABLE,
    ablation.TABLE,
)
"""Tables that train; all others look at their runs."""


def runs(study: Study) -> list[Run]:
    """Every run that some table looks at."""
    return [run for table in TABLES for run in table.runs(study)]


def build(study: Study) -> ChecksResult:
    """Check each of them."""
    return check_runs(study, runs(study))


FIELDS = (
    "ablation_seeds",
    "ablation_steps",
    "arms",
    "behaviour_tokens",
    "deltas",
    "heldout_tokens",
    "longer_factor",
    "n_seeds",
    "seed",
)
TABLE = Table(name="checks", result=ChecksResult, build=build, runs=runs, fields=FIELDS)
