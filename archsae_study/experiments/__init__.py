"""The tables of the report, one module a table: what it measures, how it is built, what it needs.

A new table is a module with a `TABLE` here, and its entry in the list below.
"""

from archsae_study.experiments import (
    ablation,
    activations,
    anchor_alignment,
    anchor_parts,
    anchors,
    checks,
    controls,
    dictionaries,
    evaluation,
    features,
    generality,
    identifiability,
    longer,
    probing,
    raw_full_sizes,
    reappearance,
    stability,
    structure,
    swap,
    task_probes,
    w_steps,
)

_UP_TO_05 = (
    activations.TABLE,
    anchors.TABLE,
    anchor_parts.TABLE,
    dictionaries.STANDARD,
    dictionaries.KMEANS,
    dictionaries.ARCHETYPAL,
    dictionaries.BINDING,
    w_steps.TABLE,
    evaluation.TABLE,
    stability.TABLE,
    longer.TABLE,
    generality.TABLE,
    structure.TABLE,
    reappearance.TABLE,
    swap.TABLE,
    anchor_alignment.TABLE,
)
TABLES = (
    *_UP_TO_05,
    controls.TABLE,
    raw_full_sizes.TABLE,
    ablation.TABLE,
    checks.of_runs((*_UP_TO_05, ablation.TABLE)),
    identifiability.TABLE,
    features.TABLE,
    probing.TABLE,
    task_probes.TABLE,
)
"""In the order in which the notebooks ask for them. The controls check their own runs; the runs at the sizes of `full`
on raw data are not among the checks; the tables after the checks train nothing that is not checked."""
