"""The tables of the report, one module a table: what it measures, how it is built, what it needs.

A new table is a module with a `TABLE` here, and its name in the list below.
"""

from archsae_study.experiments import (
    ablation,
    activations,
    anchors,
    dictionary,
    evaluation,
    features,
    generality,
    hull,
    identifiability,
    longer,
    probing,
    reappearance,
    stability,
    structure,
    swap,
    w_steps,
)

TABLES = (
    activations.TABLE,
    anchors.TABLE,
    dictionary.STANDARD,
    dictionary.ARCHETYPAL,
    w_steps.TABLE,
    hull.TABLE,
    identifiability.TABLE,
    evaluation.TABLE,
    structure.TABLE,
    stability.TABLE,
    longer.TABLE,
    swap.TABLE,
    reappearance.TABLE,
    generality.TABLE,
    ablation.TABLE,
    features.TABLE,
    probing.TABLE,
)
"""In the order in which the notebooks ask for them."""
